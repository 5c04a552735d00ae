package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

// caseMap is the System.map of the 2.6.32 kernel on which dropwatch put a drop
// into udp_queue_rcv_skb+953 (hexadecimal), with functions at the start and
// the ends of sections as the linker script of that kernel makes them.
func caseMap() string {
	var b strings.Builder
	b.WriteString("0000000000000000 A VDSO64_PRELINK\n0000000000000000 D per_cpu__irq_stack_union\n" +
		"ffffffff81000000 T _text\nffffffff81000000 T startup_64\n")
	for i := range 80 {
		fmt.Fprintf(&b, "ffffffff8100%04x T function_%d\n", 0x100+i*0x40, i)
	}
	b.WriteString(`ffffffff81499f10 T udp_sendmsg
ffffffff8149a7c0 T udp_queue_rcv_skb
ffffffff8149ab60 T __udp4_lib_rcv
ffffffff8149b530 T udp_rcv
ffffffff8149b550 T udp_destroy_sock
ffffffff814f0e2d T _etext
ffffffff81800000 D _sdata
ffffffff81a00000 D _edata
ffffffff81b00000 B __bss_start
ffffffff81c00000 B __bss_stop
`)
	return b.String()
}

// moved is the start of a table as kallsyms shows it in a kernel that KASLR has
// moved: so many lines, then one that ends every reading.
func moved(table string, by uint64, lines int) string {
	var b strings.Builder
	for line := range strings.Lines(table) {
		if lines--; lines < 0 {
			b.WriteString("nobody may read as far as this line\n")
			break
		}
		var addr uint64
		var rest string
		if _, err := fmt.Sscanf(line, "%x", &addr); err != nil {
			panic(err)
		}
		rest = line[16:]
		if addr > 0 {
			addr += by
		}
		fmt.Fprintf(&b, "%016x%s", addr, rest)
	}
	return b.String()
}

// hidden is the table as kallsyms shows it to who may not see addresses.
func hidden(table string) string {
	return regexp.MustCompile("(?m)^[0-9a-f]{16}").ReplaceAllLiteralString(table, "0000000000000000")
}

// iomem are the sections of caseMap in physical memory.
const iomem = `00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
  01000000-014f0e2c : Kernel code
  01700000-017fffff : Kernel rodata
  01800000-019fffff : Kernel data
  01b00000-01bfffff : Kernel bss
`

const hiddenIomem = "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"

// fileHost is a host of a kernel that KASLR moved by so much, with a
// System.map at the returned path.
func fileHost(t *testing.T, table string, by uint64, more map[string]string) (Host, string) {
	t.Helper()
	files := map[string]string{
		"/boot/System.map": table,
		"/proc/kallsyms":   moved(caseMap(), by, 70),
		"/proc/iomem":      iomem,
		"/proc/modules":    "nf_tables 20480 1 nft_ct, Live 0xffffffffc0202000 (E)\nveth 8192 0 - Live 0xffffffffc0100000\n",
		"/proc/cmdline":    "quiet",
	}
	for name, text := range more {
		if text == "" {
			delete(files, name)
			continue
		}
		files[name] = text
	}
	h := fakeHost(t, files)
	return h, h.path("/boot/System.map")
}

