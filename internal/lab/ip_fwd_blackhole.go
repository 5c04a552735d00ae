package lab

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ipFwdBlackhole sends through the host to a network that a route of it leads
// nowhere.
func ipFwdBlackhole() Scenario {
	return Scenario{
		Name:  "ip-fwd-blackhole",
		Title: "packets that the host should forward and has a blackhole route for",
		build: buildBlackhole,
	}
}

func buildBlackhole(t *topology) (*rig, error) {
	if err := t.forward(); err != nil {
		return nil, err
	}
	dst := &net.IPNet{IP: elsewhere.AsSlice(), Mask: net.CIDRMask(24, 32)}
	dst.IP = dst.IP.Mask(dst.Mask)
	if err := t.host.Links().RouteAdd(&netlink.Route{Type: unix.RTN_BLACKHOLE, Dst: dst}); err != nil {
		return nil, fmt.Errorf("add route blackhole %s: %w", dst, err)
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), elsewhere)
	if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
		return nil, err
	}
	r.repair = t.wayElsewhere
	return r, r.countVanished(t)
}
