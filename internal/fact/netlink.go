package fact

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// message is the part of a netlink message after its header, made of a fixed
// structure and attributes.
type message []byte

func (m message) u8(v ...uint8) message        { return append(m, v...) }
func (m message) u16(v uint16) message         { return native.AppendUint16(m, v) }
func (m message) u32(v uint32) message         { return native.AppendUint32(m, v) }
func (m message) text(t int, s string) message { return m.attr(t, append([]byte(s), 0)) }

func (m message) attr(t int, value []byte) message {
	m = m.u16(uint16(unix.SizeofNlAttr + len(value))).u16(uint16(t))
	m = append(m, value...)
	for len(m)%unix.NLMSG_ALIGNTO != 0 {
		m = append(m, 0)
	}
	return m
}

// raw gives a message to the library.
type raw struct{ message }

func (r raw) Len() int          { return len(r.message) }
func (r raw) Serialize() []byte { return r.message }

// ask sends a request on a new socket of the thread's namespace and hands
// every answer of type reply to each.
func ask(family, request int, reply uint16, flags int, m message, each func(b []byte) error) error {
	req := nl.NewNetlinkRequest(request, flags)
	req.AddData(raw{m})
	var bad error
	err := req.ExecuteIter(family, reply, func(b []byte) bool {
		bad = each(b)
		return bad == nil
	})
	return errors.Join(err, bad)
}

// dump asks for all objects. The kernel marks an answer that changed while it
// was given (NLM_F_DUMP_INTR): begin is called before each attempt, and the
// last one is taken as it is.
func dump(family, request int, reply uint16, m message, begin func(), each func(b []byte) error) error {
	var err error
	for range 3 {
		begin()
		err = ask(family, request, reply, unix.NLM_F_DUMP, m, each)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

// get asks rtnetlink for one object.
func get(request int, reply uint16, m message) ([]byte, error) {
	var got []byte
	err := ask(unix.NETLINK_ROUTE, request, reply, 0, m, func(b []byte) error {
		got = b
		return nil
	})
	if err == nil && got == nil {
		err = errors.New("the kernel gave no answer")
	}
	return got, err
}

var errShort = errors.New("message from the kernel is too short")

// eachAttr hands every attribute after the first skip bytes to fn.
func eachAttr(b []byte, skip int, fn func(t int, value []byte)) error {
	if len(b) < skip {
		return errShort
	}
	const head = unix.SizeofNlAttr
	for b = b[skip:]; len(b) >= head; {
		n := int(native.Uint16(b))
		if n < head || n > len(b) {
			return errShort
		}
		fn(int(native.Uint16(b[2:]))&nlaTypeMask, b[head:n])
		b = b[min((n+unix.NLMSG_ALIGNTO-1)&^(unix.NLMSG_ALIGNTO-1), len(b)):]
	}
	return nil
}

// nlaTypeMask is NLA_TYPE_MASK of include/uapi/linux/netlink.h.
const nlaTypeMask = 1<<14 - 1

// u32 reads a number; ok is false where the attribute has another length.
func u32(b []byte) (v uint32, ok bool) {
	if len(b) != 4 {
		return 0, false
	}
	return native.Uint32(b), true
}

// be32 reads a number in network byte order.
func be32(b []byte) (v uint32, ok bool) {
	if len(b) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

func text(b []byte) string { return unix.ByteSliceToString(b) }

func decimal[T uint8 | uint16 | uint32 | uint64 | int | int32](v T) string {
	return fmt.Sprintf("%d", v)
}

// put32 sets a field to the number of an attribute, if it is one.
func put32(f fields, name string, b []byte) {
	if v, ok := u32(b); ok {
		f[name] = decimal(v)
	}
}

// address reads an IPv4 or IPv6 address; it is not valid where b is neither.
func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}

// hardware prints a link-layer address.
func hardware(b []byte) string {
	parts := make([]string, len(b))
	for i := range b {
		parts[i] = hex.EncodeToString(b[i : i+1])
	}
	return strings.Join(parts, ":")
}

// errno names an error number as the kernel's sources do, such as EINVAL.
func errno(err error) string {
	var e syscall.Errno
	if !errors.As(err, &e) {
		return ""
	}
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return strconv.Itoa(int(e))
}

// needsCap adds the capability that is missing to an error that means so.
func needsCap(err error, capability string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it needs %s", err, capability)
	}
	return err
}
