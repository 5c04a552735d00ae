package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A recording that cannot begin leaves no trace, and above all the file alone
// that was there.
func TestRecordOpensFirst(t *testing.T) {
	dir := t.TempDir()
	r := run(t, "record", "-w", filepath.Join(dir, "none", "f"), "--netns", "no-such")
	if r.code != exitUsage || !strings.Contains(r.err, filepath.Join(dir, "none", "f")) {
		t.Errorf("a file that cannot be made: %+v", r)
	}
	old := filepath.Join(dir, "old")
	if err := os.WriteFile(old, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{old, filepath.Join(dir, "new")} {
		if r := run(t, "record", "-w", path, "--netns", "no-such"); r.code == exitOK {
			t.Errorf("%+v", r)
		}
	}
	if b, err := os.ReadFile(old); err != nil || string(b) != "precious" {
		t.Errorf("%q, %v", b, err)
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestOutput(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("a longer text"), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := new(app).openOutput(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := o.out.Write([]byte("new")); err != nil {
		t.Fatal(err)
	}
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
	if err := o.close(); err == nil || !strings.HasPrefix(err.Error(), "write "+path+": ") {
		t.Errorf("closed twice: %v", err)
	}
	o, err = new(app).openOutput("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if err := o.begin(); err != nil {
		t.Errorf("a device: %v", err)
	}
	if err := o.close(); err != nil {
		t.Error(err)
	}
}
