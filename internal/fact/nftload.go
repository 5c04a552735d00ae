package fact

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// metaKeys are enum nft_meta_keys.
var metaKeys = []struct {
	name string
	kind nftType
	size int
}{
	{"meta length", typeHostNumber, 4},
	{"meta protocol", typeEtherType, 2},
	{"meta priority", typeHandle, 4},
	{"meta mark", typeMark, 4},
	{"iif", typeDevice, 4},
	{"oif", typeDevice, 4},
	{"iifname", typeDeviceName, 16},
	{"oifname", typeDeviceName, 16},
	{"meta iiftype", typeHardware, 2},
	{"meta oiftype", typeHardware, 2},
	{"meta skuid", typeHostNumber, 4},
	{"meta skgid", typeHostNumber, 4},
	{"meta nftrace", typeNumber, 1},
	{"meta rtclassid", typeHostNumber, 4},
	{"meta secmark", typeHostNumber, 4},
	{"meta nfproto", typeFamily, 1},
	{"meta l4proto", typeProto, 1},
	{"meta ibrname", typeDeviceName, 16},
	{"meta obrname", typeDeviceName, 16},
	{"meta pkttype", typePacket, 1},
	{"meta cpu", typeHostNumber, 4},
	{"iifgroup", typeHostNumber, 4},
	{"oifgroup", typeHostNumber, 4},
	{"meta cgroup", typeHostNumber, 4},
	{"meta random", typeNumber, 4},
	{"meta ipsec", typeExists, 1},
	{"meta iifkind", typeString, 16},
	{"meta oifkind", typeString, 16},
	{"meta ibrpvid", typeHostNumber, 2},
	{"meta ibrvproto", typeEtherType, 2},
	{"meta time", typeTime, 8},
	{"meta day", typeDay, 1},
	{"meta hour", typeHour, 4},
	{"meta sdif", typeDevice, 4},
	{"meta sdifname", typeDeviceName, 16},
	{"meta broute", typeNumber, 1},
	{"meta ibrhwaddr", typeEther, 6},
}

func metaKey(key uint64) *operand {
	if key >= uint64(len(metaKeys)) {
		return &operand{text: fmt.Sprintf("meta %d", key), kind: typeHex, size: 4}
	}
	k := metaKeys[key]
	o := &operand{text: k.name, kind: k.kind, size: k.size, host: k.kind.hostOrder()}
	switch key {
	case unix.NFT_META_IIFTYPE:
		o.selects = selectsLink
	case unix.NFT_META_PROTOCOL:
		o.selects = selectsEtherType
	case unix.NFT_META_NFPROTO:
		o.selects = selectsFamily
	case unix.NFT_META_L4PROTO:
		o.selects = selectsTransport
	}
	return o
}

// ctKeys are enum nft_ct_keys.
var ctKeys = []struct {
	name string
	kind nftType
	size int
}{
	{"state", typeCtState, 4},
	{"direction", typeCtDirection, 1},
	{"status", typeCtStatus, 4},
	{"mark", typeMark, 4},
	{"secmark", typeHostNumber, 4},
	{"expiration", typeSeconds, 4},
	{"helper", typeString, 16},
	{"l3proto", typeFamily, 1},
	{"saddr", typeIPv4, 0},
	{"daddr", typeIPv4, 0},
	{"protocol", typeProto, 1},
	{"proto-src", typePort, 2},
	{"proto-dst", typePort, 2},
	{"label", typeCtLabel, 16},
	{"packets", typeHostNumber, 8},
	{"bytes", typeHostNumber, 8},
	{"avgpkt", typeHostNumber, 8},
	{"zone", typeHostNumber, 2},
	{"event", typeCtEvents, 4},
	{"ip saddr", typeIPv4, 4},
	{"ip daddr", typeIPv4, 4},
	{"ip6 saddr", typeIPv6, 16},
	{"ip6 daddr", typeIPv6, 16},
	{"id", typeNumber, 4},
}

func (d *nftText) ctKey(a kernelnet.Attrs) *operand {
	key := a.Num(unix.NFTA_CT_KEY)
	if key >= uint64(len(ctKeys)) {
		return &operand{text: fmt.Sprintf("ct %d", key), kind: typeHex, size: 4}
	}
	k := ctKeys[key]
	o := &operand{text: "ct " + k.name, kind: k.kind, size: k.size, host: k.kind.hostOrder()}
	if o.size == 0 { // an address of the rule's family
		o.size = 4
		if d.network == "ip6" {
			o.kind, o.size = typeIPv6, 16
		}
	}
	if b := a.Get(unix.NFTA_CT_DIRECTION); len(b) == 1 && key != unix.NFT_CT_DIRECTION {
		o.text = "ct " + ctDirectionNames[uint64(b[0])] + " " + k.name
	}
	return o
}

// load reads an expression that loads a register.
func (d *nftText) load(e kernelnet.NftExpr) bool {
	var o *operand
	reg := 1 // NFTA_*_DREG, of most the first
	switch string(e.Name) {
	case "meta":
		if e.Has(unix.NFTA_META_DREG) {
			o = metaKey(e.Num(unix.NFTA_META_KEY))
		}
	case "ct":
		if e.Has(unix.NFTA_CT_DREG) {
			o = d.ctKey(e.Attrs)
		}
	case "payload":
		if e.Has(unix.NFTA_PAYLOAD_DREG) {
			o = d.payload(e.Attrs)
		}
	case "exthdr":
		if e.Has(unix.NFTA_EXTHDR_DREG) {
			o = exthdr(e.Attrs)
			switch e.Num(unix.NFTA_EXTHDR_OP) {
			case exthdrIPv6:
				d.uses("ip6")
			case exthdrIPv4:
				d.uses("ip")
			}
		}
	case "immediate":
		if e.Num(unix.NFTA_IMMEDIATE_DREG) != unix.NFT_REG_VERDICT {
			b := e.Data(unix.NFTA_IMMEDIATE_DATA)
			o = &operand{kind: typeHex, size: len(b), value: b}
		}
	case "rt", "socket", "fib", "osf", "xfrm", "tunnel":
		o, reg = lookedUp(e)
	case "numgen":
		o = numgen(e.Attrs)
	case "hash":
		o, reg = d.hash(e.Attrs), unix.NFTA_HASH_DREG
	}
	if o == nil {
		return false
	}
	d.store(e.Num(reg), o)
	return true
}

