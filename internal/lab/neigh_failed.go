package lab

import (
	"errors"
	"net/netip"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// neighFailed has the host send to a neighbour that does not exist.
func neighFailed() Scenario {
	return Scenario{
		Name:  "neigh-failed",
		Title: "packets for a neighbour that does not answer ARP",
		build: buildNeighFailed,
	}
}

// absent is an address of the host's network that nobody has.
var absent = netip.MustParseAddr("192.0.2.77")

// buildNeighFailed counts the ICMP messages by which the kernel tells itself
// of each packet that it gives up, just before it frees it (net/ipv4/arp.c,
// arp_error_report, 5.10 to 7.2): the counters of ARP are those of the whole
// machine. With icmp_ratemask=0 there is a message for every packet.
func buildNeighFailed(t *topology) (*rig, error) {
	// One question, and the answer must come within this time: enough to send
	// a batch.
	const patience = "100"
	for _, setting := range [][2]string{
		{"neigh." + hostDevice + ".mcast_solicit", "1"},
		{"neigh." + hostDevice + ".retrans_time_ms", patience},
		{"icmp_ratemask", "0"},
	} {
		if err := t.host.Sysctl("net.ipv4."+setting[0], setting[1]); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	// A packet that comes while the neighbour is given up would be freed
	// without a message (net/core/neighbour.c, neigh_invalidate).
	r.calm = true
	if err := r.sendUDP(t, t.host, hostNet.Addr(), absent); err != nil {
		return nil, err
	}
	r.repair = func() error { // the neighbour is there
		if err := t.peer.AddAddr(peerDevice, netip.PrefixFrom(absent, 32)); err != nil {
			return err
		}
		return errors.Join(t.permanent(absent, netlab.MAC(peerNet.Addr())), t.receive(t.peer)())
	}
	return r, r.countIn(t, "snmp", "Icmp", "OutDestUnreachs", "IcmpOutDestUnreachs")
}
