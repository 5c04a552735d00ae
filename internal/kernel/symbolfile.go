package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel/elfline"
	"github.com/whydrop/whydrop/record"
)

var (
	// ErrNoSymbols says that a file holds no symbols of a kernel.
	ErrNoSymbols = errors.New("no symbols of a kernel")
	// ErrOtherKernel says that a symbol file is not of the kernel in question.
	ErrOtherKernel = errors.New("is not of this kernel")
	// ErrNotPlaced says that it is not known how far a symbol file's addresses
	// are from those of the kernel.
	ErrNotPlaced = errors.New("where its symbols lie in the kernel is not known")

	errBroken = errors.New("broken")
)

// maxMap bounds a System.map, in bytes. One of a distribution has 5 MiB, one
// with everything built in 40.
const maxMap = 64 << 20

// symbolFile names by a file: a System.map or an ELF file. Its table has the
// addresses that the kernel was linked for.
type symbolFile struct {
	host  Host
	path  string
	table *Symbols
	marks map[string]*mark
	// buildID is that of an ELF file, or empty.
	buildID string
	// image is the mapped ELF file, or nil. lines read it.
	image []byte
	lines *elfline.Lines
	// hasLines says whether there were lines when it was opened, and noLines why
	// there were not.
	hasLines bool
	noLines  error

	place   placement
	modules moduleSpans
}

// openSymbolFile reads a file of symbols and finds out where they lie in the
// running kernel.
func (h Host) openSymbolFile(path string) (*symbolFile, error) {
	f := &symbolFile{host: h, path: path}
	if err := f.open(h.landmarks()); err != nil {
		return nil, err
	}
	f.reload()
	return f, nil
}

// OpenNamesOf opens a file of symbols, as Host.OpenNames does, for the kernel
// of a record, which may be of another host. It names the kernel itself, not
// its modules. A record that does not say where its kernel lay may have places
// that the kernel itself named, said: two functions of them tell.
func OpenNamesOf(path string, h record.Header, said ...record.Location) (*Names, error) {
	f := &symbolFile{path: path}
	l := recorded(h)
	if len(h.Anchors) == 0 && len(said) > 0 {
		l.hidden = errors.New("of the functions that the recorded alerts name, it has fewer than two")
	}
	if err := f.open(l); err != nil {
		return nil, err
	}
	for _, at := range said {
		if at.Symbol == "" || at.Module != "" || at.OffsetCut || at.Beyond {
			continue
		}
		if err := f.place.learn(uint64(at.Address), symbolic{name: at.Symbol, offset: at.Offset}, f.table); err != nil {
			return nil, errors.Join(f.refusal(err), f.close())
		}
	}
	n := newNames(f, time.Time{})
	if err := f.ready(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return n, nil
}

// open reads the file and places it.
func (f *symbolFile) open(l landmarks) error {
	f.marks = map[string]*mark{}
	for _, g := range l.groups {
		for _, a := range g.at {
			f.marks[a.Symbol] = &mark{}
		}
	}
	if err := f.read(); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", f.path, err), f.close())
	}
	if err := f.place.begin(l, f); err != nil {
		return errors.Join(f.refusal(err), f.close())
	}
	return nil
}

// read tells the two kinds of files apart by how they begin.
func (f *symbolFile) read() error {
	// A pipe would keep the program waiting.
	st, err := os.Stat(f.path)
	if err != nil {
		return unwrapPath(err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no regular file", ErrNoSymbols)
	}
	file, err := os.Open(f.path)
	if err != nil {
		return unwrapPath(err)
	}
	defer file.Close()
	start := make([]byte, 512)
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return unwrapPath(err)
	}
	if start = start[:n]; bytes.HasPrefix(start, []byte(elf.ELFMAG)) {
		return f.readELF(file, st.Size())
	}
	return f.readMap(file, start)
}

// unwrapPath leaves out the path, which the message has already.
func unwrapPath(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// readMap reads a System.map.
func (f *symbolFile) readMap(file io.Reader, start []byte) error {
	if err := noMap(start); err != nil {
		return err
	}
	p := newParser(usualSymbols, usualText)
	p.noModules, p.marks = true, f.marks
	limited := &io.LimitedReader{R: file, N: maxMap + 1}
	err := p.read(limited)
	if limited.N == 0 {
		return fmt.Errorf("%w: it is longer than %d MiB", ErrNoSymbols, maxMap>>20)
	}
	if err != nil {
		return fmt.Errorf("%w: neither a System.map nor an ELF file: %w", ErrNoSymbols, err)
	}
	f.table, err = p.finish()
	switch {
	case errors.Is(err, ErrAddressesHidden):
		return fmt.Errorf("%w: all of its addresses are 0, as kallsyms shows them to who may not see them", ErrNoSymbols)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrNoSymbols, err)
	}
	return nil
}

