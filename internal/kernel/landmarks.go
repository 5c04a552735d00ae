package kernel

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

const (
	// headFunctions is how many functions are taken from the start of
	// /proc/kallsyms, and headBytes how far they are looked for: kernels before
	// 6.15 list some hundred variables of CPUs before them on x86.
	headFunctions = 64
	headBytes     = 256 << 10
	// maxNotes bounds /sys/kernel/notes, in bytes: it has a few hundred.
	maxNotes = 64 << 10
)

// landmarks are what is known of where a kernel's parts lie.
type landmarks struct {
	groups []group
	// buildID is the kernel's own, in hexadecimal, or empty.
	buildID string
	// hidden says why no group has the kernel's addresses; nil if one has.
	hidden error
	// still says why KASLR has moved nothing, or "" where it may have; nil where
	// that is not asked.
	still func() string
	// which is the kernel in words: running or recorded.
	which string
}

// group is places known from one source.
type group struct {
	where string
	// what are they, in the plural.
	what string
	// physical addresses have the right distances only.
	physical bool
	at       []record.Anchor
}

// landmarks reads as little as tells a file of symbols where it lies: the
// start of /proc/kallsyms, the kernel's sections in /proc/iomem, its build id.
func (h Host) landmarks() landmarks {
	l := landmarks{which: "running"}
	head, err := h.kallsymsHead()
	if err != nil {
		l.hidden, l.still = err, h.noKASLR
	} else {
		l.groups = append(l.groups, group{where: "/proc/kallsyms", what: "symbols", at: head})
	}
	if at := h.sections(runtime.GOARCH); at != nil {
		l.groups = append(l.groups, group{where: "/proc/iomem", what: "ends of sections", physical: true, at: at})
	}
	l.buildID = h.buildID()
	return l
}

// recorded are the landmarks that a record brings.
func recorded(h record.Header) landmarks {
	l := landmarks{which: "recorded", buildID: h.Kernel.BuildID}
	if len(h.Anchors) == 0 {
		l.hidden = errors.New("the record does not say where the kernel lay: it is of an older whydrop, or kernel addresses were hidden")
		return l
	}
	l.groups = []group{{where: "the record", what: "places", at: h.Anchors}}
	return l
}

// Anchors returns what tells later, from a record, where a file of symbols
// lies in this kernel: some of its functions, the ends of its sections as far
// as they are shown, and its build id. No more of kallsyms is read than its
// start.
func (h Host) Anchors() (anchors []record.Anchor, buildID string) {
	l := h.landmarks()
	for _, g := range l.groups {
		if !g.physical {
			anchors = spread(g.at, 8)
			continue
		}
		// Addresses of the sections follow from one that both know.
		text := slices.IndexFunc(g.at, func(a record.Anchor) bool { return a.Symbol == "_text" })
		known := slices.IndexFunc(anchors, func(a record.Anchor) bool { return a.Symbol == "_text" })
		if text < 0 || known < 0 {
			continue
		}
		up := anchors[known].Address - g.at[text].Address
		for _, a := range g.at {
			if a.Symbol != "_text" {
				anchors = append(anchors, record.Anchor{Symbol: a.Symbol, Address: a.Address + up})
			}
		}
	}
	return anchors, l.buildID
}

// spread picks n of a list, from its start to its end, and _text.
func spread(list []record.Anchor, n int) (picked []record.Anchor) {
	step := max(1, len(list)/n)
	for i, a := range list {
		if a.Symbol == "_text" || i%step == 0 && len(picked) < n {
			picked = append(picked, a)
		}
	}
	return picked
}

// kallsymsHead reads the first functions of /proc/kallsyms, and no further: on
// some hosts reading all of it takes long. An error wraps ErrAddressesHidden
// where their addresses are.
func (h Host) kallsymsHead() ([]record.Anchor, error) {
	f, err := os.Open(h.path("/proc/kallsyms"))
	if err != nil {
		return nil, fmt.Errorf("read the first symbols: %w", err)
	}
	defer f.Close()
	p := newParser(4*headFunctions, 4<<10)
	p.noModules = true
	lines := bufio.NewReaderSize(io.LimitReader(f, headBytes), 4<<10)
	for len(p.symbols) < headFunctions && p.hidden < headFunctions {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			break // what is left may be cut by the limit
		}
		if err == nil {
			err = p.line(bytes.TrimSuffix(line, []byte{'\n'}))
		}
		if err != nil {
			return nil, fmt.Errorf("read the first symbols of %s: %w", f.Name(), err)
		}
	}
	var at []record.Anchor
	for _, s := range p.symbols {
		if !s.isEnd() {
			at = append(at, record.Anchor{Symbol: p.name(s), Address: record.Address(s.addr)})
		}
	}
	if p.hidden > 0 && len(at) == 0 {
		return nil, fmt.Errorf("read %s: %w: %s", f.Name(), ErrAddressesHidden, h.showAddresses())
	}
	if len(at) < 2 {
		return nil, fmt.Errorf("read the first symbols of %s: %w: no functions", f.Name(), errKallsyms)
	}
	return at, nil
}

