package fact

import (
	"fmt"
	"net/netip"
	"strings"
)

// targets write the options of the usual targets as iptables-save does, or say
// false where the structure is not the known one.
var targets = map[string]func(s structure, rev uint8, six bool) (string, bool){
	"REJECT": targetReject, "LOG": targetLog, "NFLOG": targetNflog, "NFQUEUE": targetNfqueue, "MARK": targetMark, "CONNMARK": targetConnmark,
	"DNAT": targetNAT("--to-destination "), "SNAT": targetNAT("--to-source "), "MASQUERADE": targetNAT("--to-ports "), "REDIRECT": targetNAT("--to-ports "), "NETMAP": targetNetmap,
	"TCPMSS": targetTCPMSS, "TTL": targetTTL, "HL": targetTTL, "DSCP": targetDSCP, "TOS": targetTOS, "CHECKSUM": targetChecksum,
	"CT": targetCT, "NOTRACK": targetNothing, "TRACE": targetNothing, "AUDIT": targetAudit, "TEE": targetTee, "CLASSIFY": targetClassify,
}

// targetText writes the options of a target. Of one that is not known it says
// how much there is.
func targetText(six bool, name string, rev uint8, data structure) string {
	if f := targets[name]; f != nil {
		if s, ok := f(data, rev, six); ok {
			return strings.TrimSpace(s)
		}
	}
	return unknownOptions(data)
}

func targetNothing(structure, uint8, bool) (string, bool) { return "", true }

// targetReject writes enum ipt_reject_with or ip6t_reject_with.
func targetReject(s structure, _ uint8, six bool) (string, bool) {
	names := []string{
		"icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-port-unreachable", "echo-reply",
		"icmp-net-prohibited", "icmp-host-prohibited", "tcp-reset", "icmp-admin-prohibited",
	}
	if six {
		names = []string{
			"icmp6-no-route", "icmp6-adm-prohibited", "icmp6-not-neighbour", "icmp6-addr-unreachable", "icmp6-port-unreachable",
			"echo-reply", "tcp-reset", "icmp6-policy-fail", "icmp6-reject-route",
		}
	}
	with := s.u32(0)
	if len(s) < 4 || with >= uint32(len(names)) {
		return "", false
	}
	return "--reject-with " + names[with], true
}

func targetLog(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 32 {
		return "", false
	}
	out := ""
	if prefix := s.text(2, 30); prefix != "" {
		out += " --log-prefix " + xtQuote(prefix)
	}
	if level := s.u8(0); level != 4 { // what iptables sets by itself
		out += " --log-level " + decimal(level)
	}
	for _, f := range []struct {
		bit  uint8
		name string
	}{{1, "tcp-sequence"}, {2, "tcp-options"}, {4, "ip-options"}, {8, "uid"}, {32, "macdecode"}} {
		if s.u8(1)&f.bit != 0 {
			out += " --log-" + f.name
		}
	}
	return out, true
}

func targetNflog(s structure, _ uint8, _ bool) (string, bool) {
	if len(s) < 76 {
		return "", false
	}
	out := ""
	if prefix := s.text(12, 64); prefix != "" {
		out += " --nflog-prefix " + xtQuote(prefix)
	}
	if group := s.u16(4); group != 0 {
		out += " --nflog-group " + decimal(group)
	}
	if size := s.u32(0); s.u16(8)&1 != 0 {
		out += " --nflog-size " + decimal(size)
	} else if size != 0 {
		out += " --nflog-range " + decimal(size)
	}
	if threshold := s.u16(6); threshold != 0 {
		out += " --nflog-threshold " + decimal(threshold)
	}
	return out, true
}

func targetNfqueue(s structure, rev uint8, _ bool) (string, bool) {
	if len(s) < 2 {
		return "", false
	}
	out := "--queue-num " + decimal(s.u16(0))
	if total := s.u16(2); rev >= 1 && total > 1 {
		out = fmt.Sprintf("--queue-balance %d:%d", s.u16(0), s.u16(0)+total-1)
	}
	if rev >= 2 && s.u16(4)&1 != 0 {
		out += " --queue-bypass"
	}
	if rev >= 3 && s.u16(4)&2 != 0 {
		out += " --queue-cpu-fanout"
	}
	return out, true
}

func targetMark(s structure, rev uint8, _ bool) (string, bool) {
	return fmt.Sprintf("--set-xmark 0x%x/0x%x", s.u32(0), s.u32(4)), rev == 2 && len(s) >= 8
}

// targetConnmark writes struct xt_connmark_tginfo1. The next revision shifts as
// well.
func targetConnmark(s structure, rev uint8, _ bool) (string, bool) {
	mode := s.u8(12)
	if rev == 2 {
		if s.u8(13) != 0 { // bits to shift by
			return "", false
		}
		mode = s.u8(14)
	}
	if len(s) < 13 || mode > 2 || rev < 1 || rev > 2 {
		return "", false
	}
	if mode == 0 {
		return fmt.Sprintf("--set-xmark 0x%x/0x%x", s.u32(0), s.u32(4)), true
	}
	return fmt.Sprintf("--%s-mark --nfmask 0x%x --ctmask 0x%x", []string{"", "save", "restore"}[mode], s.u32(8), s.u32(4)), true
}

// natRange is what the structures of NAT have in common.
type natRange struct {
	flags            uint32
	low, high        netip.Addr
	lowPort, highest uint16
}

