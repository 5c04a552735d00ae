package kernel

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

// words are what a kernel calls addresses.
func words(said map[uint64]string) func(uint64) (string, error) {
	return func(addr uint64) (string, error) {
		text, ok := said[addr]
		if !ok {
			return "", errors.New("nobody may ask for this address")
		}
		return text, nil
	}
}

func TestAskFor(t *testing.T) {
	ask := words(map[uint64]string{
		0x1010: "tcp_v4_rcv+0x10/0x100",
		0x1100: "tcp_v4_rcv+0x100/0x100",
		0x2010: "nft_do_chain+0x10/0x8c0 [nf_tables]",
		0x3008: "__pfx_udp_rcv+0x8/0x10", 0x2fff: "udp_err+0xff/0x100",
		0x4008: "__pfx_udp_rcv+0x8/0x10", 0x3fff: ".Lend+0x1/0x2", 0x3ffd: "udp_err+0xfd/0x100",
		0x5008: "__pfx_first+0x5008/0x6000",
		0x6000: "__do_sys_getpid+0x10/0x20",
		0x6100: "bpf_prog_0011223344556677_x+0x10/0x20",
		0x6200: "__cfi_udp_rcv+0x1/0x10",
		0x6300: "_etext+0x0/0x100",
		0x6400: "__sched_text_start+0x0/0x9",
		0x7000: "0x7000",
		0x7100: "",
		0x7200: "far+0x7201/0x8000",
		0x7300: "cut+0x10/0x20 [nf_ta",
	})
	for addr, want := range map[uint64]string{
		0x1010: "tcp_v4_rcv+0x10",
		0x1100: "", // behind its end
		0x2010: "nft_do_chain+0x10 [nf_tables]",
		0x3008: "udp_err+0x108",
		0x4008: "udp_err+0x108",
		0x5008: "", 0x6000: "", 0x6100: "", 0x6200: "", 0x6300: "", 0x6400: "", 0x7000: "", 0x7100: "", 0x7200: "", 0x7300: "",
	} {
		at, sure, err := askFor(addr, ask)
		if err != nil || sure != (want != "") || uint64(at.Address) != addr || sure && at.String() != want {
			t.Errorf("%#x: %v, sure %t, %v, want %q", addr, at, sure, err, want)
		}
	}
	if at, sure, err := askFor(0x8000, ask); err == nil || sure || at != (record.Location{Address: 0x8000}) {
		t.Errorf("a failure: %v, sure %t, %v", at, sure, err)
	}
	asked := 0
	_, sure, err := askFor(0x100000, func(uint64) (string, error) { asked++; return "__pfx_x+0x1/0x10", nil })
	if sure || err != nil || asked != maxPadding {
		t.Errorf("nothing but padding: sure %t, %v, asked %d times", sure, err, asked)
	}
}

func FuzzAskFor(f *testing.F) {
	f.Add(uint64(0xffffffff81000010), "tcp_v4_rcv+0x10/0x100", "ip_rcv+0x1/0x2")
	f.Add(uint64(0x10), "__pfx_x+0x8/0x10 [veth]", "x+0x7/0x8")
	f.Add(uint64(0), "+0x/0x", "0xffffffffc0001234")
	f.Fuzz(func(t *testing.T, addr uint64, first, then string) {
		text := first
		at, sure, err := askFor(addr, func(uint64) (string, error) { said := text; text = then; return said, nil })
		if err != nil || uint64(at.Address) != addr {
			t.Fatalf("%v, %v", at, err)
		}
		if sure != (at.Symbol != "") || at.Offset > addr || at.Beyond {
			t.Errorf("%+v, sure %t", at, sure)
		}
	})
}

// fakeWords answers for the addresses that it has, is unsure of all others, and
// fails for 0xdead.
type fakeWords struct {
	said   map[uint64]string
	asked  []uint64
	closed int
}

func (f *fakeWords) resolve(addr uint64) (record.Location, bool, error) {
	f.asked = append(f.asked, addr)
	at := record.Location{Address: record.Address(addr), Symbol: f.said[addr]}
	if addr == 0xdead {
		return at, false, errors.New("no memory")
	}
	return at, at.Symbol != "", nil
}

func (f *fakeWords) close() error { f.closed++; return nil }

// live are names of a kernel that can be asked, and whose table is read as often
// as reads says.
func live(t *testing.T, w *fakeWords, refused error) (n *Names, l *liveNames, loaded, reads *int) {
	t.Helper()
	loaded, reads = new(int), new(int)
	l = &liveNames{known: map[uint64]record.Location{}}
	l.newAsker = func() (kernelWords, error) {
		*loaded++
		if refused != nil {
			return nil, refused
		}
		return w, nil
	}
	l.load = func() (*Symbols, error) { *reads++; return parse(t, sections), nil }
	l.readTable = func() (*Symbols, bool, error) { s, err := l.load(); return s, true, err }
	return newNames(l, time.Time{}), l, loaded, reads
}

