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
	r, err := newRig(t, peerNet.Addr())
	if err != nil {
		return nil, err
	}
	var conn *nftables.Conn
	err = t.host.Do(func() error {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	t.onClose(conn.CloseLasting)
	chain, err := addDropRule(conn)
	if err != nil {
		return nil, err
	}
	r.lost = func() (uint64, error) { return ruleCounter(conn, chain) }
	r.name = "nft " + chain.Table.Name + " " + chain.Name + " counter"
	r.source = "nftables"
	r.command = "nft list chain ip " + chain.Table.Name + " " + chain.Name
	return r, nil
}

// addDropRule makes the rule "udp dport 7777 counter drop".
func addDropRule(conn *nftables.Conn) (*nftables.Chain, error) {
	chain := conn.AddChain(&nftables.Chain{
		Name:     "input",
		Table:    conn.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "lab"}),
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter,
	})
	conn.AddRule(&nftables.Rule{
		Table: chain.Table,
		Chain: chain,
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protoUDP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(dstPort)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		},
	})
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("add nftables rule: %w", err)
	}
	return chain, nil
}

// ruleCounter reads how many packets the chain's rule has counted.
func ruleCounter(conn *nftables.Conn, chain *nftables.Chain) (uint64, error) {
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil {
		return 0, fmt.Errorf("read nftables rule: %w", err)
	}
	for _, rule := range rules {
		for _, e := range rule.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				return c.Packets, nil
			}
		}
	}
	return 0, errors.New("read nftables rule: it has no counter")
}
