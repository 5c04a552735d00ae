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

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

var native = binary.NativeEndian

type message = kernelnet.Message

// get asks rtnetlink for one object.
func get(request int, reply uint16, m message) ([]byte, error) {
	var got []byte
	err := kernelnet.Ask(unix.NETLINK_ROUTE, request, reply, 0, m, func(b []byte) error {
		got = b
		return nil
	})
	if err == nil && got == nil {
		err = errors.New("the kernel gave no answer")
	}
	return got, err
}

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
