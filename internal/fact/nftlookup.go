package fact

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Attributes and flags of include/uapi/linux/netfilter/nf_tables.h that the
// library does not have.
const (
	socketKey, socketReg, socketLevel  = 1, 2, 3
	xfrmReg, xfrmKey, xfrmDir, xfrmNum = 1, 2, 3, 4
	osfReg                             = 1
	tunnelKey, tunnelReg               = 1, 2
	fibPresent                         = 1 << 5
)

// lookedUp reads an expression that asks another part of the kernel, and the
// attribute with its register.
func lookedUp(e kernelnet.NftExpr) (*operand, int) {
	switch string(e.Name) {
	case "rt":
		return rtKey(e.Num(unix.NFTA_RT_KEY)), unix.NFTA_RT_DREG
	case "socket":
		switch key := e.Num(socketKey); key {
		case 0, 2:
			return &operand{text: "socket " + []string{"transparent", "", "wildcard"}[key], kind: typeNumber, size: 1}, socketReg
		case 1:
			return &operand{text: "socket mark", kind: typeMark, size: 4, host: true}, socketReg
		case 3:
			return &operand{text: fmt.Sprintf("socket cgroupv2 level %d", e.Num(socketLevel)), kind: typeHostNumber, size: 8, host: true}, socketReg
		default:
			return &operand{text: fmt.Sprintf("socket %d", key), kind: typeHex, size: 4}, socketReg
		}
	case "fib":
		return fib(e.Attrs), unix.NFTA_FIB_DREG
	case "osf":
		return &operand{text: "osf name", kind: typeString, size: 16}, osfReg
	case "tunnel":
		if e.Num(tunnelKey) == 0 {
			return &operand{text: "tunnel path", kind: typeExists, size: 1}, tunnelReg
		}
		return &operand{text: "tunnel id", kind: typeHostNumber, size: 4, host: true}, tunnelReg
	case "xfrm":
		return xfrm(e.Attrs), xfrmReg
	}
	return nil, 0
}

func rtKey(key uint64) *operand {
	switch key {
	case 0:
		return &operand{text: "rt classid", kind: typeHostNumber, size: 4, host: true}
	case 1:
		return &operand{text: "rt ip nexthop", kind: typeIPv4, size: 4}
	case 2:
		return &operand{text: "rt ip6 nexthop", kind: typeIPv6, size: 16}
	case 3:
		return &operand{text: "rt mtu", kind: typeHostNumber, size: 2, host: true}
	case 4:
		return &operand{text: "rt ipsec", kind: typeExists, size: 1}
	}
	return &operand{text: fmt.Sprintf("rt %d", key), kind: typeHex, size: 4}
}

// fib reads a look-up of a route (net/netfilter/nft_fib.c).
func fib(a kernelnet.Attrs) *operand {
	flags := a.Num(unix.NFTA_FIB_FLAGS)
	var keys []string
	for i, name := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			keys = append(keys, name)
		}
	}
	o := &operand{text: "fib " + strings.Join(keys, " . ") + " "}
	switch result := a.Num(unix.NFTA_FIB_RESULT); result {
	case unix.NFT_FIB_RESULT_OIF:
		o.text, o.kind, o.size, o.host = o.text+"oif", typeDevice, 4, true
	case unix.NFT_FIB_RESULT_OIFNAME:
		o.text, o.kind, o.size = o.text+"oifname", typeDeviceName, 16
	case unix.NFT_FIB_RESULT_ADDRTYPE:
		o.text, o.kind, o.size, o.host = o.text+"type", typeRoute, 4, true
	default:
		o.text, o.kind, o.size = fmt.Sprintf("%s%d", o.text, result), typeHex, 4
	}
	if flags&fibPresent != 0 {
		o.kind, o.size, o.host = typeExists, 1, false
	}
	return o
}

// xfrm reads what IPsec did to the packet (net/netfilter/nft_xfrm.c).
func xfrm(a kernelnet.Attrs) *operand {
	dir := "in"
	if b := a.Get(xfrmDir); len(b) == 1 && b[0] == 1 {
		dir = "out"
	}
	text := "ipsec " + dir
	if n := a.Num(xfrmNum); n > 0 {
		text += fmt.Sprintf(" spnum %d", n)
	}
	switch key := a.Num(xfrmKey); key {
	case 1, 3:
		return &operand{text: text + map[uint64]string{1: " ip daddr", 3: " ip saddr"}[key], kind: typeIPv4, size: 4}
	case 2, 4:
		return &operand{text: text + map[uint64]string{2: " ip6 daddr", 4: " ip6 saddr"}[key], kind: typeIPv6, size: 16}
	case 5:
		return &operand{text: text + " reqid", kind: typeHostNumber, size: 4, host: true}
	case 6:
		return &operand{text: text + " spi", kind: typeNumber, size: 4}
	default:
		return &operand{text: fmt.Sprintf("%s %d", text, key), kind: typeHex, size: 4}
	}
}

// numgen reads a generator of numbers.
func numgen(a kernelnet.Attrs) *operand {
	kind := "inc"
	if a.Num(unix.NFTA_NG_TYPE) == unix.NFT_NG_RANDOM {
		kind = "random"
	}
	s := fmt.Sprintf("numgen %s mod %d", kind, a.Num(unix.NFTA_NG_MODULUS))
	if offset := a.Num(unix.NFTA_NG_OFFSET); offset > 0 {
		s += fmt.Sprintf(" offset %d", offset)
	}
	return &operand{text: s, kind: typeHostNumber, size: 4, host: true}
}

// hash reads a hash of registers, or of the flow.
func (d *nftText) hash(a kernelnet.Attrs) *operand {
	s := "symhash"
	if a.Num(unix.NFTA_HASH_TYPE) == unix.NFT_HASH_JENKINS {
		s = "jhash " + d.join(d.fetchAll(a.Num(unix.NFTA_HASH_SREG), int(a.Num(unix.NFTA_HASH_LEN))))
	}
	s += fmt.Sprintf(" mod %d", a.Num(unix.NFTA_HASH_MODULUS))
	if seed := a.Num(unix.NFTA_HASH_SEED); seed > 0 {
		s += fmt.Sprintf(" seed 0x%x", seed)
	}
	if offset := a.Num(unix.NFTA_HASH_OFFSET); offset > 0 {
		s += fmt.Sprintf(" offset %d", offset)
	}
	return &operand{text: s, kind: typeHostNumber, size: 4, host: true}
}

// join writes the parts of a value.
func (d *nftText) join(parts []*operand) string {
	var names []string
	for _, o := range parts {
		names = append(names, d.String(o))
	}
	return strings.Join(names, " . ")
}
