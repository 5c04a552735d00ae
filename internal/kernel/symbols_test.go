package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

func parse(t *testing.T, text string) *Symbols {
	t.Helper()
	s, err := ParseSymbols(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestResolveBeyondNaiveOffset is a drop that dropwatch put into the wrong
// function on a 2.6.32 kernel: udp_queue_rcv_skb+953 (hexadecimal).
func TestResolveBeyondNaiveOffset(t *testing.T) {
	s := parse(t, `ffffffff81499f10 T udp_sendmsg
ffffffff8149a7c0 T udp_queue_rcv_skb
ffffffff8149ab60 T __udp4_lib_rcv
ffffffff8149b530 T udp_rcv
ffffffff8149b550 T udp_destroy_sock
ffffffff814f0e2d T _etext
`)
	got := s.Resolve(0xffffffff8149b113)
	want := record.Location{Symbol: "__udp4_lib_rcv", Offset: 0x5b3, Address: 0xffffffff8149b113}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := got.String(); s != "__udp4_lib_rcv+0x5b3" {
		t.Errorf("prints as %q", s)
	}
}

// A table with the sections of a kernel, data in between, and modules in no
// order, as kallsyms prints them.
const sections = `0000000000001000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 T first
ffffffff81000100 t last
ffffffff81000180 T _etext
ffffffff81200000 D __start_rodata
ffffffff81200010 d table
ffffffff83000000 T _sinittext
ffffffff83000000 B __init_begin
ffffffff83000010 t init_one
ffffffff83000100 T _einittext
ffffffff83100000 D __init_end
ffffffffc0202000 t nft_do_chain	[nf_tables]
ffffffffc0202800 t nft_last	[nf_tables]
ffffffffc0204000 d nft_ops	[nf_tables]
ffffffffc0100000 t veth_xmit	[veth]
ffffffffc0100100 t veth_last	[veth]
ffffffffc0300000 t bpf_prog_0123456789abcdef_one	[bpf]
ffffffffc0380000 t bpf_prog_0123456789abcdef_two	[bpf]
ffffffffc0201000 t ftrace_trampoline	[__builtin__ftrace]
`

func TestResolveSections(t *testing.T) {
	s := parse(t, sections)
	s.ends[moduleNumber(t, s, "veth")] = 0xffffffffc0102000
	for _, c := range []struct {
		what string
		addr uint64
		want string
	}{
		{"below everything", 0x10, "0x10"},
		{"first byte", 0xffffffff81000040, "first+0x0"},
		{"last byte", 0xffffffff810000ff, "first+0xbf"},
		{"first of the next", 0xffffffff81000100, "last+0x0"},
		{"before _etext", 0xffffffff8100017f, "last+0x7f"},
		{"at _etext", 0xffffffff81000180, "last+0x80 (beyond its end)"},
		{"in the tail of .text", 0xffffffff8100117f, "last+0x107f (beyond its end)"},
		{"behind the tail of .text", 0xffffffff81001180, "0xffffffff81001180"},
		{"in data", 0xffffffff81200010, "0xffffffff81200010"},
		{"before init text", 0xffffffff82ffffff, "0xffffffff82ffffff"},
		{"in init text", 0xffffffff83000020, "init_one+0x10"},
		{"behind init text", 0xffffffff83002000, "0xffffffff83002000"},
		{"between kernel and modules", 0xffffffffa0000000, "0xffffffffa0000000"},
		{"in a module", 0xffffffffc010000f, "veth_xmit+0xf [veth]"},
		{"last of a module", 0xffffffffc0100fff, "veth_last+0xeff [veth]"},
		{"page behind the last of a module", 0xffffffffc0101000, "veth_last+0xf00 [veth] (beyond its end)"},
		{"last byte of a module", 0xffffffffc0101fff, "veth_last+0x1eff [veth] (beyond its end)"},
		{"end of a module", 0xffffffffc0102000, "0xffffffffc0102000"},
		{"between modules", 0xffffffffc0103000, "0xffffffffc0103000"},
		{"trampoline, end not known", 0xffffffffc0201fff, "ftrace_trampoline+0xfff [__builtin__ftrace]"},
		{"last of a module with data", 0xffffffffc0202fff, "nft_last+0x7ff [nf_tables]"},
		{"before a module's data", 0xffffffffc0203fff, "nft_last+0x17ff [nf_tables] (beyond its end)"},
		{"in a module's data", 0xffffffffc0204000, "nft_last+0x1800 [nf_tables] (beyond its end)"},
		{"behind a module's data", 0xffffffffc0205000, "0xffffffffc0205000"},
		{"program of usual length", 0xffffffffc0300fff, "bpf_prog_0123456789abcdef_one+0xfff [bpf]"},
		{"long program", 0xffffffffc0301000, "bpf_prog_0123456789abcdef_one+0x1000 [bpf] (beyond its end)"},
		{"between programs", 0xffffffffc0310000, "0xffffffffc0310000"},
		{"last program", 0xffffffffc0380001, "bpf_prog_0123456789abcdef_two+0x1 [bpf]"},
		{"above everything", 1<<64 - 1, "0xffffffffffffffff"},
	} {
		got := s.Resolve(c.addr)
		if got.String() != c.want {
			t.Errorf("%s: %#x is %q, want %q", c.what, c.addr, got, c.want)
		}
		if uint64(got.Address) != c.addr {
			t.Errorf("%s: address %#x became %#x", c.what, c.addr, got.Address)
		}
	}
}

func moduleNumber(t *testing.T, s *Symbols, name string) int {
	t.Helper()
	for i, m := range s.modules {
		if m == name {
			return i
		}
	}
	t.Fatalf("no module %s among %q", name, s.modules)
	return 0
}

func TestResolveAliases(t *testing.T) {
	for _, c := range []struct{ want, table string }{
		{"memcpy", "10000 T __memcpy\n10000 T __pi_memcpy\n10000 T memcpy\n"},
		{"__x64_sys_getpid", "10000 t __do_sys_getpid\n10000 T __ia32_sys_getpid\n10000 T __x64_sys_getpid\n"},
		{"global", "10000 t aaa\n10000 T global\n"},
		{"weak", "10000 t aaa\n10000 W weak\n"},
		{"bbb", "10000 T ccc\n10000 T bbb\n"},
		{"schedule", "10000 T __sched_text_start\n10000 t schedule\n"},
		{"last_asm", "10000 t last_asm\n10000 T __irqentry_text_end\n"},
		{"func", "10000 t __cfi_other\n10000 t func\n"},
	} {
		s := parse(t, c.table)
		if got := s.Resolve(0x10001); got.Symbol != c.want {
			t.Errorf("%q: resolves to %q, want %q", c.table, got.Symbol, c.want)
		}
	}
}

func TestResolvePadding(t *testing.T) {
	s := parse(t, `ffffffff81000000 T before
ffffffff810000f0 T __pfx_after
ffffffff81000100 T after
ffffffff810001f0 t __cfi_third
ffffffff81000200 t third
ffffffff81000300 t __cfi_slowpath
ffffffff81000380 t $x	[mod]
ffffffff81000390 t .L123	[mod]
ffffffff81000400 t fourth
`)
	for addr, want := range map[uint64]string{
		0xffffffff810000f8: "before",
		0xffffffff810001f0: "after",
		0xffffffff81000200: "third",
		0xffffffff81000310: "__cfi_slowpath",
		0xffffffff810003a0: "__cfi_slowpath",
	} {
		if got := s.Resolve(addr); got.Symbol != want || got.Beyond {
			t.Errorf("%#x is %q, want %q", addr, got, want)
		}
	}
}

func TestParseSymbolsErrors(t *testing.T) {
	hidden := "0000000000000000 T _stext\n0000000000000000 t one\n0000000000000000 D data\n"
	for _, c := range []struct {
		what, table string
		want        error
	}{
		{"hidden", hidden, ErrAddressesHidden},
		{"empty", "", errKallsyms},
		{"only data", "ffffffff81000000 D data\n", errKallsyms},
		{"no address", " T name\n", errKallsyms},
		{"bad address", "fffffffg81000000 T name\n", errKallsyms},
		{"long address", "ffffffff810000000 T name\n", errKallsyms},
		{"no name", "ffffffff81000000 T \n", errKallsyms},
		{"cut off", "ffffffff81000000 T", errKallsyms},
		{"long name", "ffffffff81000000 T " + strings.Repeat("x", localBit) + "\n", errKallsyms},
		{"long line", "ffffffff81000000 T x\t" + strings.Repeat("x", 70<<10) + "\n", errKallsyms},
	} {
		if _, err := ParseSymbols(strings.NewReader(c.table)); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", c.what, err, c.want)
		}
	}
	broken := errors.New("broken")
	if _, err := ParseSymbols(io.MultiReader(strings.NewReader(sections), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error of the reader is lost: %v", err)
	}
}

// TestParseSymbolsChunks reads a byte at a time, and without a last newline.
func TestParseSymbolsChunks(t *testing.T) {
	want := parse(t, sections)
	got, err := ParseSymbols(iotest.OneByteReader(strings.NewReader(strings.TrimSuffix(sections, "\n"))))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Symbols{}, symbol{})); diff != "" {
		t.Error(diff)
	}
}

