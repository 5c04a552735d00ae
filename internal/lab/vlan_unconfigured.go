package lab

import (
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// vlanUnconfigured sends frames of a VLAN that the host has no device for.
func vlanUnconfigured() Scenario {
	return Scenario{
		Name:  "vlan-unconfigured",
		Title: "frames with a VLAN tag that the host has no VLAN device for",
		build: buildVLAN,
	}
}

func buildVLAN(t *topology) (*rig, error) {
	const vlan = 100
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	plain, err := newPacket(r.flow).bytes()
	if err != nil {
		return nil, err
	}
	eth := etherHeader(layers.EthernetTypeDot1Q)
	tag := layers.Dot1Q{VLANIdentifier: vlan, Type: layers.EthernetTypeIPv4}
	frame, err := serialize(&eth, &tag, gopacket.Payload(plain[etherLen:]))
	if err != nil {
		return nil, err
	}
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	r.repair = r.receiveAndSend(t, t.host, newPacket(r.flow)) // the tag is taken off on its way
	return r, r.countBeforeIP(t)
}
