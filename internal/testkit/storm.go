package testkit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

const (
	// stormFan is how many devices share one broadcast, that is, how many
	// drops one run of the program makes.
	stormFan = 64
	// stormCall bounds the drops of one system call, so that a context is
	// looked at several times a second.
	stormCall = 1 << 20
	// stormMTU is the least that IPv4 allows. A device takes 18 bytes more
	// for the Ethernet header and a VLAN tag, and drops what is longer.
	stormMTU = 68
)

// Storm makes drops as fast as a CPU can, several million a second, with a
// truth that does not come from the drops' tracepoint.
//
// A BPF program, test-run in the kernel, sends a broadcast frame to a macvlan
// device. The kernel hands a clone to each other macvlan device of the same
// lower device, and the frame to the lower one's peer. All of those have an
// MTU below the frame's length: the kernel counts rx_dropped and frees the
// skb (drivers/net/macvlan.c, macvlan_broadcast; net/core/dev.c,
// __dev_forward_skb2). That takes half the time of a bpf_clone_redirect per
// drop, which copies the packet's head each time.
//
// The clones keep the device that was sent to: their drops carry that device,
// its namespace, the ethertype and the IP protocol of the packet. One drop in
// 64 has the lower device.
//
// Each test run also frees the packet it was made with: see StormTruth.
type Storm struct {
	ns      *netlab.Namespace
	devices []int
	packets [][]byte
	prog    *ebpf.Program
}

// StormTruth is what a storm did.
type StormTruth struct {
	// Drops is how many packets the devices count as dropped. It was checked
	// to be the number of packets that were handed to them.
	Drops uint64
	// TestPackets is how many further packets were freed in the namespace by
	// kfree_skb in bpf_prog_test_run_skb: one for each system call.
	TestPackets uint64
	// Elapsed is the time that it took and CPU the processor time in it,
	// which is less where others used the processor too.
	Elapsed, CPU time.Duration
}

// NewStorm prepares a storm whose drops have devices × packets keys, and one
// more for each packet. There are at most 64 devices. A packet is a broadcast
// Ethernet frame of more than 86 bytes: StormPackets makes some. NewStorm
// drops packets to try itself out, so it has to come before anything counts.
// The test's end removes everything.
func NewStorm(t testing.TB, devices int, packets ...[]byte) *Storm {
	t.Helper()
	NeedRoot(t)
	if devices < 1 || devices > stormFan || len(packets) == 0 {
		t.Fatalf("storm of %d devices and %d packets: 1 to %d devices and a packet are needed", devices, len(packets), stormFan)
	}
	s := &Storm{packets: packets}
	var err error
	if s.ns, err = netlab.New(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.addDevices(); err != nil {
		t.Fatal(err)
	}
	s.devices = s.devices[:devices]
	if s.prog, err = ebpf.NewProgram(stormProgram()); err != nil {
		t.Fatal(fmt.Errorf("load storm program: %w", err))
	}
	t.Cleanup(func() {
		if err := s.prog.Close(); err != nil {
			t.Error(err)
		}
	})
	// The library probes for test runs the first time, with a packet of its
	// own: that must not happen during a measurement.
	if _, err := s.Run(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	return s
}

// NetNS is the inode of the namespace in which the drops happen.
func (s *Storm) NetNS() uint32 { return s.ns.Inode() }

// Devices are the indices, in that namespace, of the devices that the drops
// carry.
func (s *Storm) Devices() []int { return s.devices }

// addDevices adds a veth pair and the macvlan devices on its first end.
func (s *Storm) addDevices() error {
	links := s.ns.Links()
	lower := netlink.NewLinkAttrs()
	lower.Name = "storm"
	if err := links.LinkAdd(&netlink.Veth{LinkAttrs: lower, PeerName: "peer", PeerMTU: stormMTU}); err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	var parent int
	// The one that comes up last has its carrier and can send at once; the
	// peer only receives.
	for _, name := range []string{"peer", "storm"} {
		link, err := links.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find device %s: %w", name, err)
		}
		if err := links.LinkSetUp(link); err != nil {
			return fmt.Errorf("set device %s up: %w", name, err)
		}
		if name == lower.Name {
			parent = link.Attrs().Index
		}
	}
	for i := range stormFan {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprintf("storm%d", i)
		attrs.ParentIndex = parent
		attrs.MTU = stormMTU
		attrs.Flags = net.FlagUp
		link := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
		if err := links.LinkAdd(link); err != nil {
			return fmt.Errorf("add macvlan %s: %w", attrs.Name, err)
		}
		s.devices = append(s.devices, link.Index)
	}
	return nil
}

// stormProgram is, in C:
//
//	bpf_clone_redirect(skb, skb->ifindex, 0);
//	return 0;
func stormProgram() *ebpf.ProgramSpec {
	const ifindexOffset = 40 // struct __sk_buff, include/uapi/linux/bpf.h
	return &ebpf.ProgramSpec{
		Name: "storm", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{
			asm.LoadMem(asm.R2, asm.R1, ifindexOffset, asm.Word),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnCloneRedirect.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	}
}

// Run makes at least n drops on one CPU, key after key, as many of each, and
// says how many, also when ctx ends it early. A Storm runs once at a time;
// several may run together.
func (s *Storm) Run(ctx context.Context, n uint64) (StormTruth, error) {
	var truth StormTruth
	before, err := s.dropped()
	if err != nil {
		return truth, err
	}
	var handed uint64
	err = s.ns.Do(func() error {
		if err := blockSignals(); err != nil {
			return err
		}
		start, cpu := time.Now(), threadTime()
		defer func() {
			truth.Elapsed = time.Since(start)
			truth.CPU = threadTime() - cpu
		}()
		handed, truth.TestPackets, err = s.runAll(ctx, n)
		return err
	})
	after, derr := s.dropped()
	if err = errors.Join(err, derr); err != nil {
		err = fmt.Errorf("storm: %w", err)
	}
	if derr != nil {
		return truth, err
	}
	truth.Drops = after - before
	if truth.Drops != handed {
		err = errors.Join(err, fmt.Errorf(
			"storm: the devices count %d drops of the %d packets that were handed to them", truth.Drops, handed))
	}
	return truth, err
}

// blockSignals keeps signals away from the thread, which Do ends afterwards: a
// signal would end a test run early.
func blockSignals() error {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, nil); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	return nil
}

// threadTime is the processor time of the calling thread.
func threadTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		return 0 // cannot happen: the clock is in Linux since 2.6.12
	}
	return time.Duration(ts.Nano())
}

