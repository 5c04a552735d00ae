package testkit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// Busy is a healthy host with a lot to do: two namespaces, of which the one
// serves TCP and pings the other, which also makes the noise of a network and
// scans for open ports. The kernel frees a great many packets of it with
// kfree_skb, and not one of them was lost.
type Busy struct {
	// Host is the busy one, Peer its network.
	Host, Peer *netlab.Namespace
	// HostAddr is where the host can be reached, on Device.
	HostAddr netip.Addr
	Device   string

	listener net.Listener
	noise    int // packet socket in Peer
	frames   [][]byte
	rounds   atomic.Uint64
	port     uint16
}

const (
	busyDevice = "busy0"
	busyPeer   = "busy1"
	// busyRound is the time between two rounds: each of them frees some 20
	// packets.
	busyRound = 25 * time.Millisecond
)

var (
	busyHostNet = netip.MustParsePrefix("198.51.100.1/24")
	busyPeerNet = netip.MustParsePrefix("198.51.100.2/24")
)

// NewBusy makes the namespaces. They are gone when the test ends.
func NewBusy(t testing.TB) *Busy {
	t.Helper()
	NeedRoot(t)
	b := &Busy{HostAddr: busyHostNet.Addr(), Device: busyDevice, noise: -1}
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err := b.build(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Busy) build() (err error) {
	if b.Host, err = netlab.New(); err != nil {
		return err
	}
	if b.Peer, err = netlab.New(); err != nil {
		return err
	}
	err = netlab.Veth(
		netlab.End{NS: b.Host, Name: busyDevice, Addr: busyHostNet},
		netlab.End{NS: b.Peer, Name: busyPeer, Addr: busyPeerNet},
	)
	if err != nil {
		return err
	}
	for ns, dev := range map[*netlab.Namespace]string{b.Host: busyDevice, b.Peer: busyPeer} {
		if err := ns.Sysctl("net.ipv6.conf."+dev+".disable_ipv6", "0"); err != nil {
			return err
		}
	}
	err = b.Host.Do(func() error {
		b.listener, err = net.Listen("tcp4", netip.AddrPortFrom(b.HostAddr, 80).String())
		return err
	})
	if err != nil {
		return fmt.Errorf("listen in the busy namespace: %w", err)
	}
	b.frames, err = noiseFrames()
	if err != nil {
		return err
	}
	return b.Peer.Do(b.openNoise)
}

func (b *Busy) openNoise() error {
	link, err := net.InterfaceByName(busyPeer)
	if err != nil {
		return fmt.Errorf("find device %s: %w", busyPeer, err)
	}
	// Protocol 0: the socket sends and receives nothing.
	if b.noise, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open packet socket: %w", err)
	}
	if err := unix.Bind(b.noise, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil {
		return fmt.Errorf("bind packet socket to %s: %w", busyPeer, err)
	}
	return nil
}

func (b *Busy) close() error {
	var errs []error
	if b.listener != nil {
		errs = append(errs, b.listener.Close())
	}
	if b.noise >= 0 {
		errs = append(errs, unix.Close(b.noise))
	}
	for _, ns := range []*netlab.Namespace{b.Peer, b.Host} {
		if ns != nil {
			errs = append(errs, ns.Close())
		}
	}
	return errors.Join(errs...)
}

// Run keeps the host busy until ctx is done.
func (b *Busy) Run(ctx context.Context) error {
	go b.serve()
	tick := time.NewTicker(busyRound)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := errors.Join(
			b.Peer.Do(b.talk), b.Peer.Do(b.scan), b.Host.Do(b.ping), b.Host.Do(leaveUnread),
		)
		if err != nil {
			return fmt.Errorf("keep the host busy: round %d: %w", b.rounds.Load(), err)
		}
		b.rounds.Add(1)
	}
}

// Rounds says how many rounds there were until now.
func (b *Busy) Rounds() uint64 { return b.rounds.Load() }

// serve answers each connection's first bytes and closes it.
func (b *Busy) serve() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		var buf [4]byte
		_, _ = c.Read(buf[:])
		_, _ = c.Write(buf[:])
		_ = c.Close()
	}
}

