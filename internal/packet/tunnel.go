package packet

// Tunnel is how one packet carries another.
type Tunnel uint8

// The tunnels.
const (
	// TunnelNone: the packet carries no other that could be decoded.
	TunnelNone Tunnel = iota
	// TunnelICMPError is no tunnel, but an ICMP error that quotes the
	// beginning of the packet it is about (RFC 792, RFC 4443).
	TunnelICMPError
	// TunnelVXLAN is RFC 7348.
	TunnelVXLAN
	// TunnelGeneve is RFC 8926.
	TunnelGeneve
	// TunnelGRE is RFC 2784 with the key and sequence number of RFC 2890.
	TunnelGRE
	// TunnelIPIP is IPv4 in IPv4 (RFC 2003).
	TunnelIPIP
	// Tunnel6in4 is IPv6 in IPv4 (RFC 4213; "sit" in Linux).
	Tunnel6in4
	// Tunnel4in6 is IPv4 in IPv6 (RFC 2473; "ipip6" in Linux).
	Tunnel4in6
	// Tunnel6in6 is IPv6 in IPv6 (RFC 2473; "ip6ip6" in Linux).
	Tunnel6in6
)

// String returns the name that record.Packet has for the tunnel, empty for
// TunnelNone.
func (t Tunnel) String() string {
	switch t {
	case TunnelICMPError:
		return "icmp-error"
	case TunnelVXLAN:
		return "vxlan"
	case TunnelGeneve:
		return "geneve"
	case TunnelGRE:
		return "gre"
	case TunnelIPIP:
		return "ipip"
	case Tunnel6in4:
		return "6in4"
	case Tunnel4in6:
		return "4in6"
	case Tunnel6in6:
		return "6in6"
	}
	return ""
}

// UDP ports that tunnels are known by. Linux used 8472 for VXLAN before IANA
// assigned 4789, and still does by default (drivers/net/vxlan, 6.18).
const (
	portVXLAN      = 4789
	portVXLANLinux = 8472
	portGeneve     = 6081
)

const (
	vxlanLen     = 8
	geneveMinLen = 8
	greMinLen    = 4
	icmpErrorLen = 8
)

// decodeTunnel decodes the packet inside the one whose transport header b
// begins with, if there is one. A tunnel is reported when its own header is
// whole and plausible, whatever the state of the packet inside.
func (h *Headers) decodeTunnel(b []byte) {
	switch h.Proto {
	case protoUDP:
		h.decodeUDPTunnel(b)
	case protoGRE:
		h.decodeGRE(b)
	case protoIPv4:
		if h.Has(PartIPv4) {
			h.enter(TunnelIPIP, b, StartNetwork, etherTypeIPv4)
		} else {
			h.enter(Tunnel4in6, b, StartNetwork, etherTypeIPv4)
		}
	case protoIPv6:
		if h.Has(PartIPv4) {
			h.enter(Tunnel6in4, b, StartNetwork, etherTypeIPv6)
		} else {
			h.enter(Tunnel6in6, b, StartNetwork, etherTypeIPv6)
		}
	case protoICMP, protoICMPv6:
		if h.isICMPError() && len(b) >= icmpErrorLen {
			h.enter(TunnelICMPError, b[icmpErrorLen:], StartNetwork, h.ipEtherType())
		}
	}
}

// ipEtherType returns the ethertype of the IP header that was decoded.
func (l *Layer) ipEtherType() uint16 {
	if l.Has(PartIPv4) {
		return etherTypeIPv4
	}
	return etherTypeIPv6
}

// enter decodes the packet inside. Its errors are no errors of h: what a
// tunnel carries is up to its ends, and quotes end anywhere.
func (h *Headers) enter(t Tunnel, b []byte, start Start, etherType uint16) {
	h.Tunnel = t
	_, _ = h.Inner.decode(b, start, etherType)
}

// decodeUDPTunnel decodes a tunnel in the UDP datagram b by its destination
// port; the source port is a hash of the flow inside.
func (h *Headers) decodeUDPTunnel(b []byte) {
	if len(b) < udpLen {
		return
	}
	b = b[udpLen:]
	switch h.DstPort {
	case portVXLAN, portVXLANLinux:
		h.decodeVXLAN(b)
	case portGeneve:
		h.decodeGeneve(b)
	}
}

// decodeVXLAN decodes a header with a valid VNI (flag I; RFC 7348, 5). The
// other flags are reserved or belong to extensions and change no offset.
func (h *Headers) decodeVXLAN(b []byte) {
	if len(b) < vxlanLen {
		h.Truncated = true
		return
	}
	if b[0]&0x08 == 0 {
		return
	}
	h.TunnelID, h.HasTunnelID = be32(b[4:])>>8, true
	h.enter(TunnelVXLAN, b[vxlanLen:], StartEthernet, 0)
}

// decodeGeneve decodes a header of version 0 (RFC 8926, 3.4).
func (h *Headers) decodeGeneve(b []byte) {
	if len(b) < geneveMinLen {
		h.Truncated = true
		return
	}
	if b[0]>>6 != 0 {
		return
	}
	headerLen := geneveMinLen + int(b[0]&0x3f)*4
	if len(b) < headerLen {
		h.Truncated = true
		return
	}
	h.TunnelID, h.HasTunnelID = be32(b[4:])>>8, true
	h.enterTyped(TunnelGeneve, b[headerLen:], be16(b[2:]))
}

// decodeGRE decodes a header of version 0 without source routes (RFC 2784,
// RFC 2890), as the kernel does (gre_parse_header, net/ipv4/gre_demux.c, 6.18).
func (h *Headers) decodeGRE(b []byte) {
	const checksum, routing, key, sequence, version = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007
	if len(b) < greMinLen {
		h.Truncated = true
		return
	}
	flags := be16(b)
	if flags&(routing|version) != 0 {
		return
	}
	headerLen := greMinLen
	if flags&checksum != 0 {
		headerLen += 4
	}
	keyAt := headerLen
	if flags&key != 0 {
		headerLen += 4
	}
	if flags&sequence != 0 {
		headerLen += 4
	}
	if len(b) < headerLen {
		h.Truncated = true
		return
	}
	if flags&key != 0 {
		h.TunnelID, h.HasTunnelID = be32(b[keyAt:]), true
	}
	h.enterTyped(TunnelGRE, b[headerLen:], be16(b[2:]))
}

// enterTyped enters a tunnel that names what it carries: a network header, or
// an Ethernet frame (Transparent Ethernet Bridging, RFC 1701).
func (h *Headers) enterTyped(t Tunnel, b []byte, etherType uint16) {
	if etherType == etherTypeTEB {
		h.enter(t, b, StartEthernet, 0)
		return
	}
	h.enter(t, b, StartNetwork, etherType)
}
