package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sampleELF is a small ELF file laid out as a kernel, by
// testdata/vmlinux/make.sh.
func sampleELF(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "vmlinux", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// elfHost is a host that runs the sample, moved by so much.
func elfHost(t *testing.T, by uint64, buildID string) (Host, string) {
	t.Helper()
	h := fakeHost(t, map[string]string{
		"/boot/vmlinux":  string(sampleELF(t, "dwarf5.elf")),
		"/proc/kallsyms": moved(string(sampleELF(t, "System.map")), by, 1<<30),
	})
	if buildID != "" {
		notes := fakeHost(t, map[string]string{"/sys/kernel/notes": string(note(3, "GNU\x00", buildID))})
		h2 := notes.path("/sys")
		if err := os.Rename(h2, h.path("/sys")); err != nil {
			t.Fatal(err)
		}
	}
	return h, h.path("/boot/vmlinux")
}

// sampleBuildID is what follows the name of the note in the file.
func sampleBuildID(t testing.TB) string {
	t.Helper()
	_, after, ok := strings.Cut(string(sampleELF(t, "dwarf5.elf")), "GNU\x00")
	if !ok || len(after) < 20 {
		t.Fatal("the sample has no build id")
	}
	return after[:20]
}

// With debugging information a location has its place in the source: that of
// the call, in the function that has it and not in the header that it was
// inlined from.
func TestNamesOfELF(t *testing.T) {
	const by = 0x3400000
	h, path := elfHost(t, by, sampleBuildID(t))
	n := open(t, h, path)
	if err := n.Ready(); err != nil {
		t.Fatal(err)
	}
	// The addresses that the calls return to, and the lines, are those of
	// objdump -dl; TestFind of elfline gets them from the code and the source.
	resolves(t, n, 0xffffffff8100004a+by, "receive+0x2a (net/ipv4/input.c:12)")
	resolves(t, n, 0xffffffff81000062+by, "receive+0x42 (net/ipv4/input.c:23)")
	resolves(t, n, 0xffffffff8100009f+by, "refuse+0xb (net/ipv4/input.c:31)")
	resolves(t, n, 0xffffffff81000000+by, "drop_packet+0x0 (net/core/skb.c:8)")
	resolves(t, n, 0xffffffff810000a9+by, "deliver.cold+0x2 (beyond its end)")
	got := n.From()
	for _, want := range []string{": 5 functions with lines, 0x3400000 above the file's addresses (/proc/kallsyms)", "checked by the build id and 7 symbols of /proc/kallsyms"} {
		if !strings.Contains(got, want) {
			t.Errorf("from %q, want %q", got, want)
		}
	}
	// Who closes it too early loses the lines, and what is said of it stays.
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, 0xffffffff81000062+by, "receive+0x42")
	if after := n.From(); after != got {
		t.Errorf("from %q, and when it is closed %q", got, after)
	}
}

