package lab

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// bridgeSTPState sends into a bridge port that may not forward.
func bridgeSTPState() Scenario {
	return Scenario{
		Name:  "bridge-stp-state",
		Title: "frames that come into a bridge through a port in the state listening",
		build: buildSTPState,
	}
}

const bridgeDevice = "br0"

func buildSTPState(t *topology) (*rig, error) {
	port, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	bridge, err := t.addBridge(port)
	if err != nil {
		return nil, err
	}
	if err := listening(t.host, port); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), elsewhere)
	if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
		return nil, err
	}
	came, err := t.received()
	if err != nil {
		return nil, err
	}
	passed := func() (uint64, error) {
		link, err := t.host.Link(bridge)
		if err != nil {
			return 0, err
		}
		if s := link.Attrs().Statistics; s != nil {
			return s.RxPackets, nil
		}
		return 0, fmt.Errorf("rx_packets of %s: %w", bridge, errNoCounter)
	}
	r.count(difference(came, passed), "packets on the ingress of "+hostDevice+" - rx_packets of "+bridge,
		"bpf map, rtnetlink", "bpftool map dump name lab; ip -s link show dev "+bridge)
	return r, nil
}

// addBridge makes a bridge of the host with that port. The port forwards at
// once, for the bridge does not speak STP.
func (t *topology) addBridge(port netlink.Link) (name string, err error) {
	links := t.host.Links()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = bridgeDevice
	snooping := false // with it the bridge itself sends reports
	if err := links.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return "", fmt.Errorf("add bridge %s: %w", bridgeDevice, err)
	}
	bridge, err := t.host.Link(bridgeDevice)
	if err != nil {
		return "", err
	}
	if err := links.LinkSetMaster(port, bridge); err != nil {
		return "", fmt.Errorf("add port %s to %s: %w", port.Attrs().Name, bridgeDevice, err)
	}
	if err := links.LinkSetUp(bridge); err != nil {
		return "", fmt.Errorf("set device %s up: %w", bridgeDevice, err)
	}
	return bridgeDevice, nil
}

// listening does what this would: bridge link set dev PORT state listening.
// The library cannot set it. A port that is blocked would forward at once
// where the bridge does not speak STP (net/bridge/br_stp.c,
// br_port_state_selection).
func listening(ns *netlab.Namespace, port netlink.Link) error {
	const state = 1 // include/uapi/linux/if_bridge.h, BR_STATE_LISTENING
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(port.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_STATE, nl.Uint8Attr(state))
	req.AddData(info)
	err := ns.Do(func() error {
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("set state of bridge port %s: %w", port.Attrs().Name, err)
	}
	return nil
}
