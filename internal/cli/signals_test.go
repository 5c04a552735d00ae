package cli

import (
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/whydrop/whydrop/internal/testkit"
)

// What nohup ignores stays ignored.
func TestEndingHeedsNohup(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	got := ending(os.Interrupt)
	signal.Reset(syscall.SIGHUP)
	if !slices.Equal(got, []os.Signal{os.Interrupt}) {
		t.Errorf("ignored: %v", got)
	}
}

// A capture is nothing for a terminal, whatever name it is given by.
func TestDumpRefusesTerminal(t *testing.T) {
	_, terminal := testkit.PTY(t, false)
	r := here(t, "dump", "-w", terminal.Name())
	if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, "a capture is nothing for a terminal") {
		t.Errorf("exit status %d\n%s%s", r.code, r.out, r.err)
	}
}
