package fact

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/inet_diag.h and sock_diag.h.
const (
	sizeofDiagMsg = 72 // struct inet_diag_msg
	sizeofDiagID  = 48 // struct inet_diag_sockid
	diagSkmeminfo = 7  // INET_DIAG_SKMEMINFO
	memRcvbuf     = 1  // SK_MEMINFO_RCVBUF
	memWmem       = 2  // SK_MEMINFO_WMEM_ALLOC
	memSndbuf     = 3  // SK_MEMINFO_SNDBUF
	memDrops      = 8  // SK_MEMINFO_DROPS, since 4.7
)

// errNoDiag is the error of a kernel that has no sock_diag for a protocol.
var errNoDiag = errors.New("the kernel has no sock_diag of that protocol")

// diagSockets asks sock_diag for all sockets of IPv4 and IPv6 in some states.
// It has no mark for a list that changed meanwhile.
func diagSockets(proto uint8, states uint32, each func(*socket)) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		m := message{}.u8(family, proto, 1<<(diagSkmeminfo-1), 0).u32(states)
		m = append(m, make([]byte, sizeofDiagID)...)
		err := ask(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, m,
			func(b []byte) error {
				s, err := parseDiag(b)
				if err == nil {
					each(&s)
				}
				return err
			})
		if errors.Is(err, unix.ENOENT) && family == unix.AF_INET {
			return errNoDiag
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("list sockets: %w", err)
		}
	}
	return nil
}

// parseDiag reads struct inet_diag_msg and its attributes.
func parseDiag(b []byte) (socket, error) {
	if len(b) < sizeofDiagMsg {
		return socket{}, errShort
	}
	s := socket{
		state: b[1],
		recvQ: native.Uint32(b[56:]), sendQ: native.Uint32(b[60:]),
		uid: native.Uint32(b[64:]), inode: native.Uint32(b[68:]),
		diag: true,
	}
	addr := b[8:24]
	switch b[0] {
	case unix.AF_INET:
		addr = addr[:4]
	case unix.AF_INET6:
	default:
		return s, fmt.Errorf("socket of family %d", b[0])
	}
	s.local = netip.AddrPortFrom(address(addr), binary.BigEndian.Uint16(b[4:]))
	err := eachAttr(b, sizeofDiagMsg, func(t int, v []byte) {
		at := func(i int) uint32 { return native.Uint32(v[4*i:]) }
		if t != diagSkmeminfo || len(v) < 4*(memSndbuf+1) {
			return
		}
		s.hasMem = true
		s.rcvbuf, s.sndbuf, s.wmem = at(memRcvbuf), at(memSndbuf), at(memWmem)
		if len(v) >= 4*(memDrops+1) {
			s.hasDrops, s.drops = true, at(memDrops)
		}
	})
	return s, err
}
