//go:build root

package counter

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// find returns the only counter of that name and device that is a whole.
func find(t testing.TB, counters []record.Counter, name string, device uint32) record.Counter {
	t.Helper()
	var found []record.Counter
	for _, c := range counters {
		if c.Name == name && c.Device.Index == device && c.Object == "" {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d counters %s of device %d", len(found), name, device)
	}
	return found[0]
}

// readNetNS reads the thread's namespace once.
func readNetNS() Snapshot { return NewReader().once() }

// read is readNetNS; nothing may be missing.
func read(t testing.TB) Snapshot {
	t.Helper()
	s := readNetNS()
	if len(s.Missing) > 0 {
		t.Fatalf("missing: %+v", s.Missing)
	}
	return s
}

// send sends n small datagrams from the thread's namespace.
func send(t testing.TB, to string, n int) {
	t.Helper()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteToUDPAddrPort([]byte("hello"), netip.MustParseAddrPort(to)); err != nil {
			t.Fatal(err)
		}
	}
}

// closedPort sends n datagrams to a port of loopback that has no socket and
// returns what was counted when all of them, and the answers, have arrived.
func closedPort(t *testing.T, n uint64) []record.Counter {
	t.Helper()
	before := read(t)
	send(t, "127.0.0.1:9", int(n))
	var got []record.Counter
	eventually(t, func() string {
		got = Diff(before, read(t), record.NetNS{Inode: 1})
		ports, icmp, rx := find(t, got, "Udp.NoPorts", 0), find(t, got, "Icmp.OutDestUnreachs", 0), find(t, got, "link.rx_packets", 1)
		if ports.Delta != n || rx.Delta != n+icmp.Delta {
			return fmt.Sprintf("%d sent: %+v, %+v, %+v", n, ports, icmp, rx)
		}
		return ""
	})
	return got
}

// TestClosedPort: a datagram to a port without a socket is exactly one more
// in NoPorts, and nothing in the other errors.
func TestClosedPort(t *testing.T) {
	const n = 20
	testkit.InNetNS(t, func(*netlab.Namespace) {
		got := closedPort(t, n)
		for name, want := range map[string]uint64{
			"Udp.NoPorts": n, "Udp.OutDatagrams": n, "Udp.InErrors": 0, "Udp.RcvbufErrors": 0, "Udp.SndbufErrors": 0,
		} {
			c := find(t, got, name, 0)
			if c.Delta != want || c.NetNS.Inode != 1 || c.Before != 0 {
				t.Errorf("%+v, want a delta of %d", c, want)
			}
		}
		// Of this the first read saw no column: it was 0.
		icmp, unreachable := find(t, got, "IcmpMsg.OutType3", 0), find(t, got, "Icmp.OutDestUnreachs", 0)
		if icmp.Before != 0 || icmp.Delta == 0 || icmp.Delta != unreachable.Delta {
			t.Errorf("%+v, want as many as %+v", icmp, unreachable)
		}
		if rx := find(t, got, "link.rx_packets", 1); rx.Device.Name != "lo" {
			t.Errorf("%+v, want lo", rx)
		}
	})
}

// pair makes a second namespace and joins it to ns.
func pair(t *testing.T, ns *netlab.Namespace, device string) (peer *netlab.Namespace, index uint32) {
	t.Helper()
	peer, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if err := netlab.Veth(
		netlab.End{NS: ns, Name: device, Addr: netip.MustParsePrefix("192.0.2.1/24")},
		netlab.End{NS: peer, Name: "peer0", Addr: netip.MustParsePrefix("192.0.2.2/24")},
	); err != nil {
		t.Fatal(err)
	}
	return peer, deviceIndex(t, ns, device)
}

func deviceIndex(t *testing.T, ns *netlab.Namespace, device string) uint32 {
	t.Helper()
	link, err := ns.Links().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(link.Attrs().Index)
}

