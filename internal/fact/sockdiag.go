package fact

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/inet_diag.h and sock_diag.h.
const (
	sizeofDiagMsg = 72 // struct inet_diag_msg
	sizeofDiagID  = 48 // struct inet_diag_sockid
	diagID        = 4  // where that begins in struct inet_diag_msg
	diagSkmeminfo = 7  // INET_DIAG_SKMEMINFO
	memRcvbuf     = 1  // SK_MEMINFO_RCVBUF
	memWmem       = 2  // SK_MEMINFO_WMEM_ALLOC
	memSndbuf     = 3  // SK_MEMINFO_SNDBUF
	memDrops      = 8  // SK_MEMINFO_DROPS, since 4.7

	// everyExt asks for each attribute that can be asked for, and is the only
	// way to some that cannot (INET_DIAG_CLASS_ID, DCTCPINFO, BBRINFO).
	everyExt = 0xff
	// lightExt leaves out struct tcp_info, for which the kernel locks each
	// socket (net/ipv4/tcp.c, tcp_get_info).
	lightExt = 1 << (diagSkmeminfo - 1)
)

// errNoDiag is the error of a kernel that has no sock_diag for a protocol.
var errNoDiag = errors.New("the kernel has no sock_diag of that protocol")

// inetRequest is struct inet_diag_req_v2. An empty id stands for all sockets.
func inetRequest(family, proto, ext uint8, states uint32, id []byte) message {
	m := message{}.u8(family, proto, ext, 0).u32(states)
	return append(m, append(id[:len(id):len(id)], make([]byte, sizeofDiagID-len(id))...)...)
}

// diagSockets asks sock_diag for all sockets of IPv4 and IPv6 in some states.
func diagSockets(proto uint8, states uint32, each func(*socket)) error {
	return diagMessages(proto, states, lightExt, func(b []byte) error {
		s, err := parseDiag(b)
		if err == nil {
			each(&s)
		}
		return err
	})
}

// diagMessages hands the kernel's answers to each.
func diagMessages(proto uint8, states uint32, ext uint8, each func([]byte) error) error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		err := diagDump(inetRequest(family, proto, ext, states, nil), each)
		if errors.Is(err, errNoDiag) && family == unix.AF_INET6 {
			err = nil // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// diagDump asks sock_diag for a list. One that changed meanwhile lacks only
// what came or went.
func diagDump(m message, each func([]byte) error) error {
	err := ask(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, m, each)
	switch {
	case errors.Is(err, nl.ErrDumpInterrupted):
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return errNoDiag
	case err != nil:
		return fmt.Errorf("list sockets: %w", err)
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
	var err error
	if s.local, s.peer, err = diagAddresses(b); err != nil {
		return s, err
	}
	err = eachAttr(b, sizeofDiagMsg, func(t int, v []byte) {
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

// diagAddresses reads both ends out of struct inet_diag_msg, which b must have
// whole.
func diagAddresses(b []byte) (local, peer netip.AddrPort, err error) {
	n := 16
	switch b[0] {
	case unix.AF_INET:
		n = 4
	case unix.AF_INET6:
	default:
		return local, peer, fmt.Errorf("socket of family %d", b[0])
	}
	local = netip.AddrPortFrom(address(b[8:8+n]), binary.BigEndian.Uint16(b[4:]))
	peer = netip.AddrPortFrom(address(b[24:24+n]), binary.BigEndian.Uint16(b[6:]))
	return local, peer, nil
}
