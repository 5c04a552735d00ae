package lab

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
)

// nicCarrier sends by a device that has lost its carrier.
func nicCarrier() Scenario {
	return Scenario{
		Name:  "nic-carrier",
		Title: "packets that the host sends by a device without carrier: the other end is down",
		build: buildNoCarrier,
	}
}

func buildNoCarrier(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	if _, err := t.sink(t.peer, dstPort); err != nil {
		return nil, err
	}
	peer, err := t.peer.Link(peerDevice)
	if err != nil {
		return nil, err
	}
	if err := t.peer.Links().LinkSetDown(peer); err != nil {
		return nil, fmt.Errorf("set device %s down: %w", peerDevice, err)
	}
	if err := t.awaitState(hostDevice, func(s netlink.LinkOperState) bool { return s != netlink.OperUp }); err != nil {
		return nil, err
	}
	r.repair = func() error {
		if err := t.peer.Links().LinkSetUp(peer); err != nil {
			return fmt.Errorf("set device %s up: %w", peerDevice, err)
		}
		return t.awaitState(hostDevice, func(s netlink.LinkOperState) bool { return s == netlink.OperUp })
	}
	return r, r.countUnsent(t, hostDevice)
}

// countUnsent makes those packets the loss that IP sent and the device did not:
// what the qdisc noop drops counts tx_dropped only since 6.11
// (net/core/dev.c, __dev_xmit_skb).
func (r *rig) countUnsent(t *topology, device string) error {
	sent, err := t.table("snmp", "Ip", "OutRequests")
	if err != nil {
		return err
	}
	r.count(difference(sent, t.txPackets(device)), "Ip.OutRequests - tx_packets of "+device,
		"/proc/net/snmp, rtnetlink", "nstat -az IpOutRequests; ip -s link show dev "+device)
	return nil
}

// awaitState returns when the device of the host is in a state that good
// accepts. The kernel tells of a carrier that is gone from a worker, a second
// later at most, and at the same time takes the queue away
// (net/core/link_watch.c, linkwatch_do_dev).
func (t *topology) awaitState(device string, good func(netlink.LinkOperState) bool) error {
	const pause = time.Millisecond
	for end := time.Now().Add(defaultPatience); ; time.Sleep(pause) {
		link, err := t.host.Link(device)
		if err != nil {
			return err
		}
		if good(link.Attrs().OperState) {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("device %s: its state is %s after %s", device, link.Attrs().OperState, defaultPatience)
		}
	}
}
