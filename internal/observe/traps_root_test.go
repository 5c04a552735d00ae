//go:build root

package observe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// The tests of this file each hold one trap that other tools fell into.

// watched runs f while the given namespaces are watched.
func watched(t *testing.T, f func(), namespaces ...*netlab.Namespace) record.Observation {
	t.Helper()
	var filter Filter
	for _, ns := range namespaces {
		filter.NetNS = append(filter.NetNS, fmt.Sprint(ns.Inode()))
	}
	s, err := Start(Options{Interval: 100 * time.Millisecond, Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := record.NewCollector(s.Header())
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, func(iv record.Interval) error { c.Add(iv); return nil }) }()
	f()
	time.Sleep(200 * time.Millisecond) // what is under way in a softirq
	stop()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("still watching a minute after the end was asked for")
	}
	return c.Finish(s.Trailer())
}

func namespace(t *testing.T) *netlab.Namespace {
	t.Helper()
	testkit.NeedRoot(t)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// pair joins two namespaces: 192.0.2.1 on device in the first, 192.0.2.2 on
// peer0 in the second.
func pair(t *testing.T, device string) (host, peer *netlab.Namespace) {
	t.Helper()
	host, peer = namespace(t), namespace(t)
	if err := netlab.Veth(
		netlab.End{NS: host, Name: device, Addr: netip.MustParsePrefix("192.0.2.1/24")},
		netlab.End{NS: peer, Name: "peer0", Addr: netip.MustParsePrefix("192.0.2.2/24")},
	); err != nil {
		t.Fatal(err)
	}
	return host, peer
}

// udp sends n datagrams out of a namespace. Those that the kernel refuses
// count as sent: here it always does so by dropping them.
func udp(t *testing.T, ns *netlab.Namespace, to string, n int) {
	t.Helper()
	err := ns.Do(func() error {
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		defer c.Close()
		for range n {
			_, err := c.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort(to))
			if err != nil && !strings.Contains(err.Error(), "no buffer space") {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// places are the functions that drop for a reason, for kernels that have no
// reasons (before 5.17).
var places = map[string][]string{
	"NO_SOCKET":       {"__udp4_lib_rcv"},
	"SOCKET_RCVBUFF":  {"udp_queue_rcv_one_skb"},
	"IP_INHDR":        {"ip_forward"},
	"QDISC_DROP":      {"kfree_skb_list"},
	"NEIGH_QUEUEFULL": {"__neigh_event_send"},
}

// isFor says whether a drop is for that reason.
func isFor(k record.Key, reason string) bool {
	return k.Reason.Name == reason ||
		reason == "QDISC_DROP" && k.Reason.Subsystem == "qdisc" || // told apart since 7.2
		k.Reason.Name == "" && slices.Contains(places[reason], kernel.Base(k.Location.Symbol))
}

// only returns the counts for that reason, added up, and one of them.
func only(o record.Observation, reason string) (sum uint64, example record.Count) {
	for _, c := range o.Counts {
		if isFor(c.Key, reason) {
			sum += c.Drops
			example = c
		}
	}
	return sum, example
}

// arguments is how many the tracepoint of the running kernel has.
func arguments(t *testing.T) int {
	t.Helper()
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	n, err := kernel.KfreeSkbArgs(types.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTrapSameIndexInTwoNamespaces: an ifindex without its namespace names the
// wrong device as soon as there is a container.
func TestTrapSameIndexInTwoNamespaces(t *testing.T) {
	red, redPeer := pair(t, "red0")
	blue, bluePeer := pair(t, "blue0")
	o := watched(t, func() {
		udp(t, redPeer, "192.0.2.1:9", 3)
		udp(t, bluePeer, "192.0.2.1:9", 5)
	}, red, blue)
	got := map[uint32]record.Count{}
	for _, c := range o.Counts {
		if isFor(c.Key, "NO_SOCKET") {
			got[c.NetNS.Inode] = c
		}
	}
	r, b := got[red.Inode()], got[blue.Inode()]
	if r.Device.Index != b.Device.Index {
		t.Fatalf("the test needs the same index twice, got %d and %d", r.Device.Index, b.Device.Index)
	}
	if r.Drops != 3 || r.Device.Name != "red0" || b.Drops != 5 || b.Device.Name != "blue0" {
		t.Errorf("red: %d on %q, blue: %d on %q", r.Drops, r.Device.Name, b.Drops, b.Device.Name)
	}
}

// TestTrapCurrentTaskIsNotTheOwner: a full receive buffer is the receiver's
// loss, whoever runs on the CPU at that moment.
func TestTrapCurrentTaskIsNotTheOwner(t *testing.T) {
	host, peer := pair(t, "host0")
	var receiver *net.UDPConn
	err := host.Do(func() (err error) {
		receiver, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 5000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	if err := receiver.SetReadBuffer(1); err != nil {
		t.Fatal(err)
	}
	inode := socketInode(t, receiver)
	o := watched(t, func() { udp(t, peer, "192.0.2.1:5000", 50) }, host)
	n, _ := only(o, "SOCKET_RCVBUFF")
	if n == 0 {
		t.Fatalf("no receive buffer drop: %+v", o.Counts)
	}
	for _, d := range o.Samples {
		if !isFor(d.Key, "SOCKET_RCVBUFF") {
			continue
		}
		if arguments(t) < 4 {
			// The packet has no socket yet, and nobody else names it: to say
			// nothing is right, to name the sender would be wrong.
			if d.Socket != nil {
				t.Errorf("socket = %+v, want none on this kernel", d.Socket)
			}
			return
		}
		if d.Socket == nil || d.Socket.Inode != inode || d.Socket.Protocol != unix.IPPROTO_UDP {
			t.Fatalf("socket = %+v, want inode %d", d.Socket, inode)
		}
		if d.CurrentTask.Comm == "" || d.CurrentTask.TID == 0 && d.CurrentTask.PID != 0 {
			t.Errorf("current task = %+v", d.CurrentTask)
		}
		return
	}
	t.Error("no sample of the drop")
}

// TestTrapDropsWithoutSocketOrInterface: tools that ask for skb->sk miss what
// is forwarded; those that ask for skb_iif miss what this host sends.
func TestTrapDropsWithoutSocketOrInterface(t *testing.T) {
	t.Run("forwarded", func(t *testing.T) {
		host, peer := pair(t, "host0")
		if err := host.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
			t.Fatal(err)
		}
		if err := host.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), "host0"); err != nil {
			t.Fatal(err)
		}
		link, err := host.Links().LinkByName("host0")
		if err != nil {
			t.Fatal(err)
		}
		o := watched(t, func() { inject(t, peer, ttlOne(link.Attrs().HardwareAddr), 7) }, host)
		n, c := only(o, "IP_INHDR")
		if n != 7 || c.Location.Symbol != "ip_forward" {
			t.Errorf("%d drops of 7, %+v", n, o.Counts)
		}
		for _, d := range o.Samples {
			if isFor(d.Key, "IP_INHDR") && d.Socket != nil {
				t.Errorf("a forwarded packet has a socket: %+v", d.Socket)
			}
		}
	})
	t.Run("sent", func(t *testing.T) {
		host := namespace(t)
		// A tun device that no program has open has no carrier: its qdisc is
		// noop, which drops everything (net/sched/sch_generic.c).
		stats := noCarrier(t, host)
		o := watched(t, func() { udp(t, host, "198.51.100.9:9", 11) }, host)
		n, c := only(o, "QDISC_DROP")
		// Before 6.12 this is lost without any counter of the device.
		if want := stats(); n != 11 || want != 11 && want != 0 {
			t.Errorf("%d drops, device counts %d, sent 11: %+v", n, want, o.Counts)
		}
		if c.Direction != record.DirectionTX || c.Device.Name != "tun0" || c.IPProto != unix.IPPROTO_UDP {
			t.Errorf("count = %+v", c)
		}
	})
}

// ttlOne is a UDP packet that the router with this address must not pass on.
func ttlOne(router net.HardwareAddr) []byte {
	frame := []byte{
		0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 8, 0,
		0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17, 0, 0, 192, 0, 2, 2, 198, 51, 100, 7,
		0x10, 0, 0x20, 0, 0, 8, 0, 0,
	}
	copy(frame, router)
	var sum uint32
	for i := 14; i < 34; i += 2 {
		sum += uint32(frame[i])<<8 | uint32(frame[i+1])
	}
	sum = sum&0xffff + sum>>16
	sum = ^(sum&0xffff + sum>>16)
	frame[24], frame[25] = byte(sum>>8), byte(sum)
	return frame
}

// inject sends a frame n times out of peer0.
func inject(t *testing.T, ns *netlab.Namespace, frame []byte, n int) {
	t.Helper()
	err := ns.Do(func() error {
		ifi, err := net.InterfaceByName("peer0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range n {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// noCarrier makes tun0 with a default route, and returns how to read the
// packets that it dropped.
func noCarrier(t *testing.T, ns *netlab.Namespace) (dropped func() uint64) {
	t.Helper()
	var l netlink.Link
	err := ns.Do(func() error {
		tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_DEFAULTS}
		if err := netlink.LinkAdd(tun); err != nil {
			return fmt.Errorf("add tun0: %w", err)
		}
		var err error
		if l, err = netlink.LinkByName("tun0"); err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.AddAddr("tun0", netip.MustParsePrefix("198.51.100.1/24")); err != nil {
		t.Fatal(err)
	}
	return func() uint64 {
		now, err := ns.Links().LinkByIndex(l.Attrs().Index)
		if err != nil {
			t.Fatal(err)
		}
		return now.Attrs().Statistics.TxDropped
	}
}

// TestTrapNotSpecifiedIsCounted: places that the kernel gives no reason for
// are losses all the same.
func TestTrapNotSpecifiedIsCounted(t *testing.T) {
	storm := testkit.NewStorm(t, 1, testkit.StormPackets(1)...)
	f := Filter{NetNS: []string{fmt.Sprint(storm.NetNS())}, Reasons: []string{"NOT_SPECIFIED"}}
	if arguments(t) < 3 {
		f.Reasons = nil // all of them are without a reason
	}
	s, err := Start(Options{Filter: f})
	if err != nil {
		t.Fatal(err)
	}
	truth, err := storm.Run(t.Context(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	var got uint64
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, func(iv record.Interval) error { got += iv.Accounting.DropsAggregated; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := truth.Drops + truth.TestPackets; got != want {
		t.Errorf("%d drops without a reason, happened %d", got, want)
	}
}

// TestTrapKernelTime: the time of a drop is when it happened, not when it was
// read.
func TestTrapKernelTime(t *testing.T) {
	host, peer := pair(t, "host0")
	s, err := Start(Options{Filter: Filter{NetNS: []string{fmt.Sprint(host.Inode())}}})
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	udp(t, peer, "192.0.2.1:9", 1)
	after := time.Now()
	time.Sleep(300 * time.Millisecond) // nobody reads
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var samples []record.Drop
	if err := s.Run(ctx, func(iv record.Interval) error { samples = append(samples, iv.Samples...); return nil }); err != nil {
		t.Fatal(err)
	}
	const clocks = 20 * time.Millisecond // the softirq may run a moment later
	for _, d := range samples {
		if !isFor(d.Key, "NO_SOCKET") {
			continue
		}
		if d.Time.Before(before.Add(-clocks)) || d.Time.After(after.Add(clocks)) {
			t.Errorf("dropped at %s, sent between %s and %s", d.Time, before, after)
		}
		return
	}
	t.Errorf("no sample of the drop in %+v", samples)
}

// TestTrapReasonNamesComeFromThisKernel: numbers of reasons differ from kernel
// to kernel, so a name is right only if this kernel's own table has it under
// the number that this kernel reported.
func TestTrapReasonNamesComeFromThisKernel(t *testing.T) {
	dir := t.TempDir()
	format := tracepointFormat(t, dir)
	host, peer := pair(t, "host0")
	o := watched(t, func() { udp(t, peer, "192.0.2.1:9", 2) }, host)
	n, c := only(o, "NO_SOCKET")
	if arguments(t) < 3 {
		if n != 2 || c.Reason != (record.Reason{}) {
			t.Errorf("%d drops, reason %+v, want 2 and none", n, c.Reason)
		}
		return
	}
	if want := fmt.Sprintf("{ %d, %q }", c.Reason.Value, "NO_SOCKET"); !strings.Contains(format, want) {
		t.Errorf("the tracepoint's own table has no %s:\n%s", want, format)
	}
}

// tracepointFormat reads the format of skb:kfree_skb from a tracefs that only
// one thread sees.
func tracepointFormat(t *testing.T, dir string) (format string) {
	t.Helper()
	err := namespace(t).Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		if err := unix.Mount("tracefs", dir, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs: %w", err)
		}
		b, err := os.ReadFile(dir + "/events/skb/kfree_skb/format")
		format = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return format
}
