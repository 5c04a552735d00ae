package packet_test

import (
	"strings"

	"github.com/whydrop/whydrop/internal/packet"
)

type decodeCase struct {
	name      string
	hex       string
	start     packet.Start
	etherType uint16
	want      packet.Headers
	err       error
}

func plain(l packet.Layer) packet.Headers { return packet.Headers{Layer: l} }

func typed(etherType uint16) packet.Layer {
	return packet.Layer{Parts: packet.PartEtherType, EtherType: etherType}
}

var network = packet.StartNetwork

// decodeCases lists packets made by hand from the RFCs.
func decodeCases() []decodeCase {
	var all []decodeCase
	for _, c := range [][]decodeCase{
		linkCases(), arpCases(), ipv4Cases(), ipv6Cases(), transportCases(),
		tunnelCases(), notTunnelCases(), garbageCases(),
	} {
		all = append(all, c...)
	}
	return all
}

func linkCases() []decodeCase {
	udp := withUDP(v4Layer(17, 8, 0))
	return []decodeCase{
		{name: "ethernet", hex: macsHex + "0800" + v4(17, udpHex), want: plain(withEther(udp))},
		{name: "vlan", hex: macsHex + "8100 a064 0800" + v4(17, udpHex), want: plain(withEther(udp, 0xa064))},
		{name: "qinq", hex: macsHex + "88a8 0005 8100 0fff 0800" + v4(17, udpHex), want: plain(withEther(udp, 5, 0xfff))},
		{
			name: "three tags", hex: macsHex + "88a8 0005 8100 0006 8100 0007 0800" + v4(17, udpHex),
			want: plain(withEther(typed(ethVLAN), 5, 6)),
		},
		{
			name: "network header is a vlan tag", hex: "0064 0800" + v4(17, udpHex), start: network, etherType: ethVLAN,
			want: plain(edit(udp, func(l *packet.Layer) { l.VLANCount, l.VLANs[0] = 1, 100 })),
		},
		{name: "lldp", hex: macsHex + "88cc 0207", want: plain(withEther(typed(0x88cc)))},
		{name: "lldp network header", hex: "0207", start: network, etherType: 0x88cc, want: plain(typed(0x88cc))},
		{name: "lowest ethertype", hex: macsHex + "0600 ffff", want: plain(withEther(typed(0x0600)))},
		{name: "llc stp", hex: macsHex + "0026 424203", want: plain(withEther(typed(0x0004)))},
		{name: "highest length", hex: macsHex + "05ff 424203", want: plain(withEther(typed(0x0004)))},
		{name: "novell", hex: macsHex + "0022 ffff0022", want: plain(withEther(typed(0x0001)))},
		{name: "llc in vlan", hex: macsHex + "8100 0064 0026 424203", want: plain(withEther(typed(0x0004), 100))},
		{name: "llc of two bytes", hex: macsHex + "0002 4242", want: plain(withEther(typed(0x0004)))},
		{name: "vlan alone", hex: macsHex + "8100 0064 88cc", want: plain(withEther(typed(0x88cc), 100))},
		{
			name: "llc cut before its sap", hex: macsHex + "0026 42",
			want: plain(withEther(packet.Layer{Parts: packet.PartEthernet, Truncated: true})),
		},
		{
			name: "vlan cut", hex: macsHex + "8100 0064 08",
			want: plain(withEther(packet.Layer{Truncated: true})),
		},
		{name: "ethernet alone", hex: macsHex + "0800", want: plain(withEther(truncated(typed(ethIPv4))))},
		{name: "ethernet cut", hex: macsHex + "08", want: plain(packet.Layer{Truncated: true}), err: packet.ErrTruncated},
		{name: "network vlan cut", hex: "0064 08", start: network, etherType: ethVLAN, want: plain(packet.Layer{Truncated: true}), err: packet.ErrTruncated},
	}
}

