package packet_test

import (
	"github.com/whydrop/whydrop/internal/packet"
)

func tunnelCases() []decodeCase {
	inner := withEther(withUDP(v4Layer(17, 8, 0)))
	innerHex := macsHex + "0800" + v4(17, udpHex)
	udpTo := func(port, header, rest string) string { return "8000" + port + "0000 0000" + header + rest }
	outer := func(proto byte, payload string) packet.Layer { return v4Layer(proto, len(unhex(payload)), 0) }
	over4 := func(name string, proto byte, payload string, outerOf func(packet.Layer) packet.Layer, t packet.Tunnel, id uint32, in packet.Layer) decodeCase {
		return decodeCase{
			name: name, hex: v4(proto, payload), start: network, etherType: ethIPv4,
			want: packet.Headers{Layer: outerOf(outer(proto, payload)), Tunnel: t, TunnelID: id, HasTunnelID: id != 0, Inner: in},
		}
	}
	to := func(port uint16) func(packet.Layer) packet.Layer {
		return func(l packet.Layer) packet.Layer { return withPorts(l, 0x8000, port) }
	}
	same := func(l packet.Layer) packet.Layer { return l }
	icmp := func(t, c uint8) func(packet.Layer) packet.Layer {
		return func(l packet.Layer) packet.Layer { return withICMP(l, t, c) }
	}
	udp4, udp6 := withUDP(v4Layer(17, 8, 0)), withUDP(v6Layer(17, 8, 0))
	tcpQuote := withPorts(truncated(v4Layer(6, 8, 0)), 0xc000, 443)
	over6 := func(name string, next byte, payload string, outer packet.Layer, t packet.Tunnel, in packet.Layer) decodeCase {
		return decodeCase{
			name: name, hex: v6(next, payload), start: network, etherType: ethIPv6,
			want: packet.Headers{Layer: outer, Tunnel: t, Inner: in},
		}
	}
	return []decodeCase{
		over4("vxlan", 17, udpTo("12b5", "08000000 12345600", innerHex), to(4789), packet.TunnelVXLAN, 0x123456, inner),
		over4("vxlan on 8472", 17, udpTo("2118", "08000000 000001ff", innerHex), to(8472), packet.TunnelVXLAN, 1, inner),
		over4("vxlan group policy", 17, udpTo("12b5", "88000042 00000100", innerHex), to(4789), packet.TunnelVXLAN, 1, inner),
		over4("vxlan without frame", 17, udpTo("12b5", "08000000 00000100", ""), to(4789), packet.TunnelVXLAN, 1, packet.Layer{Truncated: true}),
		over4("geneve", 17, udpTo("17c1", "0000 6558 00000100", innerHex), to(6081), packet.TunnelGeneve, 1, inner),
		over4("geneve lldp without frame", 17, udpTo("17c1", "0000 88cc 00000100", ""), to(6081), packet.TunnelGeneve, 1, typed(0x88cc)),
		over4("geneve options", 17, udpTo("17c1", "0240 6558 00000200 0103 8001 aabbccdd", innerHex), to(6081), packet.TunnelGeneve, 2, inner),
		over4("geneve options without frame", 17, udpTo("17c1", "0140 88cc 00000200 01038000", ""), to(6081), packet.TunnelGeneve, 2, typed(0x88cc)),
		over4("geneve ipv6", 17, udpTo("17c1", "0000 86dd 00000100", v6(17, udpHex)), to(6081), packet.TunnelGeneve, 1, udp6),
		over4("gre", 47, "0000 0800"+v4(17, udpHex), same, packet.TunnelGRE, 0, udp4),
		over4("gre teb key", 47, "2000 6558 0000002a"+innerHex, same, packet.TunnelGRE, 42, inner),
		over4("gre checksum key sequence", 47, "b000 86dd ffff0000 0000002a 00000001"+v6(17, udpHex), same, packet.TunnelGRE, 42, udp6),
		over4("gre sequence", 47, "1000 0800 00000001"+v4(17, udpHex), same, packet.TunnelGRE, 0, udp4),
		over4("gre nhrp", 47, "0000 2001 0001", same, packet.TunnelGRE, 0, typed(0x2001)),
		over4("gre vlan", 47, "0000 8100 0064 0800"+v4(17, udpHex), same, packet.TunnelGRE, 0,
			edit(udp4, func(l *packet.Layer) { l.VLANCount, l.VLANs[0] = 1, 100 })),
		over4("ipip", 4, v4(17, udpHex), same, packet.TunnelIPIP, 0, udp4),
		over4("ipip garbage", 4, v6(17, udpHex), same, packet.TunnelIPIP, 0, typed(ethIPv4)),
		over4("6in4", 41, v6(17, udpHex), same, packet.Tunnel6in4, 0, udp6),
		over4("one level only", 4, v4(4, v4(17, udpHex)), same, packet.TunnelIPIP, 0, v4Layer(4, 28, 0)),
		over6("4in6", 4, v4(17, udpHex), v6Layer(4, 28, 0), packet.Tunnel4in6, udp4),
		over6("6in6", 41, v6(17, udpHex), v6Layer(41, 48, 0), packet.Tunnel6in6, udp6),
		over6("4in6 behind tunnel encapsulation limit", 60, "0400 040101 0100 00"+v4(17, udpHex), v6Layer(4, 36, 0), packet.Tunnel4in6, udp4),
		over4("port unreachable", 1, "0303 0000 00000000"+v4(17, udpHex), icmp(3, 3), packet.TunnelICMPError, 0, udp4),
		over4("fragmentation needed, 8 bytes of tcp", 1, "0304 0000 00000578"+v4(6, tcpHex[:18]), icmp(3, 4), packet.TunnelICMPError, 0, tcpQuote),
		over4("source quench", 1, "0400 0000 00000000"+v4(17, udpHex), icmp(4, 0), packet.TunnelICMPError, 0, udp4),
		over4("redirect", 1, "0501 0000 0a0000fe"+v4(17, udpHex), icmp(5, 1), packet.TunnelICMPError, 0, udp4),
		over4("time exceeded", 1, "0b00 0000 00000000"+v4(17, udpHex), icmp(11, 0), packet.TunnelICMPError, 0, udp4),
		over4("parameter problem", 1, "0c00 0000 00000000"+v4(17, udpHex), icmp(12, 0), packet.TunnelICMPError, 0, udp4),
		over6("too big", 58, "0200 0000 00000500"+v6(17, udpHex), withICMP(v6Layer(58, 56, 0), 2, 0), packet.TunnelICMPError, udp6),
		over6("unreachable v6", 58, "0104 0000 00000000"+v6(17, udpHex), withICMP(v6Layer(58, 56, 0), 1, 4), packet.TunnelICMPError, udp6),
		over6("parameter problem v6", 58, "0401 0000 00000028"+v6(17, udpHex), withICMP(v6Layer(58, 56, 0), 4, 1), packet.TunnelICMPError, udp6),
	}
}

