package lab

// udpNoPort sends to a port that no socket is bound to.
func udpNoPort() Scenario {
	return Scenario{
		Name:  "udp-noport",
		Title: "UDP datagrams to a port that nothing listens on",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
				return nil, err
			}
			r.repair = t.receive(t.host)
			return r, r.countIn(t, "snmp", "Udp", "NoPorts", "UdpNoPorts")
		},
	}
}