func arpCases() []decodeCase {
	arp := func(op uint16, target [6]byte) packet.Layer {
		return packet.Layer{
			Parts:     packet.PartEtherType | packet.PartARP | packet.PartARPMAC,
			EtherType: ethARP,
			ARP:       packet.ARP{Op: op, SenderMAC: srcMAC, SenderIP: src4, TargetMAC: target, TargetIP: dst4},
		}
	}
	ipoib := strings.Repeat("ab", 20)
	return []decodeCase{
		{
			name: "arp request", hex: macsHex + "0806 0001 0800 06 04 0001 02aabbccdd01 0a000001 000000000000 0a000002 0000",
			want: plain(withEther(arp(1, [6]byte{}))),
		},
		{
			name: "arp reply", hex: "0001 0800 06 04 0002 02aabbccdd01 0a000001 02aabbccdd02 0a000002", start: network, etherType: ethARP,
			want: plain(arp(2, dstMAC)),
		},
		{
			name: "arp on infiniband", hex: "0020 0800 14 04 0001" + ipoib + "0a000001" + ipoib + "0a000002", start: network, etherType: ethARP,
			want: plain(edit(arp(1, [6]byte{}), func(l *packet.Layer) {
				l.Parts &^= packet.PartARPMAC
				l.ARP.SenderMAC = [6]byte{}
			})),
		},
		{
			name: "arp cut", hex: macsHex + "0806 0001 0800 06 04 0001 02aabbccdd01 0a000001 000000000000 0a0000",
			want: plain(withEther(truncated(typed(ethARP)))),
		},
		{name: "arp fixed part cut", hex: "0001 0800 06 04 00", start: network, etherType: ethARP, want: plain(truncated(typed(ethARP))), err: packet.ErrTruncated},
		{name: "arp for appletalk", hex: "0001 809b 06 04 0001" + strings.Repeat("00", 20), start: network, etherType: ethARP, want: plain(typed(ethARP)), err: packet.ErrMalformed},
		{name: "arp for appletalk cut", hex: "0001 809b 06 04 0001", start: network, etherType: ethARP, want: plain(typed(ethARP)), err: packet.ErrMalformed},
		{name: "arp address of 5 bytes", hex: "0001 0800 06 05 0001" + strings.Repeat("00", 22), start: network, etherType: ethARP, want: plain(typed(ethARP)), err: packet.ErrMalformed},
	}
}

