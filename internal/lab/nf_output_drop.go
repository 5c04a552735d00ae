package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// nfOutputDrop has an application of the host send what a firewall rule of the
// host forbids.
func nfOutputDrop() Scenario {
	return Scenario{
		Name:  "nf-output-drop",
		Title: "packets of the host that an nftables rule in the output hook drops (EPERM)",
		build: buildOutputDrop,
	}
}

func buildOutputDrop(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.host, hostNet.Addr(), peerNet.Addr()); err != nil {
		return nil, err
	}
	r.emit = failing(r.emit, unix.EPERM)
	chain, err := t.nftChain("output", nftables.ChainHookOutput)
	if err != nil {
		return nil, err
	}
	if err := r.countRule(chain, &expr.Verdict{Kind: expr.VerdictDrop}); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "snmp", "Ip", "OutDiscards", "IpOutDiscards")
}
