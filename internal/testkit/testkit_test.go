package testkit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// fakeT notes what a helper does to the test that it is given.
type fakeT struct {
	testing.TB
	failed, skipped bool
	text            string
}

func (f *fakeT) Helper() {}

func (f *fakeT) Errorf(format string, args ...any) {
	f.failed = true
	f.text += fmt.Sprintf(format, args...)
}

func (f *fakeT) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

func (f *fakeT) Fatal(args ...any) { f.Fatalf("%s", fmt.Sprint(args...)) }

func (f *fakeT) Skipf(format string, args ...any) {
	f.skipped = true
	f.text += fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (f *fakeT) Error(args ...any) { f.Errorf("%s", fmt.Sprint(args...)) }

func (f *fakeT) FailNow() {
	f.failed = true
	runtime.Goexit()
}

func (f *fakeT) SkipNow() {
	f.skipped = true
	runtime.Goexit()
}

func (f *fakeT) Failed() bool { return f.failed }

func (f *fakeT) Skipped() bool { return f.skipped }

// try runs a helper as a test would.
func try(helper func(t testing.TB)) *fakeT {
	f := new(fakeT)
	done := make(chan struct{})
	go func() {
		defer close(done)
		helper(f)
	}()
	<-done
	return f
}

func TestNeedRoot(t *testing.T) {
	f := try(NeedRoot)
	if want := os.Geteuid() != 0; f.failed != want || f.skipped {
		t.Errorf("failed %v, skipped %v as uid %d", f.failed, f.skipped, os.Geteuid())
	}
}

func TestSkipBefore(t *testing.T) {
	missing := errors.New("it is missing")
	for _, c := range []struct {
		name, version   string
		err             error
		failed, skipped bool
	}{
		{"there", "1.0", nil, false, false},
		{"there on an old kernel", "999.0", nil, false, false},
		{"earned", "999.0", missing, false, true},
		{"not earned", "1.0", missing, true, false},
		{"bad version", "new", missing, true, false},
	} {
		f := try(func(t testing.TB) { SkipBefore(t, c.version, "a thing", c.err) })
		if f.failed != c.failed || f.skipped != c.skipped {
			t.Errorf("%s: failed %v, skipped %v: %s", c.name, f.failed, f.skipped, f.text)
		}
		if c.err != nil && c.name != "bad version" && !strings.Contains(f.text, "it is missing") {
			t.Errorf("%s: %q does not say why", c.name, f.text)
		}
	}
}

func TestOlderThan(t *testing.T) {
	for _, c := range []struct {
		release, version string
		want             bool
	}{
		{"6.18.44-fc-v595", "6.18", false},
		{"6.18.44-fc-v595", "6.19", true},
		{"6.9.0", "6.18", true},
		{"5.10.0-28-amd64", "6.1", true},
		{"7.2-rc1", "6.18", false},
		{"7.2-rc1", "7.2", false},
	} {
		got, err := olderThan(c.release, c.version)
		if err != nil || got != c.want {
			t.Errorf("%s older than %s: %v, %v", c.release, c.version, got, err)
		}
	}
	for _, bad := range []string{"", "6", "6.", ".18", "six.18", "6.x", "-6.18", "6.99999999999"} {
		if _, err := olderThan(bad, "6.1"); err == nil {
			t.Errorf("release %q gave no error", bad)
		}
	}
}

func TestGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dir", "golden.txt")
	compare := func(got string, update bool) *fakeT {
		return try(func(t testing.TB) { golden(t, path, []byte(got), update) })
	}
	if f := compare("one\n", false); !f.failed || !strings.Contains(f.text, "-update") {
		t.Errorf("missing file: failed %v, %q", f.failed, f.text)
	}
	if f := compare("one\n", true); f.failed {
		t.Errorf("update: %s", f.text)
	}
	if f := compare("one\n", false); f.failed {
		t.Errorf("same text: %s", f.text)
	}
	if f := compare("two\n", false); !f.failed || !strings.Contains(f.text, "two") {
		t.Errorf("other text: failed %v, %q", f.failed, f.text)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "one\n" {
		t.Errorf("comparing changed the file to %q, %v", b, err)
	}
}
