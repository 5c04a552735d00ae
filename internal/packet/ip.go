package packet

import (
	"fmt"
	"net/netip"
)

// IP protocol numbers (IANA, "Protocol Numbers").
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoIPv4     = 4
	protoTCP      = 6
	protoUDP      = 17
	protoDCCP     = 33
	protoIPv6     = 41
	protoRouting  = 43
	protoFragment = 44
	protoGRE      = 47
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
	protoSCTP     = 132
	protoUDPLite  = 136
)

const (
	ipv4MinLen  = 20
	ipv6Len     = 40
	fragmentLen = 8

	// maxExtensions bounds the walk along a chain of IPv6 extension headers.
	// RFC 8200, 4.1 has each at most once, destination options twice: seven.
	maxExtensions = 16
)

var (
	errIPVersion   = fmt.Errorf("%w: ip version neither 4 nor 6", ErrMalformed)
	errIPv4Version = fmt.Errorf("%w: ipv4 header of another version", ErrMalformed)
	errIPv4Header  = fmt.Errorf("%w: ipv4 header length below 20", ErrMalformed)
	errIPv4Total   = fmt.Errorf("%w: ipv4 total length below its header length", ErrMalformed)
	errIPv6Version = fmt.Errorf("%w: ipv6 header of another version", ErrMalformed)
)

// etherTypeOfIP returns the ethertype of an IP packet by its first byte, or 0.
func etherTypeOfIP(first byte) uint16 {
	switch first >> 4 {
	case 4:
		return etherTypeIPv4
	case 6:
		return etherTypeIPv6
	}
	return 0
}

// decodeIPv4 decodes an IPv4 header (RFC 791, 3.1). A total length of 0 is
// valid: BIG TCP packets have it (iph_set_totlen, include/linux/ip.h, 6.3).
func (l *Layer) decodeIPv4(b []byte) ([]byte, error) {
	if len(b) < ipv4MinLen {
		l.Truncated = true
		return nil, nil
	}
	headerLen, total := int(b[0]&0xf)*4, int(be16(b[2:]))
	switch {
	case b[0]>>4 != 4:
		return nil, errIPv4Version
	case headerLen < ipv4MinLen:
		return nil, errIPv4Header
	case total != 0 && total < headerLen:
		return nil, errIPv4Total
	}
	l.Parts |= PartIPv4 | PartProto | PartIPID
	l.TOS = b[1]
	l.TotalLen = uint32(total)
	l.IPID = uint32(be16(b[4:]))
	flags := be16(b[6:])
	l.DontFragment = flags&0x4000 != 0
	l.setFragment((flags&0x1fff)*8, flags&0x2000 != 0)
	l.TTL = b[8]
	l.Proto = b[9]
	l.Src = netip.AddrFrom4([4]byte(b[12:16]))
	l.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	if total != 0 && total < len(b) {
		b = b[:total] // the rest is padding of the frame
	}
	if len(b) < headerLen {
		l.Truncated = true
		return nil, nil
	}
	if hasSourceRoute(b[ipv4MinLen:headerLen]) {
		l.Parts |= PartSourceRoute
	}
	return l.decodeTransport(b[headerLen:]), nil
}

// hasSourceRoute says whether a source route is among the options of an IPv4
// header (RFC 791, 3.1), in front of the first that is malformed.
func hasSourceRoute(options []byte) bool {
	const end, noOperation, loose, strict = 0, 1, 131, 137
	for len(options) > 0 {
		switch options[0] {
		case end:
			return false
		case loose, strict:
			return true
		case noOperation:
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return false
		}
		options = options[options[1]:]
	}
	return false
}

// decodeIPv6 decodes an IPv6 header (RFC 8200, 3) and the extension headers
// behind it. A payload length of 0 says nothing about the length (jumbograms
// and BIG TCP).
func (l *Layer) decodeIPv6(b []byte) ([]byte, error) {
	if len(b) < ipv6Len {
		l.Truncated = true
		return nil, nil
	}
	if b[0]>>4 != 6 {
		return nil, errIPv6Version
	}
	l.Parts |= PartIPv6
	l.TOS = uint8(be16(b) >> 4)
	l.TTL = b[7]
	l.Src = netip.AddrFrom16([16]byte(b[8:24]))
	l.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	next, payloadLen := b[6], int(be16(b[4:]))
	b = b[ipv6Len:]
	if payloadLen != 0 {
		l.TotalLen = uint32(ipv6Len + payloadLen)
		b = b[:min(payloadLen, len(b))]
	}
	return l.decodeExtensions(b, next), nil
}

// decodeExtensions walks the extension headers that b begins with, next being
// the type of the first, to the transport header. The types are those of the
// kernel's ipv6_ext_hdr (net/ipv6/exthdrs_core.c, 6.18): an authentication
// header is passed, ESP and "no next header" are protocols. A chain that is
// cut, longer than maxExtensions or has a second fragment header leaves the
// protocol unknown.
func (l *Layer) decodeExtensions(b []byte, next uint8) []byte {
	for range maxExtensions {
		if !isExtension(next) {
			l.Proto = next
			l.Parts |= PartProto
			return l.decodeTransport(b)
		}
		if l.FragOffset != 0 {
			return nil // the rest of the chain is in the first fragment
		}
		if next == protoFragment && l.Has(PartIPID) {
			return nil
		}
		if len(b) < 8 || len(b) < extensionLen(next, b[1]) {
			l.Truncated = true
			return nil
		}
		if next == protoFragment {
			offset := be16(b[2:])
			l.setFragment(offset&^7, offset&1 != 0)
			l.IPID = be32(b[4:])
			l.Parts |= PartIPID
		}
		next, b = b[0], b[extensionLen(next, b[1]):]
	}
	return nil
}

func isExtension(proto uint8) bool {
	switch proto {
	case protoHopByHop, protoRouting, protoFragment, protoAH, protoDestOpts:
		return true
	}
	return false
}

// extensionLen returns the length in bytes of an extension header with the
// length field n: it counts 8-byte units without the first (RFC 8200, 4.2), in
// AH 4-byte units without the first two (RFC 4302, 2.2).
func extensionLen(proto, n uint8) int {
	switch proto {
	case protoFragment:
		return fragmentLen
	case protoAH:
		return (int(n) + 2) * 4
	}
	return (int(n) + 1) * 8
}

// setFragment notes a fragment, offset in bytes. An IPv6 packet with a
// fragment header that is whole all the same (RFC 6946) is none.
func (l *Layer) setFragment(offset uint16, more bool) {
	if offset == 0 && !more {
		return
	}
	l.FragOffset, l.MoreFragments = offset, more
	l.Parts |= PartFragment
}
