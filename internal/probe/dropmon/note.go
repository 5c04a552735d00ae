package dropmon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// noteDir holds the note about a monitor that whydrop started. It is gone after
// a boot, as the monitor is.
const noteDir = "/run/whydrop"

const noteName = "dropmon.json"

// note is what whoever finds the monitor running after its starter was killed
// must know to put everything back.
type note struct {
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Software bool      `json:"software"`
	Hardware bool      `json:"hardware"`
	// Before is the configuration that was there, Set the one that was made of
	// it.
	Before Config `json:"before"`
	Set    Config `json:"set"`
}

// errHeld says that the note's writer is alive.
var errHeld = errors.New("another whydrop holds the note of its drop monitor")

// book is the file of the note. Whoever has it open holds its lock (flock),
// which the kernel takes away when the process ends, however it ends.
type book struct {
	file *os.File
	// left is the note that was found: of a process that was killed. It is nil
	// where the file was new or empty.
	left *note
	// broken says that a note was found that cannot be read.
	broken bool
}

// openBook opens the file in dir, makes it if it may, and takes its lock. errHeld
// comes with the number of the process that has the lock, or 0; fs.ErrNotExist
// says that there is none.
func openBook(dir string, create bool) (b *book, holder int, err error) {
	const tries = 10
	for range tries {
		b, err = tryBook(dir, create)
		if errors.Is(err, errHeld) && b.left != nil {
			holder = b.left.PID
		}
		if !errors.Is(err, errGone) {
			return b, holder, err
		}
	}
	return nil, 0, err
}

// errGone says that the file went while it was opened.
var errGone = errors.New("note of drop monitor is made and removed all the time")

func tryBook(dir string, create bool) (*book, error) {
	flags := os.O_RDWR | unix.O_NOFOLLOW
	if create {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make directory for note of drop monitor: %w", err)
		}
		flags |= os.O_CREATE
	}
	path := filepath.Join(dir, noteName)
	f, err := os.OpenFile(path, flags, 0o600)
	if create && errors.Is(err, fs.ErrNotExist) {
		return nil, errGone // with its directory
	}
	if err != nil {
		return nil, fmt.Errorf("open note of drop monitor: %w", err)
	}
	b := &book{file: f}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	b.read()
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		err = errHeld
	case err != nil:
		err = fmt.Errorf("lock note of drop monitor: %w", err)
	case !b.current(path):
		err = errGone
	default:
		return b, nil
	}
	f.Close()
	return b, err
}

// current says whether the path still leads to the open file.
func (b *book) current(path string) bool {
	there, err := os.Lstat(path)
	if err != nil {
		return false
	}
	here, err := b.file.Stat()
	return err == nil && os.SameFile(here, there)
}

// read takes over what stands in the file.
func (b *book) read() {
	const enough = 64 << 10
	text, err := io.ReadAll(io.NewSectionReader(b.file, 0, enough))
	if err != nil || len(text) == 0 {
		b.broken = err != nil
		return
	}
	n := &note{}
	if json.Unmarshal(text, n) != nil || !n.Software && !n.Hardware {
		b.broken = true
		return
	}
	b.left = n
}

// write makes n the content of the file.
func (b *book) write(n note) error {
	text, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("write note of drop monitor: %w", err)
	}
	if err := b.file.Truncate(0); err != nil {
		return fmt.Errorf("write note of drop monitor: %w", err)
	}
	if _, err := b.file.WriteAt(append(text, '\n'), 0); err != nil {
		return fmt.Errorf("write note of drop monitor: %w", err)
	}
	return nil
}

// remove removes the file, and its directory if nothing else is in it, and then
// lets the lock go.
func (b *book) remove() error {
	err := os.Remove(b.file.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("remove note of drop monitor: %w", err)
	}
	_ = os.Remove(filepath.Dir(b.file.Name())) // others may have files there
	return errors.Join(err, b.file.Close())
}

// keep lets the lock go and leaves the file for the next run.
func (b *book) keep() error { return b.file.Close() }
