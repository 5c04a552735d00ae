package lab

import "github.com/vishvananda/netlink"

// tcEgressDrop has a BPF filter drop what the host sends.
func tcEgressDrop() Scenario {
	return Scenario{
		Name:  "tc-egress-drop",
		Title: "packets of the host that a tc filter on the device's egress drops",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
				return nil, err
			}
			return r, r.dropByTC(t, netlink.HANDLE_MIN_EGRESS)
		},
	}
}
