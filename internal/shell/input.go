package shell

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/whydrop/whydrop/internal/report"
)

// maxLine bounds a line in bytes. The longest command has 30.
const maxLine = 4096

var (
	errInterrupt    = errors.New("interrupted")
	errDone         = errors.New("asked to end")
	errLong         = fmt.Errorf("a line of more than %d bytes is no command", maxLine)
	errNothingTyped = errors.New("nothing was typed")
)

// input is where lines come from.
type input interface {
	// line shows the prompt and reads a line without its end. It returns
	// io.EOF, errInterrupt for Ctrl-C, errDone for the end of the context.
	line() (string, error)
	// typed returns a line that was typed while nobody showed a prompt, or
	// errNothingTyped. It does not wait.
	typed() (string, error)
}

func newInput(in io.Reader, out *printer, s *signals) input {
	f, ok := in.(*os.File)
	if !ok {
		return &plain{in: bufio.NewReaderSize(in, maxLine), out: out}
	}
	fd := int(f.Fd())
	r := &file{fd: fd, signals: s}
	if term.IsTerminal(fd) {
		return newTerminal(r, out)
	}
	return &plain{in: bufio.NewReaderSize(r, maxLine), out: out}
}

// file reads a file, and stops waiting for it when a signal comes.
type file struct {
	fd      int
	signals *signals
}

func (f *file) Read(b []byte) (int, error) {
	if _, err := f.signals.await(f.fd, -1); err != nil {
		return 0, err
	}
	for {
		n, err := unix.Read(f.fd, b)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err == unix.EIO: // the terminal is gone
			return 0, io.EOF
		case err != nil:
			return 0, fmt.Errorf("read standard input: %w", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// plain reads lines from a pipe or a file. As readline(3) does there, it
// prints the prompt and the line.
type plain struct {
	in  *bufio.Reader
	out *printer
}

func (p *plain) line() (string, error) {
	p.out.print(prompt)
	b, err := p.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = p.in.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		p.out.print("\n")
		return "", errLong
	}
	if len(b) == 0 && err != nil {
		return "", err
	}
	// The last line may have no end.
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line := chomp(b)
	p.out.print(report.Clean(line) + "\n")
	return line, nil
}

// typed: what is in a pipe waits for the prompt.
func (p *plain) typed() (string, error) { return "", errNothingTyped }

// chomp cuts off the end of a line.
func chomp(b []byte) string {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return string(b)
}

// terminal edits lines. Only while it does so is the terminal in raw mode:
// while drops are shown Ctrl-C is a signal.
type terminal struct {
	*file
	out    *printer
	editor *term.Terminal
	// ctrlC says that the key came.
	ctrlC bool
	// rest came with a line, behind it: somebody pastes several at once.
	rest []byte
}

func newTerminal(f *file, out *printer) *terminal {
	t := &terminal{file: f, out: out}
	t.editor = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{t, out}, prompt)
	t.editor.History = &history{}
	return t
}

// Read is the editor's, who gets one line at a time.
func (t *terminal) Read(b []byte) (int, error) {
	var err error
	if len(t.rest) == 0 {
		n := 0
		in := make([]byte, len(b))
		n, err = t.file.Read(in)
		t.rest = in[:n]
	}
	n := copy(b, t.rest)
	if end := bytes.IndexAny(b[:n], "\r\n"); end >= 0 {
		n = end + 1
	}
	t.rest = t.rest[n:]
	t.ctrlC = t.ctrlC || bytes.IndexByte(b[:n], ctrlC) >= 0
	return n, err
}

// ctrlC is the key, where it is no signal.
const ctrlC = 'C' - '@'

// Write is the editor's.
func (p *printer) Write(b []byte) (int, error) {
	p.print(string(b))
	return len(b), p.err
}

func (t *terminal) line() (string, error) {
	before, err := term.MakeRaw(t.fd)
	if err != nil {
		return "", fmt.Errorf("set the terminal: %w", err)
	}
	if width, height, err := term.GetSize(t.fd); err == nil && width > 0 && height > 0 {
		_ = t.editor.SetSize(width, height) // it repaints nothing between two lines
	}
	t.ctrlC = false
	line, err := t.editor.ReadLine()
	if rerr := term.Restore(t.fd, before); rerr != nil && err == nil {
		err = fmt.Errorf("set the terminal back: %w", rerr)
	}
	if err == nil && len(line) > maxLine {
		err = errLong
	}
	if errors.Is(err, io.EOF) && t.ctrlC {
		err = errInterrupt
	}
	if err != nil {
		t.out.print("\n") // off the line of the prompt
		return "", err
	}
	return line, nil
}

func (t *terminal) typed() (string, error) {
	if i := bytes.IndexAny(t.rest, "\r\n\x03"); i >= 0 {
		line, end := t.rest[:i], t.rest[i]
		t.rest = t.rest[i+1:]
		if end == ctrlC {
			t.signals.interrupted.Store(true)
			return "", errNothingTyped
		}
		return string(line), nil
	}
	ready, err := t.signals.await(t.fd, 0)
	switch {
	case errors.Is(err, errInterrupt):
		// It is for whoever asks next.
		t.signals.interrupted.Store(true)
		return "", errNothingTyped
	case err != nil:
		return "", err
	case !ready:
		return "", errNothingTyped
	}
	b := make([]byte, maxLine)
	n, err := t.file.Read(b)
	begun := string(t.rest)
	t.rest = nil
	return begun + chomp(b[:n]), err
}

// history keeps the lines of a conversation, the last one first.
type history struct{ lines []string }

// maxHistory is how many lines are kept.
const maxHistory = 500

// Add keeps a line, unless it is empty or the last one again.
func (h *history) Add(line string) {
	if line == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	if len(h.lines) == maxHistory {
		h.lines = h.lines[1:]
	}
	h.lines = append(h.lines, line)
}

// Len is how many lines there are.
func (h *history) Len() int { return len(h.lines) }

// At returns the i-th line, counted from the last one.
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }
