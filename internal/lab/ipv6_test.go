package lab

import (
	"errors"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

func TestParseTable6(t *testing.T) {
	const text = "Ip6InReceives                   \t12\nIp6InDiscards                   \t34\nIp6Odd x\nIp6Three 1 2\n"
	if v, err := parseTable6(text, "Ip6InDiscards"); v != 34 || err != nil {
		t.Errorf("Ip6InDiscards is %d, %v", v, err)
	}
	for _, name := range []string{"Ip6InDiscard", "Ip6Three", ""} {
		if v, err := parseTable6(text, name); !errors.Is(err, errNoCounter) {
			t.Errorf("%q is %d, %v", name, v, err)
		}
	}
	if v, err := parseTable6(text, "Ip6Odd"); err == nil || errors.Is(err, errNoCounter) {
		t.Errorf("a value that is no number is %d, %v", v, err)
	}
}

// A packet with an extension header reads back as it was meant.
func TestPacket6(t *testing.T) {
	p := newPacket6(flow(protoUDP, peerNet6.Addr(), hostNet6.Addr()))
	p.extend(layers.IPProtocolIPv6HopByHop, [6]byte{0x7e, 4, 1, 2, 3, 4})
	for range 2 { // taking the bytes leaves the packet as it was
		frame, err := p.bytes()
		if err != nil {
			t.Fatal(err)
		}
		got := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{})
		ip, _ := got.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
		hop, _ := got.Layer(layers.LayerTypeIPv6HopByHop).(*layers.IPv6HopByHop)
		udp, _ := got.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if ip == nil || hop == nil || udp == nil || got.ErrorLayer() != nil {
			t.Fatalf("%v", got)
		}
		if ip.NextHeader != layers.IPProtocolIPv6HopByHop || int(ip.Length) != len(frame)-etherLen-ipv6Len {
			t.Errorf("next header %v, length %d of %d bytes", ip.NextHeader, ip.Length, len(frame))
		}
		if len(hop.Options) != 1 || hop.Options[0].OptionType != 0x7e || hop.NextHeader != layers.IPProtocolUDP {
			t.Errorf("%+v", hop)
		}
		if udp.DstPort != dstPort || len(udp.Payload) != payload {
			t.Errorf("%+v", udp)
		}
	}
}