func open(t *testing.T, h Host, source string) *Names {
	t.Helper()
	n, err := h.OpenNames(source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func resolves(t *testing.T, n *Names, addr uint64, want string) {
	t.Helper()
	at := n.Resolve(addr)
	if at.String() != want || uint64(at.Address) != addr {
		t.Errorf("%#x is %q (address %v), want %q", addr, at, at.Address, want)
	}
}

// The drop of that kernel, and of one that KASLR moved up or down: kallsyms is
// read no further than the functions that tell how far.
func TestNamesOfMap(t *testing.T) {
	for _, by := range []uint64{0, 0x1c00000, 1<<64 - 0x600000} {
		h, path := fileHost(t, caseMap(), by, nil)
		n := open(t, h, path)
		if err := n.Ready(); err != nil {
			t.Fatal(err)
		}
		resolves(t, n, 0xffffffff8149b113+by, "__udp4_lib_rcv+0x5b3")
		resolves(t, n, 0xffffffff814f0e2d+by, "udp_destroy_sock+0x558dd (beyond its end)")
		resolves(t, n, 0xffffffff81800010+by, fmt.Sprintf("0x%x", 0xffffffff81800010+by))
		// A map does not know modules, and must not pretend to.
		resolves(t, n, 0xffffffffc020240e, "[nf_tables]+0x40e")
		resolves(t, n, 0xffffffffc0102000, "0xffffffffc0102000")
	}
}

func TestNamesFrom(t *testing.T) {
	for _, c := range []struct {
		by   uint64
		more map[string]string
		want string
	}{
		{0, nil, "at the file's addresses (/proc/kallsyms), checked by 64 symbols of /proc/kallsyms and 6 ends of sections of /proc/iomem"},
		{0x1c00000, nil, "0x1c00000 above the file's addresses (/proc/kallsyms)"},
		{1<<64 - 0x600000, nil, "0x600000 below the file's addresses (/proc/kallsyms)"},
		{0, map[string]string{"/proc/iomem": hiddenIomem}, "checked by 64 symbols of /proc/kallsyms and nothing behind the start of its text"},
		{0, map[string]string{"/proc/kallsyms": "", "/proc/cmdline": "quiet nokaslr"}, "(nokaslr in /proc/cmdline), checked by 6 ends of sections of /proc/iomem"},
	} {
		table := caseMap()
		h, path := fileHost(t, table, c.by, c.more)
		n := open(t, h, path)
		got := n.From()
		if !strings.Contains(got, c.want) || !strings.HasPrefix(got, path+": 86 functions, ") {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if got := open(t, Host{Root: t.TempDir()}, SymbolsNone).From(); got != "none" {
		t.Errorf("none is from %q", got)
	}
}

// With none nothing is read, and nothing is named.
func TestNoNames(t *testing.T) {
	n := open(t, Host{Root: t.TempDir()}, SymbolsNone)
	if err := errors.Join(n.Ready(), n.Learn(0xffffffff8149b113, "__udp4_lib_rcv+0x5b3/0x9d0")); err != nil {
		t.Error(err)
	}
	resolves(t, n, 0xffffffff8149b113, "0xffffffff8149b113")
}

func TestOtherKernels(t *testing.T) {
	other := strings.ReplaceAll(caseMap(), "ffffffff81000140 T function_1\n", "ffffffff81000160 T function_1\n")
	longer := strings.ReplaceAll(caseMap(), "ffffffff814f0e2d T _etext", "ffffffff814f0e3d T _etext")
	for _, c := range []struct {
		what, table, want string
		more              map[string]string
	}{
		{"another build", other, " is not of this kernel: function_1 lies 0x160 behind _text in it, and 0x140 behind in /proc/kallsyms", nil},
		{"another patch", longer, " is not of this kernel: _etext lies 0x4f0e3d behind _text in it, and 0x4f0e2d behind in /proc/iomem", nil},
		{"another machine", "ffff800010080000 T sys_call\nffff800010080100 t b\nffff800010080200 T _etext\n", "it has 0 of 64 symbols of /proc/kallsyms", nil},
		{"moved by a part of a page", moved(caseMap(), 0x20, 1<<30), "not a whole number of pages", map[string]string{"/proc/iomem": hiddenIomem}},
	} {
		h, path := fileHost(t, c.table, 0x1c00000, c.more)
		_, err := h.OpenNames(path)
		if !errors.Is(err, ErrOtherKernel) || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), path) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
}

func TestNoSymbolFiles(t *testing.T) {
	h, path := fileHost(t, "", 0, nil)
	for _, c := range []struct{ what, text, want string }{
		{"nothing", "", "no functions"},
		{"a poem", "so much depends\nupon\n", "neither a System.map nor an ELF file: line 1"},
		{"hidden", hidden(caseMap()), "all of its addresses are 0"},
		{"Debian's", "ffffffffffffffff B The real System.map is in the linux-image-6.1.0-50-amd64-dbg package\n", `the real one is in "the linux-image-6.1.0-50-amd64-dbg package"`},
		{"gzip", "\x1f\x8b\x08\x00", "compressed (gzip)"},
		{"bzImage", "MZ\xea\x07\x00", "a bootable image"},
		{"ELF's head", "\x7fELF\x02\x01\x01", "no symbols of a kernel"},
		{"long", strings.Repeat("0000000000000000 A x\n", maxMap/21+1), "longer than 64 MiB"},
	} {
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := h.OpenNames(path)
		if !errors.Is(err, ErrNoSymbols) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.what, err, c.want)
		}
	}
	if _, err := h.OpenNames(h.path("/boot")); !errors.Is(err, ErrNoSymbols) {
		t.Errorf("a directory: %v", err)
	}
	pipe := h.path("/boot/pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := h.OpenNames(pipe); !errors.Is(err, ErrNoSymbols) {
		t.Errorf("a pipe: %v", err)
	}
	if _, err := h.OpenNames(h.path("/boot/nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A copy of kallsyms has functions of modules, which lie elsewhere after the
// next boot.
func TestMapWithModules(t *testing.T) {
	h, path := fileHost(t, caseMap()+"ffffffffc0202000 t nft_do_chain\t[nf_tables]\n", 0, map[string]string{"/proc/modules": ""})
	resolves(t, open(t, h, path), 0xffffffffc0202010, "0xffffffffc0202010")
}

// Where kallsyms hides its addresses, alerts of the drop monitor tell.
func TestLearn(t *testing.T) {
	const by = 0x2a00000
	rcv, chain := uint64(0xffffffff8149b113+by), uint64(0xffffffffc1234040)
	hide := map[string]string{"/proc/kallsyms": hidden(caseMap()), "/proc/modules": ""}
	h, path := fileHost(t, caseMap(), by, hide)
	n := open(t, h, path)
	if err := n.Ready(); !errors.Is(err, ErrNotPlaced) || !errors.Is(err, ErrAddressesHidden) || !strings.Contains(err.Error(), "CAP_SYSLOG") {
		t.Fatalf("error %v, want hidden addresses", err)
	}
	resolves(t, n, rcv, fmt.Sprintf("0x%x", rcv))
	for _, nothing := range []string{"", "0xffffffff8149b113", "no_such_function+0x1/0x2", "__udp4_lib_rcv+0x5b3/0x", "+0x5b3/0x9d0"} {
		if err := n.Learn(rcv, nothing); err != nil || n.Ready() == nil {
			t.Fatalf("%q: %v", nothing, err)
		}
	}
	if err := errors.Join(n.Learn(rcv, "__udp4_lib_rcv+0x5b3/0x9d0"), n.Ready()); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, rcv, "__udp4_lib_rcv+0x5b3")
	if got := n.From(); !strings.Contains(got, "0x2a00000 above the file's addresses (the drop monitor's alert of __udp4_lib_rcv), checked by 6 ends of sections") {
		t.Errorf("from %s", got)
	}
	// Functions of modules come from nowhere else.
	resolves(t, n, chain, fmt.Sprintf("0x%x", chain))
	if err := n.Learn(chain, "nft_do_chain+0x40/0x8c0 [nf_tables]"); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, chain, "nft_do_chain+0x40 [nf_tables]")
	resolves(t, n, chain+0x87f, "nft_do_chain+0x8bf [nf_tables]")
	resolves(t, n, chain+0x880, fmt.Sprintf("0x%x", chain+0x880))
}

// Where nothing else shows that a file is of this kernel, two functions must.
func TestLearnTwice(t *testing.T) {
	hide := map[string]string{"/proc/kallsyms": hidden(caseMap()), "/proc/iomem": hiddenIomem}
	h, path := fileHost(t, caseMap(), 0, hide)
	n := open(t, h, path)
	for range 2 {
		if err := n.Learn(0xffffffff8349b113, "__udp4_lib_rcv+0x5b3/0x9d0"); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Ready(); !errors.Is(err, ErrNotPlaced) || !strings.Contains(err.Error(), "nothing shows that it is of the running kernel") {
		t.Errorf("after one function: %v", err)
	}
	if err := errors.Join(n.Learn(0xffffffff83499f20, "udp_sendmsg+0x10/0x8b0"), n.Ready()); err != nil {
		t.Error(err)
	}
	resolves(t, n, 0xffffffff8349b531, "udp_rcv+0x1")

	for what, c := range map[string]struct {
		addr       uint64
		text, want string
	}{
		"apart":         {0xffffffff83699f20, "udp_sendmsg+0x10/0x8b0", "it was moved by 0x2000000, says the drop monitor's alert of __udp4_lib_rcv, and by 0x2200000, says udp_sendmsg"},
		"within a page": {0xffffffff83499f30, "udp_sendmsg+0x10/0x8b0", "not a whole number of pages"},
	} {
		n := open(t, h, path)
		if err := n.Learn(0xffffffff8349b113, "__udp4_lib_rcv+0x5b3/0x9d0"); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the error stays
			if err := n.Learn(c.addr, c.text); !errors.Is(err, ErrOtherKernel) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: error %v, want %q", what, err, c.want)
			}
		}
		if err := n.Ready(); !errors.Is(err, ErrOtherKernel) {
			t.Errorf("%s: ready: %v", what, err)
		}
		resolves(t, n, 0xffffffff8349b113, "0xffffffff8349b113")
	}
}

// What the kernel says twice counts more than the start of its table.
func TestLearnContradicts(t *testing.T) {
	h, path := fileHost(t, caseMap(), 0, nil)
	n := open(t, h, path)
	if err := errors.Join(n.Learn(0xffffffff81500010, "udp_sendmsg+0x10/0x8b0"), n.Ready()); err != nil {
		t.Errorf("one contradiction: %v", err)
	}
	if err := n.Learn(0xffffffff81600010, "udp_rcv+0x10/0x20"); !errors.Is(err, ErrOtherKernel) {
		t.Errorf("two contradictions: %v", err)
	}
}

func TestParseSymbolic(t *testing.T) {
	for text, want := range map[string]symbolic{
		"tcp_v4_rcv+0x86/0xf60":                            {"tcp_v4_rcv", 0x86, 0xf60, ""},
		"nft_do_chain+0x40e/0x8c0 [nf_tables]":             {"nft_do_chain", 0x40e, 0x8c0, "nf_tables"},
		"a+0x0/0x1 [b]":                                    {"a", 0, 1, "b"},
		"__netif_receive_skb_core.constprop.0+0x":          {},
		"__netif_receive_skb_core.constprop.0+0x3/0x10 [a": {},
		// 39 bytes: more may have followed.
		"udp_queue_rcv_one_skb_of_it+0x374/0x4e0": {},
		"udp_queue_rcv_one_skb_of_t+0x374/0x4e0":  {"udp_queue_rcv_one_skb_of_t", 0x374, 0x4e0, ""},
		"tcp_v4_rcv":                              {},
		"tcp_v4_rcv+0x86":                         {},
		"tcp_v4_rcv+0x86/0x":                      {},
		"a+0x1/0x2 []":                            {},
		"a+0x1/0x2 [b":                            {},
		"+0x1/0x2":                                {},
		"a+0x11111111111111111/0x2":               {},
		"":                                        {},
	} {
		got, ok := parseSymbolic(text)
		if ok != (want.name != "") || ok && got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, ok, want)
		}
	}
}

