package lab

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// group is a multicast group of RFC 2365 (organization-local), nobody's.
var group = netip.MustParseAddr("239.192.7.7")

// mcastNoSocket sends to a group that the host has joined and to a port that
// none of its programs has open.
func mcastNoSocket() Scenario {
	return Scenario{
		Name:  "mcast-no-socket",
		Title: "multicast datagrams of a group that the host has joined, to a port that no socket has",
		build: func(t *topology) (*rig, error) {
			if err := t.join(group, hostDevice); err != nil {
				return nil, err
			}
			r := newRig(t)
			if err := r.sendGroup(t); err != nil {
				return nil, err
			}
			r.repair = func() error { // the program that should read starts
				_, err := t.sink(t.host, dstPort)
				return err
			}
			return r, r.countIn(t, "snmp", "Udp", "IgnoredMulti", "UdpIgnoredMulti")
		},
	}
}

// mcastNotMember sends to a group that a program of the host reads, and has
// joined on another device than the one that it comes in by.
func mcastNotMember() Scenario {
	return Scenario{
		Name:  "mcast-not-member",
		Title: "multicast datagrams for a program that joined their group on another device",
		build: buildNotMember,
	}
}

func buildNotMember(t *topology) (*rig, error) {
	if err := t.addSecond(); err != nil {
		return nil, err
	}
	if err := t.join(group, secondDevice); err != nil {
		return nil, err
	}
	if _, err := t.sink(t.host, dstPort); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendGroup(t); err != nil {
		return nil, err
	}
	return r, r.countVanished(t)
}

// sendGroup makes the peer send datagrams to the group.
func (r *rig) sendGroup(t *topology) error {
	r.flow = flow(protoUDP, peerNet.Addr(), group)
	p := newPacket(r.flow)
	low := group.As4()
	p.eth.DstMAC = net.HardwareAddr{0x01, 0, 0x5e, low[1] & 0x7f, low[2], low[3]} // RFC 1112, 6.4
	return r.sendPacket(t, p)
}

// join makes the host a member of a group on a device until the topology is
// closed, by a socket that has no port.
func (t *topology) join(group netip.Addr, device string) error {
	link, err := t.host.Link(device)
	if err != nil {
		return err
	}
	fd, err := t.open(t.host, unix.AF_INET, unix.SOCK_DGRAM)
	if err != nil {
		return err
	}
	mreq := &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(link.Attrs().Index)}
	if err := unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_ADD_MEMBERSHIP, mreq); err != nil {
		return fmt.Errorf("join group %s on %s: %w", group, device, err)
	}
	return nil
}
