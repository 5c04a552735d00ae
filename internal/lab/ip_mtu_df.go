package lab

import (
	"fmt"

	"github.com/gopacket/gopacket/layers"
)

// ipMTUDF sends packets through the host that are too long for the device
// behind it and may not be fragmented.
func ipMTUDF() Scenario {
	return Scenario{
		Name:  "ip-mtu-df",
		Title: "packets with DF that are longer than the MTU of the host's way out",
		build: buildMTU,
	}
}

func buildMTU(t *topology) (*rig, error) {
	const mtu = 1300
	if err := t.addFar(); err != nil {
		return nil, err
	}
	link, err := t.host.Link(wayOut)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().LinkSetMTU(link, mtu); err != nil {
		return nil, fmt.Errorf("set MTU %d of %s: %w", mtu, wayOut, err)
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), farNet.Addr())
	p := newPacket(r.flow)
	p.ip.Flags = layers.IPv4DontFragment
	p.payload = make([]byte, mtu-ipv4Len-udpLen+1)
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "snmp", "Ip", "FragFails", "IpFragFails")
}
