package packet_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/whydrop/whydrop/internal/packet"
)

// sample is a generated packet and how to decode it.
type sample struct {
	b         []byte
	start     packet.Start
	etherType uint16
}

// generator makes random packets with gopacket. depth counts how many packets
// the current one is inside of.
type generator struct {
	t *testing.T
	r *rand.Rand
}

type stack []gopacket.SerializableLayer

func newGenerator(t *testing.T, seed uint64) *generator {
	return &generator{t: t, r: rand.New(rand.NewPCG(seed, 1))}
}

func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(g.r.Uint32())
	}
	return b
}

func (g *generator) one(in int) bool { return g.r.IntN(in) == 0 }

func (g *generator) u16() uint16 { return uint16(g.r.Uint32()) }

// serialize turns layers into bytes, with the lengths that they must have.
func (g *generator) serialize(s stack) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true}, s...); err != nil {
		g.t.Fatalf("serialize generated packet: %v", err)
	}
	return append([]byte(nil), buf.Bytes()...)
}

func (g *generator) sample() sample {
	if g.one(4) {
		etherType, s := g.network(0)
		return sample{b: g.serialize(s), start: packet.StartNetwork, etherType: uint16(etherType)}
	}
	return sample{b: g.serialize(g.frame(0)), start: packet.StartEthernet}
}

func (g *generator) frame(depth int) stack {
	etherType, s := g.network(depth)
	length := g.one(20)
	if length {
		s = stack{gopacket.Payload(g.bytes(2 + g.r.IntN(40)))}
		if g.one(2) {
			s = stack{gopacket.Payload([]byte{0xff, 0xff, 1, 2, 3})}
		}
		etherType = layers.EthernetTypeLLC
	}
	tags := 0
	if g.one(2) {
		tags = 1 + g.r.IntN(3)
	}
	for range tags {
		if etherType == layers.EthernetTypeLLC {
			etherType = layers.EthernetType(len(g.serialize(s)))
		}
		tag := &layers.Dot1Q{
			Priority: uint8(g.r.IntN(8)), DropEligible: g.one(2),
			VLANIdentifier: g.u16() & 0xfff, Type: etherType,
		}
		s = append(stack{tag}, s...)
		etherType = layers.EthernetTypeDot1Q
		if g.one(2) {
			etherType = layers.EthernetTypeQinQ
		}
	}
	return append(stack{&layers.Ethernet{SrcMAC: g.bytes(6), DstMAC: g.bytes(6), EthernetType: etherType}}, s...)
}

func (g *generator) network(depth int) (layers.EthernetType, stack) {
	switch {
	case g.one(20):
		return layers.EthernetTypeARP, g.arp()
	case g.one(20):
		return layers.EthernetTypeLinkLayerDiscovery, stack{gopacket.Payload(g.bytes(20))}
	case g.one(2):
		return layers.EthernetTypeIPv4, g.ipv4(depth)
	default:
		return layers.EthernetTypeIPv6, g.ipv6(depth)
	}
}

func (g *generator) arp() stack {
	hw := 6
	if g.one(4) {
		hw = g.r.IntN(21)
	}
	return stack{&layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, Operation: uint16(1 + g.r.IntN(9)),
		SourceHwAddress: g.bytes(hw), SourceProtAddress: g.bytes(4),
		DstHwAddress: g.bytes(hw), DstProtAddress: g.bytes(4),
	}}
}

func (g *generator) ipv4(depth int) stack {
	proto, s := g.transport(false, depth)
	ip := &layers.IPv4{
		Version: 4, TOS: uint8(g.r.Uint32()), Id: g.u16(), TTL: uint8(g.r.Uint32()),
		Protocol: proto, SrcIP: g.bytes(4), DstIP: g.bytes(4),
	}
	if g.one(2) {
		ip.Flags = layers.IPv4DontFragment
	}
	if g.one(6) {
		ip.FragOffset = g.u16() & 0x1fff
	}
	if g.one(6) {
		ip.Flags |= layers.IPv4MoreFragments
	}
	if g.one(4) {
		for range 1 + g.r.IntN(9) {
			kind := uint8(148)
			if g.one(6) {
				kind = 131 // a source route, cut short
			}
			ip.Options = append(ip.Options, layers.IPv4Option{OptionType: kind, OptionLength: 4, OptionData: g.bytes(2)})
		}
	}
	return append(stack{ip}, s...)
}

