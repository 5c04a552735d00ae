package lab

import (
	"errors"
	"fmt"
	"io/fs"
)

// bridgePortMTU sends frames through a bridge whose way out is too small.
func bridgePortMTU() Scenario {
	return Scenario{
		Name:  "bridge-port-mtu",
		Title: "frames that are longer than the MTU of the bridge port they should leave by",
		build: buildPortMTU,
	}
}

func buildPortMTU(t *topology) (*rig, error) {
	const small, long = 1000, 1200
	b, err := t.addBridged()
	if err != nil {
		return nil, err
	}
	if err := t.host.Links().LinkSetMTU(b.out, small); err != nil {
		return nil, fmt.Errorf("set MTU %d of %s: %w", small, wayOut, err)
	}
	if err := t.noCallIPTables(); err != nil {
		return nil, err
	}
	p := b.frame()
	p.payload = make([]byte, long)
	return b.rig(p)
}

// noCallIPTables has the bridge drop by itself what is too long. Where the
// kernel has br_netfilter that would see the frame before
// (net/bridge/br_netfilter_hooks.c, br_nf_dev_queue_xmit).
func (t *topology) noCallIPTables() error {
	err := t.host.Sysctl("net.bridge.bridge-nf-call-iptables", "0")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
