package fact

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// matchers write the options of the usual matches as iptables-save does, or say
// false where the structure is not the known one.
var matchers = map[string]func(s structure, rev uint8, six bool) (string, bool){
	"tcp": matchTCP, "udp": matchUDP, "udplite": matchUDP, "icmp": matchICMP, "icmp6": matchICMP, "multiport": matchMultiport,
	"conntrack": matchConntrack, "state": matchState, "limit": matchLimit, "comment": matchComment,
	"mark": matchMark, "connmark": matchMark, "addrtype": matchAddrtype, "owner": matchOwner, "mac": matchMAC,
	"iprange": matchIPRange, "length": matchLength, "pkttype": matchPacket, "ttl": matchTTL, "hl": matchTTL,
	"physdev": matchPhysdev, "statistic": matchStatistic, "recent": matchRecent, "connlimit": matchConnlimit,
	"rpfilter": matchRPFilter, "tcpmss": matchTCPMSS, "dscp": matchDSCP, "hashlimit": matchHashlimit, "helper": matchHelper,
	"tos": matchTOS,
}

// matchText writes the options of a match. Of one that is not known it says how
// much there is.
func matchText(six bool, name string, rev uint8, data structure) string {
	if f := matchers[name]; f != nil {
		if s, ok := f(data, rev, six); ok {
			return strings.TrimSpace(s)
		}
	}
	return unknownOptions(data)
}

func unknownOptions(data structure) string {
	if len(data) == 0 {
		return ""
	}
	return fmt.Sprintf("[%d bytes]", len(data))
}

// not writes an option, inverted or not.
func not(inverted bool, format string, args ...any) string {
	s := fmt.Sprintf(format, args...)
	if inverted {
		return " ! " + s
	}
	return " " + s
}

// portRange writes a range of ports.
func portRange(low, high uint16) string {
	if low == high {
		return decimal(low)
	}
	return decimal(low) + ":" + decimal(high)
}

// optionPorts writes the ports of struct xt_tcp and xt_udp.
func optionPorts(s structure, inverse uint8) string {
	out := ""
	for i, name := range []string{"--sport", "--dport"} {
		low, high := s.u16(4*i), s.u16(4*i+2)
		if low != 0 || high != 0xffff || inverse&(1<<i) != 0 {
			out += not(inverse&(1<<i) != 0, "%s %s", name, portRange(low, high))
		}
	}
	return out
}

func matchTCP(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 12 {
		return "", false
	}
	inverse := s.u8(11)
	out := optionPorts(s, inverse)
	if o := s.u8(8); o != 0 {
		out += not(inverse&8 != 0, "--tcp-option %d", o)
	}
	if mask := s.u8(9); mask != 0 || inverse&4 != 0 {
		out += not(inverse&4 != 0, "--tcp-flags %s %s", xtTCPFlags(mask), xtTCPFlags(s.u8(10)))
	}
	return out, true
}

func xtTCPFlags(b uint8) string {
	if b == 0 {
		return "NONE"
	}
	return strings.ToUpper(nftFlags(tcpFlagNames, uint64(b), ","))
}

func matchUDP(s structure, _ uint8, _ bool) (string, bool) {
	return optionPorts(s, s.u8(8)), len(s) >= 9
}

func matchICMP(s structure, _ uint8, six bool) (string, bool) {
	if len(s) < 4 {
		return "", false
	}
	name := "--icmp-type"
	if six {
		name = "--icmpv6-type"
	}
	if s.u8(0) == 0xff && !six {
		return not(s.u8(3) != 0, "%s any", name), true
	}
	kind := decimal(s.u8(0))
	if low, high := s.u8(1), s.u8(2); low != 0 || high != 0xff {
		kind += "/" + decimal(low)
		if low != high {
			kind += "-" + decimal(high)
		}
	}
	return not(s.u8(3) != 0, "%s %s", name, kind), true
}

