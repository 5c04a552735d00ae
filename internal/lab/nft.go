package lab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// tableName is the name of the lab's tables of nftables, whatever their family.
const tableName = "lab"

// nftConn opens a socket to nftables of the host, which goes away with the
// topology.
func (t *topology) nftConn() (*nftables.Conn, error) {
	var conn *nftables.Conn
	err := t.host.Do(func() (err error) {
		conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	t.onClose(conn.CloseLasting)
	return conn, nil
}

// chain adds a base chain to the lab's table of that family. It is made with
// the rules that are added to it.
func (t *topology) chain(family nftables.TableFamily, c nftables.Chain) (*nftChain, error) {
	conn, err := t.nftConn()
	if err != nil {
		return nil, err
	}
	c.Table = conn.AddTable(&nftables.Table{Family: family, Name: tableName})
	return &nftChain{conn, conn.AddChain(&c)}, nil
}

// rule adds a rule and makes all that was added before it.
func (c *nftChain) rule(exprs ...expr.Any) error {
	c.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c.Chain, Exprs: exprs})
	if err := c.conn.Flush(); err != nil {
		return fmt.Errorf("add nftables rule to %s %s: %w", c.Table.Name, c.Name, err)
	}
	return nil
}

// toPort is the match "udp dport PORT", or tcp.
func toPort(proto uint8, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

// dropRule adds the rule "MATCH counter drop", and makes its counter the one
// of the loss.
func (r *rig) dropRule(c *nftChain, family string, match ...expr.Any) error {
	err := c.rule(append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})...)
	if err != nil {
		return err
	}
	r.count(c.dropped, "nft "+c.Table.Name+" "+c.Name+" counter", "nftables",
		"nft list chain "+family+" "+c.Table.Name+" "+c.Name)
	return nil
}

// dropped reads how many packets the chain's first rule with a counter and a
// verdict that drops has counted.
func (c *nftChain) dropped() (uint64, error) {
	rules, err := c.conn.GetRules(c.Table, c.Chain)
	if err != nil {
		return 0, fmt.Errorf("read nftables rules: %w", err)
	}
	for _, rule := range rules {
		var n *expr.Counter
		for _, e := range rule.Exprs {
			switch e := e.(type) {
			case *expr.Counter:
				n = e
			case *expr.Verdict:
				if n != nil && e.Kind == expr.VerdictDrop {
					return n.Packets, nil
				}
			}
		}
	}
	return 0, errors.New("read nftables rules: none drops and counts")
}
