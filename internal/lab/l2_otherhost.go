package lab

import "net"

// l2OtherHost sends frames that are addressed to another MAC.
func l2OtherHost() Scenario {
	return Scenario{
		Name:  "l2-otherhost",
		Title: "frames for another MAC, as from a neighbour whose ARP entry is stale",
		build: buildOtherHost,
	}
}

func buildOtherHost(t *topology) (*rig, error) {
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	p := newPacket(r.flow)
	p.eth.DstMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x99}
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	r.repair = r.receiveAndSend(t, t.host, newPacket(r.flow))
	return r, r.countBeforeIP(t)
}

// countBeforeIP makes those packets the loss that came to the device and not
// into IP. From 6.0 the kernel counts them (rx_otherhost_dropped), before it
// does not.
func (r *rig) countBeforeIP(t *topology) error {
	received, err := t.received()
	if err != nil {
		return err
	}
	ip, err := t.table("snmp", "Ip", "InReceives")
	if err != nil {
		return err
	}
	r.count(difference(received, ip), "packets on the ingress of "+hostDevice+" - Ip.InReceives",
		"bpf map, /proc/net/snmp", "bpftool map dump name lab; nstat -az IpInReceives")
	return nil
}
