package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// toy is a module whose packages end in every way that a test run can end.
var toy = map[string]string{
	"go.mod": "module toy\n\ngo 1.26\n",
	"good/good_test.go": `package good
import "testing"
func TestPlain(t *testing.T) {}
func TestParent(t *testing.T) {
	t.Run("one", func(t *testing.T) {})
	t.Run("two", func(t *testing.T) { t.Skip("the reason\nin two lines") })
}
func BenchmarkPlain(b *testing.B) { for b.Loop() {} }
func BenchmarkParent(b *testing.B) {
	b.Run("one", func(b *testing.B) { for b.Loop() {} })
	b.Run("two", func(b *testing.B) { b.Skip("no two") })
}
func FuzzGood(f *testing.F) { f.Add("x"); f.Fuzz(func(t *testing.T, s string) {}) }
`,
	"bad/bad_test.go": `package bad
import "testing"
func TestFails(t *testing.T) { t.Error("bad words") }
func TestParent(t *testing.T) {
	t.Run("child", func(t *testing.T) { t.Error("child words") })
}
func TestItself(t *testing.T) {
	t.Run("child", func(t *testing.T) {})
	t.Error("own words")
}
func TestGood(t *testing.T) {}
func BenchmarkFails(b *testing.B) { b.Fatal("slow words") }
func BenchmarkFirst(b *testing.B) { for b.Loop() {} }
`,
	"panics/panics_test.go": `package panics
import "testing"
func TestFirst(t *testing.T) {}
func TestPanics(t *testing.T) { panic("panic words") }
func TestNever(t *testing.T) {}
func BenchmarkFirst(b *testing.B) { for b.Loop() {} }
func BenchmarkPanics(b *testing.B) { panic("panic words") }
`,
	"exits/exits_test.go": `package exits
import ("os"; "testing")
func TestMain(m *testing.M) { println("main words"); os.Exit(3) }
func TestNever(t *testing.T) {}
`,
	"broken/broken_test.go": `package broken
import "testing"
func TestNever(t *testing.T) { return 1 }
`,
	"empty/empty.go": "package empty\n",
}

func writeToy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, toy)
	return dir
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestGoTestCounts(t *testing.T) {
	dir := writeToy(t)
	bench := []string{"-run", "^$", "-bench", ".", "-benchtime", "1x"}
	tests := []struct {
		name                    string
		args                    []string
		byPackage               bool
		passed, failed, skipped int
		says                    []string
	}{
		{"good", []string{"./good"}, false, 3, 0, 1, []string{"SKIP toy/good TestParent/two: ", "the reason in two lines\n"}},
		{"good by package", []string{"./good", "./empty"}, true, 1, 0, 1, []string{"SKIP toy/good TestParent/two: "}},
		{"bad", []string{"./bad"}, false, 2, 3, 0, []string{"bad words", "child words", "own words"}},
		{"bad by package", []string{"./bad"}, true, 0, 3, 0, nil},
		{"panics", []string{"./panics"}, false, 1, 1, 0, []string{"FAIL toy/panics TestPanics", "panic words"}},
		{"exits", []string{"./exits"}, false, 0, 1, 0, []string{"FAIL toy/exits\n", "main words"}},
		{"broken", []string{"./broken"}, false, 0, 1, 0, []string{"FAIL toy/broken\n", "too many return values"}},
		{"no tests", []string{"./empty"}, false, 0, 0, 0, nil},
		{"benchmarks", append(bench, "./good"), false, 2, 0, 1, []string{"SKIP toy/good BenchmarkParent/two: ", "no two\n"}},
		{"bad benchmarks", append(bench, "./bad"), false, 1, 1, 0, []string{"slow words"}},
		{"panicking benchmarks", append(bench, "./panics"), false, 1, 1, 0, []string{"FAIL toy/panics BenchmarkPanics"}},
		{"all", []string{"./..."}, false, 6, 6, 1, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tl := &tally{level: "toy", out: &out}
			r := &runner{setting: setting{dir: dir}, out: &out, t: tl}
			if err := r.goTest(newCollector(tl, tt.byPackage), dir, append([]string{"-vet=off"}, tt.args...)...); err != nil {
				t.Fatal(err)
			}
			if tl.passed != tt.passed || tl.failed != tt.failed || tl.skipped != tt.skipped {
				t.Errorf("counted %d passed, %d failed, %d skipped; want %d, %d, %d\n%s",
					tl.passed, tl.failed, tl.skipped, tt.passed, tt.failed, tt.skipped, &out)
			}
			for _, s := range tt.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, &out)
				}
			}
		})
	}
}

// TestPackageTwice: a package that ends twice has each test counted once.
func TestPackageTwice(t *testing.T) {
	tl := &tally{out: &bytes.Buffer{}}
	c := newCollector(tl, false)
	for _, test := range []string{"TestA", "TestB"} {
		for _, action := range []string{"run", "pass"} {
			c.line(`{"Action":"` + action + `","Package":"p","Test":"` + test + `"}`)
		}
		c.line(`{"Action":"pass","Package":"p"}`)
	}
	if tl.passed != 2 {
		t.Errorf("%d passed, want 2", tl.passed)
	}
}

func TestGoTestThatCannotBegin(t *testing.T) {
	for _, pattern := range []string{"./...", "./x"} {
		tl := &tally{out: &bytes.Buffer{}}
		r := &runner{setting: setting{dir: t.TempDir()}, out: tl.out, t: tl}
		err := r.goTest(newCollector(tl, false), r.dir, pattern)
		if err == nil && tl.failed == 0 {
			t.Errorf("go test %s outside of a module gave neither an error nor a failure", pattern)
		}
	}
}

func TestFind(t *testing.T) {
	dir := writeToy(t)
	writeFiles(t, dir, map[string]string{
		"good/x_root_test.go": "//go:build root\n\npackage good\nimport \"testing\"\nfunc TestAsRoot(t *testing.T) {}\nfunc BenchmarkAsRoot(b *testing.B) {}\n",
		"good/y_test.go":      "package good_test\nimport \"testing\"\nfunc TestMain(m *testing.M) {}\nfunc Testify(t *testing.T) {}\nfunc ExampleX() {}\n",
	})
	pkgs, err := (&runner{setting: setting{dir: dir}}).find()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pkgs, func(p pkgTests) bool { return p.path == "toy/good" })
	if i < 0 {
		t.Fatalf("toy/good is not among %v", pkgs)
	}
	got := pkgs[i]
	for _, f := range []struct {
		what      string
		got, want []string
	}{
		{"tests", got.user.tests, []string{"TestPlain", "TestParent", "ExampleX"}},
		{"fuzz", got.user.fuzz, []string{"FuzzGood"}},
		{"benchmarks", got.user.bench, []string{"BenchmarkPlain", "BenchmarkParent"}},
		{"root tests", got.root.tests, []string{"TestAsRoot"}},
		{"root benchmarks", got.root.bench, []string{"BenchmarkAsRoot"}},
	} {
		if !slices.Equal(f.got, f.want) {
			t.Errorf("%s: got %q, want %q", f.what, f.got, f.want)
		}
	}
}
