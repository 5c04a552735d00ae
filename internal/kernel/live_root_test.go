//go:build root

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/whydrop/whydrop/internal/testkit"
	"golang.org/x/sys/unix"
)

// aside runs f on a thread of its own, which ends with it: what f does to the
// thread's namespaces and capabilities goes no further.
func aside(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// dropCapabilities takes capabilities from the calling thread; all, without
// arguments.
func dropCapabilities(capabilities ...int) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	if len(capabilities) == 0 {
		data = [2]unix.CapUserData{}
	}
	for _, c := range capabilities {
		data[c/32].Effective &^= 1 << (c % 32)
		data[c/32].Permitted &^= 1 << (c % 32)
	}
	return unix.Capset(&header, &data[0])
}

// naive is a table of functions as the lines of kallsyms give it.
type naive struct {
	// addrs are where something begins, in order.
	addrs []uint64
	// names are those of the functions at an address, with their modules.
	names map[uint64][]string
}

func parseNaively(t *testing.T, table []byte) naive {
	t.Helper()
	n := naive{names: map[uint64][]string{}}
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if addr == 0 || strings.HasPrefix(f[2], "__pfx_") || strings.Contains("aAuU", f[1]) {
			continue
		}
		if _, ok := n.names[addr]; !ok {
			n.addrs = append(n.addrs, addr)
			n.names[addr] = nil
		}
		if !strings.Contains("tTwW", f[1]) || slices.Contains([]string{"_etext", "_sinittext", "_einittext"}, f[2]) {
			continue
		}
		name := f[2]
		if isMarker(name) {
			continue // something is there, but no function
		}
		if len(f) > 3 {
			name += " " + f[3]
		}
		n.names[addr] = append(n.names[addr], name)
	}
	slices.Sort(n.addrs)
	return n
}

// compare resolves an address in both tables.
func (n naive) compare(t *testing.T, s *Symbols, addr uint64) {
	t.Helper()
	i, exact := slices.BinarySearch(n.addrs, addr)
	if !exact {
		i--
	}
	got := s.Resolve(addr)
	if i < 0 {
		if got.Symbol != "" {
			t.Errorf("%#x is %v, want nothing", addr, got)
		}
		return
	}
	start := n.addrs[i]
	if len(n.names[start]) == 0 {
		// Not in a function.
		if got.Symbol != "" && !got.Beyond && !isMarker(got.Symbol) {
			t.Errorf("%#x is %v, want nothing or a guess", addr, got)
		}
		return
	}
	name := got.Symbol
	if got.Module != "" {
		name += " [" + got.Module + "]"
	}
	if !slices.Contains(n.names[start], name) || got.Offset != addr-start || got.Beyond {
		t.Errorf("%#x is %v, want one of %q+%#x", addr, got, n.names[start], addr-start)
	}
}

// sameModule says whether functions of one module are at two addresses.
func (n naive) sameModule(a, b uint64) bool {
	module := func(addr uint64) string {
		if len(n.names[addr]) == 0 {
			return ""
		}
		_, name, _ := strings.Cut(n.names[addr][0], " ")
		return name
	}
	return module(a) == module(b)
}

