package lab

// ipNotLocal sends to an address that the host does not have, while it does
// not forward.
func ipNotLocal() Scenario {
	return Scenario{
		Name:  "ip-not-local",
		Title: "packets for an address that is not the host's, which does not forward",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), elsewhere)
			if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
				return nil, err
			}
			return r, r.countIn(t, "snmp", "Ip", "InAddrErrors", "IpInAddrErrors")
		},
	}
}
