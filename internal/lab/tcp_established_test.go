package lab

import (
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// A segment is from the other end of the connection, acknowledges what the host
// has sent, and has the options that it was given.
func TestSegment(t *testing.T) {
	e := &established{flow: flow(protoTCP, synSource, hostNet.Addr())}
	for _, c := range []struct {
		name    string
		options []layers.TCPOption
		kind    layers.TCPOptionKind
		data    []byte
	}{
		{"plain", nil, 0, nil},
		{"timestamp", []layers.TCPOption{timestamp(5)}, layers.TCPOptionKindTimestamps, []byte{0, 0, 0, 5, 0, 0, 0, 0}},
		{"sack", []layers.TCPOption{sack(1, 258)}, layers.TCPOptionKindSACK, []byte{0, 0, 0, 1, 0, 0, 1, 2}},
	} {
		frame, err := e.segment(theirSeq+7, 3, func(tcp *layers.TCP) { tcp.Options = c.options })
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		tcp, _ := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
		ip, _ := p.Layer(layers.LayerTypeIPv4).(*layers.IPv4)
		if tcp == nil || ip == nil {
			t.Fatalf("%s: %v", c.name, p)
		}
		if tcp.Seq != theirSeq+7 || tcp.Ack != ourSeq || !tcp.ACK || tcp.SYN || tcp.RST || int(ip.Length)-ipv4Len-int(tcp.DataOffset)*4 != 3 {
			t.Errorf("%s: %+v", c.name, tcp)
		}
		if !ip.SrcIP.Equal(synSource.AsSlice()) || tcp.SrcPort != srcPort || tcp.DstPort != dstPort {
			t.Errorf("%s: from %s:%d to %s:%d", c.name, ip.SrcIP, tcp.SrcPort, ip.DstIP, tcp.DstPort)
		}
		if c.options != nil && (len(tcp.Options) == 0 || tcp.Options[0].OptionType != c.kind || string(tcp.Options[0].OptionData) != string(c.data)) {
			t.Errorf("%s: options %v", c.name, tcp.Options)
		}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		if err, bad := p.VerifyChecksums(); err != nil || len(bad) != 0 {
			t.Errorf("%s: checksums: %v, %v", c.name, err, bad)
		}
	}
}

// No connection gets the port of another one or one of a service.
func TestPeerPorts(t *testing.T) {
	const first = 1024
	ports, seen := peerPorts(), map[uint16]bool{}
	for range 1<<16 - first {
		p := ports()
		if p < first || seen[p] {
			t.Fatalf("port %d after %d others: below %d, or given before", p, len(seen), first)
		}
		seen[p] = true
	}
}