// TestSymbolsMatchNaiveParse compares every function of this kernel, its first,
// a middle and its last byte, and random addresses, with a table made in the
// plainest way.
func TestSymbolsMatchNaiveParse(t *testing.T) {
	table, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSymbols(bytes.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	n := parseNaively(t, table)
	functions := 0
	for i, start := range n.addrs[:len(n.addrs)-1] {
		if len(n.names[start]) == 0 {
			continue
		}
		functions++
		size := n.addrs[i+1] - start
		if strings.Contains(n.names[start][0], " [") {
			// Where the last function of a module ends is not in the table,
			// and its page is all that it has for sure.
			size = min(size, usualFunction)
			if !n.sameModule(start, n.addrs[i+1]) && !strings.HasSuffix(n.names[start][0], " [bpf]") && !strings.Contains(n.names[start][0], " [__builtin__") {
				size = min(size, modulePage-start%modulePage)
			}
		}
		for _, offset := range []uint64{0, size / 2, size - 1} {
			n.compare(t, s, start+offset)
		}
	}
	if functions < 10_000 {
		t.Errorf("only %d functions: is this a kernel?", functions)
	}
	text, ok := address(table, "_text")
	etext, ok2 := address(table, "_etext")
	if !ok || !ok2 {
		t.Fatal("no _text or _etext")
	}
	random, addresses := rand.New(rand.NewPCG(1, 2)), 100_000
	if testing.Short() { // an emulated machine
		addresses = 10_000
	}
	for range addresses {
		n.compare(t, s, text+random.Uint64N(etext-text))
	}
	if got := s.Resolve(etext + sectionTail); got.Symbol != "" {
		t.Errorf("behind the kernel's text: %v", got)
	}
	t.Logf("%d functions", functions)
}

func address(table []byte, name string) (uint64, bool) {
	m := regexp.MustCompile(`(?m)^([0-9a-f]+) \S ` + name + `$`).FindSubmatch(table)
	if m == nil {
		return 0, false
	}
	addr, err := strconv.ParseUint(string(m[1]), 16, 64)
	return addr, err == nil
}

// TestSymbolsBudget holds the memory of this kernel's table to 35 bytes for a
// line of kallsyms: 4.1 MiB for 122,000.
func TestSymbolsBudget(t *testing.T) {
	table, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Count(table, []byte{'\n'})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, err := Host{}.LoadSymbols()
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	live := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d lines, %d symbols: %d KiB live, %d KiB allocated",
		lines, s.Len(), live>>10, (after.TotalAlloc-before.TotalAlloc)>>10)
	if live > int64(35*lines) {
		t.Errorf("%d bytes live for %d lines", live, lines)
	}
	// The collector must not take what is measured.
	runtime.KeepAlive(table)
	runtime.KeepAlive(s)
}

func TestSymbolsWithoutCapability(t *testing.T) {
	paranoid, err := Host{}.line("/proc/sys/kernel/perf_event_paranoid")
	if err != nil {
		t.Fatal(err)
	}
	restrict, err := Host{}.line("/proc/sys/kernel/kptr_restrict")
	if err != nil {
		t.Fatal(err)
	}
	if restrict == "0" && (paranoid == "0" || paranoid == "1" || paranoid == "-1") {
		t.Fatalf("kptr_restrict %s and perf_event_paranoid %s show addresses to everyone: nothing to test", restrict, paranoid)
	}
	aside(t, func() error {
		if err := dropCapabilities(unix.CAP_SYSLOG); err != nil {
			return err
		}
		_, err := Host{}.LoadSymbols()
		if !errors.Is(err, ErrAddressesHidden) || !strings.Contains(err.Error(), "CAP_SYSLOG") {
			return fmt.Errorf("error %v, want hidden addresses and CAP_SYSLOG", err)
		}
		c := Host{}.newChecker()
		if a := c.kernelAddresses(); a.State != StateNo || !strings.Contains(a.Fix, "CAP_SYSLOG") {
			return fmt.Errorf("check of addresses: %+v", a)
		}
		if a := c.capability(unix.CAP_SYSLOG)(); a.State != StateNo {
			return fmt.Errorf("check of the capability: %+v", a)
		}
		return nil
	})
}

// withTracefs mounts tracefs for one thread, in a mount namespace of its own,
// and calls f there with a host that has nothing but it.
func withTracefs(t *testing.T, f func(h Host, format []byte) error) {
	t.Helper()
	h := fakeHost(t, map[string]string{"/proc/self/mounts": "tracefs /tracing tracefs rw 0 0\n"})
	dir := h.path("/tracing")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	aside(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs: %w", err)
		}
		format, err := os.ReadFile(filepath.Join(dir, "events/skb/kfree_skb/format"))
		if err != nil {
			return err
		}
		return errors.Join(f(h, format), unix.Unmount(dir, 0))
	})
}