func matchMultiport(s structure, rev uint8, _ bool) (string, bool) {
	flags, count := s.u8(0), int(s.u8(1))
	if len(s) < 32 || flags > 2 || count > 15 {
		return "", false
	}
	var list []string
	for i := 0; i < count; i++ {
		port := decimal(s.u16(2 + 2*i))
		if rev == 1 && s.u8(32+i) != 0 && i+1 < count { // a range
			i++
			port += ":" + decimal(s.u16(2+2*i))
		}
		list = append(list, port)
	}
	inverted := rev == 1 && s.u8(47) != 0
	return not(inverted, "--%s %s", []string{"sports", "dports", "ports"}[flags], strings.Join(list, ",")), true
}

// xtStates are the bits of a state, in the order of iptables.
func xtStates(mask uint32) string {
	var list []string
	for _, s := range []struct {
		bit  uint32
		name string
	}{{1, "INVALID"}, {8, "NEW"}, {4, "RELATED"}, {2, "ESTABLISHED"}, {1 << 8, "UNTRACKED"}, {1 << 6, "SNAT"}, {1 << 7, "DNAT"}} {
		if mask&s.bit != 0 {
			list = append(list, s.name)
		}
	}
	return strings.Join(list, ",")
}

func matchState(s structure, _ uint8, _ bool) (string, bool) {
	mask := s.u32(0)
	if mask&(1<<6) != 0 { // here the bit after the three states is UNTRACKED
		mask = mask&^(1<<6) | 1<<8
	}
	return "--state " + xtStates(mask), len(s) >= 4
}

// matchConntrack writes struct xt_conntrack_mtinfo1, 2 or 3.
func matchConntrack(s structure, rev uint8, six bool) (string, bool) {
	if rev < 1 || rev > 3 || len(s) < 151 {
		return "", false
	}
	flags, inverse := s.u16(146), s.u16(148)
	states, statuses := uint32(s.u16(150)), s.u16(152)
	if rev == 1 {
		states, statuses = uint32(s.u8(150)), uint16(s.u8(151))
	}
	has := func(bit uint16) bool { return flags&bit != 0 }
	isNot := func(bit uint16) bool { return inverse&bit != 0 }
	out := ""
	if has(1) {
		name := "--ctstate"
		if has(1 << 13) {
			name = "--state"
		}
		out += not(isNot(1), "%s %s", name, xtStates(states))
	}
	if has(2) {
		out += not(isNot(2), "--ctproto %d", s.u16(136))
	}
	for i, name := range []string{"--ctorigsrc", "--ctorigdst", "--ctreplsrc", "--ctrepldst"} {
		if bit := uint16(4) << i; has(bit) {
			size := 4
			if six {
				size = 16
			}
			out += not(isNot(bit), "%s %s", name, shortMask(s.at(32*i, size), s.at(32*i+16, size)))
		}
	}
	for i, name := range []string{"--ctorigsrcport", "--ctorigdstport", "--ctreplsrcport", "--ctrepldstport"} {
		if bit := uint16(1) << (8 + i); has(bit) {
			low, high := s.be16(138+2*i), s.be16(138+2*i)
			if rev == 3 {
				low, high = s.u16(138+2*i), s.u16(154+2*i)
			}
			out += not(isNot(bit), "%s %s", name, portRange(low, high))
		}
	}
	return out + ctRest(s, flags, inverse, statuses), true
}

// ctRest writes the status, the time and the direction.
func ctRest(s structure, flags, inverse, statuses uint16) string {
	out := ""
	if flags&(1<<6) != 0 {
		var list []string
		for i, name := range []string{"EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"} {
			if statuses&(1<<i) != 0 {
				list = append(list, name)
			}
		}
		if len(list) == 0 {
			list = []string{"NONE"}
		}
		out += not(inverse&(1<<6) != 0, "--ctstatus %s", strings.Join(list, ","))
	}
	if flags&(1<<7) != 0 {
		low, high := s.u32(128), s.u32(132)
		expires := decimal(low)
		if low != high {
			expires += ":" + decimal(high)
		}
		out += not(inverse&(1<<7) != 0, "--ctexpire %s", expires)
	}
	if flags&(1<<12) != 0 {
		dir := "ORIGINAL"
		if inverse&(1<<12) != 0 {
			dir = "REPLY"
		}
		out += " --ctdir " + dir
	}
	return out
}

