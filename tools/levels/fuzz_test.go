package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fuzzed is a module whose fuzz targets end in every way.
var fuzzed = map[string]string{
	"go.mod": "module toy\n\ngo 1.26\n",
	"in/side/f_test.go": `package f
import ("os"; "testing")
func nothing(t *testing.T, s string) {}
func FuzzGood(f *testing.F) { f.Add("x"); f.Fuzz(nothing) }
func FuzzBad(f *testing.F) { f.Add("x"); f.Fuzz(func(t *testing.T, s string) { if s != "x" { t.Error("found it") } }) }
func FuzzSeed(f *testing.F) { f.Add("x"); f.Fuzz(func(t *testing.T, s string) { t.Error("a bad seed") }) }
func FuzzLateOnce(f *testing.F) {
	if _, err := os.Stat("late"); err != nil {
		_ = os.WriteFile("late", nil, 0o600)
		f.Fatal("context deadline exceeded")
	}
	f.Fuzz(nothing)
}
func FuzzLateAlways(f *testing.F) { f.Fatal("context deadline exceeded") }
func FuzzDies(f *testing.F) { println("last words"); os.Exit(3) }
`,
	"broken/b_test.go": "package b\nimport \"testing\"\nfunc FuzzNever(f *testing.F) { return 1 }\n",
	"last/l_test.go":   "package l\nimport \"testing\"\nfunc FuzzLast(f *testing.F) { f.Fuzz(func(t *testing.T, s string) {}) }\n",
}

func TestFuzzCounts(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, fuzzed)
	t.Setenv("GOTMPDIR", t.TempDir())
	var out bytes.Buffer
	tl := &tally{out: &out}
	r := &runner{setting: setting{dir: dir, fuzzTime: "100x"}, out: &out, t: tl}
	if err := r.fuzz(); err != nil {
		t.Fatal(err)
	}
	// Good, LateOnce and Last; Bad, Seed, LateAlways, Dies and broken.
	if tl.passed != 3 || tl.failed != 5 || tl.skipped != 0 {
		t.Errorf("counted %d passed, %d failed, %d skipped, want 3, 5 and 0", tl.passed, tl.failed, tl.skipped)
	}
	for want, times := range map[string]int{
		"found it": 1, "a bad seed": 1, "last words": 1, "too many return values": 1, "FuzzDies": 2,
		"again: FuzzLateOnce": 1, "again: FuzzLateAlways": 2, "again: ": 3, "$ go test -c": 3,
	} {
		if n := strings.Count(out.String(), want); n < times || strings.HasPrefix(want, "again") && n > times {
			t.Errorf("%q is printed %d times, want %d", want, n, times)
		}
	}
	if t.Failed() {
		t.Logf("\n%s", &out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "in", "side", "testdata", "fuzz", "*", "*"))
	if err != nil || len(found) != 1 || filepath.Base(filepath.Dir(found[0])) != "FuzzBad" {
		t.Errorf("inputs that fail are kept in %q (%v), want one of FuzzBad", found, err)
	}
	if left, err := os.ReadDir(os.Getenv("GOTMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestFuzzIsGuided: what is built fuzzes by coverage, as under go test -fuzz, and
// keeps what it finds where go test does.
func TestFuzzIsGuided(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"go.mod": fuzzed["go.mod"],
		"f_test.go": `package f
import "testing"
func FuzzPath(f *testing.F) {
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) { if len(s) > 3 { t.Log("another path") } })
}
`,
	})
	t.Setenv("GOTMPDIR", t.TempDir())
	r := &runner{setting: setting{dir: dir, fuzzTime: "2000x"}, out: &bytes.Buffer{}, t: &tally{out: &bytes.Buffer{}}}
	f, err := r.newFuzzer()
	if err != nil {
		t.Fatal(err)
	}
	f.cache = t.TempDir()
	p := pkgTests{path: "toy", dir: dir}
	if err := f.build(r, p); err != nil || r.t.failed > 0 {
		t.Fatalf("%v\n%s", err, r.t.out)
	}
	if err := f.target(r, p, "FuzzPath"); err != nil || r.t.passed != 1 {
		t.Fatalf("%v\n%s", err, r.t.out)
	}
	// Without instrumentation nothing is ever of interest.
	if kept, err := os.ReadDir(filepath.Join(f.cache, "toy", "FuzzPath")); err != nil || len(kept) == 0 {
		t.Errorf("no input of interest: %v, %v", kept, err)
	}
}

func TestDeadlineRace(t *testing.T) {
	for _, tt := range []struct {
		output string
		want   bool
	}{
		{"--- FAIL: FuzzX (5.01s)\n    context deadline exceeded\n", true},
		{"context deadline exceeded\nFailing input written to testdata/fuzz/FuzzX/1\n", false},
		{"--- FAIL: FuzzX (1s)\n    bad\n", false},
	} {
		if got := deadlineRace(tt.output); got != tt.want {
			t.Errorf("deadlineRace(%q) = %v", tt.output, got)
		}
	}
}
