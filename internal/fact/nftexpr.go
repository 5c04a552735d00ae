package fact

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// operand is what a register holds while a rule is read.
type operand struct {
	text string
	kind nftType
	// size is how many bytes it has; host says that they are in the byte order
	// of the host.
	size int
	host bool
	// header and at say where it was loaded from, in bits; no header for what
	// is not of a packet.
	header string
	at     int
	// fields are the fields that were loaded at once, where there are several.
	fields []headerField
	// prefixed says that the first bits of an address count, prefix how many.
	// shift is how many bits stand below the field.
	prefixed      bool
	prefix, shift int
	// mask and xor are a bitwise operation that was done to it.
	mask, xor []byte
	// value is set for a constant.
	value []byte
	// selects says what the next header is, if it is compared.
	selects selection
}

// selection says of what layer, and by what numbers, a comparison tells the
// header that follows.
type selection uint8

const (
	selectsNothing selection = iota
	selectsLink              // meta iiftype
	selectsEtherType
	selectsFamily
	selectsTransport
	selectsProtocolOfIP // ip protocol, ip6 nexthdr
	selectsICMP
)

// dependency is a statement that is only there so that another one means what
// it says, as meta l4proto tcp before tcp dport. nft(8) writes it where no other
// follows.
type dependency struct {
	statement int
	header    string
}

// nftText makes text of the expressions of one rule.
type nftText struct {
	family  uint8
	devices func(uint32) string
	// set gives a set of the rule's table with its elements, or nil.
	set func(name string) *nftSet

	registers [20]*operand // four for each of NFT_REG_1 to 4; one for NFT_REG32_00 to 15
	out       []string
	depends   []dependency
	// network and transport are the headers that the rule is about.
	network, transport string
	// icmpType is the type of ICMP that the rule is about, or -1.
	icmpType int
	// from is the lower end of a range of which the upper one may follow.
	from *lowerEnd
	// verdict says what becomes of a packet that the rule matches.
	verdict string
	// counted says that there was a counter; packets and bytes are those of
	// the first.
	counted        bool
	packets, bytes uint64
	quota          string
	// comment is that of a rule of iptables-nft, which has a match for it.
	comment string
}

type lowerEnd struct {
	statement int
	of        *operand
	value     []byte
}

func newNftText(family uint8) *nftText {
	d := &nftText{family: family, icmpType: -1, devices: func(uint32) string { return "" }, set: func(string) *nftSet { return nil }}
	switch family {
	case unix.NFPROTO_IPV4:
		d.network = "ip"
	case unix.NFPROTO_IPV6:
		d.network = "ip6"
	case unix.NFPROTO_ARP:
		d.network = "arp"
	}
	return d
}

// rule writes all expressions.
func (d *nftText) rule(exprs []kernelnet.NftExpr) string {
	for _, e := range exprs {
		d.expr(e)
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(d.out), func(s string) bool { return s == "" }), " ")
}

// say adds a statement.
func (d *nftText) say(format string, args ...any) {
	d.out = append(d.out, fmt.Sprintf(format, args...))
}

// expr reads one expression: it loads a register, changes one, compares one, or
// does something.
func (d *nftText) expr(e kernelnet.NftExpr) {
	switch {
	case d.load(e), d.change(e), d.compare(e), d.act(e), d.translate(e):
	default:
		// Nobody knows what it did to the registers.
		d.say("[%s]", e.Name)
		clear(d.registers[:])
	}
}

// slot is the place of a register among those of 4 bytes, or -1.
func slot(reg uint64) int {
	switch {
	case reg >= unix.NFT_REG_1 && reg <= unix.NFT_REG_4:
		return int(reg-unix.NFT_REG_1) * 4
	case reg >= unix.NFT_REG32_00 && reg <= unix.NFT_REG32_15:
		return int(reg - unix.NFT_REG32_00)
	}
	return -1
}

