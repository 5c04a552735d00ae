package lab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// nfRuleDrop sends to a port that a firewall rule of the host closes.
func nfRuleDrop() Scenario {
	return Scenario{
		Name:  "nf-rule-drop",
		Title: "packets that an nftables rule in the input hook drops",
		build: buildRuleDrop,
	}
}

func buildRuleDrop(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	chain, err := t.nftChain("input", nftables.ChainHookInput)
	if err != nil {
		return nil, err
	}
	return r, r.countRule(chain, &expr.Verdict{Kind: expr.VerdictDrop})
}

// nftChain is a base chain of the host, and the socket through which it is
// used.
type nftChain struct {
	conn *nftables.Conn
	*nftables.Chain
}

// nftChain makes a chain of type filter in the table "ip lab" of the host.
func (t *topology) nftChain(name string, hook *nftables.ChainHook) (*nftChain, error) {
	var conn *nftables.Conn
	err := t.host.Do(func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	t.onClose(conn.CloseLasting)
	return &nftChain{conn, conn.AddChain(&nftables.Chain{
		Name:     name,
		Table:    conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"}),
		Type:     nftables.ChainTypeFilter,
		Hooknum:  hook,
		Priority: nftables.ChainPriorityFilter,
	})}, nil
}

// countRule makes the rule "udp dport 7777 counter ACTION", and its counter
// the one of the loss.
func (r *rig) countRule(chain *nftChain, action expr.Any) error {
	chain.conn.AddRule(&nftables.Rule{
		Table: chain.Table,
		Chain: chain.Chain,
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protoUDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(dstPort)},
			&expr.Counter{},
			action,
		},
	})
	if err := chain.conn.Flush(); err != nil {
		return fmt.Errorf("add nftables rule: %w", err)
	}
	r.count(chain.ruleCounter, "nft "+chain.Table.Name+" "+chain.Name+" counter", "nftables",
		"nft list chain ip "+chain.Table.Name+" "+chain.Name)
	return nil
}

// ruleCounter reads how many packets the chain's rule has counted.
func (c *nftChain) ruleCounter() (uint64, error) {
	rules, err := c.conn.GetRules(c.Table, c.Chain)
	if err != nil {
		return 0, fmt.Errorf("read nftables rule: %w", err)
	}
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				return n.Packets, nil
			}
		}
	}
	return 0, errors.New("read nftables rule: it has no counter")
}
