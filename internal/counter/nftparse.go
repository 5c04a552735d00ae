package counter

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// nftRule is what a rule of nftables counts.
type nftRule struct {
	family uint8
	// table and chain are parts of the message.
	table, chain []byte
	handle       uint64
	exprs        []nftExpr
	counters     []nftCounter
	quotas       []nftQuota
	// refs are the named counters that it uses; maps says that it chooses an
	// object by a map.
	refs map[nftID]nftUse
	maps bool
}

// nftCounter is a counter. drops says that the kernel drops each packet that
// it counts: a drop or reject follows, and nothing between may let the packet
// through.
type nftCounter struct {
	packets, bytes uint64
	drops          bool
}

// nftQuota is a quota: bytes that it has seen and bytes that it allows.
type nftQuota struct{ used, limit uint64 }

// nftExpr is an expression of a rule, by the name that it has in
// net/netfilter/nft_*.c.
type nftExpr struct{ name, data []byte }

// parse parses a message NFT_MSG_NEWRULE into r, which may have held another
// rule before (net/netfilter/nf_tables_api.c, nf_tables_fill_rule_info).
func (r *nftRule) parse(m []byte) error {
	*r = nftRule{exprs: r.exprs[:0], counters: r.counters[:0], quotas: r.quotas[:0]}
	if len(m) < sizeofNfgen {
		return fmt.Errorf("message of a rule: %d bytes: %w", len(m), errShort)
	}
	r.family = m[0]
	var list []byte
	err := attributes(m[sizeofNfgen:], func(kind uint16, b []byte) {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			r.table = zeroCut(b)
		case unix.NFTA_RULE_CHAIN:
			r.chain = zeroCut(b)
		case unix.NFTA_RULE_HANDLE:
			r.handle, _ = be64(b)
		case unix.NFTA_RULE_EXPRESSIONS:
			list = b
		}
	})
	if err == nil {
		err = r.list(list)
	}
	if err == nil {
		err = r.read()
	}
	if err != nil {
		return fmt.Errorf("rule %d of %q: %w", r.handle, clip(r.chain), err)
	}
	return nil
}

