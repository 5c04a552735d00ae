package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// tcIngressDrop has a BPF filter drop what comes in.
func tcIngressDrop() Scenario {
	return Scenario{
		Name:  "tc-ingress-drop",
		Title: "packets that a tc filter on the device's ingress drops",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
				return nil, err
			}
			return r, r.dropByTC(t, netlink.HANDLE_MIN_INGRESS)
		},
	}
}

// dropByTC has a filter of the host's device drop all of one direction, and
// makes the counter of clsact the one of the loss.
func (r *rig) dropByTC(t *topology, parent uint32) error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	const tcActShot = 2 // include/uapi/linux/pkt_cls.h
	if err := addFilter(t.host, link, parent, verdict(tcActShot)); err != nil {
		return err
	}
	r.count(dropsOfClsact(t.host, link), "clsact "+hostDevice+" dropped", "rtnetlink",
		"tc -s qdisc show dev "+hostDevice)
	return nil
}

// addFilter does what these would:
//
//	tc qdisc add dev DEV clsact
//	tc filter add dev DEV ingress|egress bpf da object-with-that-code
func addFilter(ns *netlab.Namespace, link netlink.Link, parent uint32, code asm.Instructions) error {
	name := link.Attrs().Name
	err := ns.Links().QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}})
	if err != nil {
		return fmt.Errorf("add qdisc clsact to %s: %w", name, err)
	}
	prog, err := loadProgram(ebpf.SchedCLS, code)
	if err != nil {
		return err
	}
	defer prog.Close() // the filter keeps it
	err = ns.Links().FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: link.Attrs().Index, Parent: parent, Handle: 1, Priority: 1, Protocol: unix.ETH_P_ALL,
		},
		Fd: prog.FD(), Name: "lab", DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("add bpf filter to %s: %w", name, err)
	}
	return nil
}

// dropsOfClsact counts what the filters of a device dropped, both directions
// together: net/core/dev.c, sch_handle_ingress and sch_handle_egress.
func dropsOfClsact(ns *netlab.Namespace, link netlink.Link) counter {
	return func() (uint64, error) {
		s, err := statsOfQdisc(ns, link, "clsact")
		return uint64(s.Drops), err
	}
}

// statsOfQdisc reads how the only qdisc of that kind on a device does.
func statsOfQdisc(ns *netlab.Namespace, link netlink.Link, kind string) (netlink.GnetStatsQueue, error) {
	name := link.Attrs().Name
	list, err := ns.Links().QdiscList(link)
	if err != nil {
		return netlink.GnetStatsQueue{}, fmt.Errorf("list qdiscs of %s: %w", name, err)
	}
	for _, q := range list {
		if s := q.Attrs().Statistics; q.Type() == kind && s != nil && s.Queue != nil {
			return *s.Queue, nil
		}
	}
	return netlink.GnetStatsQueue{}, fmt.Errorf("%s of %s: %w", kind, name, errNoCounter)
}

// received counts what a filter on the ingress of the host's device sees. It
// drops nothing. The device's own counters grow before a packet is handled.
func (t *topology) received() (counter, error) {
	const tcActOK = 0 // include/uapi/linux/pkt_cls.h
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	return firstOf(array), addFilter(t.host, link, netlink.HANDLE_MIN_INGRESS, countingVerdict(array, tcActOK))
}
