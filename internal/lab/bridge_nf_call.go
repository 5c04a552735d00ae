package lab

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// bridgeNfCall has the host's firewall drop what the host only bridges.
func bridgeNfCall() Scenario {
	return Scenario{
		Name:  "bridge-nf-call-iptables",
		Title: "bridged frames that the host's FORWARD chain drops, because br_netfilter shows them to it",
		build: buildNfCall,
	}
}

func buildNfCall(t *topology) (*rig, error) {
	b, err := t.addBridged()
	if err != nil {
		return nil, err
	}
	c, err := t.nftChain("forward", nftables.ChainHookForward)
	if err != nil {
		return nil, err
	}
	// As of iptables -A FORWARD -m physdev --physdev-is-bridged -j DROP. The
	// match has the kernel load br_netfilter where it is a module.
	const isBridged = 1 << 4 // include/uapi/linux/netfilter/xt_physdev.h, XT_PHYSDEV_OP_BRIDGED
	info := make([]byte, 4*16+2, 4*16+8)
	info = append(info[:0], make([]byte, 4*16)...)
	info = append(info, 0, isBridged, 0, 0, 0, 0, 0, 0) // invert, bitmask, padding
	data := xt.Unknown(info)
	c.conn.AddRule(&nftables.Rule{
		Table: c.Table, Chain: c.Chain,
		Exprs: []expr.Any{
			&expr.Match{Name: "physdev", Info: &data},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		},
	})
	if err := c.conn.Flush(); err != nil {
		return nil, fmt.Errorf("add nftables rule: %w", err)
	}
	if err := t.host.Sysctl("net.bridge.bridge-nf-call-iptables", "1"); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = b.to
	r.count(c.ruleCounter, "nft lab forward counter", "nftables", "nft list chain ip lab forward")
	return r, r.sendPacket(t, b.frame())
}
