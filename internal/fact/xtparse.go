package fact

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	kernelnet.XtRule
	// spec is the rule as iptables-save writes it, behind -A CHAIN.
	spec, verdict, comment string
}

// xtRules writes the rules of a table.
func xtRules(f kernelnet.XtFamily, t kernelnet.XtTable) ([]xtRule, error) {
	list, chains, err := f.Rules(t)
	rules := make([]xtRule, len(list))
	for i, r := range list {
		rules[i].XtRule = r
		if r.Number == 0 {
			rules[i].verdict = xtVerdict(r.Verdict(), chains)
		} else {
			rules[i].decode(f.Six, chains)
		}
	}
	return rules, err
}

// xtVerdict names what a standard target does.
func xtVerdict(v int32, chains map[int]string) string {
	switch v {
	case -kernelnet.NfDrop - 1:
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

// decode reads what a rule matches and what it does. One that goes to the next
// entry has no target.
func (r *xtRule) decode(six bool, chains map[int]string) {
	const head = kernelnet.SizeofXtHead
	words, flags := xtHeader(r.Header, six)
	for b := structure(r.Matches); len(b) >= head; {
		size := int(b.u16(0))
		if size < head || size > len(b) {
			words = append(words, "[?]")
			break
		}
		name := b.text(2, head-3)
		options := matchText(six, name, b.u8(head-1), b[head:size])
		if name == "comment" {
			r.comment = text(b[head:size])
		}
		if strings.HasPrefix(options, "--state ") || strings.HasPrefix(options, "! --state ") {
			name = "state" // what it was before conntrack, and iptables still shows
		}
		words = append(words, strings.TrimSpace("-m "+name+" "+options))
		b = b[size:]
	}
	switch {
	case r.Target != "":
		r.verdict = r.Target
		options := targetText(six, r.Target, r.Revision, r.Data)
		if r.Target == "CT" && options == "NOTRACK" {
			r.verdict, options = options, ""
		}
		words = append(words, strings.TrimSpace("-j "+r.verdict+" "+options))
	case int(r.Verdict()) == r.Next:
	default:
		r.verdict = xtVerdict(r.Verdict(), chains)
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
