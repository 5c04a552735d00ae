package lab

// xdpDrop has an XDP program drop what comes in. It runs in generic mode, the
// same on every device: native XDP of veth has no packet to drop yet.
func xdpDrop() Scenario {
	return Scenario{
		Name:  "xdp-drop",
		Title: "packets that an XDP program of the device drops (generic mode)",
		build: func(t *topology) (*rig, error) { return buildXDP(t, xdpDropVerdict) },
	}
}

// Verdicts of XDP programs (include/uapi/linux/bpf.h, enum xdp_action).
const (
	xdpAbortedVerdict = 0
	xdpDropVerdict    = 1
)

// buildXDP has the program count what it says its verdict about, as the kernel
// does not: net/core/dev.c, do_xdp_generic. The device's counter would grow while
// the packet still waits for its program.
func buildXDP(t *topology, verdict int32) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	if err := t.attachXDP(countingVerdict(array, verdict)); err != nil {
		return nil, err
	}
	r.count(firstOf(array), "counter of the XDP program", "bpf map", "bpftool map dump name lab")
	return r, nil
}
