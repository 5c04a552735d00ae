package fact

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Attributes of include/uapi/linux/netfilter/nf_tables.h that the library does
// not have, and NF_NAT_RANGE_NETMAP.
const (
	tproxyFamily, tproxyAddr, tproxyPort = 1, 2, 3
	natNetmap                            = 1 << 6
)

// translate reads an expression that changes addresses or the way.
func (d *nftText) translate(e kernelnet.NftExpr) bool {
	switch string(e.Name) {
	case "nat":
		d.nat(e.Attrs)
	case "masq":
		d.verdict = "masquerade"
		d.say("masquerade%s%s", d.portsTo(e.Num(unix.NFTA_MASQ_REG_PROTO_MIN), e.Num(unix.NFTA_MASQ_REG_PROTO_MAX)), natFlags(e.Num(unix.NFTA_MASQ_FLAGS)))
	case "redir":
		d.verdict = "redirect"
		d.say("redirect%s%s", d.portsTo(e.Num(unix.NFTA_REDIR_REG_PROTO_MIN), e.Num(unix.NFTA_REDIR_REG_PROTO_MAX)), natFlags(e.Num(unix.NFTA_REDIR_FLAGS)))
	case "tproxy":
		d.verdict = "tproxy"
		to := ""
		if e.Has(tproxyAddr) {
			to = d.natAddress(d.fetch(e.Num(tproxyAddr)), e.Has(tproxyPort))
		}
		if e.Has(tproxyPort) {
			to += ":" + d.as(d.fetch(e.Num(tproxyPort)), &operand{kind: typePort})
		}
		d.say("tproxy%s to %s", familyWord(d.family, e.Num(tproxyFamily)), to)
	case "dup":
		s := "dup to "
		if e.Has(unix.NFTA_DUP_SREG_ADDR) {
			s += d.natAddress(d.fetch(e.Num(unix.NFTA_DUP_SREG_ADDR)), false)
		}
		if e.Has(unix.NFTA_DUP_SREG_DEV) {
			if e.Has(unix.NFTA_DUP_SREG_ADDR) {
				s += " device "
			}
			s += d.as(d.fetch(e.Num(unix.NFTA_DUP_SREG_DEV)), &operand{kind: typeDevice, host: true})
		}
		d.say("%s", s)
	case "fwd":
		d.verdict = "fwd"
		d.say("fwd to %s", d.as(d.fetch(e.Num(unix.NFTA_FWD_SREG_DEV)), &operand{kind: typeDevice, host: true}))
	default:
		return false
	}
	return true
}

// nat writes a translation of addresses (net/netfilter/nft_nat.c).
func (d *nftText) nat(a kernelnet.Attrs) {
	d.verdict = "snat"
	if a.Num(unix.NFTA_NAT_TYPE) == unix.NFT_NAT_DNAT {
		d.verdict = "dnat"
	}
	flags := a.Num(unix.NFTA_NAT_FLAGS)
	s := d.verdict + familyWord(d.family, a.Num(unix.NFTA_NAT_FAMILY))
	if flags&natNetmap != 0 {
		s += " prefix"
	}
	s += " to "
	lowPort, highPort := a.Num(unix.NFTA_NAT_REG_PROTO_MIN), a.Num(unix.NFTA_NAT_REG_PROTO_MAX)
	if low := a.Num(unix.NFTA_NAT_REG_ADDR_MIN); low != 0 {
		from := d.fetch(low)
		if slot(lowPort) > slot(low) && slot(lowPort) < slot(low)+regWords(from.size) {
			lowPort = 0 // a map gives the port as well
		}
		s += d.natAddress(from, lowPort != 0)
		high := d.fetch(a.Num(unix.NFTA_NAT_REG_ADDR_MAX))
		if a.Has(unix.NFTA_NAT_REG_ADDR_MAX) && high != from && d.natAddress(high, false) != d.natAddress(from, false) {
			if n := rangeOf(from, high); flags&natNetmap != 0 && n >= 0 {
				s += "/" + decimal(n)
			} else {
				s += "-" + d.natAddress(high, lowPort != 0)
			}
		}
	}
	s += strings.TrimPrefix(d.portsTo(lowPort, highPort), " to ")
	d.say("%s%s", s, natFlags(flags))
}

// rangeOf is the length of the prefix that two constants are the ends of, or
// -1.
func rangeOf(from, to *operand) int {
	if len(from.value) == 0 || len(from.value) != len(to.value) {
		return -1
	}
	return rangePrefix(from.value, to.value)
}

// familyWord names the family of a translation in a table of several.
func familyWord(table uint8, family uint64) string {
	if table != unix.NFPROTO_INET {
		return ""
	}
	switch family {
	case unix.NFPROTO_IPV4:
		return " ip"
	case unix.NFPROTO_IPV6:
		return " ip6"
	}
	return ""
}

// natAddress writes an address; one of IPv6 before a port is in brackets.
func (d *nftText) natAddress(o *operand, port bool) string {
	switch len(o.value) {
	case 4:
		return d.as(o, &operand{kind: typeIPv4})
	case 16:
		if s := d.as(o, &operand{kind: typeIPv6}); port {
			return "[" + s + "]"
		} else {
			return s
		}
	}
	return d.String(o)
}

// portsTo writes the ports of a translation, if it has some.
func (d *nftText) portsTo(low, high uint64) string {
	if low == 0 {
		return ""
	}
	from, to := d.fetch(low), d.fetch(low)
	if high != 0 {
		to = d.fetch(high)
	}
	port := &operand{kind: typePort}
	s := " to :" + d.as(from, port)
	if upper := d.as(to, port); to != from && upper != d.as(from, port) {
		s += "-" + upper
	}
	return s
}

// natFlags writes NF_NAT_RANGE_* (include/uapi/linux/netfilter/nf_nat.h).
func natFlags(flags uint64) string {
	var words []string
	for _, f := range []struct {
		bit  uint64
		name string
	}{{unix.NF_NAT_RANGE_PROTO_RANDOM, "random"}, {unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY, "fully-random"}, {unix.NF_NAT_RANGE_PERSISTENT, "persistent"}} {
		if flags&f.bit != 0 {
			words = append(words, f.name)
		}
	}
	if len(words) == 0 {
		return ""
	}
	return " " + strings.Join(words, ",")
}
