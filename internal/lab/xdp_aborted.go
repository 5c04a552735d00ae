package lab

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// xdpAborted has an XDP program redirect what comes in to a device that is
// down. It runs in generic mode.
func xdpAborted() Scenario {
	return Scenario{
		Name:  "xdp-aborted",
		Title: "packets that an XDP program redirects to a device that is down (generic mode)",
		build: buildXDPRedirect,
	}
}

// xdpAbortedOwn has an XDP program fail by itself on what comes in, in generic mode.
func xdpAbortedOwn() Scenario {
	return Scenario{
		Name:  "xdp-aborted-verdict",
		Title: "packets that an XDP program of the device fails on, as it says itself with XDP_ABORTED (generic mode)",
		build: func(t *topology) (*rig, error) { return buildXDP(t, xdpAbortedVerdict) },
	}
}

func buildXDPRedirect(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	if err := t.addFar(); err != nil {
		return nil, err
	}
	target, err := t.host.Link(wayOut)
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().LinkSetDown(target); err != nil {
		return nil, fmt.Errorf("set device %s down: %w", wayOut, err)
	}
	array, err := t.newArray()
	if err != nil {
		return nil, err
	}
	// bpf_redirect says XDP_REDIRECT; the kernel looks at the device later.
	code := countingVerdict(array, 0)
	code = append(code[:len(code)-1],
		asm.Mov.Imm(asm.R1, int32(target.Attrs().Index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return())
	if err := t.attachXDP(code); err != nil {
		return nil, err
	}
	r.count(firstOf(array), "counter of the XDP program", "bpf map", "bpftool map dump name lab")
	read, err := t.sink(t.host, dstPort)
	if err != nil {
		return nil, err
	}
	// Without the program nothing counts in it, so only what arrives proves it.
	r.prove = func(ctx context.Context, n uint64) (uint64, error) {
		before, err := read()
		if err != nil {
			return 0, err
		}
		_, err = r.send(ctx, n, r.emit, read)
		after, rerr := read()
		if rerr != nil {
			return 0, rerr
		}
		return n - (after - before), err
	}
	return r, nil
}

// attachXDP attaches a program to the host's device in generic mode.
func (t *topology) attachXDP(code asm.Instructions) error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	prog, err := loadProgram(ebpf.XDP, code)
	if err != nil {
		return err
	}
	defer prog.Close() // the device keeps it
	err = t.host.Do(func() error {
		return netlink.LinkSetXdpFdWithFlags(link, prog.FD(), nl.XDP_FLAGS_SKB_MODE)
	})
	if err != nil {
		return fmt.Errorf("attach XDP program to %s: %w", hostDevice, err)
	}
	return nil
}
