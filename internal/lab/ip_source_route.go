package lab

import "github.com/gopacket/gopacket/layers"

// ipSourceRoute sends packets that name the routers which they want to pass.
func ipSourceRoute() Scenario {
	return Scenario{
		Name:  "ip-source-route",
		Title: "packets with a source route in their IP options, under accept_source_route=0",
		build: buildSourceRoute,
	}
}

func buildSourceRoute(t *topology) (*rig, error) {
	// The kernel wants both, the device's own and that of all.
	for _, dev := range []string{"all", hostDevice} {
		if err := t.host.Sysctl("net.ipv4.conf."+dev+".accept_source_route", "0"); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	p := newPacket(r.flow)
	// Loose source routing by one more router (RFC 791, 3.1).
	const lsrr, first = 131, 4
	via := elsewhere.As4()
	p.ip.Options = []layers.IPv4Option{
		{OptionType: lsrr, OptionLength: 7, OptionData: append([]byte{first}, via[:]...)},
		{OptionType: 0, OptionLength: 1},
	}
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	r.repair = func() error { // the sender leaves the option out
		if _, err := t.sink(t.host, dstPort); err != nil {
			return err
		}
		return r.sendPacket(t, newPacket(r.flow))
	}
	return r, r.countVanished(t)
}
