package lab

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// xdpDrop has an XDP program drop what comes in. It runs in generic mode, the
// same on every device: native XDP of veth has no packet to drop yet.
func xdpDrop() Scenario {
	return Scenario{
		Name:  "xdp-drop",
		Title: "packets that an XDP program of the device drops (generic mode)",
		build: buildXDP,
	}
}

// buildXDP has the program count what it drops, as the kernel does not:
// net/core/dev.c, do_xdp_generic. The device's counter would grow while the
// packet still waits for its program.
func buildXDP(t *topology) (*rig, error) {
	const xdpDropVerdict = 1 // include/uapi/linux/bpf.h, XDP_DROP
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return nil, err
	}
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	prog, err := loadProgram(ebpf.XDP, countingVerdict(array, xdpDropVerdict))
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the device keeps it
	err = t.host.Do(func() error {
		return netlink.LinkSetXdpFdWithFlags(link, prog.FD(), nl.XDP_FLAGS_SKB_MODE)
	})
	if err != nil {
		return nil, fmt.Errorf("attach XDP program to %s: %w", hostDevice, err)
	}
	r.count(firstOf(array), "counter of the XDP program", "bpf map", "bpftool map dump name lab")
	return r, nil
}
