package shell

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/testkit"
)

// keyboard types on a terminal and reads what is shown on it.
type keyboard struct {
	t    *testing.T
	file *os.File
	mu   sync.Mutex
	seen bytes.Buffer
	read int // how much of it was awaited
}

func newKeyboard(t *testing.T, f *os.File) *keyboard {
	k := &keyboard{t: t, file: f}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := f.Read(b)
			k.mu.Lock()
			k.seen.Write(b[:n])
			k.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return k
}

func (k *keyboard) types(keys string) {
	k.t.Helper()
	if _, err := k.file.WriteString(keys); err != nil {
		k.t.Fatal(err)
	}
}

// await waits until words are shown, after what was awaited before.
func (k *keyboard) await(words string) {
	k.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		k.mu.Lock()
		all := k.seen.String()
		k.mu.Unlock()
		if i := strings.Index(all[k.read:], words); i >= 0 {
			k.read += i + len(words)
			return
		}
		if time.Now().After(end) {
			k.t.Fatalf("not shown: %q\nbut %q", words, all[k.read:])
		}
	}
}

// seat has a conversation on a terminal, whose modes were before.
func seat(t *testing.T, f *fake) (_ *keyboard, terminal *os.File, before unix.Termios, result chan error) {
	t.Helper()
	master, terminal := testkit.PTY(t, false)
	before = modes(t, terminal)
	result = make(chan error, 1)
	go func() {
		result <- Run(t.Context(), Options{
			In: terminal, Out: terminal, Err: terminal, Backend: f, Interrupts: f.interrupts, Zone: time.UTC, Method: "null lookup method",
		})
	}()
	return newKeyboard(t, master), terminal, before, result
}

func ended(t *testing.T, result chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the conversation has not ended")
		return nil
	}
}

func modes(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

const up, left = "\x1b[A", "\x1b[D"

// TestEditing edits lines and calls back those before.
func TestEditing(t *testing.T) {
	k, terminal, before, result := seat(t, newFake(t, ""))
	k.await("dropwatch> ")
	k.types("xhep" + left + "l\x01\x04\r") // help, with a Ctrl-A and a Ctrl-D
	k.await("show statistics\r\n")
	k.await("dropwatch> ")
	k.types("set sw 1\r")
	k.await("setting software drops monitoring to 1\r\n")
	k.await("dropwatch> ")
	k.types("\r") // an empty line is not kept
	k.await("dropwatch> ")
	k.types("set sw 1\r") // nor the same again
	k.await("setting software drops monitoring to 1\r\n")
	k.await("dropwatch> ")
	k.types(up + up + "\r")
	k.await("show statistics\r\n")
	k.await("dropwatch> ")
	k.types("exi\x15" + "bogus\r") // Ctrl-U
	k.await("whydrop: no command \"bogus\"")
	k.await("dropwatch> ") // only there a Ctrl-D is a key and not the terminal's own
	k.types("\x04")
	k.await("Terminating dropwatch...\r\nShutting down ...\r\n")
	var failed *FailedError
	if err := ended(t, result); !errors.As(err, &failed) || failed.Commands != 1 {
		t.Errorf("%v", err)
	}
	if after := modes(t, terminal); after != before {
		t.Errorf("the terminal was in\n%+v, is in\n%+v", before, after)
	}
}

// TestTypedWhileMonitoring: on a terminal commands do not wait for the prompt.
func TestTypedWhileMonitoring(t *testing.T) {
	f := newFake(t, "")
	k, terminal, before, result := seat(t, f)
	k.await("dropwatch> ")
	if raw := modes(t, terminal); raw == before {
		// The prompt is there before the mode is read at the latest.
		t.Error("the terminal is not in raw mode at the prompt")
	}
	k.types("start\r")
	k.await("Issue Ctrl-C to stop monitoring\r\n")
	k.types("show\n")
	k.await("Queue length: 1000\r\n")
	k.types("set alertmode packet\n")
	k.await("Failed config request, error: Device or resource busy\r\n")
	k.types("start\n")
	k.await("already monitoring")
	k.types("\n\n")
	k.types("stop\n")
	k.await("Deactivation requested, turning off monitoring\r\nGot a stop message\r\n")
	k.await("dropwatch> ")
	k.types("start\r")
	k.await("Issue Ctrl-C to stop monitoring\r\n")
	f.interrupts <- os.Interrupt
	k.await("Got a stop message\r\n")
	k.await("dropwatch> ")
	k.types("start\r")
	k.await("Issue Ctrl-C to stop monitoring\r\n")
	k.types("exit\n")
	k.await("Got a stop message\r\nShutting down ...\r\n")
	if err := ended(t, result); err == nil {
		t.Error("what was refused is no failure")
	}
}

// TestPasted: lines that come at once are done one after the other, and so is a
// Ctrl-C among them.
func TestPasted(t *testing.T) {
	for _, keys := range []string{"start\rshow\rstop\rexit\r", "start\rshow\r\x03exit\r"} {
		k, _, _, result := seat(t, newFake(t, ""))
		k.await("dropwatch> ")
		k.types(keys)
		k.await("Issue Ctrl-C to stop monitoring\r\n")
		k.await("Queue length: 1000\r\n")
		k.await("Got a stop message\r\n")
		k.await("Shutting down ...\r\n")
		if err := ended(t, result); err != nil {
			t.Errorf("%q: %v", keys, err)
		}
	}
}

// TestKeysThatEnd: Ctrl-C at the prompt, Ctrl-D while drops are monitored.
func TestKeysThatEnd(t *testing.T) {
	k, _, _, result := seat(t, newFake(t, ""))
	k.await("dropwatch> ")
	k.types("half a line\x03")
	k.await("Got a sigint while not receiving\r\nShutting down ...\r\n")
	if err := ended(t, result); err != nil {
		t.Error(err)
	}

	f := newFake(t, "")
	k, _, _, result = seat(t, f)
	k.await("dropwatch> ")
	k.types("start\r")
	k.await("Issue Ctrl-C to stop monitoring\r\n")
	k.types("\x04")
	k.await("Got a stop message\r\nShutting down ...\r\n")
	if err := ended(t, result); err != nil || f.running {
		t.Errorf("%v, monitors: %v", err, f.running)
	}
}