// runAll returns how many packets were handed to devices, in how many calls.
func (s *Storm) runAll(ctx context.Context, n uint64) (handed, calls uint64, err error) {
	keys := uint64(len(s.devices) * len(s.packets))
	broadcasts := (n + keys*stormFan - 1) / (keys * stormFan)
	for _, device := range s.devices {
		for _, packet := range s.packets {
			for left := broadcasts; left > 0; {
				if err := ctx.Err(); err != nil {
					return handed, calls, err
				}
				count := min(left, stormCall/stormFan)
				// The first fields of struct __sk_buff; all but ifindex must be 0.
				var skb [11]uint32
				skb[10] = uint32(device)
				_, err := s.prog.Run(&ebpf.RunOptions{Data: packet, Context: skb, Repeat: uint32(count)})
				if err != nil {
					return handed, calls, fmt.Errorf("test-run storm program: %w", err)
				}
				calls++
				handed += count * stormFan
				left -= count
			}
		}
	}
	return handed, calls, nil
}

// dropped sums what the kernel counts in __dev_forward_skb2. A macvlan device
// counts a packet that it could not receive once more itself, and shows that
// as rx_errors and in rx_dropped (drivers/net/macvlan.c,
// macvlan_dev_get_stats64).
func (s *Storm) dropped() (sum uint64, err error) {
	links, err := s.ns.Links().LinkList()
	if err != nil {
		return 0, fmt.Errorf("read statistics of devices: %w", err)
	}
	for _, link := range links {
		stats := link.Attrs().Statistics
		if stats == nil {
			return 0, fmt.Errorf("read statistics of device %s: there are none", link.Attrs().Name)
		}
		sum += stats.RxDropped - stats.RxErrors
	}
	return sum, nil
}

// StormPackets makes n packets for a storm, at most 64,000, no two with the
// same ethertype and IP protocol: the first 256 are IPv4, the next 256 IPv6,
// and then each has an ethertype of its own.
func StormPackets(n int) [][]byte {
	const size = 128
	var frames [][]byte
	etherType := uint16(0x0600) // below are lengths, not types
	for i := range n {
		frame := make([]byte, size)
		copy(frame, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1})
		switch {
		case i < 256:
			binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
			ipv4(frame[14:], byte(i))
		case i < 512:
			binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
			ipv6(frame[14:], byte(i-256))
		default:
			for isSpecial(etherType) {
				etherType++
			}
			binary.BigEndian.PutUint16(frame[12:], etherType)
			etherType++
		}
		frames = append(frames, frame)
	}
	return frames
}

// isSpecial says whether an ethertype was used already or makes the kernel
// look further into the frame.
func isSpecial(etherType uint16) bool {
	switch etherType {
	case unix.ETH_P_IP, unix.ETH_P_IPV6, unix.ETH_P_ARP, unix.ETH_P_8021Q, unix.ETH_P_8021AD:
		return true
	}
	return false
}

func ipv4(b []byte, proto byte) {
	b[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	b[8], b[9] = 64, proto
	copy(b[12:], []byte{192, 0, 2, 2})
	copy(b[16:], []byte{192, 0, 2, 1})
}

func ipv6(b []byte, next byte) {
	b[0] = 6 << 4
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	b[6], b[7] = next, 64
	copy(b[8:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 2})
	copy(b[24:], []byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
}
