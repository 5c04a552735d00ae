package lab

// icmpBad sends pings that were damaged on their way.
func icmpBad() Scenario {
	return Scenario{
		Name:  "icmp-bad",
		Title: "ICMP messages that do not match their checksum",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoICMP, peerNet.Addr(), hostNet.Addr())
			frame, err := newPacket(r.flow).bytes()
			if err != nil {
				return nil, err
			}
			frame[len(frame)-1] ^= 1
			if err := r.sendFrame(t, frame); err != nil {
				return nil, err
			}
			return r, r.countIn(t, "snmp", "Icmp", "InCsumErrors", "IcmpInCsumErrors")
		},
	}
}