// Modules that come are found at the next look, and where one lay there may
// be another.
func TestModulesComeAndGo(t *testing.T) {
	h, path := fileHost(t, caseMap(), 0, nil)
	n := open(t, h, path)
	now := time.Now()
	n.now = func() time.Time { return now }
	addr := uint64(0xffffffffc0500010)
	resolves(t, n, addr, "0xffffffffc0500010")
	if err := n.Learn(0xffffffffc0202010, "nft_do_chain+0x10/0x8c0 [nf_tables]"); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, 0xffffffffc0202011, "nft_do_chain+0x11 [nf_tables]")
	text := "dummy 8192 0 - Live 0xffffffffc0500000\nother 8192 0 - Live 0xffffffffc0202000\n"
	if err := os.WriteFile(h.path("/proc/modules"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	resolves(t, n, addr, "0xffffffffc0500010") // not yet
	now = now.Add(time.Minute)
	resolves(t, n, addr, "[dummy]+0x10")
	resolves(t, n, 0xffffffffc0202011, "[other]+0x11")
}

// Since 6.4 what /proc/modules calls a module's size can reach into the next.
func TestModulesOverlap(t *testing.T) {
	h, path := fileHost(t, caseMap(), 0, map[string]string{
		"/proc/modules": "a 16384 0 - Live 0xffffffffc0100000\nb 16384 0 - Live 0xffffffffc0102000\nc 99 0 - Live 0x0\n",
	})
	n := open(t, h, path)
	now := time.Now()
	n.now = func() time.Time { return now }
	resolves(t, n, 0xffffffffc0101fff, "[a]+0x1fff")
	resolves(t, n, 0xffffffffc0102000, "[b]+0x0")
	resolves(t, n, 0xffffffffc0106000, "0xffffffffc0106000")
	// One that came since lies where b seemed to be.
	text := "b 16384 0 - Live 0xffffffffc0102000\nd 16384 0 - Live 0xffffffffc0104000\n"
	if err := os.WriteFile(h.path("/proc/modules"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Minute)
	resolves(t, n, 0xffffffffc0104010, "[d]+0x10")
}

// A record of whoever could see addresses says where its kernel lay.
func TestNamesOfRecord(t *testing.T) {
	const by = 0x1c00000
	h, path := fileHost(t, caseMap(), by, nil)
	var k record.Header
	k.Anchors, k.Kernel.BuildID = h.Anchors()
	if len(k.Anchors) < 14 || len(k.Anchors) > 18 {
		t.Errorf("%d anchors: %v", len(k.Anchors), k.Anchors)
	}
	n, err := OpenNamesOf(path, k)
	if err != nil {
		t.Fatal(err)
	}
	resolves(t, n, 0xffffffff8149b113+by, "__udp4_lib_rcv+0x5b3")
	// The modules of this host are not those of the record.
	resolves(t, n, 0xffffffffc020240e, "0xffffffffc020240e")
	if got, want := n.From(), "0x1c00000 above the file's addresses (the record), checked by "; !strings.Contains(got, want) {
		t.Errorf("from %q, want %q", got, want)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(caseMap(), "814f0e2d T _etext", "814f0e3d T _etext")), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenNamesOf(path, k); !errors.Is(err, ErrOtherKernel) {
		t.Errorf("another kernel's map: %v", err)
	}
	h, path = fileHost(t, caseMap(), by, map[string]string{"/proc/kallsyms": hidden(caseMap())})
	if k.Anchors, _ = h.Anchors(); k.Anchors != nil {
		t.Errorf("anchors of hidden addresses: %v", k.Anchors)
	}
	if _, err := OpenNamesOf(path, k); !errors.Is(err, ErrNotPlaced) || !strings.Contains(err.Error(), "the record does not say") {
		t.Errorf("a record without anchors: %v", err)
	}
}

// oneTable knows the addresses from 0x1000 on, and names all after how often it
// was read. The second reading finds nothing.
type oneTable struct {
	noNames
	reads int
	name  string
}

func (o *oneTable) knows(addr uint64) bool { return addr >= 0x1000 }

func (o *oneTable) resolve(addr uint64) record.Location {
	return record.Location{Address: record.Address(addr), Symbol: o.name}
}

func (o *oneTable) reload() {
	if o.reads++; o.reads != 2 {
		o.name = strconv.Itoa(o.reads)
	}
}

func TestNamesAreReadAgain(t *testing.T) {
	now := time.Unix(1000, 0)
	table := &oneTable{name: "shared"}
	n := newNames(table, time.Time{})
	n.now = func() time.Time { return now }
	for i, c := range []struct {
		after time.Duration
		addr  uint64
		want  string
	}{
		{0, 0x1000, "shared"},
		{0, 0x10, "1"},                // not surely known, and read by another session
		{time.Minute, 0x10, "1"},      // once for each address
		{0, 0x1000, "1"},              // known
		{0, 0x20, "1"},                // the second reading finds nothing
		{time.Second, 0x30, "1"},      // too early
		{10 * time.Second, 0x30, "3"}, // the same address later
		{time.Minute, 0x30, "3"},
	} {
		now = now.Add(c.after)
		if got := n.Resolve(c.addr).Symbol; got != c.want {
			t.Errorf("%d: %#x is in %s, want %s", i, c.addr, got, c.want)
		}
	}
	if table.reads != 3 {
		t.Errorf("read %d times", table.reads)
	}
}
