package dropmon

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// errAttribute is the error of attributes that do not fit into their message.
var errAttribute = errors.New("attribute does not fit")

// typeMask takes the flags off an attribute's type (NLA_TYPE_MASK of
// include/uapi/linux/netlink.h).
const typeMask = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)

// attributes goes through attributes of netlink (struct nlattr) one by one.
type attributes struct {
	rest []byte
	// kind and data are the attribute's, data without its header.
	kind uint16
	data []byte
	// swapped says that numbers in it are big-endian, which no attribute of
	// NET_DM is.
	swapped bool
	err     error
}

// next goes to the next attribute. It returns false at the end and where a
// length does not fit; err then says which it was.
func (a *attributes) next() bool {
	if len(a.rest) == 0 || a.err != nil {
		return false
	}
	if len(a.rest) < unix.SizeofNlAttr {
		a.err = fmt.Errorf("%w: %d bytes are left for its header", errAttribute, len(a.rest))
		return false
	}
	length := int(binary.NativeEndian.Uint16(a.rest))
	kind := binary.NativeEndian.Uint16(a.rest[2:])
	if length < unix.SizeofNlAttr || length > len(a.rest) {
		a.err = fmt.Errorf("%w: type %d says %d bytes, %d are left", errAttribute, kind&typeMask, length, len(a.rest))
		return false
	}
	a.kind, a.swapped = kind&typeMask, kind&unix.NLA_F_NET_BYTEORDER != 0
	a.data = a.rest[unix.SizeofNlAttr:length]
	a.rest = a.rest[min(aligned(length), len(a.rest)):]
	return true
}

// aligned is where the attribute behind one of this length begins.
func aligned(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// The readers of a value say whether it has the length that it must have.

func (a *attributes) u8(v *uint8) bool {
	if len(a.data) != 1 {
		return false
	}
	*v = a.data[0]
	return true
}

func (a *attributes) u16(v *uint16) bool {
	if len(a.data) != 2 || a.swapped {
		return false
	}
	*v = binary.NativeEndian.Uint16(a.data)
	return true
}

func (a *attributes) u32(v *uint32) bool {
	if len(a.data) != 4 || a.swapped {
		return false
	}
	*v = binary.NativeEndian.Uint32(a.data)
	return true
}

func (a *attributes) u64(v *uint64) bool {
	if len(a.data) != 8 || a.swapped {
		return false
	}
	*v = binary.NativeEndian.Uint64(a.data)
	return true
}

// text reads a string, which ends in a zero byte and has no other.
func (a *attributes) text(s *string) bool {
	end := len(a.data) - 1
	for i, c := range a.data {
		if c == 0 && i != end {
			return false
		}
	}
	if end < 0 || a.data[end] != 0 {
		return false
	}
	*s = string(a.data[:end])
	return true
}

// seen remembers which of the first 64 types were there.
type seen uint64

// first says whether this is the first of its type, and remembers it.
func (s *seen) first(kind uint16) bool {
	if kind >= 64 {
		return true
	}
	before := *s
	*s |= 1 << kind
	return *s != before
}

func (s seen) has(kind uint16) bool { return kind < 64 && s&(1<<kind) != 0 }

// appendAttribute appends an attribute with its header and padding. Data that
// no attribute can hold is cut.
func appendAttribute(b []byte, kind uint16, data ...byte) []byte {
	data = data[:min(len(data), math.MaxUint16-unix.SizeofNlAttr)]
	length := unix.SizeofNlAttr + len(data)
	b = binary.NativeEndian.AppendUint16(b, uint16(length))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for range aligned(length) - length {
		b = append(b, 0)
	}
	return b
}

func appendU32(b []byte, kind uint16, v uint32) []byte {
	return appendAttribute(b, kind, binary.NativeEndian.AppendUint32(nil, v)...)
}
