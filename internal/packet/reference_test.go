package packet_test

import (
	"net/netip"
	"slices"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/whydrop/whydrop/internal/packet"
)

// reference decodes s with gopacket, header by header. It leaves Truncated
// alone: gopacket does not tell where it stopped.
func reference(s sample) packet.Headers {
	var h packet.Headers
	etherType := layers.EthernetType(s.etherType)
	if s.start == packet.StartEthernet {
		etherType = layers.EthernetTypeTransparentEthernetBridging
	} else if etherType == 0 {
		etherType = layers.EthernetTypeIPv4
		if s.b[0]>>4 == 6 {
			etherType = layers.EthernetTypeIPv6
		}
	}
	transport := refTyped(&h.Layer, etherType, s.b)
	refTunnel(&h, transport)
	return h
}

// one decodes the single header of type T that b begins with.
func one[T gopacket.Layer](b []byte, t gopacket.LayerType) (T, bool) {
	p := gopacket.NewPacket(b, t, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
	l, ok := p.Layer(t).(T)
	return l, ok
}

// refTyped decodes what etherType names and returns what begins with the
// transport header, or nil.
func refTyped(l *packet.Layer, etherType layers.EthernetType, b []byte) []byte {
	switch etherType {
	case layers.EthernetTypeTransparentEthernetBridging:
		eth, ok := one[*layers.Ethernet](b, layers.LayerTypeEthernet)
		if !ok {
			return nil
		}
		l.Parts |= packet.PartEthernet
		copy(l.SrcMAC[:], eth.SrcMAC)
		copy(l.DstMAC[:], eth.DstMAC)
		return refTyped(l, refLength(eth.EthernetType, b[14:]), b[14:])
	case layers.EthernetTypeDot1Q, layers.EthernetTypeQinQ:
		if l.VLANCount == 2 {
			break
		}
		tag, ok := one[*layers.Dot1Q](b, layers.LayerTypeDot1Q)
		if !ok {
			return nil
		}
		tci := uint16(tag.Priority)<<13 | tag.VLANIdentifier
		if tag.DropEligible {
			tci |= 0x1000
		}
		l.VLANs[l.VLANCount] = tci
		l.VLANCount++
		return refTyped(l, refLength(tag.Type, b[4:]), b[4:])
	}
	if etherType == 0xffff {
		return nil // a length, but not enough to tell what it is
	}
	l.EtherType = uint16(etherType)
	l.Parts |= packet.PartEtherType
	switch etherType {
	case layers.EthernetTypeARP:
		refARP(l, b)
	case layers.EthernetTypeIPv4:
		return refIPv4(l, b)
	case layers.EthernetTypeIPv6:
		return refIPv6(l, b)
	}
	return nil
}

// refLength turns the length of an 802.3 frame into the kernel's ethertype.
func refLength(t layers.EthernetType, b []byte) layers.EthernetType {
	switch {
	case t >= 0x600:
		return t
	case len(b) < 2:
		return 0xffff
	case b[0] == 0xff && b[1] == 0xff:
		return 1
	}
	return 4
}

func addr(ip []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

func refARP(l *packet.Layer, b []byte) {
	arp, ok := one[*layers.ARP](b, layers.LayerTypeARP)
	if !ok || arp.Protocol != layers.EthernetTypeIPv4 || arp.ProtAddressSize != 4 {
		return
	}
	l.Parts |= packet.PartARP
	l.ARP.Op = arp.Operation
	l.ARP.SenderIP, l.ARP.TargetIP = addr(arp.SourceProtAddress), addr(arp.DstProtAddress)
	if arp.HwAddressSize == 6 {
		l.Parts |= packet.PartARPMAC
		copy(l.ARP.SenderMAC[:], arp.SourceHwAddress)
		copy(l.ARP.TargetMAC[:], arp.DstHwAddress)
	}
}

func refFragment(l *packet.Layer, units uint16, more bool) {
	if units != 0 || more {
		l.Parts |= packet.PartFragment
		l.FragOffset, l.MoreFragments = units*8, more
	}
}

func refIPv4(l *packet.Layer, b []byte) []byte {
	var headerLen int
	var options []byte
	if len(b) >= 20 {
		headerLen = int(b[0]&0xf) * 4
		b = slices.Clone(b)
		options = slices.Clone(b[20:max(20, min(headerLen, len(b)))])
		for i := 20; i < min(headerLen, len(b)); i++ {
			b[i] = 1 // options may be wrong, which gopacket does not accept
		}
	}
	cut := len(b) < headerLen
	if cut { // inside its options, which gopacket needs
		if total := int(b[2])<<8 | int(b[3]); total != 0 && total < headerLen {
			return nil
		}
		b = append([]byte{b[0]&0xf0 | 5}, b[1:20]...)
	}
	ip, ok := one[*layers.IPv4](b, layers.LayerTypeIPv4)
	if !ok || ip.Version != 4 || ip.SrcIP == nil {
		return nil
	}
	l.Parts |= packet.PartIPv4 | packet.PartProto | packet.PartIPID
	l.Src, l.Dst = addr(ip.SrcIP), addr(ip.DstIP)
	l.TTL, l.TOS, l.Proto = ip.TTL, ip.TOS, uint8(ip.Protocol)
	l.TotalLen, l.IPID = uint32(ip.Length), uint32(ip.Id)
	if b[2]|b[3] == 0 { // gopacket puts its own there
		l.TotalLen = 0
	}
	l.DontFragment = ip.Flags&layers.IPv4DontFragment != 0
	refFragment(l, ip.FragOffset, ip.Flags&layers.IPv4MoreFragments != 0)
	if cut {
		return nil
	}
	if refSourceRoute(options) {
		l.Parts |= packet.PartSourceRoute
	}
	return refTransport(l, ip.Payload)
}

// refSourceRoute looks for the options 131 and 137, one option after the other.
func refSourceRoute(o []byte) bool {
	for i := 0; i < len(o) && o[i] != 0; {
		step := 1
		if o[i] != 1 {
			if o[i] == 131 || o[i] == 137 {
				return true
			}
			if i+1 >= len(o) || o[i+1] < 2 || i+int(o[i+1]) > len(o) {
				return false
			}
			step = int(o[i+1])
		}
		i += step
	}
	return false
}

func refIPv6(l *packet.Layer, b []byte) []byte {
	ip, ok := one[*layers.IPv6](b, layers.LayerTypeIPv6)
	if !ok || ip.Version != 6 {
		return nil
	}
	l.Parts |= packet.PartIPv6
	l.Src, l.Dst = addr(ip.SrcIP), addr(ip.DstIP)
	l.TTL, l.TOS = ip.HopLimit, ip.TrafficClass
	payload := b[40:]
	if ip.Length != 0 {
		l.TotalLen = 40 + uint32(ip.Length)
		payload = payload[:min(len(payload), int(ip.Length))]
	}
	return refExtensions(l, ip.NextHeader, payload)
}

// refExtensions passes the extension headers in front of the transport header.
func refExtensions(l *packet.Layer, next layers.IPProtocol, b []byte) []byte {
	for layers.LayerClassIPv6Extension.Contains(next.LayerType()) || next == layers.IPProtocolAH {
		if l.FragOffset != 0 {
			return nil
		}
		switch next {
		case layers.IPProtocolIPv6Fragment:
			f, ok := one[*layers.IPv6Fragment](b, layers.LayerTypeIPv6Fragment)
			if !ok || l.Has(packet.PartIPID) {
				return nil
			}
			refFragment(l, f.FragmentOffset, f.MoreFragments)
			l.IPID = f.Identification
			l.Parts |= packet.PartIPID
			next, b = f.NextHeader, f.Payload
		case layers.IPProtocolAH:
			ah, ok := one[*layers.IPSecAH](b, layers.LayerTypeIPSecAH)
			if !ok {
				return nil
			}
			next, b = ah.NextHeader, ah.Payload
		default:
			var skip layers.IPv6ExtensionSkipper
			if skip.DecodeFromBytes(b, gopacket.NilDecodeFeedback) != nil {
				return nil
			}
			next, b = skip.NextHeader, skip.Payload
		}
	}
	l.Proto = uint8(next)
	l.Parts |= packet.PartProto
	return refTransport(l, b)
}

func refTransport(l *packet.Layer, b []byte) []byte {
	if l.FragOffset != 0 {
		return nil
	}
	proto := layers.IPProtocol(l.Proto)
	switch {
	case proto == layers.IPProtocolTCP:
		var tcp layers.TCP
		// Wrong options come last and do not matter here.
		_ = tcp.DecodeFromBytes(b, gopacket.NilDecodeFeedback)
		if len(b) >= 20 {
			refTCP(l, &tcp)
			return b
		}
		refPorts(l, b)
	case proto == layers.IPProtocolUDP:
		if udp, ok := one[*layers.UDP](b, layers.LayerTypeUDP); ok && len(b) >= 8 {
			setPorts(l, uint16(udp.SrcPort), uint16(udp.DstPort))
			return b
		}
		refPorts(l, b)
	case proto == layers.IPProtocolSCTP:
		if sctp, ok := one[*layers.SCTP](b, layers.LayerTypeSCTP); ok && len(b) >= 12 {
			setPorts(l, uint16(sctp.SrcPort), uint16(sctp.DstPort))
			return b
		}
		refPorts(l, b)
	case proto == layers.IPProtocolUDPLite:
		if udp, ok := one[*layers.UDPLite](b, layers.LayerTypeUDPLite); ok {
			setPorts(l, uint16(udp.SrcPort), uint16(udp.DstPort))
			return b
		}
		refPorts(l, b)
	case proto == protoDCCP:
		refPorts(l, b)
	case proto == layers.IPProtocolICMPv4 && l.Has(packet.PartIPv4):
		refICMPv4(l, b)
	case proto == layers.IPProtocolICMPv6 && l.Has(packet.PartIPv6):
		refICMPv6(l, b)
	}
	return b
}

func setPorts(l *packet.Layer, src, dst uint16) {
	l.Parts |= packet.PartPorts
	l.SrcPort, l.DstPort = src, dst
}

// refPorts reads the ports of a header that gopacket does not decode.
func refPorts(l *packet.Layer, b []byte) {
	if len(b) >= 4 {
		setPorts(l, uint16(b[0])<<8|uint16(b[1]), uint16(b[2])<<8|uint16(b[3]))
	}
}

func refTCP(l *packet.Layer, tcp *layers.TCP) {
	setPorts(l, uint16(tcp.SrcPort), uint16(tcp.DstPort))
	l.Parts |= packet.PartTCP
	l.TCPSeq, l.TCPAck, l.TCPWindow = tcp.Seq, tcp.Ack, tcp.Window
	for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR, tcp.NS} {
		if set {
			l.TCPFlags |= 1 << i
		}
	}
}

func refICMPv4(l *packet.Layer, b []byte) {
	icmp, ok := one[*layers.ICMPv4](b, layers.LayerTypeICMPv4)
	if !ok {
		refShortICMP(l, b)
		return
	}
	l.Parts |= packet.PartICMP
	l.ICMPType, l.ICMPCode = icmp.TypeCode.Type(), icmp.TypeCode.Code()
	if l.ICMPType == layers.ICMPv4TypeEchoRequest || l.ICMPType == layers.ICMPv4TypeEchoReply {
		l.Parts |= packet.PartEcho
		l.EchoID, l.EchoSeq = icmp.Id, icmp.Seq
	}
}

func refICMPv6(l *packet.Layer, b []byte) {
	icmp, ok := one[*layers.ICMPv6](b, layers.LayerTypeICMPv6)
	if !ok {
		refShortICMP(l, b)
		return
	}
	l.Parts |= packet.PartICMP
	l.ICMPType, l.ICMPCode = icmp.TypeCode.Type(), icmp.TypeCode.Code()
	if l.ICMPType == layers.ICMPv6TypeEchoRequest || l.ICMPType == layers.ICMPv6TypeEchoReply {
		if echo, ok := one[*layers.ICMPv6Echo](icmp.Payload, layers.LayerTypeICMPv6Echo); ok {
			l.Parts |= packet.PartEcho
			l.EchoID, l.EchoSeq = echo.Identifier, echo.SeqNumber
		}
	}
}

// refShortICMP reads a message of 4 to 7 bytes, too short for gopacket.
func refShortICMP(l *packet.Layer, b []byte) {
	if len(b) >= 4 {
		l.Parts |= packet.PartICMP
		l.ICMPType, l.ICMPCode = b[0], b[1]
	}
}

// refTunnel decodes what the packet with transport header b carries.
func refTunnel(h *packet.Headers, b []byte) {
	if b == nil {
		return
	}
	v4 := h.Has(packet.PartIPv4)
	enter := func(t packet.Tunnel, etherType layers.EthernetType, b []byte) {
		h.Tunnel = t
		refTyped(&h.Inner, etherType, b)
	}
	switch proto := layers.IPProtocol(h.Proto); {
	case proto == layers.IPProtocolIPv4 && v4:
		enter(packet.TunnelIPIP, layers.EthernetTypeIPv4, b)
	case proto == layers.IPProtocolIPv4:
		enter(packet.Tunnel4in6, layers.EthernetTypeIPv4, b)
	case proto == layers.IPProtocolIPv6 && v4:
		enter(packet.Tunnel6in4, layers.EthernetTypeIPv6, b)
	case proto == layers.IPProtocolIPv6:
		enter(packet.Tunnel6in6, layers.EthernetTypeIPv6, b)
	case proto == layers.IPProtocolGRE:
		gre, ok := one[*layers.GRE](b, layers.LayerTypeGRE)
		if ok && gre.Version == 0 && !gre.RoutingPresent {
			h.TunnelID, h.HasTunnelID = gre.Key, gre.KeyPresent
			enter(packet.TunnelGRE, gre.Protocol, gre.Payload)
		}
	case proto == layers.IPProtocolICMPv4 && v4:
		switch h.ICMPType {
		case 3, 4, 5, 11, 12:
			if len(b) >= 8 {
				enter(packet.TunnelICMPError, layers.EthernetTypeIPv4, b[8:])
			}
		}
	case proto == layers.IPProtocolICMPv6 && !v4:
		if h.ICMPType >= 1 && h.ICMPType <= 4 && len(b) >= 8 {
			enter(packet.TunnelICMPError, layers.EthernetTypeIPv6, b[8:])
		}
	case proto == layers.IPProtocolUDP && len(b) >= 8:
		refUDPTunnel(h, enter, b[8:])
	}
}

func refUDPTunnel(h *packet.Headers, enter func(packet.Tunnel, layers.EthernetType, []byte), b []byte) {
	switch h.DstPort {
	case 4789, 8472:
		vxlan, ok := one[*layers.VXLAN](b, layers.LayerTypeVXLAN)
		if ok && vxlan.ValidIDFlag {
			h.TunnelID, h.HasTunnelID = vxlan.VNI, true
			enter(packet.TunnelVXLAN, layers.EthernetTypeTransparentEthernetBridging, vxlan.Payload)
		}
	case 6081:
		// Options are not checked, so gopacket must not see them.
		if len(b) < 8 || b[0]>>6 != 0 || len(b) < 8+int(b[0]&0x3f)*4 {
			return
		}
		fixed := append([]byte{b[0] &^ 0x3f}, b[1:8]...)
		if geneve, ok := one[*layers.Geneve](fixed, layers.LayerTypeGeneve); ok {
			h.TunnelID, h.HasTunnelID = geneve.VNI, true
			enter(packet.TunnelGeneve, geneve.Protocol, b[8+int(b[0]&0x3f)*4:])
		}
	}
}
