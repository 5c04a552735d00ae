package lab

import (
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// ipv6NDiscInvalid asks the host for its own address with a question that has
// come through a router, which neighbour discovery does not allow.
func ipv6NDiscInvalid() Scenario {
	return Scenario{
		Name:  "ipv6-ndisc-invalid",
		Title: "neighbour solicitations with a hop limit below 255, as if they came from beyond the link",
		build: buildNDiscInvalid,
	}
}

func buildNDiscInvalid(t *topology) (*rig, error) {
	if err := t.enableIPv6(); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoICMPv6, peerNet6.Addr(), hostNet6.Addr())
	p := newPacket6(r.flow)
	p.transport = []gopacket.SerializableLayer{
		&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)},
		&layers.ICMPv6NeighborSolicitation{TargetAddress: hostNet6.Addr().AsSlice()},
	}
	if err := r.sendPacket6(t, p); err != nil { // a hop limit of 64
		return nil, err
	}
	// The kernel has no counter for them. Each question that is accepted is
	// answered.
	asked, err := t.table6("Icmp6InNeighborSolicits")
	if err != nil {
		return nil, err
	}
	answered, err := t.table6("Icmp6OutNeighborAdvertisements")
	if err != nil {
		return nil, err
	}
	r.count(difference(asked, answered), "Icmp6InNeighborSolicits - Icmp6OutNeighborAdvertisements", "/proc/net/snmp6",
		"nstat -az Icmp6InNeighborSolicits Icmp6OutNeighborAdvertisements")
	r.repair = func() error { // the sender is on the link
		p.ip.HopLimit = 255
		return r.sendPacket6(t, p)
	}
	return r, nil
}
