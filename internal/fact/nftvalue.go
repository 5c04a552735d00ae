package fact

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nftType says how a constant of nftables is written. The kernel has bytes
// only; what they mean follows from what they are compared with.
type nftType uint8

const (
	typeNumber nftType = iota // in network byte order
	typeHostNumber
	typeHex
	typeMark // a number of the host, in hexadecimal digits
	typePort
	typeProto // of layer 4
	typeFamily
	typeIPv4
	typeIPv6
	typeEther
	typeEtherType
	typeDevice     // the number of a device
	typeDeviceName // with the bytes after its end as 0, or none: then a prefix
	typeString
	typeHardware
	typeTCPFlags
	typeCtState
	typeCtStatus
	typeCtDirection
	typeCtEvents
	typeCtLabel
	typeICMP
	typeICMPv6
	typeICMPCode
	typeICMPv6Code
	typeIGMP
	typeMH
	typeDCCP
	typeARP
	typePacket
	typeRoute
	typeDSCP
	typeECN
	typeExists
	typeSeconds // of milliseconds
	typeHandle
	typeTime
	typeHour
	typeDay
	typeVerdict
)

// hostOrder says whether a constant of the type is in the byte order of the
// host.
func (t nftType) hostOrder() bool {
	switch t {
	case typeHostNumber, typeMark, typeDevice, typeHardware, typeCtState, typeCtStatus, typeCtEvents, typeRoute,
		typeSeconds, typeHandle, typeTime, typeHour:
		return true
	}
	return false
}

// bits says whether a constant of the type is a set of flags.
func (t nftType) bits() bool {
	switch t {
	case typeTCPFlags, typeCtState, typeCtStatus, typeCtEvents, typeCtLabel:
		return true
	}
	return false
}

// address says whether a mask of the type is written as the length of a prefix.
func (t nftType) address() bool { return t == typeIPv4 || t == typeIPv6 || t == typeEther }

// names are the names of the constants of a type, if it has some.
func (t nftType) names() map[uint64]string {
	switch t {
	case typeProto:
		return protoNames
	case typeFamily:
		return familyNames
	case typeEtherType:
		return etherTypeNames
	case typeHardware:
		return hardwareNames
	case typeCtDirection:
		return ctDirectionNames
	case typeICMP:
		return icmpNames
	case typeICMPv6:
		return icmpv6Names
	case typeICMPCode:
		return icmpCodeNames
	case typeICMPv6Code:
		return icmpv6CodeNames
	case typeIGMP:
		return igmpNames
	case typeMH:
		return mhNames
	case typeDCCP:
		return dccpNames
	case typeARP:
		return arpNames
	case typePacket:
		return packetNames
	case typeRoute:
		return routeNames
	case typeDSCP:
		return dscpNames
	case typeECN:
		return ecnNames
	case typeDay:
		return dayNames
	}
	return nil
}

// flags are the names of the bits of a type.
func (t nftType) flags() map[uint64]string {
	switch t {
	case typeTCPFlags:
		return tcpFlagNames
	case typeCtState:
		return ctStateNames
	case typeCtStatus:
		return ctStatusNames
	case typeCtEvents:
		return ctEventNames
	}
	return nil
}

// nftNumber reads up to 8 bytes as a number.
func nftNumber(b []byte, host bool) uint64 {
	var wide [8]byte
	if len(b) > len(wide) {
		b = b[:len(wide)]
	}
	if host && binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		copy(wide[:], b)
		return binary.LittleEndian.Uint64(wide[:])
	}
	copy(wide[len(wide)-len(b):], b)
	return binary.BigEndian.Uint64(wide[:])
}

