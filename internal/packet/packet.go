// Package packet decodes the headers of one packet without allocating: link,
// network and transport header, and those of the packet inside a tunnel or
// quoted by an ICMP error. Everything in whydrop that looks at packet bytes
// (sampled drops, captures, filters) goes through [Headers].
//
// It trusts nothing: the bytes may be cut anywhere, may come from the network,
// or may be no packet at all (an skb whose network header was never set).
// It reports a field only when its bytes were there, and says when they ended
// too early.
//
// It must not look at the host, read files or the clock, keep state between
// packets, verify checksums (they are wrong on purpose while offloaded), or
// depend on a packet library: those allocate and may panic. It decodes no
// payload above the transport header.
package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// The classes of error that Decode returns, to be tested with errors.Is.
var (
	// ErrTruncated means that the bytes end before the first header is whole:
	// nothing could be decoded.
	ErrTruncated = errors.New("packet ends inside its first header")
	// ErrMalformed means that a header cannot be what it claims to be: the
	// bytes are broken or were never a packet. What was decoded in front of
	// that header is kept.
	ErrMalformed = errors.New("malformed packet header")
)

// Start says what the first byte of a packet belongs to.
type Start uint8

// The starts.
const (
	// StartEthernet is an Ethernet header.
	StartEthernet Start = iota
	// StartNetwork is what follows the link header; an ethertype tells what
	// it is.
	StartNetwork
)

// Part is a set of header parts. A part is present only when all its bytes
// were, so its fields are real; the fields of an absent part are zero and mean
// nothing.
type Part uint16

// The parts of a Layer, each with the fields that it makes valid.
const (
	// PartEthernet: SrcMAC, DstMAC.
	PartEthernet Part = 1 << iota
	// PartEtherType: EtherType.
	PartEtherType
	// PartARP: ARP.Op, ARP.SenderIP, ARP.TargetIP.
	PartARP
	// PartARPMAC: ARP.SenderMAC, ARP.TargetMAC.
	PartARPMAC
	// PartIPv4 is the 20 bytes that each IPv4 header begins with: Src, Dst,
	// TTL, TOS, TotalLen, DontFragment.
	PartIPv4
	// PartIPv6 is the 40 bytes of the fixed IPv6 header: Src, Dst, TTL, TOS,
	// TotalLen.
	PartIPv6
	// PartProto: Proto. Absent where an IPv6 extension header is cut.
	PartProto
	// PartIPID: IPID. IPv4 always has one, IPv6 only with a fragment header.
	PartIPID
	// PartFragment: FragOffset, MoreFragments. The packet is a piece of a
	// larger one.
	PartFragment
	// PartPorts is the first 4 bytes of TCP, UDP, UDP-Lite, SCTP and DCCP:
	// SrcPort, DstPort. An ICMP error often quotes little more than these.
	PartPorts
	// PartTCP is the 20 bytes that each TCP header begins with: TCPSeq,
	// TCPAck, TCPFlags, TCPWindow.
	PartTCP
	// PartICMP: ICMPType, ICMPCode, of ICMP in IPv4 and ICMPv6 in IPv6.
	PartICMP
	// PartEcho: EchoID, EchoSeq, of ICMP and ICMPv6 echo messages.
	PartEcho
	// PartSourceRoute has no fields: among the options of the IPv4 header is a
	// source route, loose or strict. Absent where the options are cut.
	PartSourceRoute
)

// maxWireVLANs is how many tags are decoded from the frame; maxVLANs has room
// for the one that the network card or the stack took out of it.
const (
	maxWireVLANs = 2
	maxVLANs     = maxWireVLANs + 1
)

