package lab

// ipHeader sends packets whose header was damaged on its way.
func ipHeader() Scenario {
	return Scenario{
		Name:  "ip-header",
		Title: "packets whose IPv4 header does not match its checksum",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
			frame, err := newPacket(r.flow).bytes()
			if err != nil {
				return nil, err
			}
			frame[etherLen+1] ^= 4 // a bit of the type of service
			if err := r.sendFrame(t, frame); err != nil {
				return nil, err
			}
			return r, r.countIn(t, "netstat", "IpExt", "InCsumErrors", "IpExtInCsumErrors")
		},
	}
}
