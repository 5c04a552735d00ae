//go:build root

package counter

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// readSockets reads the sockets of the thread's namespace alone.
func readSockets(has func(...string) (bool, error)) Snapshot {
	s := Snapshot{Time: time.Now()}
	s.sockets(has, thread)
	return s
}

// small opens a socket whose receive buffer has room for very little.
func small(t testing.TB, domain, typ, proto int) (fd int, inode uint32) {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	return fd, uint32(st.Ino)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// received takes what is in a socket and says how many messages that was.
func received(t testing.TB, fd int) (n uint64) {
	t.Helper()
	for buf := make([]byte, 1<<16); ; n++ {
		_, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.ENOBUFS) {
			n-- // netlink says so once, and nothing was taken
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		must(t, err)
	}
}

// loser is a socket that loses something.
type loser struct {
	fd    int
	inode uint32
	// lost is what it must have lost by now, from what was sent and what the
	// test got, or from another number of the kernel. It takes what came.
	lost func() uint64
}

// lossy are the ways to make a socket lose something.
var lossy = []struct {
	table   string
	proto   int
	modules []string
	lose    func(t testing.TB, ns *netlab.Namespace, proto int) loser
}{
	{"udp", unix.IPPROTO_UDP, []string{"inet_diag", "udp_diag"}, loseDatagrams},
	{"udplite", unix.IPPROTO_UDPLITE, []string{"inet_diag", "udp_diag"}, loseDatagrams},
	{"raw", unix.IPPROTO_UDP, []string{"inet_diag", "raw_diag"}, loseRaw},
	{"ping", unix.IPPROTO_ICMP, []string{"none"}, losePings},
	{"netlink", unix.NETLINK_ROUTE, []string{"netlink_diag"}, loseEvents},
	{"packet", unix.ETH_P_IP, []string{"af_packet_diag"}, losePackets},
	{"tcp", unix.IPPROTO_TCP, []string{"inet_diag", "tcp_diag"}, loseConnections},
}

const perSocket = 50

// unread is a socket that was sent perSocket messages.
func unread(t testing.TB, fd int, inode uint32) loser {
	got := uint64(0)
	return loser{fd, inode, func() uint64 {
		got += received(t, fd)
		return perSocket - got
	}}
}

// loseDatagrams sends more datagrams to a socket than it has room for.
func loseDatagrams(t testing.TB, _ *netlab.Namespace, proto int) loser {
	t.Helper()
	fd, inode := small(t, unix.AF_INET, unix.SOCK_DGRAM, proto)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	to, err := unix.Getsockname(fd)
	must(t, err)
	from, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	must(t, err)
	defer unix.Close(from)
	for range perSocket {
		must(t, unix.Sendto(from, make([]byte, 200), 0, to))
	}
	return unread(t, fd, inode)
}

// loseRaw has a raw socket that gets a copy of each datagram.
func loseRaw(t testing.TB, ns *netlab.Namespace, proto int) loser {
	t.Helper()
	fd, inode := small(t, unix.AF_INET, unix.SOCK_RAW, proto)
	loseDatagrams(t, ns, unix.IPPROTO_UDP)
	return unread(t, fd, inode)
}

// losePings asks for more answers than there is room for.
func losePings(t testing.TB, ns *netlab.Namespace, proto int) loser {
	t.Helper()
	must(t, ns.Sysctl("net.ipv4.ping_group_range", "0 0"))
	fd, inode := small(t, unix.AF_INET, unix.SOCK_DGRAM, proto)
	for i := range perSocket {
		echo := append([]byte{8, 0, 0, 0, 0, 1, 0, byte(i)}, make([]byte, 200)...)
		must(t, unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	}
	return unread(t, fd, inode)
}

// loseEvents listens to new addresses and adds many.
func loseEvents(t testing.TB, ns *netlab.Namespace, proto int) loser {
	t.Helper()
	fd, inode := small(t, unix.AF_NETLINK, unix.SOCK_RAW, proto)
	must(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR}))
	lo, err := ns.Link("lo")
	must(t, err)
	for i := range perSocket {
		addr, err := netlink.ParseAddr(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 9, byte(i), 1}), 32).String())
		must(t, err)
		must(t, ns.Links().AddrAdd(lo, addr))
	}
	return unread(t, fd, inode)
}

