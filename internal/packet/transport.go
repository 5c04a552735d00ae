package packet

// The parts of transport headers that are decoded, in bytes.
const (
	portsLen    = 4
	tcpMinLen   = 20
	udpLen      = 8
	sctpLen     = 12
	dccpMinLen  = 12
	icmpMinLen  = 4
	icmpEchoLen = 8
)

// decodeTransport decodes the transport header that b begins with and returns
// b, or nil for a later fragment, which has none.
func (l *Layer) decodeTransport(b []byte) []byte {
	if l.FragOffset != 0 {
		return nil
	}
	switch l.Proto {
	case protoTCP:
		l.decodePorts(b, tcpMinLen)
		l.decodeTCP(b)
	case protoUDP, protoUDPLite: // RFC 768, RFC 3828
		l.decodePorts(b, udpLen)
	case protoSCTP: // RFC 9260, 3.1
		l.decodePorts(b, sctpLen)
	case protoDCCP: // RFC 4340, 5.1
		l.decodePorts(b, dccpMinLen)
	case protoICMP:
		if l.Has(PartIPv4) {
			l.decodeICMP(b)
		}
	case protoICMPv6:
		if l.Has(PartIPv6) {
			l.decodeICMP(b)
		}
	}
	return b
}

// decodePorts decodes the ports, with which headers of headerLen bytes begin.
func (l *Layer) decodePorts(b []byte, headerLen int) {
	if len(b) < headerLen {
		l.Truncated = true
	}
	if len(b) < portsLen {
		return
	}
	l.SrcPort = be16(b)
	l.DstPort = be16(b[2:])
	l.Parts |= PartPorts
}

// decodeTCP decodes what follows the ports of a TCP header (RFC 9293, 3.1).
// A wrong data offset does not matter here: such packets are dropped, and
// their fields tell whose they were.
func (l *Layer) decodeTCP(b []byte) {
	if len(b) < tcpMinLen {
		return
	}
	l.TCPSeq = be32(b[4:])
	l.TCPAck = be32(b[8:])
	l.TCPFlags = be16(b[12:]) & 0x1ff
	l.TCPWindow = be16(b[14:])
	l.Parts |= PartTCP
}

// decodeICMP decodes an ICMP (RFC 792) or ICMPv6 (RFC 4443) message.
func (l *Layer) decodeICMP(b []byte) {
	if len(b) < icmpEchoLen {
		l.Truncated = true
	}
	if len(b) < icmpMinLen {
		return
	}
	l.ICMPType, l.ICMPCode = b[0], b[1]
	l.Parts |= PartICMP
	if l.isEcho() && len(b) >= icmpEchoLen {
		l.EchoID = be16(b[4:])
		l.EchoSeq = be16(b[6:])
		l.Parts |= PartEcho
	}
}

// isEcho says whether the ICMP message is an echo request or reply.
func (l *Layer) isEcho() bool {
	if l.Has(PartIPv4) {
		return l.ICMPType == 8 || l.ICMPType == 0
	}
	return l.ICMPType == 128 || l.ICMPType == 129
}

// isICMPError says whether the ICMP message quotes the packet that it is
// about: unreachable, source quench, redirect, time exceeded and parameter
// problem (RFC 792); unreachable, too big, time exceeded and parameter problem
// (RFC 4443, 3).
func (l *Layer) isICMPError() bool {
	if !l.Has(PartICMP) {
		return false
	}
	if l.Has(PartIPv6) {
		return l.ICMPType >= 1 && l.ICMPType <= 4
	}
	switch l.ICMPType {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}
