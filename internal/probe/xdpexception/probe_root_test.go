//go:build root

package xdpexception

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// Verdicts of include/uapi/linux/bpf.h, where they are numbered.
const xdpAborted, xdpDrop, xdpPass, invalid = 0, 1, 2, 7

func options(t testing.TB) Options {
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	actions, err := types.XDPActions()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Actions: len(actions), BTF: types.Cache}
}

// wire is a veth pair; what is sent on one end comes in at the other, "in",
// where a program may be attached.
type wire struct {
	t    testing.TB
	ns   *netlab.Namespace
	in   netlink.Link
	sock int
	runs *ebpf.Map // of the program
}

func newWire(t testing.TB, ns *netlab.Namespace) *wire {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "out"
	w := &wire{t: t, ns: ns}
	w.must(ns.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "in"}))
	for _, name := range []string{"out", "in"} {
		l, err := ns.Link(name)
		w.must(err)
		w.must(ns.Links().LinkSetUp(l))
		w.in = l
	}
	out, err := ns.Link("out")
	w.must(err)
	w.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	w.must(err)
	t.Cleanup(func() { unix.Close(w.sock) })
	w.must(unix.Bind(w.sock, &unix.SockaddrLinklayer{Ifindex: out.Attrs().Index}))
	w.runs, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	w.must(err)
	t.Cleanup(func() { w.runs.Close() })
	return w
}

func (w *wire) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// attach has a program count what comes in and end with last. It returns its id.
func (w *wire) attach(flags int, last ...asm.Instruction) uint32 {
	w.t.Helper()
	code := asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, w.runs.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "last"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R0, asm.R1, asm.DWord),
	}
	last[0] = last[0].WithSymbol("last")
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL", Instructions: append(append(code, last...), asm.Return()),
	})
	w.must(err)
	defer prog.Close() // the device keeps it
	w.must(w.ns.Do(func() error { return netlink.LinkSetXdpFdWithFlags(w.in, prog.FD(), flags) }))
	info, err := prog.Info()
	w.must(err)
	id, _ := info.ID()
	return uint32(id)
}

func (w *wire) detach(flags int) {
	w.t.Helper()
	w.must(w.ns.Do(func() error { return netlink.LinkSetXdpFdWithFlags(w.in, -1, flags) }))
}

func returns(v int32) []asm.Instruction { return []asm.Instruction{asm.Mov.Imm(asm.R0, v)} }

// redirects sends each packet to a device that does not exist.
func redirects() []asm.Instruction {
	return []asm.Instruction{asm.Mov.Imm(asm.R1, 9999), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call()}
}

// ran is how often programs that were attached ran.
func (w *wire) ran() (n uint64) {
	w.t.Helper()
	w.must(w.runs.Lookup(uint32(0), &n))
	return n
}

// send has n packets come in and waits until the program has seen each.
func (w *wire) send(n int) {
	w.t.Helper()
	frame := make([]byte, 100)
	binary.BigEndian.PutUint16(frame[12:], 0x88b5) // for experiments
	copy(frame, w.in.Attrs().HardwareAddr)
	want := w.ran() + uint64(n)
	for i := range n {
		for _, err := unix.Write(w.sock, frame); err != nil; _, err = unix.Write(w.sock, frame) {
			if err != unix.ENOBUFS && err != unix.EINTR {
				w.t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if i%64 == 63 { // no more than the queue of a CPU holds
			w.await("runs of the program", w.ran, want-uint64(n-1-i))
		}
	}
	w.await("runs of the program", w.ran, want)
}

func (w *wire) await(what string, read func() uint64, want uint64) {
	w.t.Helper()
	for end := time.Now().Add(20 * time.Second); read() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: %d after 20 s, want %d", what, read(), want)
		}
	}
}

