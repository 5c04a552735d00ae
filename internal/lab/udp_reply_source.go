package lab

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// udpReplySource has a server with two addresses answer from the one that was
// not asked.
func udpReplySource() Scenario {
	return Scenario{
		Name:  "udp-reply-source",
		Title: "answers to a connected UDP socket that come from another address of the server than was asked",
		build: buildReplySource,
	}
}

// secondNet is the other address of the peer.
var secondNet = netip.MustParsePrefix("192.0.2.3/24")

func buildReplySource(t *topology) (*rig, error) {
	if err := t.peer.AddAddr(peerDevice, secondNet); err != nil {
		return nil, err
	}
	if err := t.permanent(secondNet.Addr(), netlab.MAC(peerNet.Addr())); err != nil {
		return nil, err
	}
	client := netip.AddrPortFrom(hostNet.Addr(), srcPort)
	server := netip.AddrPortFrom(peerNet.Addr(), dstPort)
	wrong := netip.AddrPortFrom(secondNet.Addr(), dstPort)
	c, err := listen(t.host, srcPort)
	if err != nil {
		return nil, err
	}
	t.onClose(c.close)
	if err := unix.Connect(c.fd, sockaddr(server)); err != nil {
		return nil, fmt.Errorf("connect client's socket to %s: %w", server, err)
	}
	s, err := t.udpSender(t.peer, wrong, client)
	if err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoUDP, wrong.Addr(), client.Addr())
	r.flow.Src, r.flow.Dst = wrong, client
	r.emit = s.datagrams(payload)
	r.repair = func() error { // the server answers from the address that was asked
		s, err := t.udpSender(t.peer, server, client)
		if err != nil {
			return err
		}
		r.emit = s.datagrams(payload)
		return t.read(c)
	}
	return r, r.countIn(t, "snmp", "Udp", "NoPorts", "UdpNoPorts")
}
