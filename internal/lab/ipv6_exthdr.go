package lab

import "github.com/gopacket/gopacket/layers"

// ipv6ExtHdr sends packets with an option that no kernel knows and that says
// what to do then: discard the packet.
func ipv6ExtHdr() Scenario {
	return Scenario{
		Name:  "ipv6-exthdr",
		Title: "IPv6 packets with a hop-by-hop option that the kernel does not know and must discard",
		build: buildIPv6ExtHdr,
	}
}

func buildIPv6ExtHdr(t *topology) (*rig, error) {
	if err := t.enableIPv6(); err != nil {
		return nil, err
	}
	// RFC 4727: for experiments, nobody's. The highest two bits, 01, mean:
	// discard, and tell nobody (RFC 8200, 4.2).
	const experiment, length = 0x5e, 4
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet6.Addr(), hostNet6.Addr())
	p := newPacket6(r.flow)
	p.extend(layers.IPProtocolIPv6HopByHop, [6]byte{experiment, length})
	if err := r.sendPacket6(t, p); err != nil {
		return nil, err
	}
	r.repair = func() error { // the sender leaves the option out
		if _, err := t.sink6(dstPort); err != nil {
			return err
		}
		return r.sendPacket6(t, newPacket6(r.flow))
	}
	return r, r.countIn6(t, "Ip6InHdrErrors")
}
