package lab

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// xfrmOut sends what an IPsec policy of the host wants encrypted, and there is
// no key for it.
func xfrmOut() Scenario {
	return Scenario{
		Name:  "xfrm-out",
		Title: "datagrams for a neighbour with whom IPsec has not been negotiated",
		build: func(t *topology) (*rig, error) { return buildXfrmOut(t, false, "XfrmOutNoStates") },
	}
}

// xfrmOutBlock sends what an IPsec policy of the host forbids. The send fails
// before there is a packet.
func xfrmOutBlock() Scenario {
	return Scenario{
		Name:   "xfrm-out-block",
		Title:  "datagrams of an application for a neighbour that an IPsec policy of the host blocks (EPERM)",
		Silent: true,
		build: func(t *topology) (*rig, error) {
			r, err := buildXfrmOut(t, true, "XfrmOutPolBlock")
			if err != nil {
				return nil, err
			}
			r.emit = failing(r.emit, unix.EPERM)
			return r, nil
		},
	}
}

func buildXfrmOut(t *topology, block bool, field string) (*rig, error) {
	src, dst := hostNet.Addr(), peerNet.Addr()
	r := newRig(t)
	if err := r.sendUDP(t, t.host, src, dst); err != nil {
		return nil, err
	}
	if err := t.policy(t.host, src, dst, netlink.XFRM_DIR_OUT, block); err != nil {
		return nil, err
	}
	// The neighbour is taken out of what IPsec is for.
	r.repair = func() error { return t.forgive(t.host, src, dst, netlink.XFRM_DIR_OUT) }
	if err := r.countXfrm(t, field); err != nil {
		return nil, err
	}
	_, err := t.sink(t.peer, dstPort)
	return r, err
}
