//go:build root

package skbdrop

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// attachEmpty attaches a program that does nothing.
func attachEmpty(t testing.TB) func() {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "kfree_skb", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := link.AttachTracing(link.TracingOptions{Program: prog})
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Close(); prog.Close() }
}

// TestNestedDrops makes a CPU drop packets in softirq while it is dropping
// others in process context. The kernel lets the program see only one of two
// nested drops; the other must appear as unattributed, or be counted where
// the program's own tables allow it.
//
// The process context is a socket pair that is closed with unread messages
// (net/unix/af_unix.c, unix_release_sock: interrupts stay on). The softirq is
// RPS: the other CPU receives on a veth pair and hands every packet to this
// one.
//
// A kernel may keep BPF from seeing what happens while certain tasks run, and
// a softirq may interrupt any. So there are two truths: all drops, by the
// socket pairs and Udp NoPorts; and those that happened while the loop on
// CPU 0 ran, or the thread that takes over softirqs there, by the kernel's own
// counters of the tracepoint for those two. What is counted lies between the
// truths, and they lie close together.
func TestNestedDrops(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Fatal("this test needs two CPUs: one to interrupt the other")
	}
	host, peer := rpsPair(t)
	receiver := closedPort(t, peer)
	event := tracepointID(t, host)
	noPorts := func() uint64 { return snmp(t, host, "Udp", "NoPorts") }
	long := time.Second / 2
	if testing.Short() { // an emulated machine
		long = time.Second
	}
	for _, name := range []string{"best", "nested"} {
		o := variants(t)[name]
		t.Run(name, func(t *testing.T) {
			const attempts = 24 // an emulated machine takes few interrupts, most of them elsewhere
			for range attempts {
				before := noPorts()
				p := start(t, o)
				closed, loop, ksoftirqd := hammer(t, receiver, event, long)
				if err := p.Detach(); err != nil {
					t.Fatal(err)
				}
				got := nestedCounts(t, p, host.Inode())
				if loop <= closed {
					t.Logf("the loop saw %d drops and made %d of them: no softirq interrupted it", loop, closed)
					continue
				}
				got.check(t, noPorts()-before, closed, loop, ksoftirqd)
				if t.Failed() || !o.Guarded || got.Unattributed > 0 {
					return
				}
			}
			t.Error("no drop was nested: the test shows nothing")
		})
	}
}

// nested is what a probe says of drops in both ways.
type nested struct {
	Stats
	softirq, process uint64
}

// check holds it between all drops, softirq and process, and those that
// happened while the loop or ksoftirqd ran.
func (n nested) check(t *testing.T, softirq, process, loop, ksoftirqd uint64) {
	t.Helper()
	if n.TableFull != 0 {
		t.Fatalf("this host drops %d packets of other kinds than fit the table: nothing can be compared", n.TableFull)
	}
	all, ours := softirq+process, loop+ksoftirqd
	t.Logf("softirq %d of %d, process %d of %d, unattributed %d; %d while the loop ran, %d in ksoftirqd",
		n.softirq, softirq, n.process, process, n.Unattributed, loop, ksoftirqd)
	most := all / 100 * 99
	if testing.Short() { // an emulated machine drops less, but as much after the loop's end
		most = all / 100 * 97
	}
	if ours < most {
		t.Fatalf("only %d of %d drops happened while the loop or ksoftirqd ran: the test shows nothing", ours, all)
	}
	if got := n.softirq + n.process + n.Unattributed; got < min(ours, all) || got > all+100 {
		t.Errorf("counted %d + %d, unattributed %d: %d; happened %d, at least %d",
			n.softirq, n.process, n.Unattributed, got, all, ours)
	}
}

// nestedCounts takes the drops of closed UDP ports in a namespace, and of
// unread messages: the place outside of any device that dropped most.
func nestedCounts(t *testing.T, p *Probe, netns uint32) nested {
	t.Helper()
	n := nested{Stats: stats(t, p)}
	places := map[uint64]uint64{}
	p.Counts(func(k Key, drops, _ uint64) {
		switch {
		case k.NetNS == netns && k.IPProto == unix.IPPROTO_UDP:
			n.softirq += drops
		case k.EtherType == 0:
			places[k.Location] += drops
		}
	})
	for _, drops := range places {
		n.process = max(n.process, drops)
	}
	return n
}

// rpsPair joins two namespaces; what host receives is handled by CPU 0.
func rpsPair(t *testing.T) (host, peer *netlab.Namespace) {
	t.Helper()
	testkit.NeedRoot(t)
	for _, ns := range []**netlab.Namespace{&host, &peer} {
		var err error
		if *ns, err = netlab.New(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*ns).Close() })
	}
	if err := netlab.Veth(
		netlab.End{NS: host, Name: "rps0", Addr: netip.MustParsePrefix("192.0.2.1/24")},
		netlab.End{NS: peer, Name: "rps1", Addr: netip.MustParsePrefix("192.0.2.2/24")},
	); err != nil {
		t.Fatal(err)
	}
	withMount(t, host, "sysfs", func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "class/net/rps0/queues/rx-0/rps_cpus"), []byte("1"), 0)
	})
	return host, peer
}

