package fact

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Of include/uapi/linux/inet_diag.h.
const (
	diagID = 4 // where struct inet_diag_sockid begins in struct inet_diag_msg

	// everyExt asks for each attribute that can be asked for, and is the only
	// way to some that cannot (INET_DIAG_CLASS_ID, DCTCPINFO, BBRINFO).
	everyExt = 0xff
	// lightExt leaves out struct tcp_info, for which the kernel locks each
	// socket (net/ipv4/tcp.c, tcp_get_info).
	lightExt = 1 << (kernelnet.InetMeminfo - 1)
)

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
		err := kernelnet.DiagDump(kernelnet.InetDiag(family, proto, ext, states, nil), each)
		if errors.Is(err, kernelnet.ErrNoDiag) && family == unix.AF_INET6 {
			err = nil // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseDiag reads struct inet_diag_msg and its attributes.
func parseDiag(b []byte) (socket, error) {
	if len(b) < kernelnet.SizeofInetDiag {
		return socket{}, kernelnet.ErrShort
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
	err = kernelnet.Attributes(b, kernelnet.SizeofInetDiag, func(t int, v []byte) {
		at := func(i int) uint32 { return native.Uint32(v[4*i:]) }
		if t != kernelnet.InetMeminfo || len(v) < 4*(unix.SK_MEMINFO_SNDBUF+1) {
			return
		}
		s.hasMem = true
		s.rcvbuf, s.sndbuf, s.wmem = at(unix.SK_MEMINFO_RCVBUF), at(unix.SK_MEMINFO_SNDBUF), at(unix.SK_MEMINFO_WMEM_ALLOC)
		if len(v) >= 4*(unix.SK_MEMINFO_DROPS+1) {
			s.hasDrops, s.drops = true, at(unix.SK_MEMINFO_DROPS)
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
