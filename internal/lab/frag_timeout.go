package lab

import "github.com/gopacket/gopacket/layers"

// fragTimeout sends first fragments and never the rest.
func fragTimeout() Scenario {
	return Scenario{
		Name:  "frag-timeout",
		Title: "fragments of datagrams whose other fragments never come",
		build: buildFragTimeout,
	}
}

func buildFragTimeout(t *topology) (*rig, error) {
	// With 0 the time could be over before the fragment is queued.
	if err := t.host.Sysctl("net.ipv4.ipfrag_time", "1"); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	send, err := t.frames()
	if err != nil {
		return nil, err
	}
	p := firstFragment(r)
	// What is between takes a datagram as a whole.
	r.repair = r.receiveAndSend(t, t.host, newPacket(r.flow))
	r.emit = func() error {
		p.ip.Id++
		frame, err := p.bytes()
		if err != nil {
			return err
		}
		return send(frame)
	}
	if r.taken, err = t.table("snmp", "Ip", "ReasmReqds"); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "snmp", "Ip", "ReasmTimeout", "IpReasmTimeout")
}

// firstFragment is that of a datagram of the rig's flow. Its payload is a
// multiple of 8 bytes, as that of each fragment but the last must be.
func firstFragment(r *rig) *packet {
	p := newPacket(r.flow)
	p.ip.Flags = layers.IPv4MoreFragments
	return p
}
