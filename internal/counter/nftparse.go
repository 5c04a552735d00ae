package counter

import (
	"cmp"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// nftRule is a rule of nftables and what it counts.
type nftRule struct {
	kernelnet.NftRule
	counters []nftCounter
	quotas   []nftQuota
	// refs are the named counters that it uses; maps says that it chooses an
	// object by a map.
	refs map[kernelnet.NftID]nftUse
	maps bool
}

// nftCounter is a counter. drops says that the kernel drops each packet that
// it counts: a drop or reject follows, and nothing between may let the packet
// through.
type nftCounter struct {
	kernelnet.NftCounter
	drops bool
}

// nftQuota is a quota: bytes that it has seen and bytes that it allows.
type nftQuota struct{ used, limit uint64 }

// parse parses a message NFT_MSG_NEWRULE into r, which may have held another
// rule before.
func (r *nftRule) parse(m []byte) error {
	*r = nftRule{NftRule: r.NftRule, counters: r.counters[:0], quotas: r.quotas[:0]}
	if err := r.Parse(m); err != nil {
		return err
	}
	if err := r.read(); err != nil {
		return fmt.Errorf("rule %d of %q: %w", r.Handle, clip(r.Chain), err)
	}
	return nil
}

// read takes the counters out of the expressions of the rule.
func (r *nftRule) read() error {
	exprs := r.Exprs
	first, last := 0, 0 // from first on each packet goes to the drop, which is last
	for i, e := range exprs {
		if e.Drops() {
			for first, last = i, i; first > 0 && passes(exprs[first-1]); first-- {
			}
			break
		}
	}
	var bad error
	for i, e := range exprs {
		switch string(e.Name) {
		case "counter":
			n, err := kernelnet.ParseNftCounter(e.Attrs)
			bad = cmp.Or(bad, err)
			c := nftCounter{n, first <= i && i < last}
			if c.drops && len(r.counters) > 0 {
				r.counters[len(r.counters)-1].drops = false // or the sum would count a packet twice
			}
			r.counters = append(r.counters, c)
		case "quota":
			q, err := parseNftQuota(e.Attrs)
			bad = cmp.Or(bad, err)
			r.quotas = append(r.quotas, q)
		case "objref":
			r.refer(e, first <= i && i < last)
		}
	}
	return bad
}

// refer notes a reference to a named object.
func (r *nftRule) refer(e kernelnet.NftExpr, drops bool) {
	name, kind, byMap := objectOf(e)
	r.maps = r.maps || byMap
	if kind != unix.NFT_OBJECT_COUNTER || name == "" {
		return
	}
	if r.refs == nil {
		r.refs = map[kernelnet.NftID]nftUse{}
	}
	r.refs[kernelnet.NftID{Family: r.Family, Table: string(r.Table), Name: name}] = nftUse{drop: drops, other: !drops}
}

// passes says whether the rule goes on behind the expression with every packet
// that comes to it.
func passes(e kernelnet.NftExpr) bool {
	switch string(e.Name) {
	case "counter", "log", "notrack", "last":
		return true
	case "immediate": // a number, not a verdict
		return e.Has(unix.NFTA_IMMEDIATE_DREG) && e.Num(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT
	case "meta": // what sets something
		return e.Has(unix.NFTA_META_SREG)
	case "ct":
		return e.Has(unix.NFTA_CT_SREG)
	case "objref":
		_, kind, byMap := objectOf(e)
		// Limits, quotas and counts of connections may end the rule.
		return !byMap && kind == unix.NFT_OBJECT_COUNTER
	}
	return false
}

// objectOf is the named object that an objref uses.
func objectOf(e kernelnet.NftExpr) (name string, kind uint64, byMap bool) {
	return e.Text(unix.NFTA_OBJREF_IMM_NAME), e.Num(unix.NFTA_OBJREF_IMM_TYPE), e.Has(unix.NFTA_OBJREF_SET_NAME)
}

// parseNftQuota parses the data of a quota (net/netfilter/nft_quota.c,
// nft_quota_do_dump).
func parseNftQuota(b []byte) (nftQuota, error) {
	a, err := kernelnet.ParseAttrs(b, 0)
	if err == nil && (len(a.Get(unix.NFTA_QUOTA_BYTES)) != 8 || len(a.Get(unix.NFTA_QUOTA_CONSUMED)) != 8) {
		err = fmt.Errorf("quota of %d bytes: %w", len(b), kernelnet.ErrShort)
	}
	return nftQuota{used: a.Num(unix.NFTA_QUOTA_CONSUMED), limit: a.Num(unix.NFTA_QUOTA_BYTES)}, err
}

// nftObject is a named object; kind is empty where it counts nothing.
type nftObject struct {
	id      kernelnet.NftID
	kind    string
	counter kernelnet.NftCounter
	quota   nftQuota
}

// parseNftObject parses a message NFT_MSG_NEWOBJ (net/netfilter/nf_tables_api.c,
// nf_tables_fill_obj_info).
func parseNftObject(m []byte) (nftObject, error) {
	a, err := kernelnet.ParseAttrs(m, kernelnet.SizeofNfgen)
	if err != nil {
		return nftObject{}, fmt.Errorf("message of an object: %w", err)
	}
	o := nftObject{id: kernelnet.NftID{Family: m[0], Table: a.Text(unix.NFTA_OBJ_TABLE), Name: a.Text(unix.NFTA_OBJ_NAME)}}
	switch a.Num(unix.NFTA_OBJ_TYPE) {
	case unix.NFT_OBJECT_COUNTER:
		o.kind = "counter"
		o.counter, err = kernelnet.ParseNftCounter(a.Get(unix.NFTA_OBJ_DATA))
	case unix.NFT_OBJECT_QUOTA:
		o.kind = "quota"
		o.quota, err = parseNftQuota(a.Get(unix.NFTA_OBJ_DATA))
	}
	if err != nil {
		return nftObject{}, fmt.Errorf("object %q: %w", clip([]byte(o.id.Name)), err)
	}
	return o, nil
}
