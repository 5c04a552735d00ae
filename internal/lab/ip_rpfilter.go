package lab

import (
	"net/netip"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// ipRPFilter sends from an address that the host would answer through another
// device, while its strict reverse-path filter is on.
func ipRPFilter() Scenario {
	return Scenario{
		Name:  "ip-rpfilter",
		Title: "packets from a source that routes out of another device, under rp_filter=1",
		build: buildRPFilter,
	}
}

func buildRPFilter(t *topology) (*rig, error) {
	const other = "lab1"
	foreign := netip.MustParsePrefix("198.51.100.2/32")
	err := netlab.Veth(
		netlab.End{NS: t.host, Name: other, Addr: netip.MustParsePrefix("203.0.113.1/24")},
		netlab.End{NS: t.peer, Name: "peer1", Addr: netip.MustParsePrefix("203.0.113.2/24")},
	)
	if err != nil {
		return nil, err
	}
	if err := t.peer.AddAddr("lo", foreign); err != nil {
		return nil, err
	}
	if err := t.host.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), other); err != nil {
		return nil, err
	}
	// The kernel takes the greater of all and the device's own; all is 0.
	if err := t.host.Sysctl("net.ipv4.conf."+hostDevice+".rp_filter", "1"); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, foreign.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "netstat", "TcpExt", "IPReversePathFilter", "TcpExtIPReversePathFilter")
}
