package lab

import (
	"fmt"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// Lengths of headers in bytes.
const (
	etherLen = 14
	ipv4Len  = 20
	udpLen   = 8
)

// packet is an IPv4 packet in a frame from the peer to the host. A scenario
// may change it before it takes its bytes.
type packet struct {
	eth layers.Ethernet
	ip  layers.IPv4
	// transport is the header behind that of IP: UDP, a TCP SYN, an ICMP echo
	// request, or nil for any other protocol.
	transport gopacket.SerializableLayer
	payload   []byte
}

func newPacket(f record.Flow) *packet {
	p := &packet{
		eth: etherHeader(layers.EthernetTypeIPv4),
		ip: layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocol(f.Proto),
			SrcIP: f.Src.Addr().AsSlice(), DstIP: f.Dst.Addr().AsSlice(),
		},
		payload: make([]byte, payload),
	}
	switch f.Proto {
	case protoUDP:
		p.transport = &layers.UDP{SrcPort: layers.UDPPort(f.Src.Port()), DstPort: layers.UDPPort(f.Dst.Port())}
	case protoTCP:
		p.transport = &layers.TCP{
			SrcPort: layers.TCPPort(f.Src.Port()), DstPort: layers.TCPPort(f.Dst.Port()),
			Seq: 1, SYN: true, Window: 1 << 15,
		}
		p.payload = nil
	case protoICMP:
		p.transport = &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 1, Seq: 1}
	}
	return p
}

// checksummed is a header whose checksum covers addresses of the one before.
type checksummed interface {
	SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
}

// etherHeader is that of a frame from the peer to the host.
func etherHeader(t layers.EthernetType) layers.Ethernet {
	return layers.Ethernet{
		SrcMAC: netlab.MAC(peerNet.Addr()), DstMAC: netlab.MAC(hostNet.Addr()), EthernetType: t,
	}
}

// bytes is the frame, with lengths and checksums that are right.
func (p *packet) bytes() ([]byte, error) {
	all := []gopacket.SerializableLayer{&p.eth, &p.ip}
	if c, ok := p.transport.(checksummed); ok {
		if err := c.SetNetworkLayerForChecksum(&p.ip); err != nil {
			return nil, fmt.Errorf("make frame: %w", err)
		}
	}
	if p.transport != nil {
		all = append(all, p.transport)
	}
	return serialize(append(all, gopacket.Payload(p.payload))...)
}

// serialize makes a frame of layers, with lengths and checksums that are right.
// One that begins with Ethernet is padded to 60 bytes, as a device would do.
func serialize(all ...gopacket.SerializableLayer) ([]byte, error) {
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...)
	if err != nil {
		return nil, fmt.Errorf("make frame: %w", err)
	}
	return buf.Bytes(), nil
}

// sendPacket makes the peer send that packet as it is.
func (r *rig) sendPacket(t *topology, p *packet) error {
	frame, err := p.bytes()
	if err != nil {
		return err
	}
	return r.sendFrame(t, frame)
}