// losePackets captures without reading. The socket's own statistics are read
// by its owner, which is the test, and begin at 0 again with each read.
func losePackets(t testing.TB, ns *netlab.Namespace, proto int) loser {
	t.Helper()
	fd, inode := small(t, unix.AF_PACKET, unix.SOCK_RAW, 0)
	must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(proto)<<8 | uint16(proto)>>8, Ifindex: 1}))
	loseDatagrams(t, ns, unix.IPPROTO_UDP)
	lost := uint64(0)
	return loser{fd, inode, func() uint64 {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		must(t, err)
		lost += uint64(stats.Drops)
		return lost
	}}
}

// loseConnections connects to a listener that has room for one connection.
// What came later is in the namespace's ListenDrops, and nowhere else.
func loseConnections(t testing.TB, _ *netlab.Namespace, proto int) loser {
	t.Helper()
	fd, inode := small(t, unix.AF_INET, unix.SOCK_STREAM, proto)
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, 0))
	to, err := unix.Getsockname(fd)
	must(t, err)
	for range 4 {
		c, _ := small(t, unix.AF_INET, unix.SOCK_STREAM, proto)
		if err := unix.Connect(c, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
			t.Fatal(err)
		}
	}
	return loser{fd, inode, func() uint64 { return listenDrops(t) }}
}

func listenDrops(t testing.TB) uint64 {
	t.Helper()
	text, err := os.ReadFile(thread + "/netstat")
	must(t, err)
	values, err := parseTables(text, "netstat")
	must(t, err)
	for _, v := range values {
		if v.Name == "TcpExt.ListenDrops" {
			return v.Value
		}
	}
	t.Fatal("no TcpExt.ListenDrops")
	return 0
}

// unsupported says whether the kernel does not have a protocol: UDP-Lite is
// gone in 7.2.
func unsupported(t testing.TB, table string, proto int) bool {
	t.Helper()
	if table != "udplite" {
		return false
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, proto)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return true
	}
	must(t, err)
	unix.Close(fd)
	return false
}

// TestSocketsLose: what a socket has lost is told for that socket and in
// total, by sock_diag and by /proc/net, and it began at 0 where the socket is
// new.
func TestSocketsLose(t *testing.T) {
	for _, tt := range lossy {
		t.Run(tt.table, func(t *testing.T) {
			if unsupported(t, tt.table, tt.proto) {
				s := readSockets(live.Has)
				if got := losses(t, s.Values, tt.table); len(got) > 0 {
					t.Errorf("this kernel has none: %v", got)
				}
				return
			}
			testkit.InNetNS(t, func(ns *netlab.Namespace) {
				before := readSockets(live.Has)
				l := tt.lose(t, ns, tt.proto)
				there, err := live.Has(tt.modules...)
				there = there && err == nil
				for way, has := range map[string]func(...string) (bool, error){"sock_diag": live.Has, "/proc/net": noModules} {
					if way == "sock_diag" && there || len(kindNamed(t, tt.table).files) > 0 {
						eventually(t, func() string { return told(t, before, has, tt.table, l) })
					} else if got := losses(t, readSockets(has).Values, tt.table); len(got) > 0 {
						t.Errorf("%s: %v from nowhere", way, got)
					}
				}
				if tt.table == "packet" && !there {
					s := readSockets(live.Has)
					if len(s.Missing) != 1 || s.Missing[0].Fix != "modprobe af_packet_diag" {
						t.Errorf("missing: %+v", s.Missing)
					}
				}
			})
		})
	}
}

// told says what is wrong with the counters of a socket that is the only one
// of its kind, if anything.
func told(t *testing.T, before Snapshot, has func(...string) (bool, error), table string, l loser) string {
	t.Helper()
	after := readSockets(has)
	lost := l.lost()
	want := map[string]uint64{"": lost, socketObject(l.inode): lost}
	if d := cmp.Diff(want, losses(t, after.Values, table)); d != "" || lost == 0 {
		return fmt.Sprintf("%d lost: %s", lost, d)
	}
	for _, c := range Diff(before, after, record.NetNS{}) {
		if c.Name == table+".drops" && (c.Before != 0 || c.Delta != lost) {
			return fmt.Sprintf("%+v, want a growth of %d", c, lost)
		}
	}
	return ""
}

