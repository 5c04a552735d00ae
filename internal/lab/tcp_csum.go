package lab

// tcpCsum sends SYNs to a listener that were damaged on their way.
func tcpCsum() Scenario {
	return Scenario{
		Name:  "tcp-csum",
		Title: "TCP segments that do not match their checksum",
		build: buildTCPCsum,
	}
}

func buildTCPCsum(t *topology) (*rig, error) {
	r := newRig(t)
	r.flow = flow(protoTCP, peerNet.Addr(), hostNet.Addr())
	if _, err := t.listenTCP(r.flow.Dst.Port(), 1); err != nil {
		return nil, err
	}
	frame, err := newPacket(r.flow).bytes()
	if err != nil {
		return nil, err
	}
	const sequence = etherLen + ipv4Len + 4
	frame[sequence] ^= 1
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "snmp", "Tcp", "InCsumErrors", "TcpInCsumErrors")
}
