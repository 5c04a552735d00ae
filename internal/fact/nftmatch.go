package fact

import (
	"bytes"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// change reads an expression that changes a register.
func (d *nftText) change(e kernelnet.NftExpr) bool {
	switch string(e.Name) {
	case "byteorder":
		o := *d.fetch(e.Num(unix.NFTA_BYTEORDER_SREG))
		o.host = !o.host
		d.store(e.Num(unix.NFTA_BYTEORDER_DREG), &o)
		return true
	case "bitwise":
		o := *d.fetch(e.Num(unix.NFTA_BITWISE_SREG))
		d.bitwise(&o, e.Attrs)
		d.store(e.Num(unix.NFTA_BITWISE_DREG), &o)
		return true
	}
	return false
}

// Operations of bitwise (enum nft_bitwise_ops), and the attributes that the
// library does not have. Those after the shifts came with 6.13.
const (
	bitwiseBool, bitwiseLeft, bitwiseRight = 0, 1, 2
	bitwiseOp, bitwiseData, bitwiseReg2    = 6, 7, 8
)

func (d *nftText) bitwise(o *operand, a kernelnet.Attrs) {
	switch op := a.Num(bitwiseOp); op {
	case bitwiseBool:
	case bitwiseLeft, bitwiseRight:
		n := nftNumber(a.Data(bitwiseData), true)
		if op == bitwiseRight && o.shift > 0 && n == uint64(o.shift) {
			o.shift = 0 // only the field is left
			return
		}
		sign := map[uint64]string{bitwiseLeft: " << ", bitwiseRight: " >> "}[op]
		o.text = d.String(o) + sign + decimal(n)
		o.mask, o.xor, o.selects, o.header = nil, nil, selectsNothing, ""
		return
	default: // and, or, xor of two registers
		sign := map[uint64]string{3: " & ", 4: " | ", 5: " ^ "}[op]
		o.text = d.String(o) + sign + d.String(d.fetch(a.Num(bitwiseReg2)))
		o.mask, o.xor, o.selects, o.header = nil, nil, selectsNothing, ""
		return
	}
	o.mask, o.xor = a.Data(unix.NFTA_BITWISE_MASK), a.Data(unix.NFTA_BITWISE_XOR)
	o.selects = selectsNothing
	if len(o.mask) != len(o.xor) || len(o.mask) == 0 {
		o.mask, o.xor, o.text = nil, nil, o.text+" & ?"
		return
	}
	if !zeroBits(o.xor) {
		return
	}
	if n := maskLength(o.mask); o.kind.address() && n >= 0 && !o.prefixed {
		o.prefixed, o.prefix, o.mask, o.xor = true, n, nil, nil
		return
	}
	if f, shift, ok := maskedField(o); ok {
		o.text = strings.TrimSuffix(o.text, lastWord(o.text)) + f.name
		o.kind, o.shift, o.mask, o.xor = f.kind, shift, nil, nil
		d.uses(o.header)
	}
}

func lastWord(s string) string { return s[strings.LastIndexByte(s, ' ')+1:] }

// maskedField is the field of which all bits and no others are in the mask, and
// how many bits stand below it.
func maskedField(o *operand) (f headerField, shift int, ok bool) {
	first, width := -1, 0
	for i := range 8 * len(o.mask) {
		if o.mask[i/8]&(0x80>>(i%8)) == 0 {
			continue
		}
		if first < 0 {
			first = i
		} else if i != first+width {
			return f, 0, false // a gap
		}
		width++
	}
	if first < 0 || o.header == "" {
		return f, 0, false
	}
	f, ok = headerFieldAt(o.header, o.at+first, width)
	return f, 8*len(o.mask) - first - width, ok
}

// compare reads an expression that ends the rule for some packets.
func (d *nftText) compare(e kernelnet.NftExpr) bool {
	switch string(e.Name) {
	case "cmp":
		d.cmp(d.fetch(e.Num(unix.NFTA_CMP_SREG)), e.Num(unix.NFTA_CMP_OP), e.Data(unix.NFTA_CMP_DATA))
	case "range":
		o := d.fetch(e.Num(unix.NFTA_RANGE_SREG))
		not := ""
		if e.Num(unix.NFTA_RANGE_OP) == unix.NFT_RANGE_NEQ {
			not = "!= "
		}
		d.say("%s %s%s-%s", d.String(o), not, d.constant(o, e.Data(unix.NFTA_RANGE_FROM_DATA)), d.constant(o, e.Data(unix.NFTA_RANGE_TO_DATA)))
	case "lookup":
		d.lookup(e.Attrs)
	default:
		return false
	}
	return true
}

var cmpSigns = []string{
	unix.NFT_CMP_EQ: "==", unix.NFT_CMP_NEQ: "!=", unix.NFT_CMP_LT: "<", unix.NFT_CMP_LTE: "<=", unix.NFT_CMP_GT: ">", unix.NFT_CMP_GTE: ">=",
}

// cmp writes a comparison with a constant.
func (d *nftText) cmp(o *operand, op uint64, b []byte) {
	from := d.from
	d.from = nil
	sign := "?"
	if op < uint64(len(cmpSigns)) {
		sign = cmpSigns[op]
	}
	equal := op == unix.NFT_CMP_EQ
	switch {
	case len(o.fields) > 0 && equal && o.mask == nil && len(b) == o.size:
		d.cmpFields(o, b)
		return
	case o.mask != nil && o.kind.bits() && zeroBits(o.xor) && (equal || op == unix.NFT_CMP_NEQ):
		d.cmpBits(o, equal, b)
	case o.prefixed && o.mask == nil && (equal || op == unix.NFT_CMP_NEQ):
		d.cmpPrefix(o, equal, b)
	case o.mask != nil:
		d.say("%s %s %s", d.String(o), sign, o.plain().constant(b, o.host, d.devices))
	case o.prefixed || o.kind.bits():
		d.say("%s %s %s", d.String(o), sign, d.constant(o, b))
	case op == unix.NFT_CMP_LTE && from != nil && from.of == o && from.statement == len(d.out)-1:
		d.out[from.statement] = o.text + " " + d.interval(o, from.value, b)
	case equal:
		d.say("%s %s", d.String(o), d.constant(o, b))
		d.follow(o, nftNumber(b, o.host))
	default:
		d.say("%s %s %s", d.String(o), sign, d.constant(o, b))
		if op == unix.NFT_CMP_GTE {
			d.from = &lowerEnd{len(d.out) - 1, o, bytes.Clone(b)}
		}
	}
}

// interval writes a range of constants. Times of more than one unit are easier
// to read as seconds, as nft(8) has it.
func (d *nftText) interval(o *operand, from, to []byte) string {
	if o.kind == typeSeconds {
		return decimal(nftNumber(from, o.host)/1000) + "s-" + decimal(nftNumber(to, o.host)/1000) + "s"
	}
	return d.constant(o, from) + "-" + d.constant(o, to)
}

// cmpFields writes the comparison of several fields at once.
func (d *nftText) cmpFields(o *operand, b []byte) {
	for _, f := range o.fields {
		part := fieldOperand(o.header, f, f.width/8)
		at := (f.at - o.at) / 8
		d.say("%s %s", part.text, d.constant(part, b[at:at+f.width/8]))
		d.follow(part, nftNumber(b[at:at+f.width/8], part.host))
	}
}

// cmpBits writes which flags there must be, or which of some.
func (d *nftText) cmpBits(o *operand, equal bool, b []byte) {
	plain := operand{kind: o.kind, host: o.host}
	mask := d.constant(&plain, o.mask)
	switch {
	case zeroBits(b) && equal:
		d.say("%s ! %s", o.text, mask)
	case zeroBits(b):
		d.say("%s %s", o.text, mask)
	case equal:
		d.say("%s %s / %s", o.text, d.constant(&plain, b), mask)
	default:
		d.say("%s != %s / %s", o.text, d.constant(&plain, b), mask)
	}
}

// cmpPrefix writes the comparison of the beginning of an address.
func (d *nftText) cmpPrefix(o *operand, equal bool, b []byte) {
	size := map[nftType]int{typeIPv4: 4, typeIPv6: 16, typeEther: 6}[o.kind]
	whole := make([]byte, size)
	copy(whole, b)
	not := ""
	if !equal {
		not = "!= "
	}
	d.say("%s %s%s/%d", o.text, not, d.constant(&operand{kind: o.kind}, whole), o.prefix)
}

// follow notes which header follows from what the last statement compared.
func (d *nftText) follow(o *operand, n uint64) {
	header, depends := "", true
	switch o.selects {
	case selectsLink:
		header = "ether"
		if n != 1 {
			return
		}
	case selectsEtherType:
		header = nftNetworks[n]
		d.network = header
	case selectsFamily:
		header = nftNetworkFamilies[n]
		d.network = header
	case selectsTransport:
		header = nftTransports[n]
		d.transport = header
	case selectsProtocolOfIP:
		header = nftTransports[n]
		d.transport = header
		// In a table of one family nft(8) takes it for the dependency itself.
		depends = d.family == unix.NFPROTO_IPV4 || d.family == unix.NFPROTO_IPV6
	case selectsICMP:
		d.icmpType, header = int(n), "icmp type"
	default:
		return
	}
	if header != "" && depends {
		d.depends = append(d.depends, dependency{len(d.out) - 1, header})
	}
}

// lookup writes a look-up in a set or a map.
func (d *nftText) lookup(a kernelnet.Attrs) {
	name := a.Text(unix.NFTA_LOOKUP_SET)
	set := d.set(name)
	size := 0
	if set != nil {
		size = set.keySize
	}
	parts := d.fetchAll(a.Num(unix.NFTA_LOOKUP_SREG), size)
	what := "@" + name
	if set != nil && set.anonymous {
		what = d.elements(set, parts)
	}
	key := d.join(parts)
	switch {
	case a.Has(unix.NFTA_LOOKUP_DREG) && a.Num(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT:
		d.say("%s vmap %s", key, what)
		d.verdict = "vmap"
	case a.Has(unix.NFTA_LOOKUP_DREG):
		o := &operand{text: key + " map " + what, kind: typeHex, size: 4}
		if set != nil {
			o.kind, o.size = setDataType(set.dataType), set.dataSize
			o.host = o.kind.hostOrder()
		}
		d.store(a.Num(unix.NFTA_LOOKUP_DREG), o)
	case a.Num(unix.NFTA_LOOKUP_FLAGS)&unix.NFT_LOOKUP_F_INV != 0:
		d.say("%s != %s", key, what)
	default:
		d.say("%s %s", key, what)
	}
}
