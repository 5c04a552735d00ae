package dropmon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// mustBook opens the note in dir.
func mustBook(t *testing.T, dir string) *book {
	t.Helper()
	b, _, err := openBook(dir, true)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBook(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "whydrop")
	if _, _, err := openBook(dir, false); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("where there is none: %v", err)
	}
	b := mustBook(t, dir)
	if b.left != nil || b.broken {
		t.Errorf("new: %+v", b)
	}
	n := note{
		PID: 4711, Started: time.Unix(1795336547, 0).UTC(), Software: true,
		Before: Config{ModeSummary, 0, 1000}, Set: Config{ModePacket, 96, 500},
	}
	if err := b.write(n); err != nil {
		t.Fatal(err)
	}
	if _, holder, err := openBook(dir, true); !errors.Is(err, errHeld) || holder != 4711 {
		t.Errorf("while it is held: %d, %v", holder, err)
	}
	// As after a kill: the lock is gone, the note is not.
	if err := b.keep(); err != nil {
		t.Fatal(err)
	}
	b = mustBook(t, dir)
	if b.left == nil || *b.left != n {
		t.Fatalf("left: %+v", b.left)
	}
	// A shorter one does not leave the end of a longer one.
	short := note{PID: 1, Hardware: true}
	if err := b.write(short); err != nil {
		t.Fatal(err)
	}
	b.keep()
	if b = mustBook(t, dir); b.left == nil || *b.left != short {
		t.Errorf("shorter: %+v", b.left)
	}
	if err := b.remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after remove: %v", err)
	}
}

// TestBookRace: whoever gets the lock of a file that was removed meanwhile must
// not think that it has the note.
func TestBookRace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "whydrop")
	first := mustBook(t, dir)
	path := filepath.Join(dir, noteName)
	late := &book{file: first.file}
	if !late.current(path) {
		t.Error("the file that is there is not current")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if late.current(path) {
		t.Error("a file that was removed is current")
	}
	second := mustBook(t, dir)
	if late.current(path) {
		t.Error("a file that was replaced is current")
	}
	second.keep()
	first.keep()
}

func TestBookBroken(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"{", "{}", "[1]", "\x00\x01", `{"pid":1}`} {
		if err := os.WriteFile(filepath.Join(dir, noteName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b := mustBook(t, dir)
		if b.left != nil || !b.broken {
			t.Errorf("%q: %+v", text, b)
		}
		b.keep()
	}
	link := filepath.Join(t.TempDir(), "elsewhere")
	os.Remove(filepath.Join(dir, noteName))
	if err := os.Symlink(link, filepath.Join(dir, noteName)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openBook(dir, true); err == nil {
		t.Error("a link is followed")
	}
}
