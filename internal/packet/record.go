package packet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/whydrop/whydrop/record"
)

// Flow returns the 5-tuple, the zero value where there is no IP header. Proto
// is 0 where an IPv6 extension header is cut, ports where PartPorts is absent.
// It does not allocate.
func (l *Layer) Flow() record.Flow {
	if !l.HasIP() {
		return record.Flow{}
	}
	return record.Flow{
		Proto: l.Proto,
		Src:   netip.AddrPortFrom(l.Src, l.SrcPort),
		Dst:   netip.AddrPortFrom(l.Dst, l.DstPort),
	}
}

// Record converts h to its public form, nil where nothing was decoded. Unlike
// Decode and Flow it allocates.
func (h *Headers) Record() *record.Packet {
	p := h.record()
	if p != nil {
		p.Tunnel = h.Tunnel.String()
		p.Inner = h.Inner.record()
	}
	return p
}

func (l *Layer) record() *record.Packet {
	if l.Parts == 0 && l.VLANCount == 0 {
		return nil
	}
	p := &record.Packet{
		EtherType: l.EtherType,
		Flow:      l.Flow(),
		TTL:       l.TTL,
		DSCP:      l.DSCP(),
		Fragment:  l.Has(PartFragment),
		TCPFlags:  l.TCPFlags,
		TCPSeq:    l.TCPSeq,
		TCPAck:    l.TCPAck,
	}
	p.SourceRoute = l.Has(PartSourceRoute)
	if l.Has(PartEthernet) {
		p.SrcMAC = macString(l.SrcMAC)
		p.DstMAC = macString(l.DstMAC)
	}
	for _, tci := range l.VLANs[:l.VLANCount] {
		p.VLANs = append(p.VLANs, tci&0x0fff)
	}
	if l.Has(PartICMP) {
		icmpType, icmpCode := l.ICMPType, l.ICMPCode
		p.ICMPType, p.ICMPCode = &icmpType, &icmpCode
	}
	if l.Has(PartARP) {
		p.ARP = l.arpText()
	}
	return p
}

// arpText words an ARP message as tcpdump does.
func (l *Layer) arpText() string {
	a := &l.ARP
	switch a.Op {
	case 1:
		return fmt.Sprintf("who-has %s tell %s", a.TargetIP, a.SenderIP)
	case 2:
		if !l.Has(PartARPMAC) {
			return fmt.Sprintf("%s is-at unknown", a.SenderIP)
		}
		return fmt.Sprintf("%s is-at %s", a.SenderIP, macString(a.SenderMAC))
	}
	return fmt.Sprintf("op %d from %s for %s", a.Op, a.SenderIP, a.TargetIP)
}

func macString(mac [6]byte) string { return net.HardwareAddr(mac[:]).String() }
