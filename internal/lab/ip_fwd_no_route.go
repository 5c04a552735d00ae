package lab

// ipFwdNoRoute sends through the host to a network that it knows no way to.
func ipFwdNoRoute() Scenario {
	return Scenario{
		Name:  "ip-fwd-no-route",
		Title: "packets that the host should forward and has no route for",
		build: func(t *topology) (*rig, error) {
			if err := t.forward(); err != nil {
				return nil, err
			}
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), elsewhere)
			if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
				return nil, err
			}
			r.repair = t.wayElsewhere
			return r, r.countIn(t, "netstat", "IpExt", "InNoRoutes", "IpExtInNoRoutes")
		},
	}
}
