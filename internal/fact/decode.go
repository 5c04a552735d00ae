package fact

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// reader turns the content of an attribute into the value of a field; ok is
// false where it is of another form.
type reader func(b []byte) (value string, ok bool)

// param says which field an attribute becomes. Several may read the same
// attribute: a structure has a param for each of its members.
type param struct {
	attr int
	name string
	read reader
}

// whole is the attr of a param that reads what stands before the attributes.
const whole = -1

// decode fills in the fields of a block of attributes that begins with a
// structure of skip bytes. What a kernel does not have is left out, and so is
// what has another length than it should.
func decode(b []byte, skip int, params []param, prefix string, f fields) error {
	use := func(attr int, v []byte) {
		for _, p := range params {
			if p.attr != attr {
				continue
			}
			if s, ok := p.read(v); ok {
				f[prefix+p.name] = s
			}
		}
	}
	use(whole, b)
	if len(b) < skip {
		return kernelnet.ErrShort
	}
	return kernelnet.Attributes(b, skip, use)
}

// numeral reads an unsigned number of this machine's order.
func numeral(b []byte) (uint64, bool) {
	switch len(b) {
	case 1:
		return uint64(b[0]), true
	case 2:
		return uint64(native.Uint16(b)), true
	case 4:
		return uint64(native.Uint32(b)), true
	case 8:
		return native.Uint64(b), true
	}
	return 0, false
}

// asNumber is any number without a sign, in decimal.
func asNumber(b []byte) (string, bool) {
	n, ok := numeral(b)
	return decimal(n), ok
}

// asSigned is any number with a sign, in decimal.
func asSigned(b []byte) (string, bool) {
	n, ok := numeral(b)
	shift := 64 - 8*len(b)
	if !ok {
		return "", false
	}
	return strconv.FormatInt(int64(n)<<shift>>shift, 10), true
}

// asNonzero is a number where 0 means that there is none.
func asNonzero(b []byte) (string, bool) {
	n, ok := numeral(b)
	return decimal(n), ok && n != 0
}

// asNumberBut is a number where one value means that there is none.
func asNumberBut(none uint64) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		return decimal(n), ok && n != none
	}
}

// asBool is 1 for any number but 0.
func asBool(b []byte) (string, bool) {
	n, ok := numeral(b)
	return bit(n != 0), ok
}

// asFlag is 1 for an attribute that only has to be there.
func asFlag([]byte) (string, bool) { return "1", true }

// asBit is a bit of a number.
func asBit(mask uint64) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		return bit(n&mask != 0), ok
	}
}

// asHex is a number as the tools print masks.
func asHex(b []byte) (string, bool) {
	n, ok := numeral(b)
	return fmt.Sprintf("%#x", n), ok
}

// asPlainHex is bytes as ip prints them: two digits each and nothing between.
func asPlainHex(b []byte) (string, bool) { return hex.EncodeToString(b), len(b) > 0 }

// asHexBut is asHex where one value means that there is none.
func asHexBut(none uint64) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		return fmt.Sprintf("%#x", n), ok && n != none
	}
}

// asNetwork is a number in network byte order.
func asNetwork(b []byte) (string, bool) {
	switch len(b) {
	case 2:
		return decimal(binary.BigEndian.Uint16(b)), true
	case 4:
		return decimal(binary.BigEndian.Uint32(b)), true
	}
	return "", false
}

// asNetwork64 is a number of 64 bits in network byte order.
func asNetwork64(b []byte) (string, bool) {
	if len(b) != 8 {
		return "", false
	}
	return decimal(binary.BigEndian.Uint64(b)), true
}

// asNetworkHex is a number in network byte order as the tools print labels.
func asNetworkHex(b []byte) (string, bool) {
	n, ok := be32(b)
	return fmt.Sprintf("%#x", n), ok
}

// asPower is 2 to the power of a number.
func asPower(b []byte) (string, bool) {
	n, ok := numeral(b)
	return decimal(uint64(1) << (n & 63)), ok && n < 64
}

// asName is one of the names that the kernel's numbers have, or the number.
func asName(names ...string) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		if ok && n < uint64(len(names)) && names[n] != "" {
			return names[n], true
		}
		return decimal(n), ok
	}
}

// asText is text that ends with a zero byte.
func asText(b []byte) (string, bool) { return text(b), len(b) > 0 }

// asIP is an IPv4 or IPv6 address.
func asIP(b []byte) (string, bool) {
	a := address(b)
	return a.String(), a.IsValid()
}

// asSomeIP is an address that is there.
func asSomeIP(b []byte) (string, bool) {
	a := address(b)
	return a.String(), a.IsValid() && !a.IsUnspecified()
}

// asMAC is an address of Ethernet.
func asMAC(b []byte) (string, bool) {
	return net.HardwareAddr(b).String(), len(b) == 6
}

// asBytes are bytes, each a number, by spaces.
func asBytes(b []byte) (string, bool) {
	list := make([]string, len(b))
	for i, v := range b {
		list[i] = decimal(v)
	}
	return strings.Join(list, " "), true
}

// asWords are numbers of 32 bits by spaces.
func asWords(b []byte) (string, bool) {
	var list []string
	for ; len(b) >= 4; b = b[4:] {
		list = append(list, decimal(native.Uint32(b)))
	}
	return strings.Join(list, " "), len(b) == 0
}

// asShare is a number of 32 bits that means a part of 1.
func asShare(b []byte) (string, bool) {
	n, ok := u32(b)
	return ratio(n), ok && n != 0
}

func ratio(n uint32) string { return strconv.FormatFloat(float64(n)/(1<<32-1), 'g', 6, 64) }

// asNanoseconds is a time, given in microseconds.
func asNanoseconds(b []byte) (string, bool) {
	n, ok := numeral(b)
	return micro(n), ok && n != 0
}

func micro(ns uint64) string { return strconv.FormatFloat(float64(ns)/1000, 'f', -1, 64) }

// asEtherProto is a protocol of VLANs as ip prints it.
func asEtherProto(b []byte) (string, bool) {
	if len(b) != 2 {
		return "", false
	}
	switch p := binary.BigEndian.Uint16(b); p {
	case 0x8100:
		return "802.1Q", true
	case 0x88a8:
		return "802.1ad", true
	default:
		return fmt.Sprintf("%#x", p), true
	}
}

// at reads size bytes of a structure from there on.
func at(offset, size int, read reader) reader {
	return func(b []byte) (string, bool) {
		if len(b) < offset+size {
			return "", false
		}
		return read(b[offset : offset+size])
	}
}

// bitNames names the bits that are set, by commas; ok is false without any.
func bitNames(flags uint32, names map[uint32]string) (string, bool) {
	var list []string
	for _, b := range slices.Sorted(maps.Keys(names)) {
		if flags&b != 0 {
			list = append(list, names[b])
		}
	}
	return strings.Join(list, ","), len(list) > 0
}

// left adds how many things of a list were left out, and what they are.
func (q *query) left(n int, what string) {
	if n > 0 {
		q.missing(fmt.Sprintf("%d more %s are left out", n, what))
	}
}
