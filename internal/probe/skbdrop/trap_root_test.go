//go:build root

package skbdrop

import (
	"encoding/binary"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// told adds up what p counted as dropped by hardware, by the words of the trap.
func told(t *testing.T, p *Probe) (sum map[Trap]uint64, keys map[Key]uint64) {
	t.Helper()
	sum, keys = map[Trap]uint64{}, map[Key]uint64{}
	p.Counts(func(k Key, n, bytes uint64) {
		if k.Direction != Hardware {
			return
		}
		trap, err := p.Trap(k)
		if err != nil {
			t.Error(err)
		}
		sum[trap] += n
		k.Location = 0
		keys[k] += bytes
	})
	return sum, keys
}

func traps(t testing.TB) map[string]Options {
	all := variants(t)
	for name, o := range all {
		o.Traps, o.twin = true, time.Hour
		all[name] = o
	}
	return all
}

// devlink's types of traps (include/uapi/linux/devlink.h).
const typeDrop, typeException, typeControl = 0, 1, 2

func TestHardwareDropsAreCounted(t *testing.T) {
	c := newCard(t)
	v4, v6 := frames()
	udp, icmp := c.packet(v4), c.packet(v6)
	multicast := c.trap("source_mac_is_multicast", "l2_drops", typeDrop, c.dev)
	again := c.trap("source_mac_is_multicast", "l2_drops", typeDrop, c.dev) // another driver
	tail := c.trap("tail_drop", "buffer_drops", typeDrop, c.dev)
	nowhere := c.trap("tail_drop", "other_drops", typeDrop, 0)
	ttl := c.trap("ttl_value_is_too_small", "l3_exceptions", typeException, c.dev)
	lldp := c.trap("lldp", "lldp", typeControl, c.dev)
	c.sync()
	for name, o := range traps(t) {
		t.Run(name, func(t *testing.T) {
			p := start(t, o)
			if on, err := p.Hardware(); !on || err != nil {
				t.Fatalf("hardware drops are not watched: %v", err)
			}
			prog := p.coll.Programs[skbdropProgTrapReportRaw]
			const n = 2000
			for range n {
				run(t, prog, 0, udp, multicast)
			}
			run(t, prog, 0, udp, again)
			run(t, prog, 0, icmp, tail)
			run(t, prog, 0, icmp, nowhere)
			run(t, prog, 0, udp, ttl)
			run(t, prog, 0, udp, lldp)
			sum, keys := told(t, p)
			want := map[Trap]uint64{
				{"source_mac_is_multicast", "l2_drops"}: n + 1, {"tail_drop", "buffer_drops"}: 1, {"tail_drop", "other_drops"}: 1,
			}
			if len(sum) != len(want) {
				t.Errorf("counted %v, want %v", sum, want)
			}
			for trap, n := range want {
				if sum[trap] != n {
					t.Errorf("counted %v, want %v", sum, want)
				}
			}
			first := Key{NetNS: fakeNetNS, Ifindex: 7, EtherType: 0x0800, IPProto: unix.IPPROTO_UDP, Direction: Hardware}
			second := Key{NetNS: fakeNetNS, Ifindex: 7, EtherType: 0x86dd, IPProto: unix.IPPROTO_ICMPV6, Direction: Hardware}
			if keys[first] != (n+1)*uint64(len(v4)) || keys[second] != uint64(len(v6)) {
				t.Errorf("bytes %v, want %d and %d", keys, (n+1)*len(v4), len(v6))
			}
			checkTrapSample(t, p, string(v4))
		})
	}
}

// checkTrapSample wants a sample of the UDP packet.
func checkTrapSample(t *testing.T, p *Probe, frame string) {
	t.Helper()
	n := 0
	if err := p.Samples(func(s *Sample) {
		if s.NetNS != fakeNetNS || s.EtherType != 0x0800 {
			return
		}
		n++
		if s.Direction != Hardware || s.Device() != "fake7" || s.Start != StartLink || string(s.Headers()) != frame ||
			int(s.Length) != len(frame) || s.SocketFrom != SocketNone {
			t.Errorf("sample %+v of device %q with % x", s.Key, s.Device(), s.Headers())
		}
	}); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Error("no sample")
	}
}

