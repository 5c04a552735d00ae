package lab

import (
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// tunnelECN sends VXLAN packets that something on the way marked as congested,
// although what they carry says that its sender knows no such marks.
func tunnelECN() Scenario {
	return Scenario{
		Name:  "tunnel-ecn",
		Title: "VXLAN packets marked as congested around packets that may not be marked",
		build: buildTunnelECN,
	}
}

func buildTunnelECN(t *topology) (*rig, error) {
	const dev = "vxlan11"
	const congested = 3 // RFC 3168, CE
	if err := t.addVXLAN(dev, vxlanVNI, vxlanPort); err != nil {
		return nil, err
	}
	if err := t.host.AddAddr(dev, wayOutNet); err != nil {
		return nil, err
	}
	inner := newPacket(flow(protoUDP, farNet.Addr(), wayOutNet.Addr()))
	inner.eth.SrcMAC, inner.eth.DstMAC = netlab.MAC(farNet.Addr()), vxlanMAC
	content, err := inner.bytes()
	if err != nil {
		return nil, err
	}
	p, err := vxlanPacket(layers.VXLAN{ValidIDFlag: true, VNI: vxlanVNI}, content)
	if err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = vxlanFlow()
	p.ip.TOS = congested
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	// What marks them is told not to.
	r.repair = func() error {
		p.ip.TOS = 0
		return r.sendPacket(t, p)
	}
	r.count(t.rxFrameErrors(dev), dev+" rx_frame_errors", "rtnetlink", "ip -s -s link show dev "+dev)
	_, err = t.sink(t.host, dstPort)
	return r, err
}

// rxFrameErrors counts the frames that a device of the host found wrong.
func (t *topology) rxFrameErrors(device string) counter {
	return t.linkCounter(device, "rx_frame_errors", func(s *netlink.LinkStatistics) uint64 { return s.RxFrameErrors })
}
