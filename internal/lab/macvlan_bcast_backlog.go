package lab

import (
	"fmt"
	"net"

	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// macvlanBacklog sends broadcasts to a device under a macvlan whose queue for
// broadcasts holds none. A queue that is only short for the load would need a
// worker that is slow.
func macvlanBacklog() Scenario {
	return Scenario{
		Name:  "macvlan-bcast-backlog",
		Title: "broadcasts for a macvlan device whose queue for broadcasts holds none",
		build: buildMacvlan,
	}
}

func buildMacvlan(t *topology) (*rig, error) {
	const dev = "macvlan0"
	const usual = 1000 // drivers/net/macvlan.c, MACVLAN_DEFAULT_BC_QUEUE_LEN
	lower, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = dev, lower.Attrs().Index
	links := t.host.Links()
	link := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := links.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("add macvlan device %s: %w", dev, err)
	}
	if err := setBroadcastQueue(t.host, link, 0); err != nil {
		return nil, err
	}
	if err := links.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set device %s up: %w", dev, err)
	}
	frame, err := broadcast()
	if err != nil {
		return nil, err
	}
	r := newRig(t)
	r.repair = func() error { return setBroadcastQueue(t.host, link, usual) }
	r.count(t.rxDropped(hostDevice), hostDevice+" rx_dropped", "rtnetlink", "ip -s link show dev "+hostDevice)
	return r, r.sendFrame(t, frame)
}

// broadcast is a frame for everybody of which a host takes note and that it does
// not answer: the peer announces its address.
func broadcast() ([]byte, error) {
	mac, addr := netlab.MAC(peerNet.Addr()), peerNet.Addr().AsSlice()
	return serialize(&layers.Ethernet{
		SrcMAC: mac, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP,
	}, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: layers.ARPReply, SourceHwAddress: mac, SourceProtAddress: addr,
		DstHwAddress: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, DstProtAddress: addr,
	})
}

// setBroadcastQueue does what this would: ip link set dev DEV type macvlan
// bcqueuelen LENGTH. The library cannot set 0.
func setBroadcastQueue(ns *netlab.Namespace, link netlink.Link, length uint32) error {
	current, err := ns.Link(link.Attrs().Name)
	if err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(current.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("macvlan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_MACVLAN_BC_QUEUE_LEN, nl.Uint32Attr(length))
	req.AddData(info)
	err = ns.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("set queue for broadcasts of %s to %d: %w", link.Attrs().Name, length, err)
	}
	return nil
}
