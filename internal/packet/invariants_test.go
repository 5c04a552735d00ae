package packet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

// only returns l with the fields of parts and the first vlans tags, all others
// zero.
func only(l packet.Layer, parts packet.Part, vlans uint8) packet.Layer {
	o := packet.Layer{Parts: l.Parts & parts, VLANCount: min(l.VLANCount, vlans)}
	copy(o.VLANs[:o.VLANCount], l.VLANs[:])
	if o.Has(packet.PartEthernet) {
		o.SrcMAC, o.DstMAC = l.SrcMAC, l.DstMAC
	}
	if o.Has(packet.PartEtherType) {
		o.EtherType = l.EtherType
	}
	if o.Has(packet.PartARP) {
		o.ARP.Op, o.ARP.SenderIP, o.ARP.TargetIP = l.ARP.Op, l.ARP.SenderIP, l.ARP.TargetIP
	}
	if o.Has(packet.PartARPMAC) {
		o.ARP.SenderMAC, o.ARP.TargetMAC = l.ARP.SenderMAC, l.ARP.TargetMAC
	}
	if o.HasIP() {
		o.Src, o.Dst, o.TTL, o.TOS, o.TotalLen = l.Src, l.Dst, l.TTL, l.TOS, l.TotalLen
	}
	if o.Has(packet.PartIPv4) {
		o.DontFragment = l.DontFragment
	}
	if o.Has(packet.PartProto) {
		o.Proto = l.Proto
	}
	if o.Has(packet.PartIPID) {
		o.IPID = l.IPID
	}
	if o.Has(packet.PartFragment) {
		o.FragOffset, o.MoreFragments = l.FragOffset, l.MoreFragments
	}
	if o.Has(packet.PartPorts) {
		o.SrcPort, o.DstPort = l.SrcPort, l.DstPort
	}
	if o.Has(packet.PartTCP) {
		o.TCPSeq, o.TCPAck, o.TCPFlags, o.TCPWindow = l.TCPSeq, l.TCPAck, l.TCPFlags, l.TCPWindow
	}
	if o.Has(packet.PartICMP) {
		o.ICMPType, o.ICMPCode = l.ICMPType, l.ICMPCode
	}
	if o.Has(packet.PartEcho) {
		o.EchoID, o.EchoSeq = l.EchoID, l.EchoSeq
	}
	return o
}

// wireBytes lists, in the order of the packet, bytes that must be in it for l
// to report what it reports. Fields beside each other are one entry.
func wireBytes(l *packet.Layer) [][]byte {
	var all [][]byte
	be := binary.BigEndian
	if l.Has(packet.PartEthernet) {
		all = append(all, slices.Concat(l.DstMAC[:], l.SrcMAC[:], []byte{0, 0})[:12])
	}
	for _, tci := range l.VLANs[:l.VLANCount] {
		all = append(all, be.AppendUint16(nil, tci))
	}
	switch {
	case l.Has(packet.PartARPMAC):
		sender, target := l.ARP.SenderIP.As4(), l.ARP.TargetIP.As4()
		all = append(all, slices.Concat(be.AppendUint16(nil, l.ARP.Op), l.ARP.SenderMAC[:], sender[:], l.ARP.TargetMAC[:], target[:]))
	case l.Has(packet.PartARP):
		sender, target := l.ARP.SenderIP.As4(), l.ARP.TargetIP.As4()
		all = append(all, be.AppendUint16(nil, l.ARP.Op), sender[:], target[:])
	}
	switch {
	case l.Has(packet.PartIPv4):
		all = append(all, []byte{l.TOS}, be.AppendUint16(nil, uint16(l.TotalLen)), be.AppendUint16(nil, uint16(l.IPID)),
			[]byte{l.TTL, l.Proto}, append(l.Src.AsSlice(), l.Dst.AsSlice()...))
	case l.Has(packet.PartIPv6):
		all = append(all, append(append([]byte{l.TTL}, l.Src.AsSlice()...), l.Dst.AsSlice()...))
		if l.Has(packet.PartIPID) {
			all = append(all, be.AppendUint32(nil, l.IPID))
		}
	}
	return append(all, transportBytes(l)...)
}