// TestClosedSocket: a socket takes along what it had lost, which is not taken
// for a loss then and hides none.
func TestClosedSocket(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		start := readSockets(live.Has)
		first := loseDatagrams(t, ns, unix.IPPROTO_UDP)
		var before Snapshot
		eventually(t, func() string {
			before = readSockets(live.Has)
			return told(t, start, live.Has, "udp", first)
		})
		must(t, unix.Close(first.fd))
		second := loseDatagrams(t, ns, unix.IPPROTO_UDP)
		eventually(t, func() string {
			after := readSockets(live.Has)
			lost := second.lost()
			for _, c := range Diff(before, after, record.NetNS{}) {
				if c.Name == "udp.drops" && (c.Delta != lost || lost == 0) {
					return fmt.Sprintf("%+v, want a growth of %d", c, lost)
				}
			}
			return ""
		})
	})
}

// TestRingIsNotCounted holds what the limits of the counter say: the drops of
// a ring are in PACKET_STATISTICS alone, and reading those sets them to 0.
func TestRingIsNotCounted(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		fd, inode := small(t, unix.AF_PACKET, unix.SOCK_RAW, 0)
		must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2))
		must(t, unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{
			Block_size: 4096, Block_nr: 1, Frame_size: 2048, Frame_nr: 2,
		}))
		const ip = unix.ETH_P_IP<<8&0xff00 | unix.ETH_P_IP>>8
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: 1}))
		loseDatagrams(t, ns, unix.IPPROTO_UDP)
		statistics := func() uint32 {
			stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
			must(t, err)
			return stats.Drops
		}
		seen := uint32(0)
		eventually(t, func() string {
			if seen += statistics(); seen < perSocket-2 { // two fit
				return fmt.Sprintf("%d drops of %d", seen, perSocket)
			}
			return ""
		})
		if again := statistics(); again != 0 {
			t.Errorf("they were not set to 0: %d", again)
		}
		s := readSockets(live.Has)
		if got := losses(t, s.Values, "packet")[socketObject(inode)]; got != 0 {
			t.Errorf("%d drops of a ring are told", got)
		}
	})
}

// TestReadingSocketsLoadsNothing: the modules are the same before and after.
func TestReadingSocketsLoadsNothing(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		for _, tt := range lossy {
			if !unsupported(t, tt.table, tt.proto) {
				tt.lose(t, ns, tt.proto)
			}
		}
		before := modules(t)
		readSockets(live.Has)
		if d := cmp.Diff(before, modules(t)); d != "" {
			t.Error(d)
		}
	})
}

// modules are the names of those that are loaded; none on a kernel that loads
// none.
func modules(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/modules")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	must(t, err)
	for line := range strings.Lines(string(text)) {
		names = append(names, strings.Fields(line)[0])
	}
	return names
}

// TestSocketsMatchSS compares the drops of each socket with those that ss
// shows (d in skmem). ss has the kernel load the modules of sock_diag, so it
// runs first.
func TestSocketsMatchSS(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		for _, tt := range lossy {
			if !unsupported(t, tt.table, tt.proto) {
				tt.lose(t, ns, tt.proto)
			}
		}
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		for table, args := range map[string]string{"udp": "-uanemO", "raw": "-wanemO", "tcp": "-tanemO", "packet": "-0anemO", "unix": "-xanemO"} {
			eventually(t, func() string { return likeSS(t, table, args) })
		}
	})
}

// likeSS says in what ss and whydrop differ, if in anything.
func likeSS(t *testing.T, table, args string) string {
	t.Helper()
	want, shown := map[string]uint64{"": 0}, false
	for line := range strings.Lines(string(program(t, "ss", args))) {
		var inode uint32
		var drops uint64
		_, after, ok := strings.Cut(line, " ino:")
		_, memory, ok2 := strings.Cut(line, " skmem:(")
		if !ok2 || !ok && table != "unix" { // where it shows none of a socket without a file
			continue
		}
		shown = true
		_, d, _ := strings.Cut(memory, ",d")
		_, err := fmt.Sscanf(d, "%d", &drops)
		if ok {
			_, err2 := fmt.Sscanf(after, "%d", &inode)
			err = errors.Join(err, err2)
		}
		must(t, err)
		if drops > 0 && inode > 0 {
			want[socketObject(inode)] += drops
			want[""] += drops
		}
	}
	got := losses(t, readSockets(live.Has).Values, table)
	switch {
	case !shown && table == "raw":
		return "" // a kernel without raw_diag: ss reads /proc/net/raw, and shows no drops
	case !shown && table == "unix":
		return "" // no such socket
	case table != "unix" && want[""] == 0:
		return table + ": nothing was lost"
	}
	if d := cmp.Diff(want, got); d != "" {
		return table + ": ss and whydrop: " + d
	}
	return ""
}