func counts(t testing.TB, p *Probe, ns *netlab.Namespace) map[Key]uint64 {
	t.Helper()
	got := map[Key]uint64{}
	err := p.Counts(func(c Count) {
		if c.NetNS != ns.Inode() {
			return
		}
		if c.Device != "in" {
			t.Errorf("device %q, want in", c.Device)
		}
		got[c.Key] += c.Packets
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func sum(m map[Key]uint64) (n uint64) {
	for _, v := range m {
		n += v
	}
	return n
}

// TestCountsEachException holds what is counted against the number of times that
// the program ran; both ways in which a device runs one.
func TestCountsEachException(t *testing.T) {
	o := options(t)
	n := 500
	if testing.Short() {
		n = 100
	}
	for mode, flags := range map[string]int{"generic": unix.XDP_FLAGS_SKB_MODE, "driver": unix.XDP_FLAGS_DRV_MODE} {
		t.Run(mode, func(t *testing.T) {
			testkit.InNetNS(t, func(ns *netlab.Namespace) {
				w := newWire(t, ns)
				p, err := Open(o)
				w.must(err)
				defer p.Close()
				want := map[Key]uint64{}
				for i, c := range []struct {
					last []asm.Instruction
					key  *Key // nil: none
				}{
					{returns(xdpDrop), nil},
					{returns(xdpAborted), &Key{Action: xdpAborted}},
					{returns(xdpPass), nil},
					{returns(invalid), &Key{Action: uint32(o.Actions)}},
					{returns(-1), &Key{Action: uint32(o.Actions)}},
					{redirects(), &Key{Errno: uint32(unix.EINVAL)}},
				} {
					prog := w.attach(flags, c.last...)
					w.send(n + i)
					if c.key != nil {
						k := *c.key
						k.NetNS, k.Ifindex, k.Prog = ns.Inode(), uint32(w.in.Attrs().Index), prog
						want[k] = uint64(n + i)
					}
					w.await("packets", func() uint64 { return sum(counts(t, p, ns)) }, sum(want))
					w.detach(flags)
				}
				w.must(p.Detach())
				if got := counts(t, p, ns); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("counted %v, want %v", got, want)
				}
				if missed, err := p.Missed(); err != nil || missed != 0 {
					t.Errorf("missed %d, %v", missed, err)
				}
			})
		})
	}
}

// TestTableFull: what has no entry is missed, and counted.
func TestTableFull(t *testing.T) {
	o := options(t)
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		w := newWire(t, ns)
		p, err := Open(o)
		w.must(err)
		defer p.Close()
		failures := p.coll.Maps[xdpexceptionMapFailures]
		for i := range failures.MaxEntries() {
			w.must(failures.Put(xdpexceptionFailureKey{Netns: 1, Ifindex: i}, xdpexceptionFailure{}))
		}
		w.attach(unix.XDP_FLAGS_SKB_MODE, returns(xdpAborted)...)
		w.send(100)
		w.await("missed", func() uint64 {
			n, err := p.Missed()
			w.must(err)
			return n
		}, 100)
	})
}

// TestDetached: nothing is counted, and nothing is left, after Close.
func TestDetached(t *testing.T) {
	o := options(t)
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		w := newWire(t, ns)
		p, err := Open(o)
		w.must(err)
		w.attach(unix.XDP_FLAGS_SKB_MODE, returns(xdpAborted)...)
		w.must(p.Detach())
		w.send(100)
		if got := counts(t, p, ns); len(got) != 0 {
			t.Errorf("counted %v after Detach", got)
		}
		w.must(p.Close())
		w.must(p.Close())
	})
}

func TestOpenNeedsActions(t *testing.T) {
	if p, err := Open(Options{}); err == nil {
		p.Close()
		t.Error("opened without any action")
	}
}

// BenchmarkOpen is what a session begins with.
func BenchmarkOpen(b *testing.B) {
	o := options(b)
	for b.Loop() {
		p, err := Open(o)
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPacket sends packets that a program drops on purpose, which must cost
// the same with and without the probe, and such that it fails on.
func BenchmarkPacket(b *testing.B) {
	for _, c := range []struct {
		name    string
		verdict int32
		watch   bool
	}{
		{"drop", xdpDrop, false},
		{"drop watched", xdpDrop, true},
		{"aborted", xdpAborted, false},
		{"aborted watched", xdpAborted, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			o := options(b)
			testkit.InNetNS(b, func(ns *netlab.Namespace) {
				w := newWire(b, ns)
				if c.watch {
					p, err := Open(o)
					w.must(err)
					defer p.Close()
				}
				w.attach(unix.XDP_FLAGS_SKB_MODE, returns(c.verdict)...)
				frame := make([]byte, 100)
				binary.BigEndian.PutUint16(frame[12:], 0x88b5)
				for b.Loop() {
					_, _ = unix.Write(w.sock, frame)
				}
			})
		})
	}
}
