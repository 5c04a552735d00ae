package lab

import "net/netip"

// ipMartianSource sends from an address that only the host itself may use.
func ipMartianSource() Scenario {
	return Scenario{
		Name:  "ip-martian-source",
		Title: "packets from outside with a loopback address as their source",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = flow(protoUDP, netip.MustParseAddr("127.0.0.5"), hostNet.Addr())
			if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
				return nil, err
			}
			r.repair = r.receiveAndSend(t, t.host, newPacket(flow(protoUDP, peerNet.Addr(), hostNet.Addr())))
			return r, r.countVanished(t)
		},
	}
}
