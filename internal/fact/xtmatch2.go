package fact

import (
	"fmt"
	"strings"
)

func matchMAC(s structure, _ uint8, _ bool) (string, bool) {
	return not(s.u32(8) != 0, "--mac-source %s", hardware(s.at(0, 6))), len(s) >= 12
}

func matchAddrtype(s structure, rev uint8, _ bool) (string, bool) {
	if rev != 1 || len(s) < 8 {
		return "", false
	}
	types := func(mask uint16) string {
		var list []string
		for i := range 16 {
			if mask&(1<<i) != 0 {
				list = append(list, strings.ToUpper(nameOr(routeNames, uint64(i))))
			}
		}
		return strings.Join(list, ",")
	}
	out, flags := "", s.u32(4)
	for i, name := range []string{"--src-type", "--dst-type"} {
		if mask := s.u16(2 * i); mask != 0 {
			out += not(flags&(1<<i) != 0, "%s %s", name, types(mask))
		}
	}
	if flags&4 != 0 {
		out += " --limit-iface-in"
	}
	if flags&8 != 0 {
		out += " --limit-iface-out"
	}
	return out, true
}

func matchLength(s structure, _ uint8, _ bool) (string, bool) {
	return not(s.u8(4) != 0, "--length %s", portRange(s.u16(0), s.u16(2))), len(s) >= 5
}

func matchTCPMSS(s structure, _ uint8, _ bool) (string, bool) {
	return not(s.u8(4) != 0, "--mss %s", portRange(s.u16(0), s.u16(2))), len(s) >= 5
}

func matchPacket(s structure, _ uint8, _ bool) (string, bool) {
	name := nameOr(packetNames, uint64(s.u32(0)))
	if name == "host" {
		name = "unicast"
	}
	return not(s.u32(4) != 0, "--pkt-type %s", name), len(s) >= 8
}

// matchTTL writes struct ipt_ttl_info or ip6t_hl_info: how, and the number.
func matchTTL(s structure, _ uint8, six bool) (string, bool) {
	name, mode := "ttl", s.u8(0)
	if six {
		name = "hl"
	}
	if len(s) < 2 || mode > 3 {
		return "", false
	}
	return not(mode == 1, "--%s-%s %d", name, []string{"eq", "eq", "lt", "gt"}[mode], s.u8(1)), true
}

func matchPhysdev(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 66 {
		return "", false
	}
	inverse, flags := s.u8(64), s.u8(65)
	out := ""
	for _, o := range []struct {
		bit  uint8
		name string
		at   int
	}{{8, "--physdev-is-in", -1}, {1, "--physdev-in", 0}, {16, "--physdev-is-out", -1}, {2, "--physdev-out", 32}, {4, "--physdev-is-bridged", -1}} {
		if flags&o.bit == 0 {
			continue
		}
		word := o.name
		if o.at >= 0 {
			word += " " + maskedDevice(s.at(o.at, 16), s.at(o.at+16, 16))
		}
		out += not(inverse&o.bit != 0, "%s", word)
	}
	return out, true
}

func matchStatistic(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 16 {
		return "", false
	}
	inverted := s.u16(2)&1 != 0
	switch s.u16(0) {
	case 0:
		return "--mode random" + not(inverted, "--probability %.11f", float64(s.u32(4))/0x80000000), true
	case 1:
		return "--mode nth" + not(inverted, "--every %d", s.u32(4)+1) + " --packet " + decimal(s.u32(8)), true
	}
	return "", false
}

// matchRecent writes struct xt_recent_mtinfo or xt_recent_mtinfo_v1.
func matchRecent(s structure, rev uint8, six bool) (string, bool) {
	if len(s) < 211 {
		return "", false
	}
	flags := s.u8(8)
	out := ""
	for _, f := range []struct {
		bit  uint8
		name string
	}{{2, "set"}, {1, "rcheck"}, {4, "update"}, {8, "remove"}} {
		if flags&f.bit != 0 {
			out = not(s.u8(9) != 0, "--%s", f.name)
		}
	}
	if n := s.u32(0); n > 0 {
		out += " --seconds " + decimal(n)
	}
	if flags&32 != 0 {
		out += " --reap"
	}
	if n := s.u32(4); n > 0 {
		out += " --hitcount " + decimal(n)
	}
	if flags&16 != 0 {
		out += " --rttl"
	}
	out += " --name " + s.text(10, 200)
	if rev == 1 {
		out += " --mask " + s.ip(212, six).String()
	}
	return out + []string{" --rsource", " --rdest"}[s.u8(210)&1], true
}

