package lab

import "github.com/gopacket/gopacket/layers"

// vxlanVNIMissing sends VXLAN packets of a network that the host has no device for.
func vxlanVNIMissing() Scenario {
	return Scenario{
		Name:  "vxlan-vni",
		Title: "VXLAN packets with a network identifier (VNI) that no device of the host has",
		build: buildVXLANVNI,
	}
}

func buildVXLANVNI(t *topology) (*rig, error) {
	const has, wants = "vxlan11", "vxlan10"
	if err := t.addVXLAN(has, vxlanVNI, vxlanPort); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = vxlanFlow()
	if err := r.sendVXLAN(t, layers.VXLAN{ValidIDFlag: true, VNI: vxlanVNI - 1}); err != nil {
		return nil, err
	}
	r.repair = func() error { return t.addVXLAN(wants, vxlanVNI-1, vxlanPort) }
	return r, r.lossAtVXLAN(t, has, wants)
}
