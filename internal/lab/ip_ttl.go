package lab

// ipTTL sends packets through the host that may not go any further.
func ipTTL() Scenario {
	return Scenario{
		Name:  "ip-ttl",
		Title: "packets whose TTL runs out when the host should forward them",
		build: func(t *topology) (*rig, error) {
			if err := t.addFar(); err != nil {
				return nil, err
			}
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), farNet.Addr())
			p := newPacket(r.flow)
			p.ip.TTL = 1
			if err := r.sendPacket(t, p); err != nil {
				return nil, err
			}
			r.repair = r.receiveAndSend(t, t.far, newPacket(r.flow))
			return r, r.countIn(t, "snmp", "Ip", "InHdrErrors", "IpInHdrErrors")
		},
	}
}
