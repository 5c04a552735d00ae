// Package kernelnet holds the kernel's interfaces to its network as they are on
// the wire: messages of netlink and their attributes, the structures of ioctls
// and socket options, and the lists of /proc/net.
//
// It must not load a module, count, decide what a fact is, nor judge what it
// hands on. What it reads is bytes of the kernel: every length is checked.
package kernelnet

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// ErrShort says that something ends before what it must hold.
var ErrShort = errors.New("too short")

// Attributes hands the type and the content of every attribute of netlink
// behind the first skip bytes to each. Those before an error, which is ErrShort,
// were handed on.
func Attributes(b []byte, skip int, each func(kind int, content []byte)) error {
	if len(b) < skip {
		return fmt.Errorf("%d bytes, want %d: %w", len(b), skip, ErrShort)
	}
	for b = b[skip:]; len(b) > 0; {
		if len(b) < unix.SizeofNlAttr {
			return fmt.Errorf("header of attribute: %d bytes: %w", len(b), ErrShort)
		}
		n := int(native.Uint16(b))
		kind := int(native.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER))
		if n < unix.SizeofNlAttr || n > len(b) {
			return fmt.Errorf("attribute %d: length %d of %d bytes: %w", kind, n, len(b), ErrShort)
		}
		each(kind, b[unix.SizeofNlAttr:n])
		b = b[min((n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1), len(b)):]
	}
	return nil
}

// Attrs are attributes, one behind the other. Numbers are in network byte
// order, as netfilter has them.
type Attrs []byte

// ParseAttrs gives the attributes behind the first skip bytes, if all are whole.
func ParseAttrs(b []byte, skip int) (Attrs, error) {
	if err := Attributes(b, skip, func(int, []byte) {}); err != nil {
		return nil, err
	}
	return b[skip:], nil
}

// Get is the content of the first attribute of a type; nil where there is none.
func (a Attrs) Get(kind int) (content []byte) {
	_ = Attributes(a, 0, func(k int, b []byte) {
		if k == kind && content == nil {
			content = b
		}
	})
	return content
}

// Has says whether there is an attribute of a type.
func (a Attrs) Has(kind int) bool { return a.Get(kind) != nil }

// Num is a number of 2, 4 or 8 bytes; 0 where there is none.
func (a Attrs) Num(kind int) uint64 {
	switch b := a.Get(kind); len(b) {
	case 2:
		return uint64(binary.BigEndian.Uint16(b))
	case 4:
		return uint64(binary.BigEndian.Uint32(b))
	case 8:
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Text is text up to its first zero byte; empty where there is none.
func (a Attrs) Text(kind int) string { return unix.ByteSliceToString(a.Get(kind)) }

// Nest are the attributes in an attribute; none where they are not whole.
func (a Attrs) Nest(kind int) Attrs {
	inner, err := ParseAttrs(a.Get(kind), 0)
	if err != nil {
		return nil
	}
	return inner
}

// Message is what follows the header of a netlink message: a fixed structure
// and attributes.
type Message []byte

// U8 appends bytes.
func (m Message) U8(v ...uint8) Message { return append(m, v...) }

// U16 appends a number in the byte order of the host.
func (m Message) U16(v uint16) Message { return native.AppendUint16(m, v) }

// U32 appends a number in the byte order of the host.
func (m Message) U32(v uint32) Message { return native.AppendUint32(m, v) }

// Len and Serialize make it a part of a request of the library.
func (m Message) Len() int { return len(m) }

// Serialize is the message itself.
func (m Message) Serialize() []byte { return m }

// Text appends an attribute of text, with a zero byte behind it.
func (m Message) Text(kind int, s string) Message { return m.Attr(kind, append([]byte(s), 0)) }

// Attr appends an attribute with its padding.
func (m Message) Attr(kind int, content []byte) Message {
	m = append(m.U16(uint16(unix.SizeofNlAttr+len(content))).U16(uint16(kind)), content...)
	for len(m)%unix.NLA_ALIGNTO != 0 {
		m = append(m, 0)
	}
	return m
}

// Attr32 appends an attribute of 32 bits.
func (m Message) Attr32(kind int, v uint32) Message { return m.Attr(kind, Message{}.U32(v)) }

// Nest appends an attribute that holds others.
func (m Message) Nest(kind int, inner Message) Message { return m.Attr(kind|unix.NLA_F_NESTED, inner) }
