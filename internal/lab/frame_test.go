package lab

import (
	"bytes"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// A frame holds the flow that it was made of, goes to the host's address, and
// is right in itself: a receiver would take it.
func TestPacket(t *testing.T) {
	for _, c := range []struct {
		name      string
		proto     uint8
		transport gopacket.LayerType
		length    int // of the IP packet
	}{
		{"udp", protoUDP, layers.LayerTypeUDP, ipv4Len + udpLen + payload},
		{"tcp", protoTCP, layers.LayerTypeTCP, ipv4Len + 20},
		{"icmp", protoICMP, layers.LayerTypeICMPv4, ipv4Len + 8 + payload},
		{"other", 253, gopacket.LayerTypeDecodeFailure, ipv4Len + payload},
	} {
		f := flow(c.proto, peerNet.Addr(), hostNet.Addr())
		frame, err := newPacket(f).bytes()
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		eth, _ := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
		ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if eth == nil || ip == nil || p.Layer(c.transport) == nil {
			t.Fatalf("%s: %v", c.name, p)
		}
		if !bytes.Equal(eth.DstMAC, netlab.MAC(hostNet.Addr())) || !bytes.Equal(eth.SrcMAC, netlab.MAC(peerNet.Addr())) {
			t.Errorf("%s: from %s to %s", c.name, eth.SrcMAC, eth.DstMAC)
		}
		if !ip.SrcIP.Equal(f.Src.Addr().AsSlice()) || !ip.DstIP.Equal(f.Dst.Addr().AsSlice()) || uint8(ip.Protocol) != c.proto {
			t.Errorf("%s: %s to %s, protocol %d", c.name, ip.SrcIP, ip.DstIP, ip.Protocol)
		}
		if int(ip.Length) != c.length || len(frame) != max(60, etherLen+c.length) {
			t.Errorf("%s: length %d of a frame of %d bytes, want %d", c.name, ip.Length, len(frame), c.length)
		}
		if f.Src.Port() != 0 {
			ports := p.TransportLayer().TransportFlow()
			if ports.String() != "40000->7777" {
				t.Errorf("%s: ports %s", c.name, ports)
			}
		}
		if l, ok := p.Layer(c.transport).(checksummed); ok {
			if err := l.SetNetworkLayerForChecksum(ip); err != nil {
				t.Fatal(err)
			}
		}
		if err, bad := p.VerifyChecksums(); err != nil || len(bad) != 0 {
			t.Errorf("%s: checksums: %v, %v", c.name, err, bad)
		}
	}
}

// What a layer of gopacket refuses is an error and no frame.
func TestPacketErrors(t *testing.T) {
	p := newPacket(flow(protoUDP, peerNet.Addr(), hostNet.Addr()))
	p.ip.SrcIP = nil
	if frame, err := p.bytes(); err == nil {
		t.Errorf("a packet without source gave %x", frame)
	}
}
