package lab

// icmpBad sends pings that were damaged on their way.
func icmpBad() Scenario {
	return Scenario{
		Name:  "icmp-bad",
		Title: "ICMP messages that do not match their checksum",
		build: func(t *topology) (*rig, error) { return damaged(t, protoICMP, -1, 1, "snmp", "Icmp") },
	}
}