func ipv4Cases() []decodeCase {
	fragment := func(offset uint16, more bool) packet.Layer {
		return edit(v4Layer(17, 8, packet.PartFragment), func(l *packet.Layer) {
			l.FragOffset, l.MoreFragments, l.DontFragment = offset, more, false
		})
	}
	fragHex := func(flags string) string {
		return "45b9 001c 1234" + flags + "3f11 0000" + addrs4Hex + udpHex
	}
	return []decodeCase{
		{
			name: "options", hex: "46b9 0020 1234 4000 3f11 0000" + addrs4Hex + "94040000" + udpHex, start: network, etherType: ethIPv4,
			want: plain(withUDP(edit(v4Layer(17, 12, 0), func(*packet.Layer) {}))),
		},
		{
			name: "loose source route", hex: "48b9 0028 1234 4000 3f11 0000" + addrs4Hex + "01 83 07 04 c0000209 00 83 00 00" + udpHex, start: network, etherType: ethIPv4,
			want: plain(withUDP(v4Layer(17, 20, packet.PartSourceRoute))),
		},
		{
			name: "strict source route", hex: "47b9 0024 1234 4000 3f11 0000" + addrs4Hex + "89 07 04 c0000209 00" + udpHex, start: network, etherType: ethIPv4,
			want: plain(withUDP(v4Layer(17, 16, packet.PartSourceRoute))),
		},
		{
			name: "no source route behind the end of the options", hex: "46b9 0020 1234 4000 3f11 0000" + addrs4Hex + "00830304" + udpHex, start: network, etherType: ethIPv4,
			want: plain(withUDP(v4Layer(17, 12, 0))),
		},
		{
			name: "no source route behind a malformed option", hex: "46b9 0020 1234 4000 3f11 0000" + addrs4Hex + "94018303" + udpHex, start: network, etherType: ethIPv4,
			want: plain(withUDP(v4Layer(17, 12, 0))),
		},
		{
			name: "options cut", hex: "46b9 0020 1234 4000 3f11 0000" + addrs4Hex + "940400", start: network, etherType: ethIPv4,
			want: plain(truncated(v4Layer(17, 12, 0))),
		},
		{
			name: "options end the packet", hex: "46b9 0018 1234 4000 3f59 0000" + addrs4Hex + "94040000", start: network, etherType: ethIPv4,
			want: plain(v4Layer(89, 4, 0)),
		},
		{name: "raw ipv4", hex: v4(17, udpHex), start: network, want: plain(withUDP(v4Layer(17, 8, 0)))},
		{name: "first fragment", hex: fragHex("2000"), start: network, etherType: ethIPv4, want: plain(withUDP(fragment(0, true)))},
		{name: "middle fragment", hex: fragHex("3fff"), start: network, etherType: ethIPv4, want: plain(fragment(65528, true))},
		{name: "last fragment", hex: fragHex("0001"), start: network, etherType: ethIPv4, want: plain(fragment(8, false))},
		{
			name: "big tcp", hex: "45b9 0000 1234 4000 3f06 0000" + addrs4Hex + tcpHex, start: network, etherType: ethIPv4,
			want: plain(withTCP(edit(v4Layer(6, 0, 0), func(l *packet.Layer) { l.TotalLen = 0 }))),
		},
		{
			name: "padding is no transport header", hex: macsHex + "0800 45b9 0017 1234 4000 3f11 0000" + addrs4Hex + udpHex,
			want: plain(withEther(truncated(v4Layer(17, 3, 0)))),
		},
		{name: "unknown protocol", hex: v4(89, "0201"), start: network, etherType: ethIPv4, want: plain(v4Layer(89, 2, 0))},
		{name: "ah ends ipv4", hex: v4(51, "11040000"), start: network, etherType: ethIPv4, want: plain(v4Layer(51, 4, 0))},
		{name: "icmpv6 in ipv4", hex: v4(58, "8000000012340001"), start: network, etherType: ethIPv4, want: plain(v4Layer(58, 8, 0))},
	}
}