// withMount runs f on a thread of a namespace that sees a file system of this
// type mounted on dir, and nobody else does. (sysfs shows the devices of the
// namespace that it was mounted in.)
func withMount(t *testing.T, ns *netlab.Namespace, fstype string, f func(dir string) error) {
	t.Helper()
	dir := t.TempDir()
	err := ns.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		if err := unix.Mount(fstype, dir, fstype, 0, ""); err != nil {
			return os.NewSyscallError("mount", err)
		}
		return f(dir)
	})
	if err != nil {
		t.Fatalf("with %s mounted: %v", fstype, err)
	}
}

// tracepointID is the number of skb:kfree_skb for perf_event_open(2).
func tracepointID(t *testing.T, ns *netlab.Namespace) (id uint64) {
	t.Helper()
	withMount(t, ns, "tracefs", func(dir string) error {
		b, err := os.ReadFile(filepath.Join(dir, "events/skb/kfree_skb/id"))
		if err != nil {
			return err
		}
		id, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
		return err
	})
	return id
}

// closedPort returns a socket of peer to a port of host that is closed.
func closedPort(t *testing.T, peer *netlab.Namespace) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := peer.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// pin binds the calling goroutine to a CPU for the rest of its life.
func pin(t *testing.T, cpu int) {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Errorf("pin to CPU %d: %v", cpu, err)
	}
}

// ksoftirqd is the thread that takes over softirqs on CPU 0. Before 6.5 they
// all wait for it once it is awake (kernel/softirq.c, ksoftirqd_running). It
// is 0 where a PID namespace hides it.
func ksoftirqd(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && string(b) == "ksoftirqd/0\n" {
			tid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return tid
		}
	}
	return 0
}

// countDrops counts the events of a thread; 0 is the calling one.
func countDrops(event uint64, tid int) (read func() (uint64, error), err error) {
	fd, err := unix.PerfEventOpen(&unix.PerfEventAttr{
		Type: unix.PERF_TYPE_TRACEPOINT, Config: event, Size: unix.PERF_ATTR_SIZE_VER0,
	}, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("perf_event_open", err)
	}
	return func() (uint64, error) {
		defer unix.Close(fd)
		var count [8]byte
		_, err := unix.Read(fd, count[:])
		return binary.NativeEndian.Uint64(count[:]), os.NewSyscallError("read", err)
	}, nil
}

// hammer drops in both ways for d. It returns how many messages of socket
// pairs were dropped, and how many drops happened while its loop on CPU 0 ran
// or ksoftirqd did: nearly all, because that loop runs ahead of all other
// tasks, nothing stops it for a collection, and packets are sent only while it
// goes round.
func hammer(t *testing.T, c *net.UDPConn, event uint64, d time.Duration) (closed, loop, late uint64) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	softirqs := ksoftirqd(t)
	var stop atomic.Bool
	var rounds atomic.Uint64
	var wg sync.WaitGroup
	wg.Go(func() {
		pin(t, 1)
		to := netip.MustParseAddrPort("192.0.2.1:9")
		data := []byte("x")
		for !stop.Load() {
			now := rounds.Load()
			for range 64 { // far from a full backlog
				if _, err := c.WriteToUDPAddrPort(data, to); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
			for rounds.Load() < now+2 && !stop.Load() {
				runtime.Gosched()
			}
		}
	})
	wg.Go(func() {
		pin(t, 0)
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1,
		}, 0); err != nil {
			t.Errorf("set real-time priority: %v", err)
		}
		defer stop.Store(true)
		own, err := countDrops(event, 0)
		if err != nil {
			t.Errorf("count the tracepoint for this thread: %v", err)
			return
		}
		other := func() (uint64, error) { return 0, nil }
		if softirqs != 0 {
			if other, err = countDrops(event, softirqs); err != nil {
				t.Errorf("count the tracepoint for ksoftirqd: %v", err)
				return
			}
		}
		for end := time.Now().Add(d); time.Now().Before(end); rounds.Add(1) {
			n, err := closeUnread()
			if err != nil {
				t.Error(err)
				break
			}
			closed += n
		}
		stop.Store(true)
		time.Sleep(200 * time.Millisecond) // the last packets under way
		if loop, err = own(); err != nil {
			t.Errorf("count of this thread: %v", err)
		}
		if late, err = other(); err != nil {
			t.Errorf("count of ksoftirqd: %v", err)
		}
	})
	wg.Wait()
	return closed, loop, late
}

// closeUnread closes a socket that holds messages nobody has read.
func closeUnread() (n uint64, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socketpair", err)
	}
	for {
		if _, err := unix.Write(fds[0], []byte("unread")); err == unix.EAGAIN {
			break
		} else if err != nil {
			return 0, os.NewSyscallError("write", err)
		}
		n++
	}
	unix.Close(fds[1])
	unix.Close(fds[0])
	return n, nil
}

// snmp reads a value of /proc/net/snmp of a namespace.
func snmp(t *testing.T, ns *netlab.Namespace, table, field string) uint64 {
	t.Helper()
	f, err := ns.Open("snmp")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 16<<10)
	n, err := f.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for l := range strings.Lines(string(b[:n])) {
		f := strings.Fields(l)
		if f[0] != table+":" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i, name := range names {
			if name == field {
				v, err := strconv.ParseUint(f[i], 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
	}
	t.Fatalf("no %s %s in /proc/net/snmp", table, field)
	return 0
}