// natRangeOf reads struct nf_nat_range or nf_nat_range2, or with revision 0 of
// IPv4 nf_nat_ipv4_multi_range_compat. Of a second revision the offset of the
// ports is not known here.
func natRangeOf(s structure, rev uint8, six bool) (natRange, bool) {
	if !six && rev == 0 && len(s) >= 20 {
		return natRange{s.u32(4), s.ip(8, false), s.ip(12, false), s.be16(16), s.be16(18)}, s.u32(0) == 1
	}
	if len(s) < 40 {
		return natRange{}, false
	}
	r := natRange{s.u32(0), s.ip(4, six), s.ip(20, six), s.be16(36), s.be16(38)}
	return r, r.flags&0x20 == 0
}

// targetNAT makes what writes a translation whose new addresses and ports stand
// behind a word.
func targetNAT(word string) func(structure, uint8, bool) (string, bool) {
	return func(s structure, rev uint8, six bool) (string, bool) {
		r, ok := natRangeOf(s, rev, six)
		if !ok {
			return "", false
		}
		out := ""
		if to := r.to(six); to != "" && word == "--to-ports " {
			out = " " + word + strings.TrimPrefix(to, ":")
		} else if to != "" {
			out = " " + word + to
		}
		for _, f := range []struct {
			bit  uint32
			name string
		}{{4, "random"}, {16, "random-fully"}, {8, "persistent"}} {
			if r.flags&f.bit != 0 {
				out += " --" + f.name
			}
		}
		return out, true
	}
}

// to writes the addresses and ports.
func (r natRange) to(six bool) string {
	to := ""
	if r.flags&1 != 0 { // NF_NAT_RANGE_MAP_IPS
		low, high := r.low.String(), r.high.String()
		if six && r.flags&2 != 0 {
			low, high = "["+low+"]", "["+high+"]"
		}
		if to = low; r.low != r.high {
			to += "-" + high
		}
	}
	if r.flags&2 != 0 { // NF_NAT_RANGE_PROTO_SPECIFIED
		to += ":" + decimal(r.lowPort)
		if r.lowPort != r.highest {
			to += "-" + decimal(r.highest)
		}
	}
	return to
}

func targetNetmap(s structure, rev uint8, six bool) (string, bool) {
	r, ok := natRangeOf(s, rev, six)
	if !ok {
		return "", false
	}
	n := rangePrefix(r.low.AsSlice(), r.high.AsSlice())
	if n < 0 {
		return "", false
	}
	return fmt.Sprintf("--to %s/%d", r.low, n), true
}

func targetTCPMSS(s structure, _ uint8, _ bool) (string, bool) {
	if mss := s.u16(0); mss != 0xffff {
		return "--set-mss " + decimal(mss), len(s) >= 2
	}
	return "--clamp-mss-to-pmtu", true
}

// targetTTL writes struct ipt_TTL_info or ip6t_HL_info.
func targetTTL(s structure, _ uint8, six bool) (string, bool) {
	name, mode := "ttl", s.u8(0)
	if six {
		name = "hl"
	}
	if len(s) < 2 || mode > 2 {
		return "", false
	}
	return fmt.Sprintf("--%s-%s %d", name, []string{"set", "inc", "dec"}[mode], s.u8(1)), true
}

func targetDSCP(s structure, _ uint8, _ bool) (string, bool) {
	return fmt.Sprintf("--set-dscp 0x%02x", s.u8(0)), len(s) >= 1
}

func targetTOS(s structure, rev uint8, _ bool) (string, bool) {
	return fmt.Sprintf("--set-tos 0x%02x/0x%02x", s.u8(0), s.u8(1)), rev == 1 && len(s) >= 2
}

func targetChecksum(s structure, _ uint8, _ bool) (string, bool) {
	return "--checksum-fill", len(s) >= 1 && s.u8(0) == 1
}

func targetClassify(s structure, _ uint8, _ bool) (string, bool) {
	return fmt.Sprintf("--set-class %04x:%04x", s.u16(2), s.u16(0)), len(s) >= 4
}

func targetAudit(s structure, _ uint8, _ bool) (string, bool) {
	names := []string{"accept", "drop", "reject"}
	if len(s) < 1 || int(s.u8(0)) >= len(names) {
		return "", false
	}
	return "--type " + names[s.u8(0)], true
}

func targetTee(s structure, rev uint8, six bool) (string, bool) {
	if rev != 1 || len(s) < 32 {
		return "", false
	}
	out := "--gateway " + s.ip(0, six).String()
	if dev := s.text(16, 16); dev != "" {
		out += " --oif " + dev
	}
	return out, true
}

// targetCT writes struct xt_ct_target_info or xt_ct_target_info_v1.
func targetCT(s structure, rev uint8, _ bool) (string, bool) {
	flags := s.u16(0)
	if len(s) < 28 || flags&(4|8|16) != 0 { // zones of one direction or by a mark
		return "", false
	}
	if flags&2 != 0 {
		return "NOTRACK", true
	}
	out := ""
	if flags&1 != 0 {
		out += " --notrack"
	}
	if helper := s.text(12, 16); helper != "" {
		out += " --helper " + helper
	}
	if timeout := s.text(28, 32); rev >= 1 && timeout != "" {
		out += " --timeout " + timeout
	}
	if s.u32(4) != 0 || s.u32(8) != 0 {
		return "", false // events
	}
	if zone := s.u16(2); zone != 0 {
		out += " --zone " + decimal(zone)
	}
	return out, true
}
