package netns

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

// ownPath is the namespace that may be entered without privilege.
const ownPath = "/proc/self/ns/net"

func TestDoErrors(t *testing.T) {
	want := errors.New("mine")
	if err := Do(ownPath, func() error { return want }); err != want {
		t.Errorf("error %v, want %v", err, want)
	}
	not := func() error {
		t.Error("ran")
		return nil
	}
	if err := Do("/proc/self/ns/none", not); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "/proc/self/ns/none") {
		t.Errorf("no such file: %v", err)
	}
	if err := Do("/dev/null", not); err == nil {
		t.Error("entered a file that is no namespace")
	}
	if err := (Namespace{Inode: 1, Path: ownPath}).Do(not); !errors.Is(err, errMoved) {
		t.Errorf("another namespace at its path: %v", err)
	}
}