func (g *generator) ipv6(depth int) stack {
	next, s := g.transport(true, depth)
	n := 0
	if g.one(3) {
		n = 1 + g.r.IntN(4)
	}
	for range n {
		next, s = g.extension(next, s)
	}
	ip := &layers.IPv6{
		Version: 6, TrafficClass: uint8(g.r.Uint32()), FlowLabel: g.r.Uint32() & 0xfffff,
		NextHeader: next, HopLimit: uint8(g.r.Uint32()), SrcIP: g.bytes(16), DstIP: g.bytes(16),
	}
	return append(stack{ip}, s...)
}

// extension puts an extension header in front of s.
func (g *generator) extension(next layers.IPProtocol, s stack) (layers.IPProtocol, stack) {
	data := g.bytes(4 + 8*g.r.IntN(3)) // with the 4 bytes in front a multiple of 8
	switch g.r.IntN(5) {
	case 0:
		e := &layers.IPv6HopByHop{Options: []*layers.IPv6HopByHopOption{{OptionType: 0x1e, OptionData: data}}}
		e.NextHeader = next
		return layers.IPProtocolIPv6HopByHop, append(stack{e}, s...)
	case 1:
		e := &layers.IPv6Routing{RoutingType: 4, Reserved: g.bytes(4), Data: g.bytes(16 * g.r.IntN(3))}
		e.NextHeader = next
		return layers.IPProtocolIPv6Routing, append(stack{e}, s...)
	case 2:
		e := &layers.IPv6Destination{Options: []*layers.IPv6DestinationOption{{OptionType: 0x1e, OptionData: data}}}
		e.NextHeader = next
		return layers.IPProtocolIPv6Destination, append(stack{e}, s...)
	case 3:
		ah := g.bytes(12 + 4*g.r.IntN(8))
		ah[0], ah[1] = byte(next), byte(len(ah)/4-2)
		return layers.IPProtocolAH, append(stack{gopacket.Payload(ah)}, s...)
	default:
		e := &layers.IPv6Fragment{NextHeader: next, Identification: g.r.Uint32(), MoreFragments: g.one(2)}
		if g.one(2) {
			e.FragmentOffset = g.u16() & 0x1fff
		}
		return layers.IPProtocolIPv6Fragment, append(stack{e}, s...)
	}
}

func (g *generator) transport(v6 bool, depth int) (layers.IPProtocol, stack) {
	payload := gopacket.Payload(g.bytes(g.r.IntN(40)))
	if depth < 3 && g.one(3) {
		return g.tunnel(v6, depth)
	}
	switch g.r.IntN(9) {
	case 0, 1:
		return layers.IPProtocolTCP, append(g.tcp(), payload)
	case 2:
		return layers.IPProtocolUDP, append(g.udp(g.anyPort()), payload)
	case 3:
		return layers.IPProtocolSCTP, stack{&layers.SCTP{SrcPort: layers.SCTPPort(g.u16()), DstPort: layers.SCTPPort(g.u16())}, payload}
	case 4:
		return layers.IPProtocolUDPLite, stack{gopacket.Payload(g.bytes(8)), payload}
	case 5:
		return protoDCCP, stack{gopacket.Payload(g.bytes(12)), payload}
	case 6:
		return g.icmp(v6, depth, payload)
	case 7:
		return layers.IPProtocolOSPF, stack{payload}
	default: // a header that its packet's length cuts
		protos := []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolSCTP, layers.IPProtocolICMPv4, layers.IPProtocolICMPv6, layers.IPProtocolGRE}
		return protos[g.r.IntN(len(protos))], stack{gopacket.Payload(g.bytes(g.r.IntN(20)))}
	}
}

// protoDCCP is unknown to gopacket.
const protoDCCP = layers.IPProtocol(33)

// anyPort favours the ports of tunnels, whatever the datagram carries.
func (g *generator) anyPort() uint16 {
	ports := []uint16{4789, 8472, 6081, g.u16(), g.u16()}
	return ports[g.r.IntN(len(ports))]
}

func (g *generator) udp(dst uint16) stack {
	return stack{&layers.UDP{SrcPort: layers.UDPPort(g.anyPort()), DstPort: layers.UDPPort(dst)}}
}

