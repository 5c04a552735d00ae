package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// qdiscShaper sends more than a rate limit lets through.
func qdiscShaper() Scenario {
	return Scenario{
		Name:  "qdisc-shaper",
		Title: "packets that find the queue behind a rate limit (tbf) full",
		build: buildShaper,
	}
}

// buildShaper fills the queue with a packet that is longer than the limit's
// burst, and so never gets through: nothing that comes later is let through
// either, however long it takes (net/sched/sch_tbf.c, tbf_dequeue). It is let
// into the queue while the burst is longer.
func buildShaper(t *topology) (*rig, error) {
	const (
		// The longest packet that the MTU allows, and the burst before and
		// after: the kernel warns of one that is shorter than the MTU.
		long              = 1500 - ipv4Len - udpLen
		burst, smallBurst = 1600, 1100
		smallMTU          = 1000
	)
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().QdiscAdd(shaper(link, burst)); err != nil {
		return nil, fmt.Errorf("add qdisc tbf to %s: %w", hostDevice, err)
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	filler, err := t.udpSender(t.host, fromPort(r.flow, srcPort+1).Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	send := filler.datagrams(long)
	for range 2 { // the first uses up the burst
		if err := send(); err != nil {
			return nil, err
		}
	}
	if err := t.host.Links().LinkSetMTU(link, smallMTU); err != nil {
		return nil, fmt.Errorf("set MTU %d of %s: %w", smallMTU, hostDevice, err)
	}
	if err := t.host.Links().QdiscChange(shaper(link, smallBurst)); err != nil {
		return nil, fmt.Errorf("change qdisc tbf of %s: %w", hostDevice, err)
	}
	s, err := statsOfQdisc(t.host, link, "tbf")
	if err != nil {
		return nil, err
	}
	if s.Qlen != 1 {
		return nil, fmt.Errorf("fill queue of %s: %d packets are in it, want 1", hostDevice, s.Qlen)
	}
	r.countQdisc(t, link, "tbf")
	return r, nil
}

// shaper is a rate limit with a queue of its own, which has room for the packet
// that fills it and not for one of the generator too.
func shaper(link netlink.Link, burst uint32) netlink.Qdisc {
	// Bytes a second, and bytes. A burst may last 4 s (sch_tbf.c, tbf_change).
	const rate, room = 400, 1600
	return &netlink.Tbf{
		QdiscAttrs: netlink.QdiscAttrs{
			LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
		},
		Rate: rate, Limit: room, Buffer: netlink.Xmittime(rate, burst),
	}
}
