package lab

import "github.com/vishvananda/netlink"

// xfrmInPolicy sends what an IPsec policy of the host forbids.
func xfrmInPolicy() Scenario {
	return Scenario{
		Name:  "xfrm-in-policy",
		Title: "datagrams from a neighbour that an IPsec policy of the host blocks",
		build: func(t *topology) (*rig, error) { return buildXfrmIn(t, true, "XfrmInPolBlock") },
	}
}

// xfrmInClear sends in clear what an IPsec policy of the host wants encrypted.
func xfrmInClear() Scenario {
	return Scenario{
		Name:  "xfrm-in-policy-clear",
		Title: "datagrams in clear from a neighbour whose packets an IPsec policy of the host wants encrypted",
		build: func(t *topology) (*rig, error) {
			r, err := buildXfrmIn(t, false, "XfrmInTmplMismatch")
			if err != nil {
				return nil, err
			}
			// The neighbour is taken out of what is to be encrypted.
			r.repair = func() error {
				return t.forgive(t.host, peerNet.Addr(), hostNet.Addr(), netlink.XFRM_DIR_IN)
			}
			return r, nil
		},
	}
}

func buildXfrmIn(t *topology, block bool, field string) (*rig, error) {
	src, dst := peerNet.Addr(), hostNet.Addr()
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, src, dst); err != nil {
		return nil, err
	}
	if err := t.policy(t.host, src, dst, netlink.XFRM_DIR_IN, block); err != nil {
		return nil, err
	}
	if err := r.countXfrm(t, field); err != nil {
		return nil, err
	}
	_, err := t.sink(t.host, dstPort)
	return r, err
}
