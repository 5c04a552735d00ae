package packet_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

var cmpAddrPort = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })

func flow(proto uint8, src, dst string) record.Flow {
	return record.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func ptr(n uint8) *uint8 { return &n }

func TestRecord(t *testing.T) {
	const srcText, dstText = "02:aa:bb:cc:dd:01", "02:aa:bb:cc:dd:02"
	arp := func(op, hw, mac string) string {
		return macsHex + "0806 0001 0800" + hw + "04" + op + mac + "0a000001" + mac + "0a000002"
	}
	arpWant := func(text string) *record.Packet {
		return &record.Packet{SrcMAC: srcText, DstMAC: dstText, EtherType: ethARP, ARP: text}
	}
	udp := func(p record.Packet) *record.Packet {
		p.EtherType, p.TTL, p.DSCP = ethIPv4, 63, 46
		p.Flow = flow(17, "10.0.0.1:49152", "10.0.0.2:53")
		return &p
	}
	for _, c := range []struct {
		name, hex string
		want      *record.Packet
	}{
		{"nothing", "02aabb", nil},
		{"ethernet alone", macsHex + "88cc", &record.Packet{SrcMAC: srcText, DstMAC: dstText, EtherType: 0x88cc}},
		{"udp in vlans", macsHex + "88a8 a064 8100 0fff 0800" + v4(17, udpHex), udp(record.Packet{SrcMAC: srcText, DstMAC: dstText, VLANs: []uint16{100, 4095}})},
		{"tcp", macsHex + "86dd" + v6(6, tcpHex), &record.Packet{
			SrcMAC: srcText, DstMAC: dstText, EtherType: ethIPv6, TTL: 63, DSCP: 46,
			Flow:     flow(6, "[2001:db8::1]:49152", "[2001:db8::2]:443"),
			TCPFlags: 0x152, TCPSeq: 0x01020304, TCPAck: 0x05060708,
		}},
		{"later fragment", macsHex + "86dd" + v6(44, "1100 0588 deadbeef"+udpHex), &record.Packet{
			SrcMAC: srcText, DstMAC: dstText, EtherType: ethIPv6, TTL: 63, DSCP: 46, Fragment: true,
			Flow: flow(17, "[2001:db8::1]:0", "[2001:db8::2]:0"),
		}},
		{"source route", macsHex + "0800 47b9 0024 1234 4000 3f11 0000" + addrs4Hex + "83 07 04 c0000209 00" + udpHex, udp(record.Packet{
			SrcMAC: srcText, DstMAC: dstText, SourceRoute: true,
		})},
		{"arp request", arp("0001", "06", "02aabbccdd01"), arpWant("who-has 10.0.0.2 tell 10.0.0.1")},
		{"arp reply", arp("0002", "06", "02aabbccdd01"), arpWant("10.0.0.1 is-at 02:aa:bb:cc:dd:01")},
		{"arp reply with addresses of 8 bytes", arp("0002", "08", "0102030405060708"), arpWant("10.0.0.1 is-at unknown")},
		{"inarp request", arp("0008", "06", "02aabbccdd01"), arpWant("op 8 from 10.0.0.1 for 10.0.0.2")},
		{"icmp echo reply", macsHex + "0800" + v4(1, "0000 f7ff 1234 0007"), &record.Packet{
			SrcMAC: srcText, DstMAC: dstText, EtherType: ethIPv4, TTL: 63, DSCP: 46,
			Flow: flow(1, "10.0.0.1:0", "10.0.0.2:0"), ICMPType: ptr(0), ICMPCode: ptr(0),
		}},
		{"icmp error", macsHex + "0800" + v4(1, "0303 0000 00000000"+v4(17, udpHex)), &record.Packet{
			SrcMAC: srcText, DstMAC: dstText, EtherType: ethIPv4, TTL: 63, DSCP: 46,
			Flow: flow(1, "10.0.0.1:0", "10.0.0.2:0"), ICMPType: ptr(3), ICMPCode: ptr(3),
			Tunnel: "icmp-error", Inner: udp(record.Packet{}),
		}},
		{"vxlan without frame", macsHex + "0800" + v4(17, "8000 12b5 0000 0000 08000000 00000100"), &record.Packet{
			SrcMAC: srcText, DstMAC: dstText, EtherType: ethIPv4, TTL: 63, DSCP: 46,
			Flow: flow(17, "10.0.0.1:32768", "10.0.0.2:4789"), Tunnel: "vxlan",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h packet.Headers
			_ = h.Decode(unhex(c.hex), packet.StartEthernet, 0)
			if d := cmp.Diff(c.want, h.Record(), cmpAddrPort); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestRecordKeepsNothing: what Record returned must not change with the next
// packet.
func TestRecordKeepsNothing(t *testing.T) {
	var h packet.Headers
	_ = h.Decode(unhex(macsHex, "8100 0064 0800", v4(1, "0303 0000 00000000"+v4(17, udpHex))), packet.StartEthernet, 0)
	first := h.Record()
	_ = h.Decode(unhex(macsHex, "8100 0065 0800", v4(1, "0b00 0000 00000000"+v4(6, tcpHex))), packet.StartEthernet, 0)
	if *first.ICMPType != 3 || first.VLANs[0] != 100 || first.Inner.Flow.Proto != 17 {
		t.Errorf("the record became that of the next packet: %+v", first)
	}
}

func TestTunnelNames(t *testing.T) {
	for tunnel, want := range []string{"", "icmp-error", "vxlan", "geneve", "gre", "ipip", "6in4", "4in6", "6in6", ""} {
		if got := packet.Tunnel(tunnel).String(); got != want {
			t.Errorf("tunnel %d: %q, want %q", tunnel, got, want)
		}
	}
}