func matchConnlimit(s structure, rev uint8, six bool) (string, bool) {
	if len(s) < 24 || rev < 1 {
		return "", false
	}
	size := 4
	if six {
		size = 16
	}
	flags := s.u32(20)
	name, side := "--connlimit-above", "--connlimit-saddr"
	if flags&1 != 0 {
		name = "--connlimit-upto"
	}
	if flags&2 != 0 {
		side = "--connlimit-daddr"
	}
	return fmt.Sprintf("%s %d --connlimit-mask %d %s", name, s.u32(16), maskLength(s.at(0, size)), side), true
}

func matchRPFilter(s structure, _ uint8, _ bool) (string, bool) {
	flags := s.u8(0)
	var list []string
	for i, name := range []string{"--loose", "--validmark", "--accept-local", "--invert"} {
		if flags&(1<<i) != 0 {
			list = append(list, name)
		}
	}
	return strings.Join(list, " "), len(s) >= 1
}

func matchDSCP(s structure, _ uint8, _ bool) (string, bool) {
	return not(s.u8(1) != 0, "--dscp 0x%02x", s.u8(0)), len(s) >= 2
}

func matchTOS(s structure, rev uint8, _ bool) (string, bool) {
	return not(s.u8(2) != 0, "--tos 0x%02x/0x%02x", s.u8(1), s.u8(0)), rev == 1 && len(s) >= 3
}

func matchHelper(s structure, _ uint8, _ bool) (string, bool) {
	return not(s.u32(0) != 0, "--helper %s", xtQuote(s.text(4, 30))), len(s) >= 34
}

// hashlimit is what the revisions of struct xt_hashlimit_mtinfo have in common.
type hashlimit struct {
	name              string
	mode              uint32
	avg, burst, scale uint64
	// sizes is where the sizes and times of the table are, masks where the
	// lengths of the prefixes.
	sizes, masks int
}

func hashlimitOf(s structure, rev uint8) (hashlimit, bool) {
	switch {
	case rev == 1 && len(s) >= 48:
		return hashlimit{s.text(0, 16), s.u32(16), uint64(s.u32(20)), uint64(s.u32(24)), 10000, 28, 44}, true
	case rev == 2 && len(s) >= 296:
		return hashlimit{s.text(0, 255), s.u32(272), s.u64(256), s.u64(264), 1000000, 276, 292}, true
	case rev == 3 && len(s) >= 300:
		return hashlimit{s.text(0, 255), s.u32(272), s.u64(256), s.u64(264), 1000000, 276, 296}, true
	}
	return hashlimit{}, false
}

// matchHashlimit writes struct xt_hashlimit_mtinfo1, 2 or 3. Rates of bytes and
// those over an interval are not known here.
func matchHashlimit(s structure, rev uint8, six bool) (string, bool) {
	c, ok := hashlimitOf(s, rev)
	if !ok || c.mode&(32|64) != 0 {
		return "", false
	}
	word := "--hashlimit-upto"
	if c.mode&16 != 0 {
		word = "--hashlimit-above"
	}
	rate, unit := xtRate(c.avg, c.scale)
	out := word + " " + rate + " --hashlimit-burst " + decimal(c.burst)
	var modes []string
	for _, m := range []struct {
		bit  uint32
		name string
	}{{4, "srcip"}, {8, "srcport"}, {1, "dstip"}, {2, "dstport"}} {
		if c.mode&m.bit != 0 {
			modes = append(modes, m.name)
		}
	}
	if len(modes) > 0 {
		out += " --hashlimit-mode " + strings.Join(modes, ",")
	}
	out += " --hashlimit-name " + c.name
	// What is as iptables sets it by itself is not written.
	for i, o := range []struct {
		name  string
		usual uint64
	}{{"size", 0}, {"max", 0}, {"gcinterval", 1000}, {"expire", 1000 * unit}} {
		if n := uint64(s.u32(c.sizes + 4*i)); n != o.usual {
			out += fmt.Sprintf(" --hashlimit-htable-%s %d", o.name, n)
		}
	}
	all := uint8(32)
	if six {
		all = 128
	}
	for i, name := range []string{"srcmask", "dstmask"} {
		if n := s.u8(c.masks + i); n != all {
			out += fmt.Sprintf(" --hashlimit-%s %d", name, n)
		}
	}
	return out, true
}
