package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// qdiscFIFOLimit sends through an output queue that is too short. A queue that
// is only short for the load would need a device that is slow: the lab's are
// not.
func qdiscFIFOLimit() Scenario {
	return Scenario{
		Name:  "qdisc-fifo-limit",
		Title: "packets that do not fit into the device's output queue, a fifo of too few bytes",
		build: buildFIFO,
	}
}

func buildFIFO(t *topology) (*rig, error) {
	const kind, limit = "bfifo", etherLen + ipv4Len + udpLen + payload - 1 // one byte less than a packet
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	if err := addFIFO(t.host, link, kind, limit); err != nil {
		return nil, err
	}
	r.countQdisc(t, link, kind)
	return r, nil
}

// addFIFO does what this would: tc qdisc add dev DEV root KIND limit LIMIT. The
// library cannot set the limit.
func addFIFO(ns *netlab.Namespace, link netlink.Link, kind string, limit uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(link.Attrs().Index),
		Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(kind)))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(limit))) // struct tc_fifo_qopt
	err := ns.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("add qdisc %s to %s: %w", kind, link.Attrs().Name, err)
	}
	return nil
}

// countQdisc makes what the only qdisc of that kind on a device of the host
// dropped the loss.
func (r *rig) countQdisc(t *topology, link netlink.Link, kind string) {
	name := link.Attrs().Name
	r.count(func() (uint64, error) {
		s, err := statsOfQdisc(t.host, link, kind)
		return uint64(s.Drops), err
	}, kind+" "+name+" dropped", "rtnetlink", "tc -s qdisc show dev "+name)
}