// talk makes connections that end in each of the usual ways: after the
// answer, without waiting for it, and by a reset.
func (b *Busy) talk() error {
	for i := range 3 {
		c, err := net.DialTimeout("tcp4", b.listener.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("GET\n"))
		switch i {
		case 0:
			var buf [4]byte
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = c.Read(buf[:])
		case 2:
			err = errors.Join(err, c.(*net.TCPConn).SetLinger(0))
		}
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// scan knocks at ports where nothing listens, and makes the network's noise.
func (b *Busy) scan() error {
	for range 2 {
		b.port++
		for _, f := range [][]byte{knock(b.port, false), knock(b.port, true)} {
			if err := b.send(f); err != nil {
				return err
			}
		}
	}
	for _, f := range b.frames {
		if err := b.send(f); err != nil {
			return err
		}
	}
	return nil
}

func (b *Busy) send(frame []byte) error {
	if _, err := unix.Write(b.noise, frame); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// ping sends an echo request and reads its answer on a raw socket.
func (b *Busy) ping() error {
	c, err := net.Dial("ip4:icmp", busyPeerNet.Addr().String())
	if err != nil {
		return err
	}
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}
	buf := gopacket.NewSerializeBuffer()
	err = gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true}, echo)
	if err == nil {
		_, err = c.Write(buf.Bytes())
	}
	var answer [64]byte
	err = errors.Join(err, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	if err == nil {
		_, err = c.Read(answer[:])
	}
	return errors.Join(err, c.Close())
}

// leaveUnread closes a UDP and a unix socket with a message in each.
func leaveUnread() error {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	_, err = udp.WriteTo([]byte("x"), udp.LocalAddr())
	if err == nil {
		err = arrived(udp) // or it would find no socket
	}
	pair, perr := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if perr == nil {
		_, werr := unix.Write(pair[0], []byte("x"))
		perr = errors.Join(werr, unix.Close(pair[0]), unix.Close(pair[1]))
	}
	return errors.Join(err, perr, udp.Close())
}

// arrived returns when a datagram waits in the socket.
func arrived(c *net.UDPConn) error {
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		_, _, perr = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return !errors.Is(perr, unix.EAGAIN)
	})
	return errors.Join(err, perr)
}

// knock is a datagram or a SYN for a port of the host.
func knock(port uint16, tcp bool) []byte {
	eth := &layers.Ethernet{SrcMAC: netlab.MAC(busyPeerNet.Addr()), DstMAC: netlab.MAC(busyHostNet.Addr()), EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: busyPeerNet.Addr().AsSlice(), DstIP: busyHostNet.Addr().AsSlice()}
	// Ports below 1024 are left out: the host serves there.
	to := 1024 + port%30000
	if !tcp {
		u := &layers.UDP{SrcPort: 40000, DstPort: layers.UDPPort(to)}
		_ = u.SetNetworkLayerForChecksum(ip)
		return frame(eth, ip, u)
	}
	ip.Protocol = layers.IPProtocolTCP
	s := &layers.TCP{SrcPort: 40000, DstPort: layers.TCPPort(to), SYN: true, Window: 1024}
	_ = s.SetNetworkLayerForChecksum(ip)
	return frame(eth, ip, s)
}

// noiseFrames are what any switch port shows: LLDP, a BPDU, IPv6 neighbour
// solicitations for others, mDNS and a broadcast that nobody listens to.
func noiseFrames() ([][]byte, error) {
	from := netlab.MAC(busyPeerNet.Addr())
	mac := func(s string) net.HardwareAddr { m, _ := net.ParseMAC(s); return m }
	group := func(dst string, typ layers.EthernetType) *layers.Ethernet {
		return &layers.Ethernet{SrcMAC: from, DstMAC: mac(dst), EthernetType: typ}
	}
	udp := func(dst net.IP, port layers.UDPPort) (*layers.IPv4, *layers.UDP) {
		ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolUDP, SrcIP: busyPeerNet.Addr().AsSlice(), DstIP: dst}
		u := &layers.UDP{SrcPort: port, DstPort: port}
		_ = u.SetNetworkLayerForChecksum(ip)
		return ip, u
	}
	mdnsIP, mdns := udp(net.IPv4(224, 0, 0, 251), 5353)
	allIP, all := udp(net.IPv4bcast, 137)
	ip6 := &layers.IPv6{
		Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6,
		SrcIP: net.ParseIP("fe80::2"), DstIP: net.ParseIP("ff02::1:ff00:9"),
	}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip6)
	ns := &layers.ICMPv6NeighborSolicitation{
		TargetAddress: net.ParseIP("fe80::9"),
		Options:       layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: from}},
	}
	frames := [][]byte{
		frame(group("01:80:c2:00:00:0e", 0x88cc), gopacket.Payload(make([]byte, 46))),
		frame(group("33:33:ff:00:00:09", layers.EthernetTypeIPv6), ip6, icmp, ns),
		frame(group("01:00:5e:00:00:fb", layers.EthernetTypeIPv4), mdnsIP, mdns),
		frame(group("ff:ff:ff:ff:ff:ff", layers.EthernetTypeIPv4), allIP, all),
	}
	for i, f := range frames {
		if f == nil {
			return nil, fmt.Errorf("make noise frame %d", i)
		}
	}
	return frames, nil
}

// frame serialises layers, padded to the least that Ethernet allows; nil
// where they do not fit together.
func frame(ls ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		return nil
	}
	return append(buf.Bytes(), make([]byte, max(0, 60-len(buf.Bytes())))...)
}