// payload reads a load from the packet.
func (d *nftText) payload(a kernelnet.Attrs) *operand {
	base, at, size := a.Num(unix.NFTA_PAYLOAD_BASE), int(a.Num(unix.NFTA_PAYLOAD_OFFSET))*8, int(a.Num(unix.NFTA_PAYLOAD_LEN))
	header := ""
	switch base {
	case baseLink:
		header = "ether"
		if d.network == "vlan" && at >= 112 {
			header = "vlan"
		}
	case baseNetwork:
		header = d.network
	case baseTransport:
		if header = d.transport; header == "" {
			header = "th"
		}
	}
	if f, ok := icmpField(header, d.icmpType, at, 8*size); ok {
		d.uses(header)
		d.uses("icmp type")
		return fieldOperand(header, f, size)
	}
	o := headerOperand(header, at, size)
	if o == nil {
		o = &operand{text: rawPayload(base, at, 8*size), kind: typeHex, size: size, header: header, at: at}
		if header == "th" {
			o.header = ""
		}
		return o
	}
	d.uses(header)
	if header == "vlan" {
		d.uses("ether")
	}
	return o
}

// rawPayload writes bits that have no name.
func rawPayload(base uint64, at, width int) string {
	name := "ih"
	if base < baseInner {
		name = []string{"ll", "nh", "th"}[base]
	}
	return fmt.Sprintf("@%s,%d,%d", name, at, width)
}

// headerOperand names what was loaded of a header: a field, the beginning of an
// address, several fields, or bytes of which a part will be masked.
func headerOperand(header string, at, size int) *operand {
	if f, ok := headerFieldAt(header, at, 8*size); ok {
		return fieldOperand(header, f, size)
	}
	for _, f := range nftHeaders[header] {
		if f.at == at && f.kind.address() && 8*size < f.width && size > 0 {
			o := fieldOperand(header, f, size)
			o.prefixed, o.prefix = true, 8*size
			return o
		}
	}
	if fields := headerFieldsIn(header, at, 8*size); len(fields) > 1 {
		return &operand{text: header + " " + fields[0].name, kind: typeHex, size: size, header: header, at: at, fields: fields}
	}
	for _, f := range nftHeaders[header] { // a part of a byte: see change
		if f.width%8 != 0 && f.at >= at && f.at+f.width <= at+8*size {
			o := &operand{text: header + " " + f.name, kind: typeHex, size: size, header: header, at: at}
			return o
		}
	}
	return nil
}

func fieldOperand(header string, f headerField, size int) *operand {
	o := &operand{text: header + " " + f.name, kind: f.kind, size: size, header: header, at: f.at, host: f.kind.hostOrder() && f.kind != typeTCPFlags}
	switch {
	case f.kind == typeEtherType && header != "arp":
		o.selects = selectsEtherType
	case f.kind == typeICMP, f.kind == typeICMPv6:
		o.selects = selectsICMP
	case f.kind == typeProto && (header == "ip" || header == "ip6"):
		o.selects = selectsProtocolOfIP
	}
	return o
}

// Where an exthdr looks (enum nft_exthdr_op).
const (
	exthdrIPv6 = iota
	exthdrTCP
	exthdrIPv4
	exthdrSCTP
	exthdrDCCP
)

// exthdr reads a load from an extension header or an option.
func exthdr(a kernelnet.Attrs) *operand {
	op, at, size := a.Num(unix.NFTA_EXTHDR_OP), int(a.Num(unix.NFTA_EXTHDR_OFFSET))*8, int(a.Num(unix.NFTA_EXTHDR_LEN))
	var kind uint8
	if b := a.Get(unix.NFTA_EXTHDR_TYPE); len(b) == 1 {
		kind = b[0]
	}
	header := extensionName(op, kind)
	if a.Num(unix.NFTA_EXTHDR_FLAGS)&1 != 0 { // NFT_EXTHDR_F_PRESENT
		name := header
		if op == exthdrIPv6 {
			name = "exthdr " + header
		}
		return &operand{text: name, kind: typeExists, size: 1}
	}
	fields := header
	if op == exthdrSCTP {
		fields = "sctp chunk"
	}
	if o := headerOperand(fields, at, size); o != nil {
		o.text = header + strings.TrimPrefix(o.text, fields)
		return o
	}
	return &operand{text: fmt.Sprintf("%s @%d,%d", header, at, 8*size), kind: typeHex, size: size, header: header, at: at}
}

// extensionName names what an exthdr looks for.
func extensionName(op uint64, kind uint8) string {
	name, before := "", ""
	switch op {
	case exthdrIPv6:
		name = nftExtensions[kind]
	case exthdrTCP:
		name, before = nftTCPOptions[kind], "tcp option "
	case exthdrIPv4:
		name, before = nftIPOptions[kind], "ip option "
	case exthdrSCTP:
		name, before = nftChunks[kind], "sctp chunk "
	case exthdrDCCP:
		before = "dccp option "
	default:
		before = fmt.Sprintf("exthdr %d ", op)
	}
	if name == "" {
		name = decimal(kind)
	}
	return before + name
}
