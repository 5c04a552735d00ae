package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const ifbDevice = "ifb0"

// tcMirredDown redirects what comes in to a device that is down.
func tcMirredDown() Scenario {
	return Scenario{
		Name:  "tc-mirred-down",
		Title: "packets that a tc filter redirects to a device that is down",
		build: func(t *topology) (*rig, error) {
			r, _, err := t.redirected()
			if err != nil {
				return nil, err
			}
			in, err := t.host.Link(hostDevice)
			if err != nil {
				return nil, err
			}
			r.count(dropsOfClsact(t.host, in), "clsact "+hostDevice+" dropped", "rtnetlink",
				"tc -s qdisc show dev "+hostDevice)
			return r, nil
		},
	}
}

// ifbShaping redirects what comes in to an ifb device, whose rate limit has too
// small a queue: smaller than the packets.
func ifbShaping() Scenario {
	return Scenario{
		Name:  "ifb-shaping",
		Title: "incoming packets that the rate limit on an ifb device has no room for",
		build: buildIFBShaping,
	}
}

func buildIFBShaping(t *topology) (*rig, error) {
	const (
		rate = 12500 // bytes a second: 100 kbit/s
		room = etherLen + ipv4Len + udpLen + payload - 1
		// A burst that lasts shorter than the MTU is warned of (net/sched/sch_tbf.c).
		burst = 1600
	)
	r, ifb, err := t.redirected()
	if err != nil {
		return nil, err
	}
	err = t.host.Links().QdiscAdd(&netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: ifb.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
		},
		Rate: rate, Limit: room, Buffer: netlink.Xmittime(rate, burst),
	})
	if err != nil {
		return nil, fmt.Errorf("add qdisc tbf to %s: %w", ifbDevice, err)
	}
	if err := t.host.Links().LinkSetUp(ifb); err != nil {
		return nil, fmt.Errorf("set device %s up: %w", ifbDevice, err)
	}
	r.countQdisc(t, ifb, "tbf")
	return r, nil
}

// redirected sends UDP to the host, which redirects all that comes in to an ifb
// device that is down still.
func (t *topology) redirected() (*rig, netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ifbDevice
	if err := t.host.Links().LinkAdd(&netlink.Ifb{LinkAttrs: attrs}); err != nil {
		return nil, nil, fmt.Errorf("add device %s: %w", ifbDevice, err)
	}
	ifb, err := t.host.Link(ifbDevice)
	if err != nil {
		return nil, nil, err
	}
	in, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, nil, err
	}
	if err := redirect(t.host.Links(), in, ifb); err != nil {
		return nil, nil, fmt.Errorf("redirect %s to %s: %w", hostDevice, ifbDevice, err)
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, nil, err
	}
	_, err = t.sink(t.host, dstPort)
	return r, ifb, err
}

// redirect does what these would:
//
//	tc qdisc add dev FROM clsact
//	tc filter add dev FROM ingress u32 match u32 0 0 action mirred egress redirect dev TO
func redirect(links *netlink.Handle, from, to netlink.Link) error {
	err := links.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: from.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}})
	if err != nil {
		return fmt.Errorf("add qdisc clsact: %w", err)
	}
	return links.FilterAdd(&netlink.U32{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: from.Attrs().Index, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Actions: []netlink.Action{netlink.NewMirredAction(to.Attrs().Index)},
	})
}