// notTunnelCases look like tunnels and are none, or are cut.
func notTunnelCases() []decodeCase {
	dgram := func(name, port string, dst uint16, payload string, cut bool) decodeCase {
		p := "8000" + port + "0000 0000" + payload
		l := withPorts(v4Layer(17, len(unhex(p)), 0), 0x8000, dst)
		l.Truncated = cut
		return decodeCase{name: name, hex: v4(17, p), start: network, etherType: ethIPv4, want: plain(l)}
	}
	gre := func(name, payload string, cut bool) decodeCase {
		l := v4Layer(47, len(unhex(payload)), 0)
		l.Truncated = cut
		return decodeCase{name: name, hex: v4(47, payload), start: network, etherType: ethIPv4, want: plain(l)}
	}
	errorCut := withICMP(truncated(v4Layer(1, 7, 0)), 3, 3)
	return []decodeCase{
		dgram("vxlan without vni flag", "12b5", 4789, "00000000 00000100"+macsHex+"0800", false),
		dgram("vxlan header cut", "12b5", 4789, "08000000 000001", true),
		dgram("geneve version 1", "17c1", 6081, "4000 6558 00000100"+macsHex+"0800", false),
		dgram("geneve header cut", "17c1", 6081, "0000 6558 000001", true),
		dgram("geneve options cut", "17c1", 6081, "0140 6558 00000100 010380", true),
		dgram("vxlan-gpe", "12b6", 4790, "0c000001 00000100"+v4(17, udpHex), false),
		gre("gre header cut", "0000 08", true),
		gre("gre key cut", "2000 0800 000000", true),
		gre("gre source route", "4000 0800 00000000 00000000", false),
		gre("pptp", "3001 880b 00040001 00000001 ff03", false),
		{
			name: "source port of vxlan", hex: v4(17, "12b5 8000 0000 0000 08000000 00000100"+macsHex+"0800"), start: network, etherType: ethIPv4,
			want: plain(withPorts(v4Layer(17, 30, 0), 4789, 0x8000)),
		},
		{
			name: "icmpv6 type 5", hex: v6(58, "0500 0000 00000000"+v6(17, udpHex)), start: network, etherType: ethIPv6,
			want: plain(withICMP(v6Layer(58, 56, 0), 5, 0)),
		},
		{name: "icmp error cut", hex: v4(1, "0303 0000 000000"), start: network, etherType: ethIPv4, want: plain(errorCut)},
		{
			name: "later fragment of a tunnel", hex: "45b9 0030 1234 0001 3f04 0000" + addrs4Hex + v4(17, udpHex), start: network, etherType: ethIPv4,
			want: plain(edit(v4Layer(4, 28, packet.PartFragment), func(l *packet.Layer) { l.FragOffset, l.DontFragment = 8, false })),
		},
	}
}
