package testkit

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// PTY makes a pseudo-terminal: what is written to keyboard is typed on terminal,
// and what is written to terminal is seen by who reads keyboard. Both are closed
// with the test. A raw one changes no byte and gives no key a meaning.
func PTY(t testing.TB, raw bool) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keyboard.Close() })
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatalf("unlock pseudo-terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatalf("number of pseudo-terminal: %v", err)
	}
	if terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatalf("size of pseudo-terminal: %v", err)
	}
	if raw {
		if _, err := term.MakeRaw(int(terminal.Fd())); err != nil {
			t.Fatalf("make pseudo-terminal raw: %v", err)
		}
	}
	return keyboard, terminal
}
