package lab

import "github.com/gopacket/gopacket/layers"

// tunnelNoReceiver sends VXLAN packets to a host that has no VXLAN device.
func tunnelNoReceiver() Scenario {
	return Scenario{
		Name:  "tunnel-no-receiver",
		Title: "VXLAN packets to a host on which no tunnel has that UDP port",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.flow = vxlanFlow()
			if err := r.sendVXLAN(t, layers.VXLAN{ValidIDFlag: true, VNI: vxlanVNI}); err != nil {
				return nil, err
			}
			r.repair = func() error { return t.addVXLAN("vxlan11", vxlanVNI, vxlanPort) }
			return r, r.countIn(t, "snmp", "Udp", "NoPorts", "UdpNoPorts")
		},
	}
}
