package observe

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/fact"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

func tuple(proto uint8, src, dst string) record.Flow {
	return record.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func TestProcessMatch(t *testing.T) {
	p := &Process{space: netns.Namespace{Inode: 7}, inodes: map[uint64]bool{4242: true}, ends: map[localEnd]map[fact.Endpoint]bool{}}
	for _, e := range []fact.Endpoint{
		{Inode: 1, Proto: unix.IPPROTO_TCP, Local: netip.MustParseAddrPort("10.0.0.1:40000"), Peer: netip.MustParseAddrPort("10.0.0.2:443")},
		{Inode: 2, Proto: unix.IPPROTO_UDP, Local: netip.MustParseAddrPort("0.0.0.0:53"), Peer: netip.MustParseAddrPort("0.0.0.0:0")},
		{Inode: 3, Proto: unix.IPPROTO_TCP, Local: netip.MustParseAddrPort("[::]:80"), Peer: netip.MustParseAddrPort("[::]:0")},
		{Inode: 4, Proto: unix.IPPROTO_UDP, Local: netip.MustParseAddrPort("[::ffff:10.0.0.1]:500"), Peer: netip.MustParseAddrPort("[::ffff:10.0.0.9]:500")},
	} {
		p.add(e)
	}
	sent := tuple(17, "10.0.0.1:500", "10.0.0.9:500")
	for _, c := range []struct {
		name string
		d    record.Drop
		want bool
	}{
		{"its socket", record.Drop{Socket: &record.Socket{Inode: 4242}}, true},
		{"another socket", record.Drop{Socket: &record.Socket{Inode: 4243}}, false},
		{"a socket without a file", record.Drop{Socket: &record.Socket{}}, false},
		{"its socket's number elsewhere", record.Drop{Key: record.Key{NetNS: record.NetNS{Inode: 8}}, Socket: &record.Socket{Inode: 4242}}, false},
		{"sent", record.Drop{Packet: &record.Packet{Flow: tuple(6, "10.0.0.1:40000", "10.0.0.2:443")}}, true},
		{"received", record.Drop{Key: record.Key{NetNS: record.NetNS{Inode: 7}}, Packet: &record.Packet{Flow: tuple(6, "10.0.0.2:443", "10.0.0.1:40000")}}, true},
		{"another peer", record.Drop{Packet: &record.Packet{Flow: tuple(6, "10.0.0.3:443", "10.0.0.1:40000")}}, false},
		{"another peer's port", record.Drop{Packet: &record.Packet{Flow: tuple(6, "10.0.0.2:444", "10.0.0.1:40000")}}, false},
		{"another address", record.Drop{Packet: &record.Packet{Flow: tuple(6, "10.0.0.2:443", "10.0.0.5:40000")}}, false},
		{"another protocol", record.Drop{Packet: &record.Packet{Flow: tuple(17, "10.0.0.2:443", "10.0.0.1:40000")}}, false},
		{"to any address", record.Drop{Packet: &record.Packet{Flow: tuple(17, "10.9.9.9:1234", "10.0.0.1:53")}}, true},
		{"IPv4 to a socket of IPv6", record.Drop{Packet: &record.Packet{Flow: tuple(6, "10.9.9.9:1234", "10.0.0.1:80")}}, true},
		{"a mapped address", record.Drop{Packet: &record.Packet{Flow: sent}}, true},
		{"what an ICMP error is about", record.Drop{Packet: &record.Packet{Flow: tuple(1, "10.0.0.9:0", "10.0.0.1:0"), Inner: &record.Packet{Flow: sent}}}, true},
		{"no ports", record.Drop{Packet: &record.Packet{Flow: tuple(17, "10.0.0.9:0", "10.0.0.1:0")}}, false},
		{"nothing known", record.Drop{}, false},
	} {
		if got := p.Match(&c.d); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A socket is seen before it has a port: the port is found when it has one.
func TestProcessFindsPortsLater(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	p, err := FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(at.(*unix.SockaddrInet4).Port))
	d := record.Drop{Packet: &record.Packet{Flow: tuple(17, "127.0.0.1:4242", to.String())}}
	if p.Match(&d) {
		t.Fatalf("%s is known before anything looked", to)
	}
	if err := p.Look(); err != nil {
		t.Fatal(err)
	}
	if !p.Match(&d) {
		t.Errorf("a datagram to %s is not of the process", to)
	}
	known := p.known
	if err := p.Look(); err != nil || p.known != known {
		t.Errorf("%d sockets and ends, %d before nothing was opened (%v)", p.known, known, err)
	}
}

// The sockets of this very process are found, those too that it opens later.
func TestFindProcess(t *testing.T) {
	p, err := FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	before := p.Sockets()
	l, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := p.Look(); err != nil {
		t.Fatal(err)
	}
	if p.Sockets() <= before {
		t.Errorf("%d sockets, %d before one was opened", p.Sockets(), before)
	}
	to := record.Drop{Packet: &record.Packet{Flow: tuple(17, "127.0.0.1:4242", l.LocalAddr().String())}}
	if !p.Match(&to) {
		t.Errorf("a datagram to %s is not of the process", l.LocalAddr())
	}
	to.Packet.Flow.Proto = 6
	if p.Match(&to) {
		t.Error("a segment to the port of a datagram socket is")
	}
	for _, pid := range []int{0, -1, 4194305, netns.FirstInode} {
		if _, err := FindProcess(pid); err == nil {
			t.Errorf("process %d is found", pid)
		}
	}
}
