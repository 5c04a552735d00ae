package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// neighQueueFull has the host send more to a neighbour that it does not know
// yet than may wait for the answer to ARP.
func neighQueueFull() Scenario {
	return Scenario{
		Name:  "neigh-queue-full",
		Title: "packets for a neighbour whose address is not known yet, more than unres_qlen_bytes lets wait",
		build: buildNeighQueue,
	}
}

// shy is an address of the peer that it does not answer ARP for.
var shy = netip.MustParseAddr("192.0.2.3")

// buildNeighQueue lets one packet wait, so that each packet pushes out the one
// before (net/core/neighbour.c, __neigh_event_send). The last that waits is
// delivered in the end, when the host is told of the neighbour. The counters
// of ARP are those of the whole machine; what the host sent and the peer did
// not get is the loss, and one that waits.
func buildNeighQueue(t *topology) (*rig, error) {
	for _, setting := range [][2]string{
		{"unres_qlen_bytes", "1"},
		{"retrans_time_ms", "600000"}, // never gives up
	} {
		if err := t.host.Sysctl("net.ipv4.neigh."+hostDevice+"."+setting[0], setting[1]); err != nil {
			return nil, err
		}
	}
	const neverAnswer = "8"
	if err := t.peer.Sysctl("net.ipv4.conf."+peerDevice+".arp_ignore", neverAnswer); err != nil {
		return nil, err
	}
	if err := t.peer.AddAddr(peerDevice, netip.PrefixFrom(shy, 32)); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), shy); err != nil {
		return nil, err
	}
	arrived, err := r.countLink(t)
	if err != nil {
		return nil, err
	}
	s, err := listen(t.peer, r.flow.Dst.Port())
	if err != nil {
		return nil, err
	}
	t.onClose(s.close)
	r.prove = r.proveIntroduced(t, arrived)
	waits := false
	r.arm = func(ctx context.Context) (sent uint64, err error) {
		sent, err = r.send(ctx, 1, r.emit, r.lost)
		waits = sent > 0
		return sent, err
	}
	r.disarm = func() (uint64, error) {
		if !waits {
			return 0, nil
		}
		waits = false
		before, err := arrived()
		if err != nil {
			return 0, err
		}
		err = t.introduce(shy, arrived, before+1, r.patience)
		read, derr := s.drain()
		return read, errors.Join(err, derr)
	}
	return r, nil
}

// countLink makes those packets the loss that the host's IP sent and the peer
// did not get. It returns the counter of those that it got.
func (r *rig) countLink(t *topology) (arrived counter, err error) {
	sent, err := t.table("snmp", "Ip", "OutRequests")
	if err != nil {
		return nil, err
	}
	if arrived, err = t.tableOf(t.peer, "snmp", "Ip", "InDelivers"); err != nil {
		return nil, err
	}
	r.count(difference(sent, arrived), "Ip.OutRequests - Ip.InDelivers of the peer", "/proc/net/snmp",
		"nstat -az IpOutRequests; in the peer's namespace: nstat -az IpInDelivers")
	return arrived, nil
}

// introduce tells the host of a neighbour, which lets go what waits for that,
// and makes the host forget it again. It returns when want packets in all have
// arrived.
func (t *topology) introduce(addr netip.Addr, arrived counter, want uint64, patience time.Duration) error {
	if err := t.permanent(addr, netlab.MAC(peerNet.Addr())); err != nil {
		return err
	}
	if err := await(arrived, want, patience); err != nil {
		return err
	}
	return t.forgetNeighbour(addr)
}

// forgetNeighbour makes the host forget a neighbour.
func (t *topology) forgetNeighbour(addr netip.Addr) error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	err = t.host.Links().NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: addr.AsSlice()})
	if err != nil {
		return fmt.Errorf("delete neighbour %s of %s: %w", addr, hostDevice, err)
	}
	return nil
}
