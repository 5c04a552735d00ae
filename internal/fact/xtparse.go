package fact

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

const (
	// xtNameLen is XT_TABLE_MAXNAMELEN.
	xtNameLen = 32
	// sizeofXtInfo is struct ipt_getinfo: the name, the hooks that are valid,
	// for each of the five hooks the offset of its chain, and of the chain's
	// policy, the number of entries and their size.
	sizeofXtInfo = xtNameLen + 4 + 4*xtHooks + 4*xtHooks + 4 + 4
	xtHooks      = 5
	// sizeofXtHead is struct xt_entry_match, and xt_entry_target: the size, the
	// name and the revision.
	sizeofXtHead = 32
)

// structure is a structure of the kernel. What is read behind its end is 0.
type structure []byte

func (s structure) at(i, n int) []byte {
	if i < 0 || n < 0 || i+n > len(s) {
		return make([]byte, n)
	}
	return s[i : i+n]
}

func (s structure) u8(i int) uint8    { return s.at(i, 1)[0] }
func (s structure) u16(i int) uint16  { return native.Uint16(s.at(i, 2)) }
func (s structure) u32(i int) uint32  { return native.Uint32(s.at(i, 4)) }
func (s structure) u64(i int) uint64  { return native.Uint64(s.at(i, 8)) }
func (s structure) be16(i int) uint16 { return binary.BigEndian.Uint16(s.at(i, 2)) }
func (s structure) text(i, n int) string {
	return text(s.at(i, n))
}

// ip reads an address of either family.
func (s structure) ip(i int, six bool) netip.Addr {
	n := 4
	if six {
		n = 16
	}
	return address(s.at(i, n))
}

// xtRule is a rule of iptables-legacy, or with number 0 the policy of a chain.
type xtRule struct {
	chain   string
	number  int
	builtin bool
	// spec is the rule as iptables-save writes it, behind -A CHAIN.
	spec, verdict, comment string
	packets, bytes         uint64
}

// xtLayout says where struct ipt_entry or ip6t_entry has its parts, for 64
// bits.
type xtLayout struct{ target, next, counters, size int }

func layoutOf(six bool) xtLayout {
	if six {
		return xtLayout{140, 142, 152, 168}
	}
	return xtLayout{88, 90, 96, 112}
}

// xtChains finds the chains: where those of the hooks begin and where their
// policies are, and the name of each chain by where its first rule is.
type xtChains struct {
	starts   map[int]string
	policies map[int]bool
	names    map[int]string
}

// parseXtTable reads the entries of a table. A chain of its own begins with an
// entry that has the target ERROR and ends with one that returns; one of a hook
// begins and ends where info says, and its last entry is the policy. The table
// ends with one more head.
func parseXtTable(info, entries []byte, six bool) ([]xtRule, error) {
	if len(info) != sizeofXtInfo {
		return nil, errShort
	}
	l := layoutOf(six)
	offsets, err := xtOffsets(entries, l)
	if err != nil {
		return nil, err
	}
	if len(offsets) == 0 || !isXtHead(entries[offsets[len(offsets)-1]:], l) {
		return nil, fmt.Errorf("the last entry is missing: %w", errShort)
	}
	chains := findXtChains(structure(info), entries, offsets, l)
	var rules []xtRule
	current := xtRule{}
	for i, at := range offsets {
		entry := entries[at:]
		if i+1 < len(offsets) {
			entry = entries[at:offsets[i+1]]
		}
		if name, ok := chains.starts[at]; ok {
			current = xtRule{chain: name, builtin: true}
		}
		if name, own := xtChainHead(entry, l); own {
			current = xtRule{chain: name}
			continue
		}
		current.number++
		r := current
		r.packets, r.bytes = structure(entry).u64(l.counters), structure(entry).u64(l.counters+8)
		switch {
		case chains.policies[at]:
			r.number = 0
			r.verdict = xtVerdict(structure(entry).at(int(structure(entry).u16(l.target))+sizeofXtHead, 4), chains.names)
			rules = append(rules, r)
		case !current.builtin && i+1 < len(offsets) && isXtHead(entries[offsets[i+1]:], l):
			// What ends a chain is no rule.
		default:
			r.decode(entry, l, six, at+len(entry), chains.names)
			rules = append(rules, r)
		}
	}
	return rules, nil
}

// xtOffsets says where the entries begin.
func xtOffsets(entries []byte, l xtLayout) ([]int, error) {
	var offsets []int
	for at := 0; at < len(entries); {
		b := structure(entries[at:])
		target, next := int(b.u16(l.target)), int(b.u16(l.next))
		if len(b) < l.size || target < l.size || next < target+sizeofXtHead || next > len(b) {
			return nil, fmt.Errorf("entry at %d of %d bytes: %w", at, len(entries), errShort)
		}
		offsets = append(offsets, at)
		at += next
	}
	return offsets, nil
}

// xtChainHead says whether an entry is the head of a chain of its own.
func xtChainHead(entry structure, l xtLayout) (name string, own bool) {
	target := int(entry.u16(l.target))
	if entry.text(target+2, sizeofXtHead-3) != "ERROR" {
		return "", false
	}
	return entry.text(target+sizeofXtHead, min(30, max(len(entry)-target-sizeofXtHead, 0))), true
}

func isXtHead(entry structure, l xtLayout) bool {
	_, own := xtChainHead(entry, l)
	return own
}