func (g *generator) tcp() stack {
	tcp := &layers.TCP{
		SrcPort: layers.TCPPort(g.u16()), DstPort: layers.TCPPort(g.u16()), Seq: g.r.Uint32(), Ack: g.r.Uint32(),
		FIN: g.one(2), SYN: g.one(2), RST: g.one(2), PSH: g.one(2), ACK: g.one(2), URG: g.one(2),
		ECE: g.one(2), CWR: g.one(2), NS: g.one(2), Window: g.u16(),
	}
	if g.one(2) {
		tcp.Options = []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: g.bytes(2)}}
	}
	return stack{tcp}
}

// icmp makes any message, an echo or an error that quotes a packet.
func (g *generator) icmp(v6 bool, depth int, payload gopacket.Payload) (layers.IPProtocol, stack) {
	types := []uint8{0, 3, 4, 5, 8, 11, 12, 13, uint8(g.r.Uint32())}
	quote := g.ipv4
	if v6 {
		types = []uint8{1, 2, 3, 4, 128, 129, 135, uint8(g.r.Uint32())}
		quote = g.ipv6
	}
	icmpType, code := types[g.r.IntN(len(types))], uint8(g.r.Uint32())
	if depth < 3 && g.one(2) {
		q := g.serialize(quote(depth + 1))
		payload = q[:g.r.IntN(len(q)+1)]
	}
	if v6 {
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(icmpType, code)}
		return layers.IPProtocolICMPv6, stack{icmp, gopacket.Payload(g.bytes(4)), payload}
	}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(icmpType, code), Id: g.u16(), Seq: g.u16()}
	return layers.IPProtocolICMPv4, stack{icmp, payload}
}

func (g *generator) tunnel(v6 bool, depth int) (layers.IPProtocol, stack) {
	switch g.r.IntN(6) {
	case 0:
		return layers.IPProtocolIPv4, g.ipv4(depth + 1)
	case 1:
		return layers.IPProtocolIPv6, g.ipv6(depth + 1)
	case 2:
		vxlan := &layers.VXLAN{ValidIDFlag: !g.one(8), VNI: g.r.Uint32() >> 8, GBPExtension: g.one(2), GBPGroupPolicyID: g.u16()}
		port := uint16(4789)
		if g.one(2) {
			port = 8472
		}
		return layers.IPProtocolUDP, append(append(g.udp(port), vxlan), g.frame(depth+1)...)
	case 3:
		return layers.IPProtocolUDP, append(g.udp(6081), g.geneve(depth+1)...)
	case 4:
		return g.icmp(v6, depth, g.bytes(8))
	default:
		return layers.IPProtocolGRE, g.gre(depth + 1)
	}
}

// carried is what a tunnel with an ethertype carries.
func (g *generator) carried(depth int) (layers.EthernetType, stack) {
	if g.one(2) {
		return layers.EthernetTypeTransparentEthernetBridging, g.frame(depth)
	}
	return g.network(depth)
}

func (g *generator) geneve(depth int) stack {
	geneve := &layers.Geneve{VNI: g.r.Uint32() >> 8, OAMPacket: g.one(2), CriticalOption: g.one(2)}
	if g.one(8) {
		geneve.Version = 1
	}
	for range g.r.IntN(4) {
		geneve.Options = append(geneve.Options, &layers.GeneveOption{Class: g.u16(), Type: uint8(g.r.Uint32()), Data: g.bytes(4 * g.r.IntN(4))})
	}
	etherType, s := g.carried(depth)
	geneve.Protocol = etherType
	return append(stack{geneve}, s...)
}

func (g *generator) gre(depth int) stack {
	gre := &layers.GRE{ChecksumPresent: g.one(2), KeyPresent: g.one(2), SeqPresent: g.one(2), Key: g.r.Uint32(), Seq: g.r.Uint32()}
	etherType, s := g.carried(depth)
	gre.Protocol = etherType
	switch {
	case g.one(16):
		gre.Version = 1
	case g.one(16):
		gre.RoutingPresent = true
		gre.GRERouting = &layers.GRERouting{AddressFamily: 0x800, SRELength: 4, RoutingInformation: net.IP(g.bytes(4))}
	}
	return append(stack{gre}, s...)
}

// fragment numbers of generated packets are random, so most of what is inside
// is never reached; rawIP returns an unfragmented one with etherType 0.
func (g *generator) rawIP() sample {
	s := g.sample()
	for s.start != packet.StartNetwork || s.etherType != ethIPv4 && s.etherType != ethIPv6 {
		s = g.sample()
	}
	if s.etherType == ethIPv4 {
		binary.BigEndian.PutUint16(s.b[6:], 0)
	}
	s.etherType = 0
	return s
}