// TestMoreTrapsThanRoom: what has no slot, or no room for its name, is counted.
func TestMoreTrapsThanRoom(t *testing.T) {
	c := newCard(t)
	v4, _ := frames()
	udp := c.packet(v4)
	const meta = "devlink_trap_metadata"
	name := c.room(64)
	trap := c.trap("", "l2_drops", typeDrop, c.dev)
	c.put(trap+c.at(meta, "trap_name"), 8, name)
	p := start(t, traps(t)["best"])
	const n = trapSlots + 50
	for i := range n {
		c.text(name, "trap_"+string([]byte{byte('a' + i/26%26), byte('a' + i%26)}))
		c.sync()
		run(t, p.coll.Programs[skbdropProgTrapReportRaw], 0, udp, trap)
	}
	sum, _ := told(t, p)
	s := stats(t, p)
	if uint64(len(sum))+s.TableFull < n || s.TableFull < 50 || len(sum) < trapSlots/2 {
		t.Errorf("%d traps counted apart, table full %d; %d happened", len(sum), s.TableFull, n)
	}
}

// TestHardwareDropAndItsTwin frees real packets that were reported: messages
// that a socket holds are reported by a card, and dropped when it is closed.
func TestHardwareDropAndItsTwin(t *testing.T) {
	c := newCard(t)
	trap := c.trap("ingress_vlan_filter", "l2_drops", typeDrop, c.dev)
	c.sync()
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	peeked, at := peeker(t)
	for name, o := range traps(t) {
		t.Run(name, func(t *testing.T) {
			p := start(t, o)
			prog := p.coll.Programs[skbdropProgTrapReportRaw]
			report := func(skb uint64) { run(t, prog, 0, skb, trap) }
			closed := func(what string, wantHardware, wantKernel uint64, f func(skb uint64)) {
				t.Helper()
				unread(t, ns, peeked, at, f)
				var hardware, software uint64
				p.Counts(func(k Key, n, _ uint64) {
					switch {
					case k.Direction == Hardware && k.NetNS == fakeNetNS:
						hardware += n
					case k.NetNS == ns.Inode():
						software += n
					}
				})
				if hardware != wantHardware || software != wantKernel {
					t.Errorf("%s: %d by hardware and %d by the kernel, want %d and %d", what, hardware, software, wantHardware, wantKernel)
				}
			}
			closed("reported by none", 0, 1, func(uint64) {})
			closed("reported and freed", 1, 0, report)
			closed("reported before", 0, 1, func(uint64) {})
			closed("another was reported", 1, 1, func(skb uint64) { report(skb + 1<<20) })
			closed("reported, and long ago", 1, 1, func(skb uint64) {
				report(skb)
				for range trapTicks {
					if err := p.Tick(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
	t.Run("too late", func(t *testing.T) {
		o := best(t)
		o.Traps, o.twin = true, time.Nanosecond
		p := start(t, o)
		unread(t, ns, peeked, at, func(skb uint64) { run(t, p.coll.Programs[skbdropProgTrapReportRaw], 0, skb, trap) })
		if n, _ := sums(p, ns.Inode()); n != 1 {
			t.Errorf("%d drops by the kernel, want 1", n)
		}
	})
}

// TestTwinIsTheSamePacket: an skb and its buffer are used again at once.
func TestTwinIsTheSamePacket(t *testing.T) {
	c := newCard(t)
	v4, _ := frames()
	udp := c.packet(v4)
	trap := c.trap("blackhole_route", "l3_drops", typeDrop, c.dev)
	o := traps(t)["raw_tracepoint"]
	p := start(t, o)
	const place = 0xffffffff_12345670
	for i, change := range []struct {
		what string
		byte int // of the packet
		want uint64
	}{{"same", -1, 0}, {"port", 37, 1}, {"address", 33, 1}, {"buffer", -2, 1}} {
		c.sync()
		run(t, p.coll.Programs[skbdropProgTrapReportRaw], 0, udp, trap)
		switch {
		case change.byte >= 0:
			head := binary.NativeEndian.Uint64(c.b[udp-c.base+c.at("sk_buff", "data"):])
			c.b[int(head-c.base)+change.byte] ^= 1
		case change.byte == -2:
			c.put(udp+c.at("sk_buff", "head"), 8, c.room(1024))
		}
		c.sync()
		run(t, p.prog, udp, place+uint64(i), 2, 0)
		var got uint64
		p.Counts(func(k Key, n, _ uint64) {
			if k.Location == place+uint64(i) {
				got += n
			}
		})
		if got != change.want {
			t.Errorf("%s: freed by the kernel %d times, want %d", change.what, got, change.want)
		}
	}
}

// TestWithoutTheTracepoint: on a kernel that hardware cannot tell anything, all
// else is counted and the reason known.
func TestWithoutTheTracepoint(t *testing.T) {
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	has, err := types.HasTrapReport()
	if err != nil {
		t.Fatal(err)
	}
	storm := testkit.NewStorm(t, 1, testkit.StormPackets(1)...)
	o := best(t)
	o.Traps = true
	p := start(t, o)
	if on, err := p.Hardware(); on != has || (err == nil) != has {
		t.Errorf("watched %v, %v; the kernel has it: %v", on, err, has)
	}
	truth, err := storm.Run(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Detach(); err != nil {
		t.Fatal(err)
	}
	got, _ := sums(p, storm.NetNS())
	if want := truth.Drops + truth.TestPackets; got+stats(t, p).Unattributed != want {
		t.Errorf("counted %d, happened %d", got, want)
	}
}

// trapTicks is TRAP_TICKS of skbdrop.bpf.c.
const trapTicks = 3

// peeker attaches a program that keeps the skb of the last message that this
// thread peeked at, for as long as its ID is in the map of the first result.
func peeker(t *testing.T) (thread, skb *ebpf.Map) {
	t.Helper()
	for _, m := range []**ebpf.Map{&thread, &skb} {
		var err error
		if *m, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*m).Close() })
	}
	lookup := func(m *ebpf.Map) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, 0, asm.Word), asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, -4),
			asm.LoadMapPtr(asm.R1, m.FD()), asm.FnMapLookupElem.Call(), asm.JEq.Imm(asm.R0, 0, "end"),
		}
	}
	ins := asm.Instructions{asm.LoadMem(asm.R6, asm.R1, 0, asm.DWord), asm.FnGetCurrentPidTgid.Call(), asm.Mov.Reg32(asm.R7, asm.R0)}
	ins = append(ins, lookup(thread)...)
	ins = append(ins, asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), asm.JNE.Reg(asm.R1, asm.R7, "end"))
	ins = append(ins, lookup(skb)...)
	ins = append(ins, asm.StoreMem(asm.R0, 0, asm.R6, asm.DWord), asm.Mov.Imm(asm.R0, 0).WithSymbol("end"), asm.Return())
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: ins})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { prog.Close() })
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "skb_copy_datagram_iovec", Program: prog})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return thread, skb
}

// unread closes on CPU 0, in a namespace, a socket that holds a message, after
// f was called with the message's skb.
func unread(t *testing.T, ns *netlab.Namespace, thread, at *ebpf.Map, f func(skb uint64)) {
	t.Helper()
	err := ns.Do(func() error {
		pin(t, 0)
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socketpair", err)
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		if _, err := unix.Write(fds[0], []byte("unread")); err != nil {
			return os.NewSyscallError("write", err)
		}
		if err := thread.Put(uint32(0), uint64(unix.Gettid())); err != nil {
			return err
		}
		if _, _, err := unix.Recvfrom(fds[1], make([]byte, 8), unix.MSG_PEEK); err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		var skb uint64
		if err := at.Lookup(uint32(0), &skb); err != nil {
			return err
		}
		f(skb)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
