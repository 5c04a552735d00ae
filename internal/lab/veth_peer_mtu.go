package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// vethPeerMTU sends packets that the other end of the veth pair is too small
// for.
func vethPeerMTU() Scenario {
	return Scenario{
		Name:  "veth-peer-mtu",
		Title: "packets that are longer than the MTU of the other end of a veth pair",
		build: buildPeerMTU,
	}
}

func buildPeerMTU(t *topology) (*rig, error) {
	const peerMTU = 1000
	link, err := t.peer.Link(peerDevice)
	if err != nil {
		return nil, err
	}
	if err := t.peer.Links().LinkSetMTU(link, peerMTU); err != nil {
		return nil, fmt.Errorf("set MTU %d of %s: %w", peerMTU, peerDevice, err)
	}
	r := newRig(t)
	r.from, r.flow = t.host, flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	s, err := t.udpSender(t.host, r.flow.Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	// The kernel lets pass what is longer by a header of Ethernet or VLAN
	// (include/linux/netdevice.h, __is_skb_forwardable).
	r.emit = s.datagrams(peerMTU)
	r.count(t.txDropped(hostDevice), hostDevice+" tx_dropped", "rtnetlink", "ip -s link show dev "+hostDevice)
	return r, nil
}

// txDropped counts what a device of the host did not send. The kernel does so
// in the sender's call.
func (t *topology) txDropped(device string) counter {
	return t.linkCounter(device, "tx_dropped", func(s *netlink.LinkStatistics) uint64 { return s.TxDropped })
}
