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
	if _, err := t.listenTCP(dstPort, 1); err != nil {
		return nil, err
	}
	const sequence = etherLen + ipv4Len + 4
	return damaged(t, protoTCP, sequence, 1, "snmp", "Tcp")
}