// eventually calls f until it has nothing to say, for as long as packets may
// be under way.
func eventually(t *testing.T, f func() string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	if testing.Short() { // an emulated machine
		deadline = time.Now().Add(60 * time.Second)
	}
	for {
		said := f()
		if said == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(said)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestNewDevice loses frames of a protocol that nobody handles on a device
// that the first read did not see: it counts from 0.
func TestNewDevice(t *testing.T) {
	const n = 10
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		before := read(t)
		peer, index := pair(t, ns, "host0")
		link, err := ns.Links().LinkByName("host0")
		if err != nil {
			t.Fatal(err)
		}
		lldp := append(append([]byte{}, link.Attrs().HardwareAddr...), 2, 0, 0, 0, 0, 1, 0x88, 0xcc)
		frames(t, peer, append(lldp, make([]byte, 50)...), n)
		eventually(t, func() string {
			got := Diff(before, read(t), record.NetNS{})
			rx, dropped := find(t, got, "link.rx_packets", index), find(t, got, "link.rx_dropped", index)
			if rx.Before != 0 || rx.Delta != n || dropped.Before != 0 || dropped.Delta != n || dropped.Device.Name != "host0" {
				return fmt.Sprintf("want %d of both: %+v, %+v", n, rx, dropped)
			}
			return ""
		})
	})
}

// frames sends a frame n times out of peer0.
func frames(t *testing.T, peer *netlab.Namespace, frame []byte, n int) {
	t.Helper()
	index := deviceIndex(t, peer, "peer0")
	err := peer.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		defer unix.Close(fd)
		for range n {
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(index)}); err != nil {
				return fmt.Errorf("send frame: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestQdiscDrops overflows a token bucket: what was sent is what passed, what
// waits, and what the counter says. UDP counts the same as lost.
func TestQdiscDrops(t *testing.T) {
	const n = 200
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		_, index := pair(t, ns, "host0")
		tbf := &netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: int(index), Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
			Rate:       1000, Buffer: netlink.Xmittime(1000, 1600), Limit: 1500, // bytes a second, ticks, bytes
		}
		if err := ns.Links().QdiscAdd(tbf); err != nil {
			t.Fatal(err)
		}
		before := read(t)
		send(t, "192.0.2.2:9", n)
		eventually(t, func() string {
			waiting := waiting(t, ns, int(index))
			got := Diff(before, read(t), record.NetNS{})
			drops := find(t, got, "qdisc.drops", index)
			passed := find(t, got, "qdisc.packets", index)
			udp := find(t, got, "Udp.SndbufErrors", 0)
			if drops.Delta == 0 || drops.Delta+passed.Delta+waiting != n || udp.Delta != drops.Delta {
				return fmt.Sprintf("%d sent, %d wait: %+v, %+v, %+v", n, waiting, drops, passed, udp)
			}
			return ""
		})
	})
}

// waiting is how many packets are in the root qdisc of a device.
func waiting(t *testing.T, ns *netlab.Namespace, index int) uint64 {
	t.Helper()
	list, err := ns.Links().QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}})
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Statistics != nil {
			return uint64(a.Statistics.Queue.Qlen)
		}
	}
	t.Fatalf("no root qdisc with statistics in %v", list)
	return 0
}

// TestReadHost: the files of the whole host are there in every namespace, but
// those of neighbours in one alone.
func TestReadHost(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		s := ReadHost()
		if len(s.Missing) != 1 || s.Missing[0].What != "counters of /proc/net/stat/arp_cache" {
			t.Errorf("missing: %+v", s.Missing)
		}
		send(t, "127.0.0.1:9", 5)
		after := ReadHost()
		got := Diff(s, after, record.NetNS{})
		// Other namespaces add to it.
		if c := find(t, got, "softnet.processed", 0); c.Delta < 5 || c.NetNS != (record.NetNS{}) {
			t.Errorf("%+v after 5 datagrams", c)
		}
		value(t, after.Values, "softnet.dropped")
		value(t, after.Values, "rt_cache.in_martian_src")
	})
}

// BenchmarkReadNetNS reads a namespace with three devices, and
// BenchmarkReadNetNSAgain with what is left of the read before.
func BenchmarkReadNetNS(b *testing.B) { readThreeDevices(b, func() { readNetNS() }) }

func BenchmarkReadNetNSAgain(b *testing.B) {
	var s Snapshot
	r := NewReader()
	defer r.Close()
	readThreeDevices(b, func() { r.Read(&s) })
}

func readThreeDevices(b *testing.B, fn func()) {
	testkit.InNetNS(b, func(ns *netlab.Namespace) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "a0"
		if err := ns.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "b0"}); err != nil {
			b.Fatal(err)
		}
		devices := map[uint32]bool{}
		for _, v := range read(b).Values {
			devices[v.Device.Index] = true
		}
		if len(devices) != 4 { // and none
			b.Fatalf("devices: %v", devices)
		}
		b.ReportAllocs()
		for b.Loop() {
			fn()
		}
	})
}
