package lab

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// nfqueueNoListener has a firewall rule hand packets to a program that is not
// running.
func nfqueueNoListener() Scenario {
	return Scenario{
		Name:  "nfqueue-no-listener",
		Title: "packets that a rule hands to an NFQUEUE program which is not running",
		build: buildQueueNoListener,
	}
}

func buildQueueNoListener(t *topology) (*rig, error) {
	const queue = 77 // nobody's: the namespace is new
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	arrived, err := t.sink(t.host, dstPort)
	if err != nil {
		return nil, err
	}
	chain, err := t.nftChain("input", nftables.ChainHookInput)
	if err != nil {
		return nil, err
	}
	// struct xt_NFQ_info, padded. The target of iptables, for not every kernel
	// has the expression of nftables that does the same.
	info := xt.Unknown(binary.NativeEndian.AppendUint16(nil, queue))
	info = append(info, make([]byte, 6)...)
	r.repair = func() error { // the program is started
		q, err := t.bindQueue(queue)
		if err != nil {
			return err
		}
		return t.serve(q)
	}
	// The rule counts what the program lets pass, too.
	r.prove = r.proveArrived(arrived)
	return r, r.countRule(chain, &expr.Target{Name: "NFQUEUE", Info: &info})
}
