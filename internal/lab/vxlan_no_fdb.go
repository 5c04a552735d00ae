package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// vxlanNoFDB sends into a VXLAN device that does not know where its other end
// is.
func vxlanNoFDB() Scenario {
	return Scenario{
		Name:  "vxlan-no-fdb",
		Title: "packets for a MAC address behind a VXLAN device that knows no remote for it",
		build: buildVXLANNoFDB,
	}
}

func buildVXLANNoFDB(t *topology) (*rig, error) {
	const dev = "vxlan11"
	if err := t.addVXLAN(dev, vxlanVNI, vxlanPort); err != nil {
		return nil, err
	}
	if err := t.host.AddAddr(dev, wayOutNet); err != nil {
		return nil, err
	}
	link, err := t.host.Link(dev)
	if err != nil {
		return nil, err
	}
	if err := t.knownBehind(dev); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.device = dev
	if err := r.sendUDP(t, t.host, wayOutNet.Addr(), farNet.Addr()); err != nil {
		return nil, err
	}
	// bridge fdb append 00:00:00:00:00:00 dev DEV dst PEER
	r.repair = func() error {
		err := t.host.Links().NeighAppend(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
			State: netlink.NUD_PERMANENT, IP: peerNet.Addr().AsSlice(), HardwareAddr: make(net.HardwareAddr, 6),
		})
		if err != nil {
			return fmt.Errorf("add remote %s to %s: %w", peerNet.Addr(), dev, err)
		}
		return nil
	}
	r.count(t.txDropped(dev), dev+" tx_dropped", "rtnetlink", "ip -s link show dev "+dev)
	return r, nil
}
