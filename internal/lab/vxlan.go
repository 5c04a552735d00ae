package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

const (
	vxlanPort = 4789 // IANA
	vxlanVNI  = 11
)

// vxlanMAC is the address of the host's VXLAN device, wayOutNet that in the
// network behind the tunnel, where farNet is the other end.
var vxlanMAC = netlab.MAC(wayOutNet.Addr())

// addVXLAN does what this would for the host: ip link add DEV type vxlan id VNI
// dstport PORT; ip link set DEV up. It has no remote.
func (t *topology) addVXLAN(dev string, vni, port int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = dev, vxlanMAC
	links := t.host.Links()
	link := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: vni, Port: port, Learning: true}
	if err := links.LinkAdd(link); err != nil {
		return fmt.Errorf("add VXLAN device %s: %w", dev, err)
	}
	if err := links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", dev, err)
	}
	return nil
}

// vxlanFlow is that of the outer packets from the peer.
func vxlanFlow() record.Flow {
	f := flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	f.Dst = netip.AddrPortFrom(f.Dst.Addr(), vxlanPort)
	return f
}

// announcement is a frame in the network behind the tunnel of which the host
// takes note, and that it does not answer.
func announcement() ([]byte, error) {
	return serialize(&layers.Ethernet{
		SrcMAC: netlab.MAC(farNet.Addr()), DstMAC: vxlanMAC, EthernetType: layers.EthernetTypeARP,
	}, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation:       layers.ARPReply,
		SourceHwAddress: netlab.MAC(farNet.Addr()), SourceProtAddress: farNet.Addr().AsSlice(),
		DstHwAddress: vxlanMAC, DstProtAddress: farNet.Addr().AsSlice(),
	})
}

// sendVXLAN makes the peer send an announcement with that header.
func (r *rig) sendVXLAN(t *topology, h layers.VXLAN) error {
	inner, err := announcement()
	if err != nil {
		return err
	}
	p, err := vxlanPacket(h, inner)
	if err != nil {
		return err
	}
	return r.sendPacket(t, p)
}

// vxlanPacket is a packet from the peer with that header and frame.
func vxlanPacket(h layers.VXLAN, inner []byte) (*packet, error) {
	p := newPacket(vxlanFlow())
	var err error
	p.payload, err = serialize(&h, gopacket.Payload(inner))
	return p, err
}

// lossAtVXLAN makes what came to the VXLAN port and out of none of these devices
// the loss: UDP counts what the tunnel drops as received, once it is freed
// (net/ipv4/udp.c, udp_queue_rcv_one_skb). Nothing else may come by UDP.
func (r *rig) lossAtVXLAN(t *topology, devices ...string) error {
	came, err := t.table("snmp", "Udp", "InDatagrams")
	if err != nil {
		return err
	}
	out := make([]counter, len(devices))
	for i, dev := range devices {
		out[i] = func() (uint64, error) {
			link, err := t.host.Link(dev)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				return 0, nil
			}
			if err != nil {
				return 0, err
			}
			if s := link.Attrs().Statistics; s != nil {
				return s.RxPackets, nil
			}
			return 0, fmt.Errorf("rx_packets of %s: %w", dev, errNoCounter)
		}
	}
	r.count(difference(came, out...), "Udp.InDatagrams - packets of the VXLAN devices",
		"/proc/net/snmp, rtnetlink", "nstat -az UdpInDatagrams; ip -s link show type vxlan")
	return nil
}

// knownBehind has the host know the MAC address of the other end in the network
// behind one of its devices.
func (t *topology) knownBehind(dev string) error {
	link, err := t.host.Link(dev)
	if err != nil {
		return err
	}
	err = t.host.Links().NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: farNet.Addr().AsSlice(), HardwareAddr: netlab.MAC(farNet.Addr()),
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", farNet.Addr(), dev, err)
	}
	return nil
}
