package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// sampleELF is a small ELF file laid out as a kernel; sampleMap is its
// System.map.
const (
	sampleELF = "../kernel/testdata/vmlinux/dwarf5.elf"
	sampleMap = "../kernel/testdata/vmlinux/System.map"
)

// nameless writes what a host recorded without names, whose kernel is the
// sample, moved by 0x200000: drops behind the first call of drop_packet, and in
// a module.
func nameless(t *testing.T, anchors ...record.Anchor) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "drops.whydrop")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	source := []record.Source{{Name: observe.SourceSkbDrop, State: record.SourceOK}}
	blind := []record.Blind{{What: observe.BlindNames, Why: "--symbols none reads none"}}
	w, err := record.NewWriter(f, record.Header{Start: start, Sources: source, Blind: blind, Anchors: anchors})
	if err != nil {
		t.Fatal(err)
	}
	key := record.Key{Location: record.Location{Address: 0xffffffff8120004a}, Direction: record.DirectionRX}
	other := record.Key{Location: record.Location{Address: 0xffffffffc0000010, Module: "veth", Offset: 0x10}}
	iv := record.Interval{
		Window: record.Window{Start: start, End: start.Add(time.Second), Duration: time.Second},
		Counts: []record.Count{{Key: key, Drops: 5}, {Key: other, Drops: 2}},
		Samples: []record.Drop{{
			Time: start, KernelTime: 5e9, Key: key,
			Stack: []record.Location{key.Location, {Symbol: "an_alias", Offset: 0xb, Address: 0xffffffff8120009f}},
		}},
		Accounting: record.Accounting{DropsSeen: 7, DropsAggregated: 7, Samples: 1},
	}
	if err := w.Interval(iv); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(record.Trailer{End: iv.Window.End, Sources: source, Blind: blind}); err != nil {
		t.Fatal(err)
	}
	return path
}

// sampleAnchors are two places of the moved sample.
var sampleAnchors = []record.Anchor{
	{Symbol: "_text", Address: 0xffffffff81200000}, {Symbol: "deliver", Address: 0xffffffff81200070},
}

// A record without names gets them, and the place in the source, when it is
// read. A name that the kernel gave stays.
func TestSymbolsOfRecord(t *testing.T) {
	path := nameless(t, sampleAnchors...)
	for _, c := range []struct{ symbols, want, stack string }{
		{sampleELF, "receive+0x2a (net/ipv4/input.c:12)", "an_alias+0xb (net/ipv4/input.c:31)"},
		{sampleMap, "receive+0x2a", "an_alias+0xb"},
	} {
		r := here(t, "watch", "-r", path, "--symbols", c.symbols)
		if r.code != exitOK || !strings.Contains(r.out, "5 drops at "+c.want+" ") || !strings.Contains(r.out, "2 drops at [veth]+0x10 ") {
			t.Errorf("%s: exit status %d\n%s%s", c.symbols, r.code, r.out, r.err)
		}
		flat := strings.Join(strings.Fields(r.err), " ")
		if !strings.Contains(flat, "source skbdrop ok: functions by "+c.symbols+": ") || strings.Contains(flat, observe.BlindNames) {
			t.Errorf("%s: the books say\n%s", c.symbols, r.err)
		}
		r = here(t, "watch", "--each", "-j", "-r", path, "--symbols", c.symbols)
		var d record.Drop
		line, _, _ := strings.Cut(r.out, "\n")
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Location.String() != c.want || d.Stack[0] != d.Location || d.Stack[1].String() != c.stack {
			t.Errorf("%s: %v, sample %+v", c.symbols, err, d)
		}
		for _, command := range []string{"diagnose", "report"} {
			r = here(t, command, "-r", path, "--symbols", c.symbols)
			if r.code != exitOK || !strings.Contains(strings.Join(strings.Fields(r.out), " "), c.want) {
				t.Errorf("%s %s: exit status %d\n%s%s", command, c.symbols, r.code, r.out, r.err)
			}
		}
	}
}

func TestSymbolsUsage(t *testing.T) {
	path := nameless(t, sampleAnchors...)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"watch", "-r", path, "--symbols", "kallsyms"}, "--symbols kallsyms says how to watch; with -r it takes a file"},
		{[]string{"report", "-r", path, "--symbols", "none"}, "--symbols none says how to watch"},
		{[]string{"diagnose", "--symbols", ""}, "want kallsyms, none or a file"},
		{[]string{"record", "-w", "-", "--symbols", ""}, "want kallsyms, none or a file"},
		{[]string{"watch", "-r", path, "--symbols", "nothing"}, "--symbols: nothing: no such file"},
		{[]string{"watch", "-r", path, "--symbols", "symbols_test.go"}, "neither a System.map nor an ELF file"},
		{[]string{"watch", "-r", nameless(t), "--symbols", sampleMap}, "the record does not say where the kernel lay"},
		{[]string{"watch", "-r", nameless(t, sampleAnchors[0], record.Anchor{Symbol: "deliver", Address: 0xffffffff81200080}), "--symbols", sampleMap}, "is not of this kernel: deliver lies 0x70 behind _text in it, and 0x80 behind in the record"},
	} {
		if r := here(t, c.args...); r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.want) {
			t.Errorf("%q: exit status %d, %s%s, want %q", c.args, r.code, r.out, r.err, c.want)
		}
	}
}