func findXtChains(info structure, entries []byte, offsets []int, l xtLayout) xtChains {
	c := xtChains{starts: map[int]string{}, policies: map[int]bool{}, names: map[int]string{}}
	for hook, name := range xtHookNames {
		if info.u32(xtNameLen)&(1<<hook) == 0 {
			continue
		}
		start := int(info.u32(xtNameLen + 4 + 4*hook))
		c.starts[start], c.names[start] = name, name
		c.policies[int(info.u32(xtNameLen+4+4*xtHooks+4*hook))] = true
	}
	for i, at := range offsets {
		end := len(entries)
		if i+1 < len(offsets) {
			end = offsets[i+1]
		}
		if name, own := xtChainHead(entries[at:end], l); own {
			c.names[end] = name
		}
	}
	return c
}

var xtHookNames = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// xtVerdict names what a standard target does: -verdict - 1, or the offset of
// the chain that it goes to (net/ipv4/netfilter/ip_tables.c, ipt_do_table).
func xtVerdict(b []byte, chains map[int]string) string {
	switch v := int32(native.Uint32(b)); v {
	case -nfDrop - 1:
		return "DROP"
	case -2:
		return "ACCEPT"
	case -4:
		return "QUEUE"
	case -5:
		return "RETURN"
	default:
		if name, ok := chains[int(v)]; ok {
			return name
		}
		return decimal(v)
	}
}

// decode reads what a rule matches and what it does. next is where the next
// entry begins: a rule that goes there has no target.
func (r *xtRule) decode(entry structure, l xtLayout, six bool, next int, chains map[int]string) {
	words, flags := xtHeader(entry, six)
	target := int(entry.u16(l.target))
	for at := l.size; at+sizeofXtHead <= target; {
		size := int(entry.u16(at))
		if size < sizeofXtHead || at+size > target {
			words = append(words, "[?]")
			break
		}
		name, rev := entry.text(at+2, sizeofXtHead-3), entry.u8(at+sizeofXtHead-1)
		options := matchText(six, name, rev, entry[at+sizeofXtHead:at+size])
		if name == "comment" {
			r.comment = text(entry[at+sizeofXtHead : at+size])
		}
		if strings.HasPrefix(options, "--state ") || strings.HasPrefix(options, "! --state ") {
			name = "state" // what it was before conntrack, and iptables still shows
		}
		words = append(words, strings.TrimSpace("-m "+name+" "+options))
		at += size
	}
	name, rev, data := entry.text(target+2, sizeofXtHead-3), entry.u8(target+sizeofXtHead-1), entry[target+sizeofXtHead:]
	switch {
	case name != "":
		options := targetText(six, name, rev, data)
		if name == "CT" && options == "NOTRACK" {
			name, options = options, ""
		}
		r.verdict = name
		words = append(words, strings.TrimSpace("-j "+name+" "+options))
	case int(int32(data.u32(0))) == next:
	default:
		r.verdict = xtVerdict(data.at(0, 4), chains)
		jump := "-j "
		if flags&xtGoto(six) != 0 {
			jump = "-g "
		}
		words = append(words, jump+r.verdict)
	}
	r.spec = strings.Join(words, " ")
}

// xtGoto is IPT_F_GOTO or IP6T_F_GOTO.
func xtGoto(six bool) uint8 {
	if six {
		return 4
	}
	return 2
}

// xtHeader writes struct ipt_ip or ip6t_ip6, and returns its flags.
func xtHeader(e structure, six bool) (words []string, flags uint8) {
	size, devices := 4, 16
	if six {
		size, devices = 16, 64
	}
	proto := e.u16(devices + 64)
	flags, inverse := e.u8(devices+66), e.u8(devices+67)
	if six {
		flags, inverse = e.u8(devices+67), e.u8(devices+68)
	}
	add := func(inverted uint8, word string) {
		if inverse&inverted != 0 {
			word = "! " + word
		}
		words = append(words, word)
	}
	if s := maskedAddress(e.at(0, size), e.at(2*size, size)); s != "" || inverse&8 != 0 {
		add(8, "-s "+s)
	}
	if s := maskedAddress(e.at(size, size), e.at(3*size, size)); s != "" || inverse&16 != 0 {
		add(16, "-d "+s)
	}
	if s := maskedDevice(e.at(devices, 16), e.at(devices+32, 16)); s != "" {
		add(1, "-i "+s)
	}
	if s := maskedDevice(e.at(devices+16, 16), e.at(devices+48, 16)); s != "" {
		add(2, "-o "+s)
	}
	if proto != 0 {
		add(0x40, "-p "+nameOr(protoNames, uint64(proto)))
	}
	if !six && flags&1 != 0 {
		add(0x20, "-f")
	}
	return words, flags
}

// maskedAddress writes an address with its mask; it is empty for all addresses.
func maskedAddress(b, mask []byte) string {
	if zeroBits(b) && zeroBits(mask) {
		return ""
	}
	if n := maskLength(mask); n >= 0 {
		return address(b).String() + "/" + decimal(n)
	}
	return address(b).String() + "/" + address(mask).String()
}

// maskedDevice writes the name of a device; one whose last byte does not count
// is the beginning of a name.
func maskedDevice(name, mask []byte) string {
	s := text(name)
	if zeroBits(mask) {
		return "" // also "+", the beginning of every name
	}
	if len(s) < len(mask) && mask[len(s)] == 0 && !strings.HasSuffix(s, "+") {
		s += "+"
	}
	return s
}
