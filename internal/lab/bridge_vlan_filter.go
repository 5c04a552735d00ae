package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// bridgeVLANFilter sends frames without a tag to a port of a bridge that has no
// VLAN for them.
func bridgeVLANFilter() Scenario {
	return Scenario{
		Name:  "bridge-vlan-filter",
		Title: "untagged frames at a port without a PVID of a bridge that filters VLANs",
		build: buildVLANFilter,
	}
}

func buildVLANFilter(t *topology) (*rig, error) {
	const pvid = 1 // that of every new port
	b, err := t.addBridged()
	if err != nil {
		return nil, err
	}
	bridge, err := t.host.Link(bridgeDevice)
	if err != nil {
		return nil, err
	}
	if err := filterVLANs(t.host, bridge); err != nil {
		return nil, err
	}
	if err := t.host.Links().BridgeVlanDel(b.in, pvid, true, true, false, true); err != nil {
		return nil, fmt.Errorf("take VLAN %d from port %s: %w", pvid, hostDevice, err)
	}
	return b.rig(b.frame())
}

// filterVLANs does what this would: ip link set BRIDGE type bridge
// vlan_filtering 1. The library would send all other settings with it, which
// kernels refuse.
func filterVLANs(ns *netlab.Namespace, bridge netlink.Link) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(bridge.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_BR_VLAN_FILTERING, nl.Uint8Attr(1))
	req.AddData(info)
	err := ns.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("filter VLANs of %s: %w", bridge.Attrs().Name, err)
	}
	return nil
}
