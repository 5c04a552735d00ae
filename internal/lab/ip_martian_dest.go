package lab

import "net/netip"

// ipMartianDest sends to an address that only the host itself may use.
func ipMartianDest() Scenario {
	return Scenario{
		Name:  "ip-martian-dest",
		Title: "packets from outside with a loopback address as their destination",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), netip.MustParseAddr("127.0.0.5"))
			if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
				return nil, err
			}
			r.repair = r.receiveAndSend(t, t.host, newPacket(flow(protoUDP, peerNet.Addr(), hostNet.Addr())))
			return r, r.countVanished(t)
		},
	}
}
