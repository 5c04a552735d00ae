package dropmon

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestHeldIdle: a whydrop whose monitor somebody stopped is not joined.
func TestHeldIdle(t *testing.T) {
	if err := heldIdle("whydrop (pid 12)", true); err != nil {
		t.Error(err)
	}
	if err := heldIdle("whydrop (pid 12)", false); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "pid 12") {
		t.Errorf("idle: %v", err)
	}
}

// TestNoted: what was done to the host is said also where it led to nothing.
func TestNoted(t *testing.T) {
	m := &Monitor{}
	if err := m.noted(os.ErrPermission); err != os.ErrPermission {
		t.Errorf("without notes: %v", err)
	}
	m.notef("the module was loaded")
	if err := m.noted(os.ErrPermission); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "the module was loaded") {
		t.Errorf("with a note: %v", err)
	}
	if err := m.noted(nil); err != nil {
		t.Errorf("no error: %v", err)
	}
}

// TestRuns: the kernel tells by refusing a configuration.
func TestRuns(t *testing.T) {
	for err, want := range map[error]bool{nil: false, unix.EBUSY: true, unix.EOPNOTSUPP: false, unix.EPERM: false} {
		on, got := runs(err)
		if on != want || (got != nil) != (err != nil && !want) || got != nil && !errors.Is(got, err) {
			t.Errorf("%v: %v, %v", err, on, got)
		}
	}
	if _, err := runs(unix.EOPNOTSUPP); !strings.Contains(err.Error(), "5.4") {
		t.Errorf("an old kernel: %v", err)
	}
}

// TestEmptySummary is a summary that the monitor sends when nothing came after
// what was sent already.
func TestEmptySummary(t *testing.T) {
	if a, err := Decode(appendU32([]byte{CommandAlert, 2, 0, 0}, attrEntries, 0)); err != nil || !a.Empty {
		t.Errorf("%+v, %v", a, err)
	}
	if a, err := Decode(appendU32([]byte{CommandAlert, 2, 0, 0}, attrLength, 0)); err == nil {
		t.Errorf("without entries: %+v", a)
	}
}