// TestReasonsMatchTracefs compares the names from BTF with those that the
// tracepoint prints, and the names that are read from there.
func TestReasonsMatchTracefs(t *testing.T) {
	b, err := Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	fromBTF := Host{}.LoadReasons(b)
	if args, err := KfreeSkbArgs(b.Spec); err == nil && args < 3 {
		withTracefs(t, func(_ Host, format []byte) error {
			if bytes.Contains(format, []byte("reason")) {
				return fmt.Errorf("no reasons in BTF, but in the tracepoint: %s", format)
			}
			return nil
		})
		return
	}
	if fromBTF.From() != FromBTF {
		t.Fatalf("from %s: %v", fromBTF.From(), fromBTF.Why())
	}
	withTracefs(t, func(h Host, format []byte) error {
		fromTracefs := h.LoadReasons(nil)
		if fromTracefs.From() != FromTracefs {
			return fmt.Errorf("from %s: %w", fromTracefs.From(), fromTracefs.Why())
		}
		entries := regexp.MustCompile(`\{ (\d+), "(\w+)" \}`).FindAllSubmatch(format, -1)
		if len(entries) < 50 {
			return fmt.Errorf("only %d reasons in the format", len(entries))
		}
		for _, e := range entries {
			value, err := strconv.ParseUint(string(e[1]), 10, 32)
			if err != nil {
				return err
			}
			want := string(e[2])
			if want == "MAX" {
				want = string(e[1])
			}
			for _, r := range []*Reasons{fromBTF, fromTracefs} {
				if got := r.Lookup(uint32(value)); got.Name != want || got.Subsystem != "core" {
					t.Errorf("%s: Lookup(%d) = %+v, want %s", r.From(), value, got, want)
				}
			}
		}
		return nil
	})
}

// TestKfreeSkbArgsMatchTracefs expects the arguments that BTF has where the
// tracepoint's record has their fields.
func TestKfreeSkbArgsMatchTracefs(t *testing.T) {
	b, err := Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	got, err := KfreeSkbArgs(b.Spec)
	if err != nil {
		t.Fatal(err)
	}
	withTracefs(t, func(_ Host, format []byte) error {
		want := 2
		for _, field := range []string{" reason;", " rx_sk;"} {
			if bytes.Contains(format, []byte(field)) {
				want++
			}
		}
		if got != want {
			return fmt.Errorf("%d arguments, want %d", got, want)
		}
		return nil
	})
}

// TestRawBTFMatchesBpftool compares the enums found by the end of their names
// with what bpftool prints.
func TestRawBTFMatchesBpftool(t *testing.T) {
	if _, err := exec.LookPath("bpftool"); err != nil {
		t.Fatal("bpftool is not installed (apt-get install bpftool; make test does)")
	}
	want := dropReasonsOfBpftool(t)
	blob, release, err := readAside(vmlinuxBTF)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	raw, err := parseRawBTF(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := raw.enums("drop_reason")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%d enums, bpftool finds %d: %v and %v", len(got), len(want), got, want)
	}
	if len(want) == 0 {
		testkit.SkipBefore(t, "5.17", "drop reasons", errors.New("bpftool finds none, as expected there"))
	}
}

// dropReasonsOfBpftool are the enums whose names end in drop_reason. bpftool can
// only print all types; its output is read once, and split no further than it must
// be: it is 12 MB, and an emulated machine is slow.
func dropReasonsOfBpftool(t *testing.T) (want [][]enumValue) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "btf")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	dump := exec.Command("bpftool", "btf", "dump", "file", vmlinuxBTF, "format", "raw")
	dump.Stdout = file
	if err := dump.Run(); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	value := regexp.MustCompile(`^\t'(\w+)' val=(\d+)$`)
	for {
		_, rest, found := bytes.Cut(out, []byte("] ENUM '"))
		if !found {
			return want
		}
		head, rest, _ := bytes.Cut(rest, []byte("\n"))
		if out = rest; !bytes.Contains(head, []byte("drop_reason' ")) {
			continue
		}
		want = append(want, nil)
		for line := range bytes.Lines(rest) {
			if line[0] == '[' {
				break
			}
			m := value.FindSubmatch(bytes.TrimSuffix(line, []byte("\n")))
			if m == nil {
				continue
			}
			n, err := strconv.ParseUint(string(m[2]), 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			want[len(want)-1] = append(want[len(want)-1], enumValue{string(m[1]), uint32(n)})
		}
	}
}

func TestIdentityLive(t *testing.T) {
	host, kern, err := Host{}.Identity()
	if err != nil {
		t.Fatal(err)
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	if want := unix.ByteSliceToString(uts.Release[:]); kern.Release != want {
		t.Errorf("release %q, want %q", kern.Release, want)
	}
	if want := unix.ByteSliceToString(uts.Version[:]); kern.Version != want {
		t.Errorf("version %q, want %q", kern.Version, want)
	}
	if cpus, err := ebpf.PossibleCPU(); err != nil || host.CPUs != cpus {
		t.Errorf("%d CPUs, want %d (%v)", host.CPUs, cpus, err)
	}
	if len(host.BootID) != 36 {
		t.Errorf("boot id %q", host.BootID)
	}
}
