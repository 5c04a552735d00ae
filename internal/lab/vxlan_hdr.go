package lab

import "github.com/gopacket/gopacket/layers"

// vxlanHeader sends VXLAN packets with an extension that the host's device does
// not have: the other end was made with gbp, this one was not.
func vxlanHeader() Scenario {
	return Scenario{
		Name:  "vxlan-hdr",
		Title: "VXLAN packets with a group policy (GBP) for a device that was made without",
		build: buildVXLANHeader,
	}
}

func buildVXLANHeader(t *topology) (*rig, error) {
	const dev = "vxlan11"
	if err := t.addVXLAN(dev, vxlanVNI, vxlanPort); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = vxlanFlow()
	h := layers.VXLAN{ValidIDFlag: true, VNI: vxlanVNI, GBPExtension: true, GBPGroupPolicyID: 7}
	if err := r.sendVXLAN(t, h); err != nil {
		return nil, err
	}
	// Extensions cannot be changed: the end that has too many is made anew.
	r.repair = func() error {
		return r.sendVXLAN(t, layers.VXLAN{ValidIDFlag: true, VNI: vxlanVNI})
	}
	return r, r.lossAtVXLAN(t, dev)
}
