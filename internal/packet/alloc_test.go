package packet_test

import (
	"testing"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

// sinkFlow keeps the compiler from leaving the work out.
var sinkFlow record.Flow

func TestNoAllocations(t *testing.T) {
	for _, c := range decodeCases() {
		b := unhex(c.hex)
		var h packet.Headers
		n := testing.AllocsPerRun(100, func() {
			_ = h.Decode(b, c.start, c.etherType)
			h.AddVLAN(1)
			sinkFlow = h.Flow()
			sinkFlow = h.Inner.Flow()
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", c.name, n)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct{ name, hex string }{
		{"udp4", macsHex + "0800" + v4(17, udpHex)},
		{"tcp4", macsHex + "0800" + v4(6, tcpHex)},
		{"tcp6", macsHex + "86dd" + v6(6, tcpHex)},
		{"tcp6-qinq-hopbyhop", macsHex + "88a8 0005 8100 0006 86dd" + v6(0, "0600 0104 00000000"+tcpHex)},
		{"arp", macsHex + "0806 0001 0800 06 04 0001 02aabbccdd01 0a000001 000000000000 0a000002"},
		{"icmp-error", macsHex + "0800" + v4(1, "0303 0000 00000000"+v4(17, udpHex))},
		{"vxlan-tcp4", macsHex + "0800" + v4(17, "8000 12b5 0000 0000 08000000 00000100"+macsHex+"0800"+v4(6, tcpHex))},
		{"garbage", macsHex + "0800" + macsHex + macsHex},
	} {
		p := unhex(c.hex)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var h packet.Headers
			for b.Loop() {
				_ = h.Decode(p, packet.StartEthernet, 0)
			}
		})
	}
}

func BenchmarkFlow(b *testing.B) {
	var h packet.Headers
	if err := h.Decode(unhex(v6(6, tcpHex)), packet.StartNetwork, ethIPv6); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		sinkFlow = h.Flow()
	}
}

func BenchmarkRecord(b *testing.B) {
	var h packet.Headers
	if err := h.Decode(unhex(macsHex, "0800", v4(6, tcpHex)), packet.StartEthernet, 0); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = h.Record()
	}
}
