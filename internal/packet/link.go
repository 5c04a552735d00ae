package packet

import (
	"fmt"
	"net/netip"
)

// Ethertypes (IANA, "IEEE 802 Numbers"); the two below 0x600 are the kernel's
// own, from include/uapi/linux/if_ether.h.
const (
	etherType8023   = 0x0001
	etherType8022   = 0x0004
	etherTypeIPv4   = 0x0800
	etherTypeARP    = 0x0806
	etherTypeTEB    = 0x6558
	etherType8021Q  = 0x8100
	etherTypeIPv6   = 0x86dd
	etherType8021AD = 0x88a8

	// minEtherType is the lowest ethertype; less is the length of an IEEE
	// 802.3 frame (ETH_P_802_3_MIN).
	minEtherType = 0x0600
)

const (
	ethernetLen = 14
	vlanLen     = 4
	arpFixedLen = 8
)

var errARPProtocol = fmt.Errorf("%w: arp for a protocol other than ipv4", ErrMalformed)

// decodeEthernet decodes an Ethernet II or IEEE 802.3 header.
func (l *Layer) decodeEthernet(b []byte) ([]byte, error) {
	if len(b) < ethernetLen {
		l.Truncated = true
		return nil, nil
	}
	copy(l.DstMAC[:], b[0:6])
	copy(l.SrcMAC[:], b[6:12])
	l.Parts |= PartEthernet
	return l.decodeTyped(b[ethernetLen:], be16(b[12:]))
}

// decodeTyped decodes what follows a type/length field of a frame. Lengths
// become the ethertypes that eth_type_trans gives them (net/ethernet/eth.c,
// 6.18), and vlan_set_encap_proto behind a VLAN tag (include/linux/if_vlan.h):
// Novell's frames have no LLC header and begin with an IPX checksum of 0xffff.
func (l *Layer) decodeTyped(b []byte, typeOrLen uint16) ([]byte, error) {
	switch {
	case typeOrLen >= minEtherType:
		return l.decodeNetwork(b, typeOrLen)
	case len(b) < 2:
		l.Truncated = true
		return nil, nil
	case be16(b) == 0xffff:
		return l.decodeNetwork(b, etherType8023)
	default:
		return l.decodeNetwork(b, etherType8022)
	}
}

// decodeNetwork decodes the header that etherType names, which may be a VLAN
// tag. Ethertypes without a decoder are reported and end the decoding.
func (l *Layer) decodeNetwork(b []byte, etherType uint16) ([]byte, error) {
	if isVLAN(etherType) && l.VLANCount < maxWireVLANs {
		if len(b) < vlanLen {
			l.Truncated = true
			return nil, nil
		}
		l.VLANs[l.VLANCount] = be16(b)
		l.VLANCount++
		return l.decodeTyped(b[vlanLen:], be16(b[2:]))
	}
	l.EtherType = etherType
	l.Parts |= PartEtherType
	switch etherType {
	case etherTypeIPv4:
		return l.decodeIPv4(b)
	case etherTypeIPv6:
		return l.decodeIPv6(b)
	case etherTypeARP:
		return nil, l.decodeARP(b)
	}
	return nil, nil
}

// isVLAN names the tags that the kernel takes for VLAN tags
// (eth_type_vlan, include/linux/if_vlan.h).
func isVLAN(etherType uint16) bool {
	return etherType == etherType8021Q || etherType == etherType8021AD
}

// decodeARP decodes a message about IPv4 addresses (RFC 826). Hardware
// addresses may have any length: on IP over InfiniBand it is 20 (RFC 4391).
func (l *Layer) decodeARP(b []byte) error {
	if len(b) < arpFixedLen {
		l.Truncated = true
		return nil
	}
	if be16(b[2:]) != etherTypeIPv4 || b[5] != 4 {
		return errARPProtocol
	}
	hw := int(b[4])
	if len(b) < arpFixedLen+2*(hw+4) {
		l.Truncated = true
		return nil
	}
	l.ARP.Op = be16(b[6:])
	sender := b[arpFixedLen:]
	target := sender[hw+4:]
	l.ARP.SenderIP = netip.AddrFrom4([4]byte(sender[hw : hw+4]))
	l.ARP.TargetIP = netip.AddrFrom4([4]byte(target[hw : hw+4]))
	l.Parts |= PartARP
	if hw == len(l.ARP.SenderMAC) {
		copy(l.ARP.SenderMAC[:], sender)
		copy(l.ARP.TargetMAC[:], target)
		l.Parts |= PartARPMAC
	}
	return nil
}