// Neither is the program loaded nor the table read before they are needed, and an
// address is asked for once.
func TestLiveNamesAskFirst(t *testing.T) {
	const known, other = 0xffffffff81000050, 0xffffffff81000101
	w := &fakeWords{said: map[uint64]string{known: "asked"}}
	n, _, loaded, reads := live(t, w, nil)
	if *loaded != 0 || *reads != 0 {
		t.Errorf("at the start: loaded %d times, table read %d times", *loaded, *reads)
	}
	for range 3 {
		if got := n.Resolve(known).Symbol; got != "asked" {
			t.Errorf("it is called %q", got)
		}
	}
	if *loaded != 1 || *reads != 0 || len(w.asked) != 1 {
		t.Errorf("loaded %d times, table read %d times, asked for %#x", *loaded, *reads, w.asked)
	}
	want := parse(t, sections).Resolve(other)
	for _, addr := range []uint64{other, other, 0xdead, 0xdead} {
		if got := n.Resolve(addr); addr == other && got != want {
			t.Errorf("by the table: %v, want %v", got, want)
		}
	}
	if *loaded != 1 || *reads != 1 {
		t.Errorf("loaded %d times, table read %d times", *loaded, *reads)
	}
	for range 2 {
		if err := n.Close(); err != nil || w.closed != 1 {
			t.Errorf("closed %d times, %v", w.closed, err)
		}
	}
}

// Where the kernel cannot be asked its table names everything. That cannot be read
// any more: that is said.
func TestLiveNamesByTable(t *testing.T) {
	n, _, loaded, reads := live(t, nil, errors.New("unknown func bpf_snprintf"))
	table := parse(t, sections)
	for _, sym := range table.symbols {
		if got, want := n.Resolve(sym.addr+1), table.Resolve(sym.addr+1); got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
	if *loaded != 1 || *reads != 1 {
		t.Errorf("loaded %d times, table read %d times", *loaded, *reads)
	}
	if err := n.Ready(); err != nil {
		t.Error(err)
	}
	broken := errors.New("no memory")
	n, l, _, reads := live(t, nil, broken)
	l.readTable = func() (*Symbols, bool, error) { *reads++; return nil, false, broken }
	for range 2 {
		if got := n.Resolve(0xffffffff81000050); got != (record.Location{Address: 0xffffffff81000050}) {
			t.Errorf("without a table: %v", got)
		}
	}
	if err := n.Ready(); !errors.Is(err, broken) || *reads != 1 {
		t.Errorf("tried %d times, %v", *reads, err)
	}
}

// The place of a drop in a module that is gone before it is named is told as one
// in that module; one in a module that is there has its name.
func TestModuleGone(t *testing.T) {
	const modules = "nf_tables 20480 1 nft_ct, Live 0xffffffffc0202000 (E)\nsch_fq 8192 0 - Live 0xffffffffc0500000\n"
	h := fakeHost(t, map[string]string{"/proc/kallsyms": sections, "/proc/modules": modules})
	n, err := h.OpenNames(SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	for addr, want := range map[uint64]string{
		0xffffffffc0500123: "+0x123 [sch_fq]",
		0xffffffffc0202010: parse(t, sections).Resolve(0xffffffffc0202010).String(),
		0xffffffffc0600000: "0xffffffffc0600000",
	} {
		at := n.Resolve(addr)
		if at.Symbol == "" && at.Module != "" {
			if at.Module != "sch_fq" || at.Offset != 0x123 {
				t.Errorf("%#x is %+v, want %q", addr, at, want)
			}
			continue
		}
		if at.String() != want {
			t.Errorf("%#x is %q, want %q", addr, at, want)
		}
	}
}

// Opening reads no more of kallsyms than its first functions.
func TestLiveNamesOpenReadsLittle(t *testing.T) {
	h := fakeHost(t, map[string]string{"/proc/kallsyms": moved(caseMap(), 0, 70)})
	n, err := h.OpenNames(SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(); err != nil {
		t.Errorf("before an address: %v", err)
	}
	n.Resolve(0xffffffff81000150)
	if err := n.Ready(); !errors.Is(err, errKallsyms) {
		t.Errorf("a table that ends in words: %v", err)
	}
}

func TestDoubtfulNames(t *testing.T) {
	said := map[string]bool{
		"tcp_v4_rcv": false, "bpf_prog_0011223344556677_x": true, "bpf_trampoline_6442458": true,
		"__do_sys_getpid": true, "__softirqentry_text_start": true, "__sys_sendto": false, "bpf_xdp_link_release": false,
	}
	for _, name := range slices.Sorted(maps.Keys(said)) {
		if got := isDoubtful(name); got != said[name] {
			t.Errorf("%s: %t", name, got)
		}
	}
}