// part is an entry of /proc/iomem, and the symbols that its two ends are.
type part struct{ name, start, end string }

// parts are how the kernel announces its own memory in /proc/iomem
// (setup_arch of arch/x86/kernel/setup.c, "Kernel rodata" since 5.5;
// setup_arch of arch/arm64/kernel/setup.c, whose code began at _text before
// 5.12 and at _stext since).
var parts = map[string][]part{
	"amd64": {
		{"Kernel code", "_text", "_etext"},
		{"Kernel rodata", "__start_rodata", "__end_rodata"},
		{"Kernel data", "_sdata", "_edata"},
		{"Kernel bss", "__bss_start", "__bss_stop"},
	},
	"arm64": {
		{"Kernel code", "", "__init_begin"},
		{"Kernel data", "_sdata", "_end"},
	},
}

// sections reads the physical addresses of the kernel's sections from
// /proc/iomem, which shows them with CAP_SYS_ADMIN. It returns nil where they
// are not told.
func (h Host) sections(arch string) []record.Anchor {
	b, err := os.ReadFile(h.path("/proc/iomem"))
	if err != nil {
		return nil
	}
	return parseSections(b, parts[arch])
}

func parseSections(iomem []byte, parts []part) (at []record.Anchor) {
	rodata := bytes.Contains(iomem, []byte(" : Kernel rodata"))
	for line := range strings.Lines(string(iomem)) {
		span, name, ok := strings.Cut(strings.TrimSpace(line), " : ")
		i := slices.IndexFunc(parts, func(p part) bool { return p.name == name })
		if !ok || i < 0 {
			continue
		}
		first, last, _ := strings.Cut(span, "-")
		start, err1 := strconv.ParseUint(first, 16, 64)
		end, err2 := strconv.ParseUint(last, 16, 63)
		if err1 != nil || err2 != nil || end <= start {
			continue // hidden ones are 0 to 0
		}
		p := parts[i]
		if p.start == "_sdata" && p.end == "_edata" && !rodata {
			p.start = "_etext" // on x86 before 5.5
		}
		for _, a := range []record.Anchor{{Symbol: p.start, Address: record.Address(start)}, {Symbol: p.end, Address: record.Address(end + 1)}} {
			if a.Symbol != "" && !slices.Contains(at, a) {
				at = append(at, a)
			}
		}
	}
	if len(at) < 2 {
		return nil
	}
	return at
}

// buildID is the running kernel's, from /sys/kernel/notes, which everybody may
// read; empty where it has none.
func (h Host) buildID() string {
	f, err := os.Open(h.path("/sys/kernel/notes"))
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxNotes))
	if err != nil {
		return ""
	}
	return parseBuildID(b, binary.NativeEndian)
}

// parseBuildID finds the note NT_GNU_BUILD_ID (include/uapi/linux/elf.h's
// layout of notes: sizes of name and description, type, both padded to 4).
func parseBuildID(notes []byte, order binary.ByteOrder) string {
	const gnuBuildID, longest = 3, 64
	for len(notes) >= 12 {
		name, desc, kind := order.Uint32(notes), order.Uint32(notes[4:]), order.Uint32(notes[8:])
		notes = notes[12:]
		nameEnd := (uint64(name) + 3) &^ 3
		descEnd := nameEnd + (uint64(desc)+3)&^3
		if nameEnd+uint64(desc) > uint64(len(notes)) {
			return ""
		}
		if kind == gnuBuildID && string(notes[:name]) == "GNU\x00" && desc <= longest {
			return hex.EncodeToString(notes[nameEnd : nameEnd+uint64(desc)])
		}
		notes = notes[min(descEnd, uint64(len(notes))):]
	}
	return ""
}

// noKASLR says why the running kernel lies where it was linked for, or nothing
// where it may not (arch/x86/boot/compressed/kaslr.c,
// arch/arm64/kernel/pi/kaslr_early.c).
func (h Host) noKASLR() string {
	if line, err := h.line("/proc/cmdline"); err == nil && slices.Contains(strings.Fields(line), "nokaslr") {
		return "nokaslr in /proc/cmdline"
	}
	value, source, err := h.config("CONFIG_RANDOMIZE_BASE")
	if err != nil || value != "" {
		return ""
	}
	if value, _, err := h.config("CONFIG_NET"); err != nil || value != "y" {
		return "" // that file says nothing at all
	}
	return "CONFIG_RANDOMIZE_BASE is not set in " + source
}