// shortMask writes an address, with its mask only where not all of it counts.
func shortMask(b, mask []byte) string {
	if oneBits(mask) {
		return address(b).String()
	}
	if s := maskedAddress(b, mask); s != "" {
		return s
	}
	return "anywhere"
}

// xtRate writes a rate from the time between two packets in 1/scale seconds: in
// the smallest unit that still gives about a whole number. It returns the
// seconds of that unit too.
func xtRate(period, scale uint64) (rate string, unit uint64) {
	if period == 0 {
		return "0/sec", 1
	}
	units := []struct {
		name    string
		seconds uint64
	}{{"day", 86400}, {"hour", 3600}, {"min", 60}, {"sec", 1}}
	best := units[0]
	for _, u := range units[1:] {
		all := u.seconds * scale
		if period > all || all/period < all%period {
			break
		}
		best = u
	}
	return decimal(best.seconds*scale/period) + "/" + best.name, best.seconds
}

func matchLimit(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 8 {
		return "", false
	}
	rate, _ := xtRate(uint64(s.u32(0)), 10000)
	out := "--limit " + rate
	if burst := s.u32(4); burst != 5 { // what iptables sets by itself
		out += " --limit-burst " + decimal(burst)
	}
	return out, true
}

func matchComment(s structure, _ uint8, _ bool) (string, bool) {
	return "--comment " + xtQuote(text(s)), true
}

// xtQuote quotes as iptables-save does.
func xtQuote(s string) string {
	plain := func(r rune) bool { return !strings.ContainsRune(" \t\"'\\$`", r) }
	if s != "" && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !plain(r) }) {
		return s
	}
	return `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`, `'`, `\'`).Replace(s) + `"`
}

// xtMark writes a mark that only some bits of count.
func xtMark(mark, mask uint32) string {
	if mask != 0xffffffff {
		return fmt.Sprintf("0x%x/0x%x", mark, mask)
	}
	return fmt.Sprintf("0x%x", mark)
}

func matchMark(s structure, rev uint8, _ bool) (string, bool) {
	return not(s.u8(8) != 0, "--mark %s", xtMark(s.u32(0), s.u32(4))), rev == 1 && len(s) >= 9
}

func matchOwner(s structure, rev uint8, _ bool) (string, bool) {
	if rev != 1 || len(s) < 18 {
		return "", false
	}
	out := ""
	flags, inverse := s.u8(16), s.u8(17)
	if flags&4 != 0 {
		out += not(inverse&4 != 0, "--socket-exists")
	}
	for i, name := range []string{"--uid-owner", "--gid-owner"} {
		if flags&(1<<i) == 0 {
			continue
		}
		low, high := s.u32(8*i), s.u32(8*i+4)
		id := decimal(low)
		if low != high {
			id += "-" + decimal(high)
		}
		out += not(inverse&(1<<i) != 0, "%s %s", name, id)
	}
	if flags&8 != 0 {
		out += not(inverse&8 != 0, "--suppl-groups")
	}
	return out, true
}

func matchIPRange(s structure, rev uint8, six bool) (string, bool) {
	if rev != 1 || len(s) < 65 {
		return "", false
	}
	span := func(i int) (low, high netip.Addr) { return s.ip(i, six), s.ip(i+16, six) }
	out, flags := "", s.u8(64)
	for i, name := range []string{"--src-range", "--dst-range"} {
		if flags&(1<<i) != 0 {
			low, high := span(32 * i)
			out += not(flags&(16<<i) != 0, "%s %s-%s", name, low, high)
		}
	}
	return out, true
}
