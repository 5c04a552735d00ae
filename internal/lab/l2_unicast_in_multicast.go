package lab

import "net"

// l2UnicastInMulticast sends a packet for the host's own address in a frame to
// everybody.
func l2UnicastInMulticast() Scenario {
	return Scenario{
		Name:  "l2-unicast-in-multicast",
		Title: "packets for the host's own address in broadcast frames, which a setting of it refuses",
		build: func(t *topology) (*rig, error) {
			if err := t.host.Sysctl("net.ipv4.conf."+hostDevice+".drop_unicast_in_l2_multicast", "1"); err != nil {
				return nil, err
			}
			r := newRig(t)
			r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
			p := newPacket(r.flow)
			p.eth.DstMAC = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
			if err := r.sendPacket(t, p); err != nil {
				return nil, err
			}
			if _, err := t.sink(t.host, dstPort); err != nil {
				return nil, err
			}
			return r, r.countVanished(t)
		},
	}
}
