package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// bridged is a host that bridges between the peer and the far namespace.
type bridged struct {
	*topology
	in, out netlink.Link // its two ports
	// to is the flow of a packet from the peer to the far namespace.
	to record.Flow
}

// addBridged makes a bridge of the host, whose ports lead to the peer and to
// the far namespace. It has to learn nothing: it is told where the far address
// is.
func (t *topology) addBridged() (*bridged, error) {
	if err := t.addFar(); err != nil {
		return nil, err
	}
	b := &bridged{topology: t, to: flow(protoUDP, peerNet.Addr(), farNet.Addr())}
	var err error
	if b.in, err = t.host.Link(hostDevice); err != nil {
		return nil, err
	}
	if b.out, err = t.host.Link(wayOut); err != nil {
		return nil, err
	}
	if _, err := t.addBridge(b.in); err != nil {
		return nil, err
	}
	master, err := t.host.Link(bridgeDevice)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().LinkSetMaster(b.out, master); err != nil {
		return nil, fmt.Errorf("add port %s to %s: %w", wayOut, bridgeDevice, err)
	}
	err = t.host.Links().NeighSet(&netlink.Neigh{
		LinkIndex: b.out.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
		State: netlink.NUD_NOARP, HardwareAddr: netlab.MAC(farNet.Addr()),
	})
	if err != nil {
		return nil, fmt.Errorf("tell %s of %s: %w", bridgeDevice, farNet.Addr(), err)
	}
	return b, nil
}

// frame is a packet from the peer to the far namespace.
func (b *bridged) frame() *packet {
	p := newPacket(b.to)
	p.eth.DstMAC = netlab.MAC(farNet.Addr())
	return p
}

// countUnbridged makes those packets the loss that came to the bridge by the
// one port and did not leave by the other: the bridge itself counts none of
// its losses.
func (b *bridged) countUnbridged(r *rig) error {
	came, err := b.received()
	if err != nil {
		return err
	}
	r.count(difference(came, b.txPackets(wayOut)), "packets on the ingress of "+hostDevice+" - tx_packets of "+wayOut,
		"bpf map, rtnetlink", "bpftool map dump name lab; ip -s link show dev "+wayOut)
	return nil
}

// txPackets counts what a device of the host has sent.
func (t *topology) txPackets(device string) counter {
	return func() (uint64, error) {
		link, err := t.host.Link(device)
		if err != nil {
			return 0, err
		}
		if s := link.Attrs().Statistics; s != nil {
			return s.TxPackets, nil
		}
		return 0, fmt.Errorf("tx_packets of %s: %w", device, errNoCounter)
	}
}

// rig is one whose generator sends p to the bridge.
func (b *bridged) rig(p *packet) (*rig, error) {
	r := newRig(b.topology)
	r.flow = b.to
	if err := r.sendPacket(b.topology, p); err != nil {
		return nil, err
	}
	return r, b.countUnbridged(r)
}
