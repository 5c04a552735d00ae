package lab

// ipUnknownProto sends packets of a protocol that no kernel handles.
func ipUnknownProto() Scenario {
	return Scenario{
		Name:  "ip-unknown-proto",
		Title: "packets of an IP protocol that nothing on the host handles",
		build: func(t *topology) (*rig, error) {
			const experiment = 253 // RFC 3692: for experiments, nobody's
			r := newRig(t)
			r.flow = flow(experiment, peerNet.Addr(), hostNet.Addr())
			if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
				return nil, err
			}
			r.repair = r.receiveAndSend(t, t.host, newPacket(flow(protoUDP, peerNet.Addr(), hostNet.Addr())))
			return r, r.countIn(t, "snmp", "Ip", "InUnknownProtos", "IpInUnknownProtos")
		},
	}
}