// store puts an operand into a register.
func (d *nftText) store(reg uint64, o *operand) {
	at := slot(reg)
	if at < 0 {
		return
	}
	d.registers[at] = o
	for i := at + 1; i < at+regWords(o.size) && i < len(d.registers); i++ {
		d.registers[i] = nil
	}
}

// regWords is how many registers of 4 bytes a value needs.
func regWords(size int) int { return (size + 3) / 4 }

// fetch gives what a register holds.
func (d *nftText) fetch(reg uint64) *operand {
	if at := slot(reg); at >= 0 && d.registers[at] != nil {
		return d.registers[at]
	}
	return &operand{text: fmt.Sprintf("reg %d", reg), kind: typeHex, size: 4}
}

// fetchAll gives the parts of a value of size bytes that begins in a register.
func (d *nftText) fetchAll(reg uint64, size int) []*operand {
	at := slot(reg)
	if at < 0 || size <= 0 || d.registers[at] == nil {
		return []*operand{d.fetch(reg)}
	}
	var list []*operand
	for end := at + regWords(size); at < end && at < len(d.registers) && d.registers[at] != nil; {
		o := d.registers[at]
		list = append(list, o)
		at += max(regWords(o.size), 1)
	}
	return list
}

// uses says that a statement is about a header: what only led to it is not
// written.
func (d *nftText) uses(header string) {
	also := ""
	switch header {
	case "icmp":
		also = "ip"
	case "icmpv6":
		also = "ip6"
	}
	d.depends = slices.DeleteFunc(d.depends, func(dep dependency) bool {
		if dep.header != header && dep.header != also || dep.header == "" {
			return false
		}
		d.out[dep.statement] = ""
		return true
	})
}

// constant writes a constant that the operand is compared with.
func (d *nftText) constant(o *operand, b []byte) string {
	if o.shift > 0 {
		b = shiftRight(b, o.shift)
	}
	return o.kind.constant(b, o.host, d.devices)
}

// shiftRight moves a number in network byte order down by n bits.
func shiftRight(b []byte, n int) []byte {
	out := make([]byte, len(b))
	for i := range b {
		from := i - n/8
		if from < 0 {
			continue
		}
		out[i] = b[from] >> (n % 8)
		if from > 0 && n%8 > 0 {
			out[i] |= b[from-1] << (8 - n%8)
		}
	}
	return out
}

// String writes the operand with the operation that was done to it.
func (d *nftText) String(o *operand) string {
	switch {
	case o.value != nil:
		return d.constant(o, o.value)
	case o.mask == nil && o.prefixed:
		return o.text + " & " + o.kind.constant(maskOf(o.prefix, o.size), false, d.devices)
	case o.mask == nil:
		return o.text
	}
	s := o.text
	plain := o.plain().constant
	// nft(8) has the same bits in the mask and in the xor for an or.
	either := slices.Clone(o.mask)
	onlyOr := true
	for i := range either {
		either[i] |= o.xor[i]
		onlyOr = onlyOr && o.mask[i] == ^o.xor[i]
	}
	switch {
	case zeroBits(o.xor):
		return s + " & " + plain(o.mask, o.host, d.devices)
	case oneBits(o.mask):
		return s + " ^ " + plain(o.xor, o.host, d.devices)
	case onlyOr:
		return s + " | " + plain(o.xor, o.host, d.devices)
	}
	return s + " & " + plain(either, o.host, d.devices) + " | " + plain(o.xor, o.host, d.devices)
}

// plain is how a part of the bits is written: not by the names of the whole.
func (o *operand) plain() nftType {
	if o.kind.names() != nil {
		return typeHex
	}
	return o.kind
}

// maskOf is the mask of a prefix.
func maskOf(bits, size int) []byte {
	m := make([]byte, size)
	for i := range min(bits, 8*size) {
		m[i/8] |= 0x80 >> (i % 8)
	}
	return m
}
