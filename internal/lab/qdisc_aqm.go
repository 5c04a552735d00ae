package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// qdiscAQM sends more than a rate limit lets through, and more than fq_codel,
// the queue behind it, keeps: it drops from the longest flow.
func qdiscAQM() Scenario {
	return Scenario{
		Name:  "qdisc-aqm",
		Title: "packets that an active queue (fq_codel) drops because more come than the link takes",
		build: buildAQM,
	}
}

// buildAQM puts fq_codel behind a rate limit that lets nothing through. Each
// packet that comes to the full queue pushes out the oldest of its flow
// (net/sched/sch_fq_codel.c, fq_codel_enqueue).
func buildAQM(t *topology) (*rig, error) {
	const room = 10 // packets
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	queue := netlink.NewFqCodel(netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(10, 0), Parent: netlink.MakeHandle(1, 1),
	})
	queue.Limit, queue.DropBatchSize = room, 1
	if err := t.stopAt(link, queue); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	for range room - 1 { // and the one that does not get through
		if err := r.emit(); err != nil {
			return nil, fmt.Errorf("fill queue of %s: %w", hostDevice, err)
		}
	}
	stats, err := statsOfQdisc(t.host, link, "fq_codel")
	if err != nil {
		return nil, err
	}
	if stats.Qlen != room || stats.Drops != 0 {
		return nil, fmt.Errorf("fill queue of %s: %d packets are in it and %d were dropped, want %d and 0", hostDevice, stats.Qlen, stats.Drops, room)
	}
	r.countQdisc(t, link, "fq_codel")
	return r, nil
}

// stopAt puts a rate limit on a device of the host, the queue behind it, and at
// its head a packet that is longer than the limit's burst, and so never gets
// through. It is let in while the burst is longer, as in buildShaper.
func (t *topology) stopAt(link netlink.Link, queue netlink.Qdisc) error {
	const (
		long              = 1500 - ipv4Len - udpLen
		burst, smallBurst = 1600, 1100
		smallMTU          = 1000
	)
	name := link.Attrs().Name
	if err := t.host.Links().QdiscAdd(shaper(link, burst)); err != nil {
		return fmt.Errorf("add qdisc tbf to %s: %w", name, err)
	}
	if err := t.host.Links().QdiscReplace(queue); err != nil {
		return fmt.Errorf("add qdisc %s to %s: %w", queue.Type(), name, err)
	}
	f := fromPort(flow(protoUDP, hostNet.Addr(), peerNet.Addr()), srcPort+1)
	filler, err := t.udpSender(t.host, f.Src, f.Dst)
	if err != nil {
		return err
	}
	send := filler.datagrams(long)
	for range 2 { // the first uses up the burst
		if err := send(); err != nil {
			return err
		}
	}
	if err := t.host.Links().LinkSetMTU(link, smallMTU); err != nil {
		return fmt.Errorf("set MTU %d of %s: %w", smallMTU, name, err)
	}
	if err := t.host.Links().QdiscChange(shaper(link, smallBurst)); err != nil {
		return fmt.Errorf("change qdisc tbf of %s: %w", name, err)
	}
	return nil
}