func TestNamesOfOtherELF(t *testing.T) {
	h, path := elfHost(t, 0, "\x01\x02")
	if _, err := h.OpenNames(path); !errors.Is(err, ErrOtherKernel) || !strings.Contains(err.Error(), fmt.Sprintf("its build id is %x, that of the running kernel 0102", sampleBuildID(t))) {
		t.Errorf("error %v", err)
	}
	image := sampleELF(t, "dwarf5.elf")
	for _, c := range []struct {
		what, want string
		at         int
		b          byte
	}{
		{"a module", "it was not linked", 16, 1},
		{"32 bits", "no symbols of a kernel", 4, 1},
	} {
		broken := bytes.Clone(image)
		broken[c.at] = c.b
		if err := os.WriteFile(path, broken, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := h.OpenNames(path); !errors.Is(err, ErrNoSymbols) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
}

// A file that becomes shorter while it is used costs lines, not the program.
func TestELFTruncated(t *testing.T) {
	h, path := elfHost(t, 0, "")
	n := open(t, h, path)
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, 0xffffffff81000062, "receive+0x42")
}

// The symbols of an ELF file are those that nm prints of it.
func TestELFMatchesMap(t *testing.T) {
	fromMap, err := ParseSymbols(bytes.NewReader(sampleELF(t, "System.map")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"dwarf4.elf", "dwarf5.elf"} {
		f := symbolFile{}
		if err := f.takeELF(sampleELF(t, name)); err != nil {
			t.Fatal(err)
		}
		for addr := uint64(0xffffffff80ffffff); addr < 0xffffffff81003000; addr++ {
			if got, want := f.table.Resolve(addr), fromMap.Resolve(addr); got != want {
				t.Fatalf("%s: %#x is %v, and %v in the map", name, addr, got, want)
			}
		}
	}
}

func FuzzSymbolMap(f *testing.F) {
	f.Add([]byte(caseMap()), uint64(0x1c00000), uint64(0xffffffff8149b113), "__udp4_lib_rcv+0x5b3/0x9d0")
	f.Add([]byte("ffffffff81000000 t a\nffffffff81000010 t a\n"), uint64(1), uint64(0), "a+0x0/0x10")
	f.Fuzz(func(t *testing.T, table []byte, by, addr uint64, text string) {
		s := symbolFile{}
		if err := s.readMap(bytes.NewReader(table), table[:min(len(table), 512)]); err != nil {
			return
		}
		s.place.hidden = ErrAddressesHidden
		if err := errors.Join(s.learn(addr+by, text), s.learn(addr, text)); err != nil && s.ready() == nil {
			t.Fatalf("ready in spite of %v", err)
		}
		s.place.by, s.place.proof, s.place.refused, s.place.shift = "a test", []string{"nothing"}, nil, by
		at := s.resolve(addr)
		if at.Module == "" && at.Symbol != "" && s.table.Resolve(addr-by).Symbol != at.Symbol {
			t.Fatalf("%#x is %v", addr, at)
		}
		if uint64(at.Address) != addr {
			t.Fatalf("%#x became %v", addr, at.Address)
		}
	})
}

// An ELF file whose sections claim much memory is refused before it takes any.
func TestSectionsThatClaimMuch(t *testing.T) {
	if err := plainSections(sampleELF(t, "dwarf5.elf")); err != nil {
		t.Fatal(err)
	}
	names := func(image []byte) []byte { // the header of the section that has the names
		return image[binary.LittleEndian.Uint64(image[40:])+64*uint64(binary.LittleEndian.Uint16(image[62:])):]
	}
	for want, change := range map[string]func(image []byte){
		"not of a 64-bit machine":   func(b []byte) { b[4] = 1 },
		"more than 4096 sections":   func(b []byte) { binary.LittleEndian.PutUint16(b[60:], 5000) },
		"its table of sections":     func(b []byte) { binary.LittleEndian.PutUint64(b[40:], 1<<40) },
		"compressed, or too long":   func(b []byte) { names(b)[8+1] |= 0x08 }, // SHF_COMPRESSED
		"are compressed, or too lo": func(b []byte) { binary.LittleEndian.PutUint64(names(b)[32:], maxSectionNames) },
	} {
		image := bytes.Clone(sampleELF(t, "dwarf5.elf"))
		change(image)
		f := symbolFile{marks: map[string]*mark{}}
		if err := f.takeELF(image); !errors.Is(err, ErrNoSymbols) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func FuzzSymbolELF(f *testing.F) {
	f.Add(sampleELF(f, "dwarf4.elf"), uint64(0xffffffff8100004a))
	f.Add(sampleELF(f, "dwarf5.elf"), uint64(0xffffffff8100004a))
	f.Fuzz(func(t *testing.T, image []byte, addr uint64) {
		s := symbolFile{}
		if err := s.takeELF(image); err != nil {
			return
		}
		s.place.by, s.place.proof = "a test", []string{"nothing"}
		if at := s.resolve(addr); (at.File == "") != (at.Line == 0) || uint64(at.Address) != addr {
			t.Fatalf("%#x is %+v", addr, at)
		}
	})
}

func FuzzLandmarks(f *testing.F) {
	f.Add([]byte(iomem), note(3, "GNU\x00", "12345678901234567890"), "nft_do_chain+0x40e/0x8c0 [nf_tables]")
	f.Fuzz(func(t *testing.T, iomem, notes []byte, text string) {
		for _, p := range parts {
			if at := parseSections(iomem, p); at != nil && len(at) < 2 {
				t.Fatalf("%d ends", len(at))
			}
		}
		if id := parseBuildID(notes, binary.LittleEndian); len(id) > 2*min(64, len(notes)) {
			t.Fatalf("build id %q", id)
		}
		if s, ok := parseSymbolic(text); ok && !strings.HasPrefix(text, s.name) {
			t.Fatalf("%q is %+v", text, s)
		}
	})
}

func BenchmarkOpenMap(b *testing.B) {
	var text bytes.Buffer
	for i := range 200_000 {
		kind := 't'
		if i > 120_000 {
			kind = 'd'
		}
		fmt.Fprintf(&text, "%016x %c some_usual_name_%d\n", 0xffffffff81000000+uint64(i)*128, kind, i)
	}
	path := filepath.Join(b.TempDir(), "System.map")
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		f := symbolFile{path: path, marks: map[string]*mark{"some_usual_name_7": {}}}
		if err := f.read(); err != nil {
			b.Fatal(err)
		}
	}
}
