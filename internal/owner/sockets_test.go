package owner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSocketsOfProcess(t *testing.T) {
	proc := t.TempDir()
	dir := filepath.Join(proc, "42", "fd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"0": "/dev/null", "3": socket(7), "4": socket(8), "5": "anon_inode:[eventpoll]", "6": "socket:[x]"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := sockets(proc, 42)
	slices.Sort(list)
	if err != nil || !slices.Equal(list, []uint64{7, 8}) {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := sockets(proc, 43); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
}
