package lab

// ipHeader sends packets whose header was damaged on its way.
func ipHeader() Scenario {
	return Scenario{
		Name:  "ip-header",
		Title: "packets whose IPv4 header does not match its checksum",
		build: func(t *topology) (*rig, error) {
			return damaged(t, protoUDP, etherLen+1, 4, "netstat", "IpExt") // a bit of the type of service
		},
	}
}