// zeroCut is what stands before the first zero byte, at most all.
func zeroCut(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// list parses the list of expressions.
func (r *nftRule) list(list []byte) error {
	var bad error
	err := attributes(list, func(kind uint16, elem []byte) {
		if kind != unix.NFTA_LIST_ELEM {
			return
		}
		e := nftExpr{data: elem}
		e.name, e.data = zeroCut(e.attribute(unix.NFTA_EXPR_NAME)), e.attribute(unix.NFTA_EXPR_DATA)
		if e.name == nil && bad == nil {
			bad = fmt.Errorf("expression without a name: %w", errShort)
		}
		r.exprs = append(r.exprs, e)
	})
	return errors.Join(err, bad)
}

// read takes the counters out of the expressions of the rule.
func (r *nftRule) read() error {
	exprs := r.exprs
	first, last := 0, 0 // from first on each packet goes to the drop, which is last
	for i, e := range exprs {
		if e.drops() {
			for first, last = i, i; first > 0 && exprs[first-1].passes(); first-- {
			}
			break
		}
	}
	var bad error
	for i, e := range exprs {
		switch string(e.name) {
		case "counter":
			c, err := parseNftCounter(e.data)
			bad = cmp.Or(bad, err)
			if c.drops = first <= i && i < last; c.drops && len(r.counters) > 0 {
				r.counters[len(r.counters)-1].drops = false // or the sum would count a packet twice
			}
			r.counters = append(r.counters, c)
		case "quota":
			q, err := parseNftQuota(e.data)
			bad = cmp.Or(bad, err)
			r.quotas = append(r.quotas, q)
		case "objref":
			r.refer(e, first <= i && i < last)
		}
	}
	return bad
}

// refer notes a reference to a named object.
func (r *nftRule) refer(e nftExpr, drops bool) {
	name, kind, byMap := e.object()
	r.maps = r.maps || byMap
	if kind != nftObjectCounter || name == "" {
		return
	}
	if r.refs == nil {
		r.refs = map[nftID]nftUse{}
	}
	r.refs[nftID{r.family, string(r.table), name}] = nftUse{drop: drops, other: !drops}
}

// drops says whether the expression drops every packet that comes to it.
// iptables-nft rejects with the target of x_tables.
func (e nftExpr) drops() bool {
	switch string(e.name) {
	case "reject":
		return true
	case "target":
		return string(zeroCut(e.attribute(unix.NFTA_TARGET_NAME))) == "REJECT"
	case "immediate":
		data := nftExpr{data: e.attribute(unix.NFTA_IMMEDIATE_DATA)}
		verdict := nftExpr{data: data.attribute(unix.NFTA_DATA_VERDICT)}
		code, ok := be32(verdict.attribute(unix.NFTA_VERDICT_CODE))
		return ok && code == nfDrop
	}
	return false
}

// nfDrop is NF_DROP of include/uapi/linux/netfilter.h.
const nfDrop = 0

// passes says whether the rule goes on behind the expression with every packet
// that comes to it.
func (e nftExpr) passes() bool {
	switch string(e.name) {
	case "counter", "log", "notrack", "last":
		return true
	case "immediate": // a number, not a verdict
		reg, ok := be32(e.attribute(unix.NFTA_IMMEDIATE_DREG))
		return ok && reg != unix.NFT_REG_VERDICT
	case "meta": // what sets something
		return e.attribute(unix.NFTA_META_SREG) != nil
	case "ct":
		return e.attribute(unix.NFTA_CT_SREG) != nil
	case "objref":
		_, kind, byMap := e.object()
		// Limits, quotas and counts of connections may end the rule.
		return !byMap && kind == nftObjectCounter
	}
	return false
}

// object is the named object that an objref uses.
func (e nftExpr) object() (name string, kind uint32, byMap bool) {
	kind, _ = be32(e.attribute(unix.NFTA_OBJREF_IMM_TYPE))
	return unix.ByteSliceToString(e.attribute(unix.NFTA_OBJREF_IMM_NAME)), kind, e.attribute(unix.NFTA_OBJREF_SET_NAME) != nil
}

// attribute is the content of one attribute of the data, or nil, also where the
// data is malformed.
func (e nftExpr) attribute(want uint16) (found []byte) {
	_ = attributes(e.data, func(kind uint16, b []byte) {
		if kind == want && found == nil {
			found = b
		}
	})
	return found
}

// parseNftCounter parses the data of a counter (net/netfilter/nft_counter.c,
// nft_counter_do_dump).
func parseNftCounter(b []byte) (nftCounter, error) {
	var c nftCounter
	var packets, bytes bool
	err := attributes(b, func(kind uint16, b []byte) {
		switch kind {
		case unix.NFTA_COUNTER_PACKETS:
			c.packets, packets = be64(b)
		case unix.NFTA_COUNTER_BYTES:
			c.bytes, bytes = be64(b)
		}
	})
	if err == nil && (!packets || !bytes) {
		err = fmt.Errorf("counter of %d bytes: %w", len(b), errShort)
	}
	return c, err
}

// parseNftQuota parses the data of a quota (net/netfilter/nft_quota.c,
// nft_quota_do_dump).
func parseNftQuota(b []byte) (nftQuota, error) {
	var q nftQuota
	var limit, used bool
	err := attributes(b, func(kind uint16, b []byte) {
		switch kind {
		case unix.NFTA_QUOTA_BYTES:
			q.limit, limit = be64(b)
		case unix.NFTA_QUOTA_CONSUMED:
			q.used, used = be64(b)
		}
	})
	if err == nil && (!limit || !used) {
		err = fmt.Errorf("quota of %d bytes: %w", len(b), errShort)
	}
	return q, err
}

// nftChain is a chain; counts says that its policy has a counter.
type nftChain struct {
	family      uint8
	table, name string
	counts      bool
	counter     nftCounter
}

// parseNftChain parses a message NFT_MSG_NEWCHAIN (net/netfilter/nf_tables_api.c,
// nf_tables_fill_chain_info).
func parseNftChain(m []byte) (nftChain, error) {
	if len(m) < sizeofNfgen {
		return nftChain{}, fmt.Errorf("message of a chain: %d bytes: %w", len(m), errShort)
	}
	c := nftChain{family: m[0]}
	var counter []byte
	drops := false
	err := attributes(m[sizeofNfgen:], func(kind uint16, b []byte) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.table = unix.ByteSliceToString(b)
		case unix.NFTA_CHAIN_NAME:
			c.name = unix.ByteSliceToString(b)
		case unix.NFTA_CHAIN_POLICY:
			policy, ok := be32(b)
			drops = ok && policy == nfDrop
		case unix.NFTA_CHAIN_COUNTERS:
			counter = b
		}
	})
	if err == nil && counter != nil {
		c.counts = true
		c.counter, err = parseNftCounter(counter)
		c.counter.drops = drops
	}
	if err != nil {
		return nftChain{}, fmt.Errorf("chain %q: %w", clip([]byte(c.name)), err)
	}
	return c, nil
}

// nftObject is a named object; kind is empty where it counts nothing.
type nftObject struct {
	id      nftID
	kind    string
	counter nftCounter
	quota   nftQuota
}

// parseNftObject parses a message NFT_MSG_NEWOBJ (net/netfilter/nf_tables_api.c,
// nf_tables_fill_obj_info).
func parseNftObject(m []byte) (nftObject, error) {
	if len(m) < sizeofNfgen {
		return nftObject{}, fmt.Errorf("message of an object: %d bytes: %w", len(m), errShort)
	}
	o := nftObject{id: nftID{family: m[0]}}
	var kind uint32
	var data []byte
	err := attributes(m[sizeofNfgen:], func(t uint16, b []byte) {
		switch t {
		case unix.NFTA_OBJ_TABLE:
			o.id.table = unix.ByteSliceToString(b)
		case unix.NFTA_OBJ_NAME:
			o.id.name = unix.ByteSliceToString(b)
		case unix.NFTA_OBJ_TYPE:
			kind, _ = be32(b)
		case unix.NFTA_OBJ_DATA:
			data = b
		}
	})
	if err == nil {
		switch kind {
		case nftObjectCounter:
			o.kind = "counter"
			o.counter, err = parseNftCounter(data)
		case nftObjectQuota:
			o.kind = "quota"
			o.quota, err = parseNftQuota(data)
		}
	}
	if err != nil {
		return nftObject{}, fmt.Errorf("object %q: %w", clip([]byte(o.id.name)), err)
	}
	return o, nil
}

// NFT_OBJECT_* of include/uapi/linux/netfilter/nf_tables.h.
const (
	nftObjectCounter = 1
	nftObjectQuota   = 2
)

// nftFamily names NFPROTO_* as nft(8) does (include/uapi/linux/netfilter.h).
func nftFamily(f uint8) string {
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