// compressed are the first bytes of files that hold a kernel which has to be
// unpacked first.
var compressed = map[string]string{
	"\x1f\x8b": "gzip", "BZh": "bzip2", "\xfd7zXZ\x00": "xz", "\x28\xb5\x2f\xfd": "zstd", "MZ": "a bootable image",
}

// noMap says what a file is that is known to be no System.map.
func noMap(start []byte) error {
	for magic, what := range compressed {
		if bytes.HasPrefix(start, []byte(magic)) {
			return fmt.Errorf("%w: it is compressed (%s); unpack it first", ErrNoSymbols, what)
		}
	}
	// Debian's and Ubuntu's /boot/System.map of a kernel without its package of
	// debugging symbols is this one line.
	line, _, _ := strings.Cut(string(start), "\n")
	if _, says, ok := strings.Cut(line, "The real System.map is in "); ok {
		return fmt.Errorf("%w: it only says that the real one is in %q", ErrNoSymbols, says)
	}
	return nil
}

// readELF maps an ELF file, so that only what is looked at is read, and takes
// its symbols.
func (f *symbolFile) readELF(file *os.File, size int64) error {
	if int64(int(size)) != size {
		return fmt.Errorf("%w: %d bytes are more than this program can address", ErrNoSymbols, size)
	}
	image, err := unix.Mmap(int(file.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map: %w", err)
	}
	f.image = image
	return f.takeELF(image)
}

// takeELF takes what an ELF file has: symbols, build id, lines.
func (f *symbolFile) takeELF(image []byte) error {
	p := newParser(4*usualSymbols, 4*usualText)
	p.marks = f.marks
	err := guarded(func() (err error) {
		if err := plainSections(image); err != nil {
			return err
		}
		e, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return err
		}
		if err := p.elf(e, image); err != nil {
			return err
		}
		f.buildID = elfBuildID(e, image)
		f.lines, f.noLines = elfline.New(e, image)
		f.hasLines = f.noLines == nil
		return nil
	})
	if err == nil {
		f.table, err = p.finish()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoSymbols, err)
	}
	return nil
}

// guarded calls f, and makes an error of a panic: debug/elf is meant for files
// that a compiler made, and a mapped file may become shorter while it is read.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errBroken, r)
		}
	}()
	return f()
}

// refusal is the message that the file is not used.
func (f *symbolFile) refusal(err error) error {
	if errors.Is(err, ErrOtherKernel) {
		return fmt.Errorf("%s %w", f.path, err)
	}
	return fmt.Errorf("%s: %w", f.path, err)
}

func (f *symbolFile) resolve(addr uint64) record.Location {
	if at, ok := f.modules.find(addr); ok {
		return at
	}
	at := record.Location{Address: record.Address(addr)}
	if f.ready() != nil {
		return at
	}
	linked := addr - f.place.shift
	at = f.table.Resolve(linked)
	at.Address = record.Address(addr)
	if f.lines == nil || at.Symbol == "" || at.Beyond {
		return at
	}
	if at.Offset > 0 {
		linked-- // into the call that returns there
	}
	at.File, at.Line = f.lines.Find(linked)
	return at
}

func (f *symbolFile) prepare(uint64) bool { return false }

func (f *symbolFile) knows(addr uint64) bool {
	return f.ready() == nil && f.table.Knows(addr-f.place.shift) || f.modules.has(addr)
}

func (f *symbolFile) reload() {
	// A recorded kernel's modules are not here.
	if f.place.which == "running" {
		f.modules.read(f.host)
	}
}

func (f *symbolFile) learn(addr uint64, text string) error {
	if f.place.refused != nil {
		return f.refusal(f.place.refused)
	}
	s, ok := parseSymbolic(text)
	if !ok {
		return nil
	}
	if s.module != "" {
		f.modules.learn(addr, s)
		return nil
	}
	if err := f.place.learn(addr, s, f.table); err != nil {
		return f.refusal(err)
	}
	return nil
}

func (f *symbolFile) ready() error {
	if err := f.place.ready(); err != nil {
		return f.refusal(err)
	}
	return nil
}

func (f *symbolFile) from() string {
	s := fmt.Sprintf("%s: %d functions", f.path, f.table.Len())
	switch {
	case f.hasLines:
		s += " with lines"
	case f.noLines != nil && !errors.Is(f.noLines, elfline.ErrNone):
		s += " (no lines: " + f.noLines.Error() + ")"
	}
	return s + ", " + f.place.String()
}

func (f *symbolFile) close() error {
	if f.image == nil {
		return nil
	}
	err := unix.Munmap(f.image)
	f.image, f.lines = nil, nil
	return err
}