// fakeHost makes a host of the files given, path by path.
func fakeHost(t *testing.T, files map[string]string) Host {
	t.Helper()
	h := Host{Root: t.TempDir()}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(h.path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func TestLoadSymbols(t *testing.T) {
	h := fakeHost(t, map[string]string{
		"/proc/kallsyms": sections,
		"/proc/modules":  "veth 8192 0 - Live 0xffffffffc0100000\nnf_tables 20480 1 nft_ct, Live 0xffffffffc0202000 (E)\n",
	})
	s, err := h.LoadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[uint64]string{
		0xffffffffc0101fff: "veth_last+0x1eff [veth] (beyond its end)",
		0xffffffffc0102000: "0xffffffffc0102000", // behind the module
	} {
		if got := s.Resolve(addr).String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for restrict, want := range map[string]string{"1": "CAP_SYSLOG", "2": "kernel.kptr_restrict=1"} {
		h := fakeHost(t, map[string]string{
			"/proc/kallsyms":                 "0000000000000000 T _stext\n",
			"/proc/sys/kernel/kptr_restrict": restrict + "\n",
		})
		_, err := h.LoadSymbols()
		if !errors.Is(err, ErrAddressesHidden) || !strings.Contains(err.Error(), want) {
			t.Errorf("kptr_restrict %s: error %v, want it to say %s", restrict, err, want)
		}
	}
	if _, err := (Host{Root: t.TempDir()}).LoadSymbols(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no kallsyms: error %v", err)
	}
}

func TestKnows(t *testing.T) {
	s := parse(t, sections)
	for _, c := range []struct {
		what string
		addr uint64
		want bool
	}{
		{"below everything", 0x10, false},
		{"the kernel's own", 0xffffffff81000050, true},
		{"the last of a section", 0xffffffff81000101, true},
		{"behind the section", 0xffffffff81000181, false},
		{"data", 0xffffffff81200020, false},
		{"a module's", 0xffffffffc0100010, true},
		{"the last of a module", 0xffffffffc0100110, false},
		{"a BPF program that another follows", 0xffffffffc0300010, false},
		{"the last of all", 0xffffffffc0380010, false},
	} {
		if got := s.Knows(c.addr); got != c.want {
			t.Errorf("%s, %#x: %t", c.what, c.addr, got)
		}
	}
}

// A module that was loaded after the table was read, where the sizes of
// /proc/modules, or the place of its data, let another one reach: no name of that
// one is sure, until the table is read again.
func TestModuleLoadedSince(t *testing.T) {
	const (
		before = "ffffffff81000000 T _text\nffffffff81000040 T first\nffffffff81000100 T _etext\n" +
			"ffffffffc0100000 t fq_enqueue\t[sch_fq]\nffffffffc0101a00 t cleanup_module\t[sch_fq]\nffffffffc0108000 d fq_ops\t[sch_fq]\n"
		modules = "sch_fq 40960 0 - Live 0xffffffffc0100000\n"
		addr    = 0xffffffffc0102323
	)
	h := fakeHost(t, map[string]string{"/proc/kallsyms": before, "/proc/modules": modules})
	n, err := h.OpenNames(SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	now := time.Now()
	n.now = func() time.Time { return now }
	if got, want := n.Resolve(0xffffffff81000050).String(), "first+0x10"; got != want { // reads the table
		t.Errorf("%q, want %q", got, want)
	}
	for name, text := range map[string]string{
		"/proc/kallsyms": before + "ffffffffc0102000 t nft_do_chain\t[nf_tables]\nffffffffc0102800 t nft_last\t[nf_tables]\n",
		"/proc/modules":  modules + "nf_tables 20480 0 - Live 0xffffffffc0102000\n",
	} {
		if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := n.Resolve(addr).String(), "cleanup_module+0x923 [sch_fq] (beyond its end)"; got != want {
		t.Errorf("within ten seconds: %q, want %q", got, want)
	}
	now = now.Add(readAgain)
	if got, want := n.Resolve(addr).String(), "nft_do_chain+0x323 [nf_tables]"; got != want {
		t.Errorf("later: %q, want %q", got, want)
	}
}

// A table is read again when a module has come or gone, and only then.
func TestSharedSymbols(t *testing.T) {
	const modules = "veth 8192 0 - Live 0xffffffffc0100000\nnf_tables 20480 1 nft_ct, Live 0xffffffffc0202000 (E)\n"
	h := fakeHost(t, map[string]string{"/proc/kallsyms": sections, "/proc/modules": modules})
	s := sharedSymbols{host: h}
	write := func(name, text string) {
		if err := os.WriteFile(h.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := func(what string, want bool) *Symbols {
		t.Helper()
		table, read, err := s.get()
		if err != nil || read != want {
			t.Fatalf("%s: read %t, %v", what, read, err)
		}
		return table
	}
	first := want("first", true)
	write("/proc/modules", strings.Replace(modules, "20480 1", "20480 2", 1))
	if again := want("one more user", false); again != first {
		t.Error("another table")
	}
	write("/proc/modules", strings.Replace(modules, "c0100000", "c0180000", 1))
	want("a module that moved", true)
	write("/proc/modules", "")
	want("modules that went", true)
	if err := os.Remove(h.path("/proc/modules")); err != nil {
		t.Fatal(err)
	}
	want("modules in the table, and no list of them", true)
	want("the same again", true)
	write("/proc/kallsyms", "ffffffff81000000 T _text\nffffffff81000040 T first\nffffffffc0380000 t bpf_prog_1_x\t[bpf]\n")
	want("a kernel without modules", true)
	want("a kernel without modules, again", false)
}

func TestParseModules(t *testing.T) {
	got, err := parseModules([]byte("veth 45056 0 - Live 0xffffffffc0a1b000\nxt_nat 16384 2 nft_compat,x_tables, Live 0x0000000000000000 (OE)\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]module{"veth": {0xffffffffc0a1b000, 45056}, "xt_nat": {0, 16384}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(module{})); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{"veth 45056 0 -", "veth many 0 - Live 0x0", "veth 1 0 - Live here"} {
		if _, err := parseModules([]byte(bad)); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestBase(t *testing.T) {
	for symbol, want := range map[string]string{
		"tcp_v4_rcv":                       "tcp_v4_rcv",
		"kfree_skb_list.part.0":            "kfree_skb_list",
		"ip_rcv_core.constprop.0.isra.12":  "ip_rcv_core",
		"nf_hook_slow.cold":                "nf_hook_slow",
		"do_thing.cold.3":                  "do_thing",
		"x.llvm.1234567890":                "x",
		"bpf_prog_1122334455667788_a.b":    "bpf_prog_1122334455667788_a.b",
		"bpf_prog_1122334455667788_part.1": "bpf_prog_1122334455667788_part.1",
		".cold":                            ".cold",
		"a.7":                              "a.7",
		"":                                 "",
	} {
		if got := Base(symbol); got != want {
			t.Errorf("Base(%q) = %q, want %q", symbol, got, want)
		}
	}
}

func TestResolveDoesNotAllocate(t *testing.T) {
	s := parse(t, sections)
	if n := testing.AllocsPerRun(100, func() { s.Resolve(0xffffffffc0202010) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParseSymbols(f *testing.F) {
	f.Add([]byte(sections), uint64(0xffffffff81000110))
	f.Add([]byte("0000000000000000 T _stext\n"), uint64(0))
	f.Add([]byte("ffffffff81000000 T a\nffffffff81000000 t __cfi_b\nffffffff80000000 W b\t[m]"), uint64(0xffffffff81000000))
	f.Add([]byte("fffffffffffff000 t last\n"), uint64(0xffffffffffffffff))
	f.Fuzz(func(t *testing.T, table []byte, addr uint64) {
		s, err := ParseSymbols(bytes.NewReader(table))
		if err != nil {
			return
		}
		for i, sym := range s.symbols {
			if i > 0 && s.symbols[i-1].addr >= sym.addr {
				t.Fatalf("symbols %d and %d are out of order", i-1, i)
			}
			if sym.isEnd() {
				continue
			}
			at := s.Resolve(sym.addr)
			if at.Symbol != s.name(sym) || at.Offset != 0 || at.Beyond {
				t.Fatalf("start of %s resolves to %v", s.name(sym), at)
			}
		}
		if at := s.Resolve(addr); at.Symbol != "" && uint64(at.Address)-at.Offset > addr {
			t.Fatalf("%#x resolves to %v, which starts behind it", addr, at)
		}
	})
}

func FuzzParseModules(f *testing.F) {
	f.Add([]byte("veth 45056 0 - Live 0xffffffffc0a1b000\n"))
	f.Add([]byte("xt_nat 16384 2 nft_compat,x_tables, Live 0x0 (OE)\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		modules, err := parseModules(b)
		if err == nil && len(modules) > bytes.Count(b, []byte{'\n'})+1 {
			t.Fatalf("%d modules", len(modules))
		}
	})
}

// bigTable is as large as a distribution's table: 60,000 functions with
// padding, and data.
func bigTable() []byte {
	var b bytes.Buffer
	for i := range 60_000 {
		addr := 0xffffffff81000000 + uint64(i)*256
		fmt.Fprintf(&b, "%016x t __pfx_function_number_%d\n%016x t function_number_%d\n", addr-16, i, addr, i)
	}
	b.WriteString("ffffffff82000000 T _etext\n")
	return b.Bytes()
}

func BenchmarkParseSymbols(b *testing.B) {
	table := bigTable()
	b.SetBytes(int64(len(table)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSymbols(bytes.NewReader(table)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	s, err := ParseSymbols(bytes.NewReader(bigTable()))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	x := uint64(1)
	for b.Loop() {
		// Random enough that every look-up finds a cold cache.
		x = x*6364136223846793005 + 1442695040888963407
		if at := s.Resolve(0xffffffff81000000 + x>>40%(60_000*256)); at.Symbol == "" {
			b.Fatal(at)
		}
	}
}