func ipv6Cases() []decodeCase {
	const padN = "0104 00000000"
	fragment := func(proto byte, offset uint16, more bool) packet.Layer {
		return edit(v6Layer(proto, 16, packet.PartFragment|packet.PartIPID), func(l *packet.Layer) {
			l.FragOffset, l.MoreFragments, l.IPID = offset, more, 0xdeadbeef
		})
	}
	unknown := func(n int) packet.Layer {
		return edit(v6Layer(0, n, 0), func(l *packet.Layer) { l.Parts &^= packet.PartProto })
	}
	chain := func(n int) string { return strings.Repeat("3c00"+padN, n-1) + "1100" + padN }
	return []decodeCase{
		{name: "raw ipv6", hex: v6(6, tcpHex), start: network, want: plain(withTCP(v6Layer(6, 20, 0)))},
		{
			name: "hop by hop, routing, destination", hex: v6(0, "2b00"+padN+"3c02 00000000 0000"+addrs6Hex[:32]+"1100"+padN+udpHex),
			start: network, etherType: ethIPv6, want: plain(withUDP(v6Layer(17, 48, 0))),
		},
		{
			name: "authentication header", hex: v6(51, "1104 0000 00000001 00000002 000000000000000000000000"+udpHex),
			start: network, etherType: ethIPv6, want: plain(withUDP(v6Layer(17, 32, 0))),
		},
		{name: "first fragment v6", hex: v6(44, "1100 0001 deadbeef"+udpHex), start: network, etherType: ethIPv6, want: plain(withUDP(fragment(17, 0, true)))},
		{name: "last fragment v6", hex: v6(44, "1100 0588 deadbeef"+udpHex), start: network, etherType: ethIPv6, want: plain(fragment(17, 1416, false))},
		{
			name: "atomic fragment", hex: v6(44, "1100 0000 deadbeef"+udpHex), start: network, etherType: ethIPv6,
			want: plain(withUDP(edit(fragment(17, 0, false), func(l *packet.Layer) { l.Parts &^= packet.PartFragment }))),
		},
		{
			name: "later fragment of an extension header", hex: v6(44, "3c00 0588 deadbeef"+"1100"+padN), start: network, etherType: ethIPv6,
			want: plain(edit(fragment(0, 1416, false), func(l *packet.Layer) { l.Parts &^= packet.PartProto })),
		},
		{
			name: "two fragment headers", hex: v6(44, "2c00 0001 deadbeef"+"1100 0588 00000001"+udpHex), start: network, etherType: ethIPv6,
			want: plain(edit(fragment(0, 0, true), func(l *packet.Layer) { l.Parts, l.TotalLen = l.Parts&^packet.PartProto, 64 })),
		},
		{name: "no next header", hex: v6(59, "00"), start: network, etherType: ethIPv6, want: plain(v6Layer(59, 1, 0))},
		{name: "esp", hex: v6(50, "0000000100000001"), start: network, etherType: ethIPv6, want: plain(v6Layer(50, 8, 0))},
		{name: "15 extension headers", hex: v6(60, chain(15)+udpHex), start: network, etherType: ethIPv6, want: plain(withUDP(v6Layer(17, 128, 0)))},
		{name: "16 extension headers", hex: v6(60, chain(16)+udpHex), start: network, etherType: ethIPv6, want: plain(unknown(136))},
		{name: "extension header cut", hex: v6(60, "1101"+padN+"000000"), start: network, etherType: ethIPv6, want: plain(truncated(unknown(11)))},
		{name: "extension header behind the end", hex: v6(60, ""), start: network, etherType: ethIPv6, want: plain(truncated(edit(unknown(0), func(l *packet.Layer) { l.TotalLen = 0 })))},
		{
			name: "jumbogram", hex: "6b912345 0000 003f" + addrs6Hex + "0600 c204 00011000" + tcpHex, start: network, etherType: ethIPv6,
			want: plain(withTCP(edit(v6Layer(6, 0, 0), func(l *packet.Layer) { l.TotalLen = 0 }))),
		},
		{
			name: "padding is no transport header v6", hex: "6b912345 0003 113f" + addrs6Hex + udpHex, start: network, etherType: ethIPv6,
			want: plain(truncated(v6Layer(17, 3, 0))),
		},
		{name: "icmp in ipv6", hex: v6(1, "0800000012340001"), start: network, etherType: ethIPv6, want: plain(v6Layer(1, 8, 0))},
	}
}

