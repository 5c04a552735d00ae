package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dump asks rtnetlink for all objects of the calling thread's namespace and
// returns the messages without their headers. request makes a new request.
func dump(answer uint16, request func() *nl.NetlinkRequest) ([][]byte, error) {
	// The kernel says when the list changed while it was handed out: then one
	// may be missing or there twice.
	const tries = 5
	var err error
	for range tries {
		var messages [][]byte
		if messages, err = request().Execute(unix.NETLINK_ROUTE, answer); err == nil {
			return messages, nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return nil, fmt.Errorf("rtnetlink dump: %w", err)
}

// errShort says that a message or attribute ends before what it must hold.
var errShort = errors.New("too short")

// attributes hands the type and the content of every netlink attribute to
// each.
func attributes(b []byte, each func(kind uint16, content []byte)) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlAttr {
			return fmt.Errorf("header of attribute: %d bytes: %w", len(b), errShort)
		}
		n := int(binary.NativeEndian.Uint16(b))
		kind := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < unix.SizeofNlAttr || n > len(b) {
			return fmt.Errorf("attribute %d: length %d of %d bytes: %w", kind, n, len(b), errShort)
		}
		each(kind, b[unix.SizeofNlAttr:n])
		aligned := (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1)
		b = b[min(aligned, len(b)):]
	}
	return nil
}

// u32 and u64 read a number of an attribute; they say false behind its end.
func u32(b []byte, offset int) (uint64, bool) {
	if offset+4 > len(b) {
		return 0, false
	}
	return uint64(binary.NativeEndian.Uint32(b[offset:])), true
}

func u64(b []byte, offset int) (uint64, bool) {
	if offset+8 > len(b) {
		return 0, false
	}
	return binary.NativeEndian.Uint64(b[offset:]), true
}
