package packet_test

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/packet"
)

const (
	ethIPv4   = 0x0800
	ethARP    = 0x0806
	ethIPv6   = 0x86dd
	ethVLAN   = 0x8100
	macsHex   = "02aabbccdd02 02aabbccdd01" // destination, source
	addrs4Hex = "0a000001 0a000002"
	addrs6Hex = "20010db8000000000000000000000001 20010db8000000000000000000000002"

	udpHex = "c000 0035 0008 0000"
	tcpHex = "c000 01bb 01020304 05060708 5152 2000 0000 0000"
)

var (
	dstMAC = [6]byte{0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x02}
	srcMAC = [6]byte{0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0x01}
	src4   = netip.MustParseAddr("10.0.0.1")
	dst4   = netip.MustParseAddr("10.0.0.2")
	src6   = netip.MustParseAddr("2001:db8::1")
	dst6   = netip.MustParseAddr("2001:db8::2")
)

var cmpAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// unhex joins hexadecimal strings, blanks ignored.
func unhex(parts ...string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(parts, ""), " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// v4 is an IPv4 packet with DSCP 46, ECN 1, id 0x1234, DF and TTL 63.
func v4(proto byte, payload string) string {
	p := unhex(payload)
	h := unhex("45b9 0000 1234 4000 3f00 0000", addrs4Hex)
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(p)))
	h[9] = proto
	return hexOf(h) + hexOf(p)
}

// v4Layer is what the packet of v4 with n bytes of payload must decode to.
func v4Layer(proto byte, n int, parts packet.Part) packet.Layer {
	return packet.Layer{
		Parts:     packet.PartEtherType | packet.PartIPv4 | packet.PartProto | packet.PartIPID | parts,
		EtherType: ethIPv4, Src: src4, Dst: dst4, TotalLen: uint32(20 + n), IPID: 0x1234,
		DontFragment: true, TTL: 63, TOS: 0xb9, Proto: proto,
	}
}

// v6 is an IPv6 packet with traffic class 0xb9, flow label 0x12345 and hop
// limit 63.
func v6(next byte, payload string) string {
	p := unhex(payload)
	h := unhex("6b912345 0000 003f", addrs6Hex)
	binary.BigEndian.PutUint16(h[4:], uint16(len(p)))
	h[6] = next
	return hexOf(h) + hexOf(p)
}

func v6Layer(proto byte, n int, parts packet.Part) packet.Layer {
	return packet.Layer{
		Parts:     packet.PartEtherType | packet.PartIPv6 | packet.PartProto | parts,
		EtherType: ethIPv6, Src: src6, Dst: dst6, TotalLen: uint32(40 + n),
		TTL: 63, TOS: 0xb9, Proto: proto,
	}
}

func withUDP(l packet.Layer) packet.Layer {
	l.Parts |= packet.PartPorts
	l.SrcPort, l.DstPort = 0xc000, 53
	return l
}

func withTCP(l packet.Layer) packet.Layer {
	l.Parts |= packet.PartPorts | packet.PartTCP
	l.SrcPort, l.DstPort = 0xc000, 443
	l.TCPSeq, l.TCPAck, l.TCPFlags, l.TCPWindow = 0x01020304, 0x05060708, 0x152, 0x2000
	return l
}

func withPorts(l packet.Layer, src, dst uint16) packet.Layer {
	l.Parts |= packet.PartPorts
	l.SrcPort, l.DstPort = src, dst
	return l
}

func withICMP(l packet.Layer, icmpType, code uint8) packet.Layer {
	l.Parts |= packet.PartICMP
	l.ICMPType, l.ICMPCode = icmpType, code
	return l
}

func withEther(l packet.Layer, tags ...uint16) packet.Layer {
	l.Parts |= packet.PartEthernet
	l.SrcMAC, l.DstMAC = srcMAC, dstMAC
	l.VLANCount = uint8(copy(l.VLANs[:], tags))
	return l
}

func truncated(l packet.Layer) packet.Layer {
	l.Truncated = true
	return l
}

// edit returns l changed by f.
func edit(l packet.Layer, f func(*packet.Layer)) packet.Layer {
	f(&l)
	return l
}

func TestDecode(t *testing.T) {
	for _, c := range decodeCases() {
		t.Run(c.name, func(t *testing.T) {
			var h packet.Headers
			err := h.Decode(unhex(c.hex), c.start, c.etherType)
			if !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			if d := cmp.Diff(c.want, h, cmpAddr); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestDecodeResets(t *testing.T) {
	var h packet.Headers
	if err := h.Decode(unhex(macsHex, "8100 0064 0800", v4(41, v6(6, tcpHex))), packet.StartEthernet, 0); err != nil {
		t.Fatal(err)
	}
	if h.Inner.TCPSeq == 0 || h.VLANCount == 0 {
		t.Fatal("the first packet leaves nothing to reset")
	}
	if err := h.Decode(nil, packet.StartEthernet, 0); !errors.Is(err, packet.ErrTruncated) {
		t.Errorf("error %v, want %v", err, packet.ErrTruncated)
	}
	if want := plain(truncated(packet.Layer{})); h != want {
		t.Errorf("fields of the packet before are left: %+v", h)
	}
}

func TestAddVLAN(t *testing.T) {
	var h packet.Headers
	if err := h.Decode(unhex(macsHex, "88a8 0005 8100 0006 0800", v4(17, udpHex)), packet.StartEthernet, 0); err != nil {
		t.Fatal(err)
	}
	h.AddVLAN(0xa007)
	want := [3]uint16{0xa007, 5, 6}
	if h.VLANCount != 3 || h.VLANs != want {
		t.Errorf("%d tags %x, want %x", h.VLANCount, h.VLANs, want)
	}
	h.AddVLAN(8)
	if h.VLANCount != 3 || h.VLANs != want {
		t.Errorf("without room: %d tags %x, want %x", h.VLANCount, h.VLANs, want)
	}
}

func TestDSCPAndECN(t *testing.T) {
	l := packet.Layer{TOS: 0xb9}
	if l.DSCP() != 46 || l.ECN() != 1 {
		t.Errorf("dscp %d ecn %d, want 46 1", l.DSCP(), l.ECN())
	}
}
