package elfline

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const samples = "../testdata/vmlinux"

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(samples, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, image []byte) *elf.File {
	t.Helper()
	e, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// calls finds the call instructions to a function in the machine code: E8 and
// the distance from the next instruction.
func calls(t testing.TB, e *elf.File, to string) (addrs []uint64) {
	t.Helper()
	symbols, err := e.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	var target uint64
	for _, s := range symbols {
		if s.Name == to {
			target = s.Value
		}
	}
	text := e.Section(".text")
	code, err := text.Data()
	if err != nil || target == 0 {
		t.Fatal(err, target)
	}
	for i := 0; i+5 <= len(code); i++ {
		next := text.Addr + uint64(i) + 5
		if code[i] == 0xe8 && next+uint64(int64(int32(binary.LittleEndian.Uint32(code[i+1:])))) == target {
			addrs = append(addrs, next-5)
		}
	}
	return addrs
}

// commented are the lines of a source file that end in a comment.
func commented(t testing.TB, name string) (lines []string) {
	t.Helper()
	for i, line := range strings.Split(string(read(t, name)), "\n") {
		if strings.HasSuffix(line, "*/") && strings.Contains(line, ";") {
			lines = append(lines, fmt.Sprintf("%s:%d", name, i+1))
		}
	}
	return lines
}

// units are where the units of a file begin.
func units(t testing.TB, l *Lines) (at []uint64) {
	t.Helper()
	for b := l.sec.info; len(b) > 0; {
		at = append(at, uint64(len(l.sec.info)-len(b)))
		_, rest, _, err := cutUnit(b, l.order)
		if err != nil {
			t.Fatal(err)
		}
		b = rest
	}
	return at
}

// An index that lacks units, as clang's, or is broken, hides none of them. One
// that would take for ever is not made.
func TestIndexLacksUnits(t *testing.T) {
	image := read(t, "dwarf5.elf")
	l, err := New(parse(t, image), image)
	if err != nil {
		t.Fatal(err)
	}
	whole, index := l.index, l.sec.aranges
	_, rest, _, err := cutUnit(index, l.order)
	if err != nil || len(rest) == 0 {
		t.Fatalf("one set: %v", err)
	}
	for what, aranges := range map[string][]byte{
		"the first set alone": index[:len(index)-len(rest)], "broken": index[:len(index)-1],
	} {
		l.sec.aranges = aranges
		got, err := l.buildIndex()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range whole {
			if offset, ok := got.unit(s.low); !ok || offset != s.offset {
				t.Errorf("%s: nothing at %#x", what, s.low)
			}
		}
	}
	named := map[uint64]bool{}
	if _, err := l.walkUnits(named, time.Time{}); !errors.Is(err, errTooLong) {
		t.Errorf("too late: %v", err)
	}
	for _, at := range units(t, l) {
		named[at] = true
	}
	if x, err := l.walkUnits(named, time.Time{}); err != nil || len(x) > 0 {
		t.Errorf("all named: %v, %v", x, err)
	}
}

// A call that was inlined from a header is where the function of the .c file
// makes it.
func TestFind(t *testing.T) {
	want := commented(t, "net/ipv4/input.c")
	if len(want) != 3 {
		t.Fatal(want)
	}
	for _, name := range []string{"dwarf4.elf", "dwarf5.elf"} {
		for _, index := range []string{"with its index", "without"} {
			image := read(t, name)
			e := parse(t, image)
			l, err := New(e, image)
			if err != nil {
				t.Fatal(err)
			}
			if index == "without" {
				l.sec.aranges = nil
				if l.index, err = l.buildIndex(); err != nil {
					t.Fatal(err)
				}
			}
			at := calls(t, e, "drop_packet")
			if len(at) != len(want) {
				t.Fatalf("%s: %d calls", name, len(at))
			}
			for i, addr := range at {
				for range 2 { // the second is remembered
					file, line := l.Find(addr)
					if got := fmt.Sprintf("%s:%d", file, line); got != want[i] {
						t.Errorf("%s %s: %#x is at %s, want %s", name, index, addr, got, want[i])
					}
				}
			}
			// One unit further on, and places that are none.
			if file, line := l.Find(0xffffffff81000000); file != "net/core/skb.c" || line == 0 {
				t.Errorf("%s: the first function is at %s:%d", name, file, line)
			}
			for _, addr := range []uint64{0, 0xffffffff80ffffff, 0xffffffff81001000, 1<<64 - 1} {
				if file, line := l.Find(addr); file != "" || line != 0 {
					t.Errorf("%s: %#x is at %s:%d", name, addr, file, line)
				}
			}
		}
	}
}

func TestNew(t *testing.T) {
	image := read(t, "dwarf5.elf")
	for _, c := range []struct {
		what, want string
		change     func(*elf.File)
	}{
		{"compressed", "objcopy --decompress-debug-sections", func(e *elf.File) { e.Section(".debug_info").Flags |= elf.SHF_COMPRESSED }},
		{"compressed in the old way", "objcopy --decompress-debug-sections", func(e *elf.File) { e.Section(".debug_str").Name = ".zdebug_str" }},
		{"cut off", "cut off", func(e *elf.File) { e.Section(".debug_line").Offset = uint64(len(image)) }},
		{"stripped", ErrNone.Error(), func(e *elf.File) { e.Section(".debug_info").Name = ".gone" }},
		{"in another file", ErrNone.Error(), func(e *elf.File) { e.Section(".debug_line").Type = elf.SHT_NOBITS }},
	} {
		e := parse(t, image)
		c.change(e)
		if _, err := New(e, image); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
}

// Whatever is cut off or turned around is an error or not known, and never
// more than that.
func TestDamaged(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	for _, name := range []string{"dwarf4.elf", "dwarf5.elf"} {
		image := read(t, name)
		e := parse(t, image)
		at := calls(t, e, "drop_packet")[:1]
		for _, s := range e.Sections {
			if !strings.HasPrefix(s.Name, ".debug_") {
				continue
			}
			for i := s.Offset; i < s.Offset+s.FileSize; i++ {
				was := image[i]
				for _, b := range []byte{0x00, 0xff} {
					image[i] = b
					look(e, image, at)
				}
				image[i] = was
			}
			size := s.FileSize
			for s.FileSize = 0; s.FileSize < size; s.FileSize++ {
				look(e, image, at)
			}
		}
	}
}

func look(e *elf.File, image []byte, at []uint64) {
	l, err := New(e, image)
	if err != nil {
		return
	}
	for _, addr := range at {
		l.Find(addr)
	}
}

func TestRelative(t *testing.T) {
	for _, c := range []struct{ file, dir, want string }{
		{"/build/linux/net/ipv4/udp.c", "/build/linux", "net/ipv4/udp.c"},
		{"/build/linux/debian/build/amd64/../../../net/ipv4/udp.c", "/build/linux/debian/build/amd64", "net/ipv4/udp.c"},
		{"/build/linux/net/ipv4/udp.c", "/build/linux/debian/build/amd64", "net/ipv4/udp.c"},
		{"/home/u/linux/net/core/dev.c", "/home/u/obj", "linux/net/core/dev.c"},
		{"./include/linux/skbuff.h", "/build/linux", "include/linux/skbuff.h"},
		{"../../net/core/dev.c", "", "net/core/dev.c"},
		{"debian/build/amd64/net/core/dev.c", "debian/build/amd64", "net/core/dev.c"},
		{"net/core/dev.c", "debian/build/amd64", "net/core/dev.c"},
		{"/usr/src/net/core/dev.c", "/build", "/usr/src/net/core/dev.c"},
		{"/usr/src/net/core/dev.c", "", "/usr/src/net/core/dev.c"},
		{"", "/build", ""},
	} {
		if got := relative(c.file, c.dir); got != c.want {
			t.Errorf("%s compiled in %s: %s, want %s", c.file, c.dir, got, c.want)
		}
	}
}

// A file of units that nest deeper than a stack, and lists without an end.
func TestDeep(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	abbrev := []byte{
		1, 0x11, 1, 0, 0, // a unit with children
		2, 0x2e, 1, 0, 0, // a function with children
		0,
	}
	body := append([]byte{4, 0, 0, 0, 0, 0, 8, 1}, bytes.Repeat([]byte{2}, 8<<20)...)
	info := append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
	l := &Lines{order: binary.LittleEndian, sec: sections{info: info, abbrev: abbrev, line: []byte{0}}}
	if _, err := l.open(0); err == nil {
		t.Error("8 Mi levels were read")
	}
	l.sec.rngLists = bytes.Repeat([]byte{rleOffsetPair, 1, 2}, 1<<20)
	l.sec.ranges = bytes.Repeat([]byte{1}, 1<<20)
	u, err := l.header(0)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(l.ranges(u, 0, 0)); n != maxPieces {
		t.Errorf("%d pieces of a list of ranges", n)
	}
	if n := len(l.oldRanges(0, 0)); n != maxPieces {
		t.Errorf("%d pieces of an old list of ranges", n)
	}
}

func TestTooManyFiles(t *testing.T) {
	header := []byte{
		5, 0, 8, 0, // version, sizes
		0, 0, 0, 0, // length of the header: set below
		1, 1, 1, 0xfb, 14, 1, // …, no opcodes
		1, isPath, formString, // directories: a path each
		0xff, 0xff, 0xff, 0xff, 0x0f, // so many
	}
	binary.LittleEndian.PutUint32(header[4:], uint32(len(header)-8))
	line := append(binary.LittleEndian.AppendUint32(nil, uint32(len(header))), header...)
	_, err := parseTable(&sections{line: line}, 0, binary.LittleEndian)
	if err == nil || !strings.Contains(err.Error(), "files in one unit") {
		t.Errorf("error %v", err)
	}
	if errors.Is(err, errBroken) {
		t.Error("it was read before it was counted")
	}
}

func FuzzLines(f *testing.F) {
	f.Add(read(f, "dwarf4.elf"), uint64(0xffffffff81000045))
	f.Add(read(f, "dwarf5.elf"), uint64(0xffffffff81000045))
	f.Fuzz(func(t *testing.T, image []byte, addr uint64) {
		e, err := elf.NewFile(bytes.NewReader(image))
		if err != nil {
			return
		}
		l, err := New(e, image)
		if err != nil {
			return
		}
		if file, line := l.Find(addr); (file == "") != (line == 0) {
			t.Fatalf("%#x is at %q:%d", addr, file, line)
		}
		l.sec.aranges = nil
		if l.index, err = l.buildIndex(); err == nil {
			clear(l.found)
			l.Find(addr)
		}
	})
}