// Layer is one stack of headers: link, network and transport. It is
// comparable. Numbers are in host byte order.
type Layer struct {
	// Parts says which fields are valid.
	Parts Part
	// Truncated says that the bytes ended where a header was expected to go
	// on. A cut payload does not count.
	Truncated bool

	// VLANCount is the number of tags in VLANs, outermost first. Each is the
	// whole TCI: the VLAN id is its low 12 bits (IEEE 802.1Q-2022, 9.6).
	VLANCount uint8
	VLANs     [maxVLANs]uint16
	SrcMAC    [6]byte
	DstMAC    [6]byte
	// EtherType is the one behind all VLAN tags. As in the kernel, 802.3
	// frames with a length have ETH_P_802_2 (0x0004), or ETH_P_802_3 (0x0001)
	// for Novell's.
	EtherType uint16

	// ARP is the ARP message.
	ARP ARP

	Src, Dst netip.Addr
	// TotalLen is the length of the packet from its IP header on, in bytes,
	// as the header says. 0 means that it does not say: the packet is a
	// jumbogram (RFC 2675) or a BIG TCP one, which exceed 16 bits.
	TotalLen uint32
	// IPID is the identification: 16 bits in IPv4, 32 in IPv6.
	IPID uint32
	// FragOffset is where this fragment begins, in bytes. Only the fragment at
	// 0 has a transport header.
	FragOffset    uint16
	MoreFragments bool
	DontFragment  bool
	// TTL is the IPv6 hop limit too.
	TTL uint8
	// TOS is the IPv6 traffic class too; see DSCP and ECN.
	TOS uint8
	// Proto is the protocol behind all IPv6 extension headers (RFC 8200, 4).
	Proto uint8

	SrcPort, DstPort uint16
	// TCPFlags is as in the header: FIN is 1, CWR 0x80, AE 0x100 (RFC 9293,
	// 3.1; AE: RFC 9768).
	TCPFlags  uint16
	TCPWindow uint16
	TCPSeq    uint32
	TCPAck    uint32

	ICMPType, ICMPCode uint8
	EchoID, EchoSeq    uint16
}

// ARP is a message that asks or tells the hardware address of an IPv4 address
// (RFC 826).
type ARP struct {
	// Op is 1 for a request, 2 for a reply.
	Op uint16
	// SenderMAC and TargetMAC are absent where addresses do not have 6 bytes.
	SenderMAC, TargetMAC [6]byte
	SenderIP, TargetIP   netip.Addr
}

// Has says whether all of the parts p are present.
func (l *Layer) Has(p Part) bool { return l.Parts&p == p }

// HasIP says whether there is an IPv4 or an IPv6 header.
func (l *Layer) HasIP() bool { return l.Parts&(PartIPv4|PartIPv6) != 0 }

// DSCP is the differentiated services codepoint (RFC 2474).
func (l *Layer) DSCP() uint8 { return l.TOS >> 2 }

// ECN is the explicit congestion notification codepoint (RFC 3168).
func (l *Layer) ECN() uint8 { return l.TOS & 3 }

// AddVLAN adds a tag in front of the others: the one that the network card or
// the stack moved out of the frame into skb->vlan_tci. Where there is no room
// it does nothing.
func (l *Layer) AddVLAN(tci uint16) {
	if int(l.VLANCount) == len(l.VLANs) {
		return
	}
	copy(l.VLANs[1:], l.VLANs[:l.VLANCount])
	l.VLANs[0] = tci
	l.VLANCount++
}

// Headers is all that was decoded of a packet. It is a plain value: it may be
// copied, compared and used again, and refers to no packet bytes.
type Headers struct {
	// Layer is the packet itself.
	Layer
	// Tunnel says how the packet in Inner is carried. Nothing further inside
	// is decoded.
	Tunnel Tunnel
	// TunnelID is the VNI of VXLAN and Geneve and the key of GRE, where
	// HasTunnelID.
	TunnelID    uint32
	HasTunnelID bool
	// Inner is the packet inside, as far as it could be decoded.
	Inner Layer
}

// Decode resets h and decodes the packet that b begins with. b may end
// anywhere: what is there is decoded and Truncated is set where headers are
// missing. etherType is the one of the network header (skb->protocol) and is
// ignored for StartEthernet; 0 stands for a raw IP packet, IPv4 or IPv6 by its
// version field.
//
// The error is ErrTruncated where not even the first header is whole, or wraps
// ErrMalformed where an ARP or IP header of the packet is implausible. A packet
// of a protocol that is not decoded is no error, nor is anything inside a
// tunnel: then parts are missing. Decode does not allocate.
func (h *Headers) Decode(b []byte, start Start, etherType uint16) error {
	*h = Headers{}
	if start == StartNetwork && etherType == 0 {
		if len(b) == 0 {
			h.Truncated = true
			return ErrTruncated
		}
		if etherType = etherTypeOfIP(b[0]); etherType == 0 {
			return errIPVersion
		}
	}
	transport, err := h.Layer.decode(b, start, etherType)
	if err != nil {
		return err
	}
	if h.Truncated && h.Parts&^PartEtherType == 0 && h.VLANCount == 0 {
		return ErrTruncated
	}
	if transport != nil {
		h.decodeTunnel(transport)
	}
	return nil
}

// decode fills the zero Layer l. It returns the bytes from the transport
// header on, or nil where that is unknown.
func (l *Layer) decode(b []byte, start Start, etherType uint16) ([]byte, error) {
	if start == StartEthernet {
		return l.decodeEthernet(b)
	}
	return l.decodeNetwork(b, etherType)
}

func be16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }

func be32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }
