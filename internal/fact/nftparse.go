package fact

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// sizeofNfgen is struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h).
const sizeofNfgen = 4

// Verdicts (include/uapi/linux/netfilter.h and netfilter/nf_tables.h).
const nfDrop = 0

// hookDevices is NFTA_HOOK_DEVS: several devices of one chain, since 5.5.
const hookDevices = 4

// parseChain reads a chain of NFT_MSG_NEWCHAIN.
func parseChain(b []byte) (*chain, error) {
	c := &chain{}
	var bad error
	err := eachAttr(b, sizeofNfgen, func(t int, v []byte) {
		switch t {
		case unix.NFTA_CHAIN_TABLE:
			c.id.table = text(v)
		case unix.NFTA_CHAIN_NAME:
			c.id.name = text(v)
		case unix.NFTA_CHAIN_POLICY:
			if p, ok := be32(v); ok {
				c.policy = "accept"
				if p == nfDrop {
					c.policy = "drop"
				}
			}
		case unix.NFTA_CHAIN_HOOK:
			c.base = true
			bad = errors.Join(bad, eachAttr(v, 0, func(t int, v []byte) {
				n, _ := be32(v)
				switch t {
				case unix.NFTA_HOOK_HOOKNUM:
					c.hook = n
				case unix.NFTA_HOOK_PRIORITY:
					c.priority = int32(n)
				case unix.NFTA_HOOK_DEV:
					c.devices = []string{text(v)}
				case hookDevices:
					c.devices = nil
					bad = errors.Join(bad, eachAttr(v, 0, func(_ int, name []byte) { c.devices = append(c.devices, text(name)) }))
				}
			}))
		case unix.NFTA_CHAIN_TYPE:
			c.kind = text(v)
		case unix.NFTA_CHAIN_COUNTERS:
			counter, err := parseAttrs(v)
			bad = errors.Join(bad, err)
			c.counted = true
			c.packets, c.bytes = counter.num(unix.NFTA_COUNTER_PACKETS), counter.num(unix.NFTA_COUNTER_BYTES)
		}
	})
	if err := errors.Join(err, bad); err != nil {
		return nil, err
	}
	c.id.family = b[0]
	return c, nil
}

// parseRule reads a rule of NFT_MSG_NEWRULE: its chain and what it may do.
func parseRule(b []byte) (chainID, verdicts, error) {
	var id chainID
	var v verdicts
	var exprs []byte
	err := eachAttr(b, sizeofNfgen, func(t int, val []byte) {
		switch t {
		case unix.NFTA_RULE_TABLE:
			id.table = text(val)
		case unix.NFTA_RULE_CHAIN:
			id.name = text(val)
		case unix.NFTA_RULE_EXPRESSIONS:
			exprs = val
		}
	})
	if err != nil {
		return id, v, err
	}
	id.family = b[0]
	var bad error
	err = eachAttr(exprs, 0, func(t int, val []byte) {
		if t == unix.NFTA_LIST_ELEM {
			bad = errors.Join(bad, parseExpr(val, id, &v))
		}
	})
	return id, v, errors.Join(err, bad)
}

// parseExpr reads an expression of a rule of chain id. Names are those of
// net/netfilter/nft_*.c; iptables-nft uses targets of x_tables as well.
func parseExpr(b []byte, id chainID, v *verdicts) error {
	var name string
	var data []byte
	err := eachAttr(b, 0, func(t int, val []byte) {
		switch t {
		case unix.NFTA_EXPR_NAME:
			name = text(val)
		case unix.NFTA_EXPR_DATA:
			data = val
		}
	})
	if err != nil {
		return err
	}
	var bad error
	switch name {
	case "reject":
		v.drops = true
	case "immediate":
		err = eachAttr(data, 0, func(t int, val []byte) {
			if t == unix.NFTA_IMMEDIATE_DATA {
				bad = parseVerdict(val, id, v)
			}
		})
	case "target":
		err = eachAttr(data, 0, func(t int, val []byte) {
			if t == unix.NFTA_TARGET_NAME && text(val) == "REJECT" {
				v.drops = true
			}
		})
	case "lookup":
		set, verdict := chainID{family: id.family, table: id.table}, false
		err = eachAttr(data, 0, func(t int, val []byte) {
			switch t {
			case unix.NFTA_LOOKUP_SET:
				set.name = text(val)
			case unix.NFTA_LOOKUP_DREG:
				reg, ok := be32(val)
				verdict = ok && reg == unix.NFT_REG_VERDICT
			}
		})
		if verdict {
			v.maps = append(v.maps, set)
		}
	}
	return errors.Join(err, bad)
}

// parseVerdict reads data that may be a verdict.
func parseVerdict(b []byte, id chainID, v *verdicts) error {
	var verdict []byte
	err := eachAttr(b, 0, func(t int, val []byte) {
		if t == unix.NFTA_DATA_VERDICT {
			verdict = val
		}
	})
	if err != nil || verdict == nil {
		return err
	}
	code, known := int32(0), false
	to := chainID{family: id.family, table: id.table}
	err = eachAttr(verdict, 0, func(t int, val []byte) {
		switch t {
		case unix.NFTA_VERDICT_CODE:
			if len(val) == 4 {
				code, known = int32(binary.BigEndian.Uint32(val)), true
			}
		case unix.NFTA_VERDICT_CHAIN:
			to.name = text(val)
		}
	})
	switch {
	case !known:
	case code == nfDrop:
		v.drops = true
	case code == unix.NFT_JUMP || code == unix.NFT_GOTO:
		v.jumps = append(v.jumps, to)
	}
	return err
}

// parseElements reads elements of NFT_MSG_NEWSETELEM: the verdicts of a map.
func parseElements(b []byte, id chainID, v *verdicts) error {
	var bad error
	join := func(err error) { bad = errors.Join(bad, err) }
	join(eachAttr(b, sizeofNfgen, func(t int, list []byte) {
		if t != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			return
		}
		join(eachAttr(list, 0, func(t int, elem []byte) {
			if t != unix.NFTA_LIST_ELEM {
				return
			}
			join(eachAttr(elem, 0, func(t int, data []byte) {
				if t == unix.NFTA_SET_ELEM_DATA {
					join(parseVerdict(data, id, v))
				}
			}))
		}))
	}))
	return bad
}
