package counter

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// xtLayout says where struct ipt_entry or ip6t_entry has the offsets of its
// target and of the next entry, its counters, and its end, for 64 bits
// (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h).
type xtLayout struct{ target, next, counters, size int }

const (
	// xtNameLen is XT_TABLE_MAXNAMELEN.
	xtNameLen = 32
	// sizeofXtInfo is struct ipt_getinfo: the name, the hooks that are valid,
	// for each of the five hooks the offset of its chain, and of the chain's
	// policy, the number of entries and their size.
	sizeofXtInfo = xtNameLen + 4 + 4*xtHooks + 4*xtHooks + 4 + 4
	xtHooks      = 5
	// sizeofXtTarget is struct xt_entry_target: its size, name and revision.
	sizeofXtTarget = 32
)

// xtPart is a rule of a chain, by its number there, or with number 0 the
// policy of the chain.
type xtPart struct {
	chain          string
	number         int
	packets, bytes uint64
	drops          bool
}

// parseXtTable parses the entries of a table. A chain of its own begins with
// an entry that has the target ERROR and ends with one that returns; one of a
// hook begins and ends where info says, and its last entry is the policy. The
// table ends with an own chain ERROR without rules.
func parseXtTable(info, entries []byte, l xtLayout) ([]xtPart, error) {
	if len(info) != sizeofXtInfo {
		return nil, fmt.Errorf("information of %d bytes: %w", len(info), errShort)
	}
	starts, policies := xtChains(info)
	var parts []xtPart
	var chain string
	var own, open bool // open: the last of parts may be the end of an own chain
	number := 0
	for at := 0; at < len(entries); {
		e, err := parseXtEntry(entries[at:], l)
		if err != nil {
			return nil, fmt.Errorf("entry at %d: %w", at, err)
		}
		if name, ok := starts[uint32(at)]; ok {
			chain, own, open, number = name, false, false, 0
		}
		switch {
		case e.target == "ERROR":
			if own && open {
				parts = parts[:len(parts)-1] // what ends a chain is no rule
			}
			chain, own, open, number = e.chain, true, false, 0
		case !own && slices.Contains(policies, uint32(at)):
			parts = append(parts, xtPart{chain, 0, e.packets, e.bytes, e.drops})
		default:
			number++
			parts = append(parts, xtPart{chain, number, e.packets, e.bytes, e.drops})
			open = true
		}
		at += e.next
	}
	if !own || chain != "ERROR" {
		return nil, fmt.Errorf("the last entry is missing: %w", errShort)
	}
	return parts, nil
}

// xtChains gives where the chains of the hooks begin, and where their policies
// are.
func xtChains(info []byte) (starts map[uint32]string, policies []uint32) {
	starts = map[uint32]string{}
	valid := binary.NativeEndian.Uint32(info[xtNameLen:])
	for hook, name := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
		if valid&(1<<hook) == 0 {
			continue
		}
		at := info[xtNameLen+4+4*hook:]
		starts[binary.NativeEndian.Uint32(at)] = name
		policies = append(policies, binary.NativeEndian.Uint32(at[4*xtHooks:]))
	}
	return starts, policies
}

// xtEntry is what is needed of an entry.
type xtEntry struct {
	next           int
	packets, bytes uint64
	target, chain  string
	drops          bool
}

func parseXtEntry(b []byte, l xtLayout) (xtEntry, error) {
	if len(b) < l.size {
		return xtEntry{}, fmt.Errorf("%d bytes: %w", len(b), errShort)
	}
	target := int(binary.NativeEndian.Uint16(b[l.target:]))
	e := xtEntry{
		next:    int(binary.NativeEndian.Uint16(b[l.next:])),
		packets: binary.NativeEndian.Uint64(b[l.counters:]),
		bytes:   binary.NativeEndian.Uint64(b[l.counters+8:]),
	}
	if target < l.size || e.next < target+sizeofXtTarget || e.next > len(b) {
		return xtEntry{}, fmt.Errorf("target at %d, next at %d of %d bytes: %w", target, e.next, len(b), errShort)
	}
	// The first two bytes of the target are its size, the last its revision.
	t := b[target:e.next]
	e.target = zeroTerminated(t[2 : sizeofXtTarget-1])
	data := t[sizeofXtTarget:]
	switch e.target {
	case "ERROR":
		e.chain = zeroTerminated(data)
	case "":
		// A verdict is stored as -verdict - 1 (net/ipv4/netfilter/ip_tables.c,
		// ipt_do_table).
		e.drops = len(data) >= 4 && int32(binary.NativeEndian.Uint32(data)) == -nfDrop-1
	case "REJECT":
		e.drops = true
	}
	return e, nil
}