func transportBytes(l *packet.Layer) [][]byte {
	be := binary.BigEndian
	ports := be.AppendUint16(be.AppendUint16(nil, l.SrcPort), l.DstPort)
	switch {
	case l.Has(packet.PartTCP):
		return [][]byte{be.AppendUint32(be.AppendUint32(ports, l.TCPSeq), l.TCPAck), be.AppendUint16(nil, l.TCPWindow)}
	case l.Has(packet.PartPorts):
		return [][]byte{ports}
	case l.Has(packet.PartEcho):
		return [][]byte{{l.ICMPType, l.ICMPCode}, be.AppendUint16(be.AppendUint16(nil, l.EchoID), l.EchoSeq)}
	case l.Has(packet.PartICMP):
		return [][]byte{{l.ICMPType, l.ICMPCode}}
	}
	return nil
}

// checkWithin finds the reported fields in b, one behind the other.
func checkWithin(t *testing.T, h *packet.Headers, b []byte) {
	t.Helper()
	rest := b
	for _, field := range append(wireBytes(&h.Layer), wireBytes(&h.Inner)...) {
		i := bytes.Index(rest, field)
		if i < 0 {
			t.Fatalf("field %x is reported but not in %x, packet %x\n%+v", field, rest, b, *h)
		}
		rest = rest[i+len(field):]
	}
}

// checkHeaders checks what must hold of any result of Decode.
func checkHeaders(t *testing.T, h *packet.Headers, err error, b []byte) {
	t.Helper()
	for _, l := range []packet.Layer{h.Layer, h.Inner} {
		want := only(l, l.Parts, l.VLANCount)
		want.Truncated = l.Truncated
		if l != want {
			t.Fatalf("a field of an absent part is set: %+v, packet %x", l, b)
		}
		if l.Has(packet.PartIPv4 | packet.PartIPv6) {
			t.Fatalf("both IPv4 and IPv6: %+v, packet %x", l, b)
		}
		if flow := l.Flow(); flow.IsValid() != l.HasIP() || !l.HasIP() && flow != (record.Flow{}) {
			t.Fatalf("flow %+v of %+v", flow, l)
		}
	}
	checkWithin(t, h, b)
	if h.Tunnel == packet.TunnelNone && (h.Inner != packet.Layer{} || h.HasTunnelID) || !h.HasTunnelID && h.TunnelID != 0 {
		t.Fatalf("an inner packet or id without a tunnel: %+v, packet %x", *h, b)
	}
	switch {
	case errors.Is(err, packet.ErrTruncated):
		if !h.Truncated || h.Parts&^packet.PartEtherType != 0 {
			t.Fatalf("%v, but decoded %+v, packet %x", err, *h, b)
		}
	case errors.Is(err, packet.ErrMalformed):
		if h.HasIP() || h.Has(packet.PartARP) {
			t.Fatalf("%v, but decoded %+v, packet %x", err, *h, b)
		}
	case err != nil:
		t.Fatalf("error of no class: %v", err)
	case h.Parts == 0 && h.VLANCount == 0:
		t.Fatalf("no error and nothing decoded, packet %x", b)
	}
	if (h.Record() == nil) != (h.Parts == 0 && h.VLANCount == 0) {
		t.Fatalf("record %+v of %+v", h.Record(), *h)
	}
}

// checkPrefix decodes the first n bytes of s. full is the whole packet.
func checkPrefix(t *testing.T, s sample, n int, full *packet.Headers, fullErr error) {
	t.Helper()
	b := slices.Clip(slices.Clone(s.b[:n])) // reading further would panic
	var h packet.Headers
	err := h.Decode(b, s.start, s.etherType)
	checkHeaders(t, &h, err, b)
	if errors.Is(err, packet.ErrMalformed) && !errors.Is(fullErr, packet.ErrMalformed) {
		t.Fatalf("%d bytes: %v, but the packet %x: %v", n, err, s.b, fullErr)
	}
	visible := packet.Headers{
		Layer: only(full.Layer, h.Parts, h.VLANCount), Tunnel: h.Tunnel, TunnelID: h.TunnelID, HasTunnelID: h.HasTunnelID,
		Inner: only(full.Inner, h.Inner.Parts, h.Inner.VLANCount),
	}
	if h.Tunnel != packet.TunnelNone {
		visible.Tunnel, visible.TunnelID, visible.HasTunnelID = full.Tunnel, full.TunnelID, full.HasTunnelID
	}
	if err == nil && !h.Truncated && !h.Inner.Truncated {
		visible = *full // nothing is said to be missing
	}
	visible.Truncated, visible.Inner.Truncated = h.Truncated, h.Inner.Truncated
	if h != visible {
		t.Fatalf("%d bytes of %x\n-whole +prefix:\n%s", n, s.b, cmp.Diff(visible, h, cmpAddr))
	}
}