func transportCases() []decodeCase {
	v4Case := func(name string, proto byte, payload string, want packet.Layer) decodeCase {
		return decodeCase{name: name, hex: v4(proto, payload), start: network, etherType: ethIPv4, want: plain(want)}
	}
	v6Case := func(name string, proto byte, payload string, want packet.Layer) decodeCase {
		return decodeCase{name: name, hex: v6(proto, payload), start: network, etherType: ethIPv6, want: plain(want)}
	}
	echo := func(l packet.Layer, icmpType uint8) packet.Layer {
		l = withICMP(l, icmpType, 0)
		l.Parts |= packet.PartEcho
		l.EchoID, l.EchoSeq = 0x1234, 7
		return l
	}
	return []decodeCase{
		v4Case("tcp", 6, tcpHex, withTCP(v4Layer(6, 20, 0))),
		v4Case("tcp cut in its last field", 6, tcpHex[:len(tcpHex)-2], truncated(withPorts(v4Layer(6, 19, 0), 0xc000, 443))),
		v4Case("tcp cut behind its ports", 6, "c000 01bb", truncated(withPorts(v4Layer(6, 4, 0), 0xc000, 443))),
		v4Case("tcp cut in its ports", 6, "c000 01", truncated(v4Layer(6, 3, 0))),
		v4Case("tcp data offset 0", 6, strings.Replace(tcpHex, "5152", "0152", 1), withTCP(v4Layer(6, 20, 0))),
		v4Case("tcp reserved bits", 6, strings.Replace(tcpHex, "5152", "5f52", 1), withTCP(v4Layer(6, 20, 0))),
		v4Case("udp", 17, udpHex, withUDP(v4Layer(17, 8, 0))),
		v4Case("udp cut", 17, "c000 0035 0008 00", truncated(withUDP(v4Layer(17, 7, 0)))),
		v4Case("udplite", 136, udpHex, withUDP(v4Layer(136, 8, 0))),
		v4Case("sctp", 132, "c000 0035 00000001 00000000", withUDP(v4Layer(132, 12, 0))),
		v4Case("sctp cut", 132, "c000 0035 00000001 000000", truncated(withUDP(v4Layer(132, 11, 0)))),
		v4Case("dccp", 33, "c000 0035 04000000 00000001", withUDP(v4Layer(33, 12, 0))),
		v4Case("dccp cut", 33, "c000 0035 04000000 000000", truncated(withUDP(v4Layer(33, 11, 0)))),
		v4Case("echo request", 1, "0800 f7ff 1234 0007", echo(v4Layer(1, 8, 0), 8)),
		v4Case("echo reply", 1, "0000 f7ff 1234 0007", echo(v4Layer(1, 8, 0), 0)),
		v4Case("echo cut", 1, "0800 f7ff 1234 00", truncated(withICMP(v4Layer(1, 7, 0), 8, 0))),
		v4Case("icmp cut", 1, "0800 f7", truncated(v4Layer(1, 3, 0))),
		v4Case("timestamp is no echo", 1, "0d00 f7ff 1234 0007", withICMP(v4Layer(1, 8, 0), 13, 0)),
		v4Case("type 128 is no echo in icmp", 1, "8000 f7ff 1234 0007", withICMP(v4Layer(1, 8, 0), 128, 0)),
		v6Case("echo request v6", 58, "8000 f7ff 1234 0007", echo(v6Layer(58, 8, 0), 128)),
		v6Case("echo reply v6", 58, "8100 f7ff 1234 0007", echo(v6Layer(58, 8, 0), 129)),
		v6Case("neighbour solicitation", 58, "8700 f7ff 00000000"+addrs6Hex[:32], withICMP(v6Layer(58, 24, 0), 135, 0)),
		v6Case("type 8 is no echo in icmpv6", 58, "0800 f7ff 1234 0007", withICMP(v6Layer(58, 8, 0), 8, 0)),
	}
}

func garbageCases() []decodeCase {
	zeros := strings.Repeat("00", 64)
	v4Err := func(name, h string) decodeCase {
		return decodeCase{name: name, hex: h, start: network, etherType: ethIPv4, want: plain(typed(ethIPv4)), err: packet.ErrMalformed}
	}
	cut := truncated(packet.Layer{})
	return []decodeCase{
		v4Err("zeros as ipv4", zeros),
		v4Err("ipv6 as ipv4", v6(17, udpHex)),
		v4Err("header length 16", "44b9 0020 1234 4000 3f11 0000"+addrs4Hex+udpHex),
		v4Err("total length below header length", "46b9 0017 1234 4000 3f11 0000"+addrs4Hex+udpHex),
		{name: "zeros as ipv6", hex: zeros, start: network, etherType: ethIPv6, want: plain(typed(ethIPv6)), err: packet.ErrMalformed},
		{name: "ipv4 as ipv6", hex: v4(17, strings.Repeat("00", 20)), start: network, etherType: ethIPv6, want: plain(typed(ethIPv6)), err: packet.ErrMalformed},
		{name: "zeros as raw ip", hex: zeros, start: network, err: packet.ErrMalformed},
		{name: "garbage behind ethernet", hex: macsHex + "0800" + zeros, want: plain(withEther(typed(ethIPv4))), err: packet.ErrMalformed},
		{name: "nothing", want: plain(cut), err: packet.ErrTruncated},
		{name: "nothing of raw ip", start: network, want: plain(cut), err: packet.ErrTruncated},
		{name: "ipv4 cut", hex: v4(17, "")[:38], start: network, etherType: ethIPv4, want: plain(truncated(typed(ethIPv4))), err: packet.ErrTruncated},
		{name: "ipv6 cut", hex: v6(17, "")[:78], start: network, etherType: ethIPv6, want: plain(truncated(typed(ethIPv6))), err: packet.ErrTruncated},
	}
}
