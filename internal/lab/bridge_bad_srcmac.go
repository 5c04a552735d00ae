package lab

import "net"

// bridgeBadSrcMAC sends into a bridge frames whose source address is a group.
func bridgeBadSrcMAC() Scenario {
	return Scenario{
		Name:  "bridge-bad-srcmac",
		Title: "frames whose source MAC address is a multicast address, which no bridge takes",
		build: func(t *topology) (*rig, error) {
			b, err := t.addBridged()
			if err != nil {
				return nil, err
			}
			p := b.frame()
			good := p.eth.SrcMAC
			p.eth.SrcMAC = net.HardwareAddr{0x03, 0, 0, 0, 0, 0x99}
			r, err := b.rig(p)
			if err != nil {
				return nil, err
			}
			r.repair = func() error { // the sender gets an address that is one
				p.eth.SrcMAC = good
				return r.sendPacket(t, p)
			}
			return r, nil
		},
	}
}
