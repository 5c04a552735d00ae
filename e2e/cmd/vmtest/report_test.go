package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/e2e/internal/guest"
	"github.com/whydrop/whydrop/e2e/internal/results"
)

// fed is a report of a machine that printed these lines.
func fed(t *testing.T, lines string) *report {
	t.Helper()
	r := &report{
		Suite: "s", o: &options{}, done: map[int]bool{}, job: -1, started: time.Now(),
		load: &load{jobs: []guest.Job{{Name: "p/q"}, {Name: jobCast}, {Name: jobQdisc}, {Name: jobDoctor}}},
	}
	r.Release = "6.1.0"
	for line := range strings.Lines(lines) {
		r.line(t.Context(), strings.TrimSuffix(line, "\n"))
	}
	r.finish(t.Context(), nil)
	return r
}

const (
	up    = "@@ vmtest up 6.1.0\n"
	test  = "@@ vmtest begin 0\n\x16=== RUN   TestA\n\x16--- PASS: TestA (0.50s)\n\x16=== NAME  \n\x16PASS\n@@ vmtest end 0 0\n"
	asks  = "@@ vmtest begin 1\n@@ vmtest end 1 0\n@@ vmtest begin 2\n@@ vmtest end 2 1\n"
	tells = "@@ vmtest begin 3\n{\"program_type\":\"tp_btf\"}\n@@ vmtest end 3 0\n"
	off   = "@@ vmtest off\n"
)

func TestReport(t *testing.T) {
	r := fed(t, up+test+asks+tells+off)
	if r.Passed != 3 || len(r.Failed) != 0 || !r.HaveCast || r.QdiscTracepoint || r.Doctor.Program != "tp_btf" {
		t.Errorf("%d passed, failed %v, %+v", r.Passed, r.Failed, r.Kernel)
	}
	for _, tt := range []struct{ name, lines, failed, says string }{
		{"stops in a job", up + asks + tells + "@@ vmtest begin 0\n\x16=== RUN   TestA\n", "s:p/q TestA", "exit status -1"},
		{"stops before a job", up + test + asks, "s:machine boot", "did not run: doctor"},
		{"module refused", up + "@@ vmtest error insmod veth\n" + test + asks + tells + off, "s:machine boot", "insmod veth"},
		{"another kernel", strings.Replace(up, "6.1.0", "6.2.0", 1) + test + asks + tells + off, "s:machine boot", "booted 6.2.0"},
		{"no such job", up + test + asks + tells + "@@ vmtest end 9 0\n" + off, "s:machine boot", "job 9"},
		{"doctor refuses", up + test + asks + strings.Replace(tells, "end 3 0", "end 3 3", 1) + off, "s:whydrop doctor", "exit status 3"},
		{"silence", "", "s:machine boot", "did not run"},
	} {
		r := fed(t, tt.lines)
		i := slices.IndexFunc(r.Failed, func(f results.Result) bool { return f.Name == tt.failed })
		if i < 0 || !strings.Contains(r.Failed[i].Output, tt.says) {
			t.Errorf("%s: failed %v, want %s with %q", tt.name, r.Failed, tt.failed, tt.says)
		}
	}
}

// TestLabs: every scenario counts, also one of which nothing was heard.
func TestLabs(t *testing.T) {
	const good = `{"scenario":"a","truth":5,"counted":5}` + "\n"
	for _, tt := range []struct {
		name, text              string
		code                    int
		passed, failed, skipped int
	}{
		{"as expected", good + `{"scenario":"b","truth":1,"counted":1}`, 0, 2, 0, 0},
		{"one wrong", good + `{"scenario":"b","truth":1,"counted":2}` + "\nwhydrop: lab: 1 of 2\n", 1, 1, 1, 0},
		{"one absent", good + `{"scenario":"b","mismatch":["lab b: not on Linux 5.10: too old"]}`, 1, 1, 0, 1},
		{"one alone absent", good + "whydrop: lab b: not on Linux 5.10: too old", 3, 1, 0, 1},
		{"killed", good, 143, 1, 1, 0},
		{"exit status alone", good + `{"scenario":"b","truth":1,"counted":1}`, 4, 2, 1, 0},
	} {
		r := &report{Suite: "s", load: &load{scenarios: []string{"a", "b"}}}
		r.labs(t.Context(), tt.text, tt.code)
		if r.Passed != tt.passed || len(r.Failed) != tt.failed || len(r.Skipped) != tt.skipped || len(r.Labs) != 2 {
			t.Errorf("%s: %+v", tt.name, r.Tally)
		}
	}
}

// TestRootTests finds the tests that need root in a module of its own.
func TestRootTests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":      "module toy\n\ngo 1.26\n",
		"a/a.go":      "package a\n",
		"a/a_test.go": "package a\nimport \"testing\"\nfunc TestUser(t *testing.T) {}\n",
		"a/b_root_test.go": "//go:build root\n\npackage a\nimport \"testing\"\nfunc TestMain(m *testing.M) {}\nfunc TestOne(t *testing.T) {}\n" +
			"func TestTwo(tt *testing.T) {}\nfunc Testify(t *testing.T) {}\nfunc helper(t *testing.T) {}\nfunc BenchmarkX(b *testing.B) {}\n",
		"b/b.go":      "package b\n",
		"b/b_test.go": "package b\nimport \"testing\"\nfunc TestUser(t *testing.T) {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pattern, want := range map[string][]string{"": {"TestOne", "TestTwo"}, "Two": {"TestTwo"}} {
		pkgs, err := rootTests(t.Context(), dir, regexp.MustCompile(pattern))
		if err != nil || len(pkgs) != 1 || pkgs[0].ImportPath != "toy/a" || !slices.Equal(pkgs[0].tests, want) {
			t.Errorf("%q: %+v, %v, want toy/a %v", pattern, pkgs, err, want)
		}
	}
}