// constant writes a constant. devices gives the name of a device by its number.
func (t nftType) constant(b []byte, host bool, devices func(uint32) string) string {
	n := nftNumber(b, host)
	switch t {
	case typeIPv4, typeIPv6:
		if a, ok := netip.AddrFromSlice(b); ok {
			return a.String()
		}
	case typeEther:
		return hardware(b)
	case typeString:
		return strconv.Quote(text(b))
	case typeDeviceName:
		if len(b) > 0 && !slices.Contains(b, 0) && len(b) < sizeofDeviceName {
			return strconv.Quote(string(b) + "*")
		}
		return strconv.Quote(text(b))
	case typeDevice:
		if name := devices(uint32(n)); name != "" {
			return strconv.Quote(name)
		}
	case typeMark:
		return fmt.Sprintf("0x%08x", n)
	case typeHandle:
		return nftHandle(uint32(n))
	case typeSeconds:
		return nftDuration(time.Duration(n) * time.Millisecond)
	case typeExists:
		if n == 0 {
			return "missing"
		}
		return "exists"
	case typeTime:
		return strconv.Quote(time.Unix(0, int64(n)).UTC().Format(time.DateTime))
	case typeHour:
		return strconv.Quote(nftClock(n))
	case typeCtLabel:
		return labelBits(b)
	}
	return t.named(b, n)
}

// named writes a constant by its name, or as a number.
func (t nftType) named(b []byte, n uint64) string {
	if name := t.names()[n]; name != "" {
		if t == typeDay {
			return strconv.Quote(name)
		}
		return name
	}
	if t.bits() {
		if s := nftFlags(t.flags(), n, ","); s != "" {
			return s
		}
	}
	switch {
	case len(b) > 8:
		return "0x" + strings.TrimLeft(hex.EncodeToString(b[:len(b)-1]), "0") + hex.EncodeToString(b[len(b)-1:])
	case t == typeHex, t == typeEtherType, t.bits(), t == typeDSCP:
		width := map[nftType]int{typeEtherType: 4, typeDSCP: 2}[t]
		return fmt.Sprintf("0x%0*x", width, n)
	}
	return strconv.FormatUint(n, 10)
}

// sizeofDeviceName is IFNAMSIZ.
const sizeofDeviceName = 16

// nftFlags joins the names of the bits of n; it is empty where one has none.
func nftFlags(names map[uint64]string, n uint64, separator string) string {
	var parts []string
	for bit := uint64(1); bit != 0 && bit <= n; bit <<= 1 {
		if n&bit == 0 {
			continue
		}
		if names[bit] == "" {
			return ""
		}
		parts = append(parts, names[bit])
	}
	return strings.Join(parts, separator)
}

// labelBits writes the number of the only bit of a label of connections.
func labelBits(b []byte) string {
	n := new(big.Int)
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		b = slices.Clone(b)
		slices.Reverse(b)
	}
	n.SetBytes(b)
	if n.Sign() > 0 && n.TrailingZeroBits() == uint(n.BitLen()-1) {
		return strconv.Itoa(n.BitLen() - 1)
	}
	return "0x" + n.Text(16)
}

// nftHandle writes a class of traffic control as nft does.
func nftHandle(h uint32) string {
	switch h {
	case 0xffffffff:
		return "root"
	case 0:
		return "none"
	}
	return fmt.Sprintf("%x:%x", h>>16, h&0xffff)
}

// nftDuration writes a time as nft does: 1d2h3m4s5ms.
func nftDuration(d time.Duration) string {
	var b strings.Builder
	for _, unit := range []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / unit.d; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
			d -= n * unit.d
		}
	}
	if b.Len() == 0 {
		return "0s"
	}
	return b.String()
}

// nftClock writes seconds since midnight, UTC.
func nftClock(seconds uint64) string {
	s := fmt.Sprintf("%02d:%02d", seconds/3600%24, seconds/60%60)
	if seconds%60 != 0 {
		s += fmt.Sprintf(":%02d", seconds%60)
	}
	return s
}

// maskLength is the length of the prefix that a mask keeps, or -1.
func maskLength(mask []byte) int {
	n := 0
	for n < 8*len(mask) && mask[n/8]&(0x80>>(n%8)) != 0 {
		n++
	}
	for i := n; i < 8*len(mask); i++ {
		if mask[i/8]&(0x80>>(i%8)) != 0 {
			return -1
		}
	}
	return n
}

func zeroBits(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) }

func oneBits(b []byte) bool { return !slices.ContainsFunc(b, func(c byte) bool { return c != 0xff }) }
