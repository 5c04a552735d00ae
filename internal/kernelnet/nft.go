package kernelnet

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// SizeofNfgen is struct nfgenmsg, which messages of nfnetlink begin with: the
	// family, and three bytes more (include/uapi/linux/netfilter/nfnetlink.h).
	SizeofNfgen = 4
	// NfDrop is NF_DROP (include/uapi/linux/netfilter.h).
	NfDrop = 0
	// hookDevices is NFTA_HOOK_DEVS: several devices of one chain, since 5.5.
	hookDevices = 4
)

// NftDump asks nf_tables for all objects of a family, as [Dump] does. request
// and reply are NFT_MSG_*.
func NftDump(request, reply int, family uint8, attrs Message, begin func(), each func(b []byte) error) error {
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	m := append(Message{}.U8(family, 0, 0, 0), attrs...)
	return Dump(unix.NETLINK_NETFILTER, subsystem|request, uint16(subsystem|reply), m, begin, each)
}

// NftFamily names NFPROTO_* as nft(8) does (include/uapi/linux/netfilter.h).
func NftFamily(f uint8) string {
	switch f {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return strconv.Itoa(int(f))
}

// Data is a constant of an expression (NFTA_DATA_VALUE).
func (a Attrs) Data(kind int) []byte { return a.Nest(kind).Get(unix.NFTA_DATA_VALUE) }

// NftID names a chain, a set or an object of nftables, or without a name the
// table.
type NftID struct {
	Family      uint8
	Table, Name string
}

// NftChain is a chain of nftables.
type NftChain struct {
	ID NftID
	// Base says that a hook leads to it; the next fields are those of such a
	// chain. Kind is filter, nat or route, Policy accept or drop.
	Base         bool
	Hook         uint32
	Priority     int32
	Kind, Policy string
	Devices      []string
	// Counted says that the policy has a counter, as iptables-nft makes it.
	Counted bool
	Counter NftCounter
}

// NftCounter is a counter of a rule, a policy or an object.
type NftCounter struct{ Packets, Bytes uint64 }

// ParseNftChain parses a message NFT_MSG_NEWCHAIN (net/netfilter/nf_tables_api.c,
// nf_tables_fill_chain_info).
func ParseNftChain(m []byte) (NftChain, error) {
	a, err := ParseAttrs(m, SizeofNfgen)
	if err != nil {
		return NftChain{}, fmt.Errorf("message of a chain: %w", err)
	}
	c := NftChain{
		ID:   NftID{m[0], a.Text(unix.NFTA_CHAIN_TABLE), a.Text(unix.NFTA_CHAIN_NAME)},
		Base: a.Has(unix.NFTA_CHAIN_HOOK), Kind: a.Text(unix.NFTA_CHAIN_TYPE), Counted: a.Has(unix.NFTA_CHAIN_COUNTERS),
	}
	if len(a.Get(unix.NFTA_CHAIN_POLICY)) == 4 {
		c.Policy = "accept"
		if a.Num(unix.NFTA_CHAIN_POLICY) == NfDrop {
			c.Policy = "drop"
		}
	}
	hook, err := ParseAttrs(a.Get(unix.NFTA_CHAIN_HOOK), 0)
	c.Hook, c.Priority = uint32(hook.Num(unix.NFTA_HOOK_HOOKNUM)), int32(hook.Num(unix.NFTA_HOOK_PRIORITY))
	if hook.Has(unix.NFTA_HOOK_DEV) {
		c.Devices = []string{hook.Text(unix.NFTA_HOOK_DEV)}
	} else {
		err = errors.Join(err, Attributes(hook.Get(hookDevices), 0, func(_ int, name []byte) {
			c.Devices = append(c.Devices, unix.ByteSliceToString(name))
		}))
	}
	if c.Counted {
		var bad error
		c.Counter, bad = ParseNftCounter(a.Get(unix.NFTA_CHAIN_COUNTERS))
		err = errors.Join(err, bad)
	}
	if err != nil {
		return NftChain{}, fmt.Errorf("chain of family %d: %w", m[0], err)
	}
	return c, nil
}

// ParseNftCounter parses the data of a counter (net/netfilter/nft_counter.c,
// nft_counter_do_dump).
func ParseNftCounter(b []byte) (NftCounter, error) {
	a, err := ParseAttrs(b, 0)
	if err == nil && (len(a.Get(unix.NFTA_COUNTER_PACKETS)) != 8 || len(a.Get(unix.NFTA_COUNTER_BYTES)) != 8) {
		err = fmt.Errorf("counter of %d bytes: %w", len(b), ErrShort)
	}
	return NftCounter{a.Num(unix.NFTA_COUNTER_PACKETS), a.Num(unix.NFTA_COUNTER_BYTES)}, err
}

// NftRule is a rule of nftables. All of it are parts of its message.
type NftRule struct {
	Family       uint8
	Table, Chain []byte
	Handle       uint64
	Exprs        []NftExpr
	// UserData is what nft(8) keeps with the rule.
	UserData []byte
}

// NftExpr is an expression of a rule, by the name that it has in
// net/netfilter/nft_*.c.
type NftExpr struct {
	Name []byte
	Attrs
}

// Parse parses a message NFT_MSG_NEWRULE into r, which may have held another
// rule before (net/netfilter/nf_tables_api.c, nf_tables_fill_rule_info).
func (r *NftRule) Parse(m []byte) error {
	*r = NftRule{Exprs: r.Exprs[:0]}
	a, err := ParseAttrs(m, SizeofNfgen)
	if err != nil {
		return fmt.Errorf("message of a rule: %w", err)
	}
	r.Family, r.Table, r.Chain = m[0], zeroCut(a.Get(unix.NFTA_RULE_TABLE)), zeroCut(a.Get(unix.NFTA_RULE_CHAIN))
	r.Handle, r.UserData = a.Num(unix.NFTA_RULE_HANDLE), a.Get(unix.NFTA_RULE_USERDATA)
	if r.Exprs, err = ParseNftExprs(a.Get(unix.NFTA_RULE_EXPRESSIONS), r.Exprs); err != nil {
		return fmt.Errorf("rule %d: %w", r.Handle, err)
	}
	return nil
}

// zeroCut is what stands before the first zero byte, at most all.
func zeroCut(b []byte) []byte {
	before, _, _ := bytes.Cut(b, []byte{0})
	return before
}

// ParseNftExprs adds the expressions of a list (NFTA_LIST_ELEM) to exprs.
func ParseNftExprs(list []byte, exprs []NftExpr) ([]NftExpr, error) {
	var bad error
	err := Attributes(list, 0, func(kind int, elem []byte) {
		if kind == unix.NFTA_LIST_ELEM {
			e, err := ParseNftExpr(elem)
			exprs = append(exprs, e)
			bad = errors.Join(bad, err)
		}
	})
	return exprs, errors.Join(err, bad)
}

// ParseNftExpr parses one expression.
func ParseNftExpr(b []byte) (NftExpr, error) {
	a, err := ParseAttrs(b, 0)
	if err != nil {
		return NftExpr{}, err
	}
	e := NftExpr{Name: zeroCut(a.Get(unix.NFTA_EXPR_NAME))}
	if e.Name == nil {
		return e, fmt.Errorf("expression without a name: %w", ErrShort)
	}
	e.Attrs, err = ParseAttrs(a.Get(unix.NFTA_EXPR_DATA), 0)
	return e, err
}

// Drops says whether the expression drops every packet that comes to it.
// iptables-nft rejects with the target of x_tables.
func (e NftExpr) Drops() bool {
	switch string(e.Name) {
	case "reject":
		return true
	case "target":
		return string(zeroCut(e.Get(unix.NFTA_TARGET_NAME))) == "REJECT"
	case "immediate":
		v, err := ParseNftVerdict(e.Get(unix.NFTA_IMMEDIATE_DATA))
		return err == nil && v.Is && v.Code == NfDrop
	}
	return false
}

// NftVerdict is NF_* or NFT_*, and the chain of a jump. Is says that there was
// one.
type NftVerdict struct {
	Is    bool
	Code  int32
	Chain []byte
}

// ParseNftVerdict parses data that may be a verdict (NFTA_DATA_VERDICT).
func ParseNftVerdict(data []byte) (v NftVerdict, err error) {
	a, err := ParseAttrs(data, 0)
	if err != nil {
		return v, err
	}
	if a, err = ParseAttrs(a.Get(unix.NFTA_DATA_VERDICT), 0); err != nil {
		return v, err
	}
	v.Is = len(a.Get(unix.NFTA_VERDICT_CODE)) == 4
	v.Code, v.Chain = int32(a.Num(unix.NFTA_VERDICT_CODE)), zeroCut(a.Get(unix.NFTA_VERDICT_CHAIN))
	return v, nil
}
