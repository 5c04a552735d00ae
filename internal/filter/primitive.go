package filter

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// side says which end of a packet is meant.
type side int

const (
	sideAny side = iota // either end
	sideSrc
	sideDst
	sideBoth // both ends
)

// of says whether is holds for the ends that are meant.
func (s side) of(src, dst bool) bool {
	switch s {
	case sideSrc:
		return src
	case sideDst:
		return dst
	case sideBoth:
		return src && dst
	}
	return src || dst
}

// The EtherTypes that a filter can ask for by name (IEEE 802).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// protocol is a condition on the protocol of a packet; the zero value is none.
type protocol struct {
	// ether is an EtherType, ip a protocol of IPv4 and IPv6.
	ether uint16
	ip    uint8
	hasIP bool
}

// holds looks at a layer with an IP header or an EtherType.
func (c protocol) holds(p *record.Packet) bool {
	if c.ether != 0 && etherType(p) != c.ether {
		return false
	}
	return !c.hasIP || p.Flow.IsValid() && p.Flow.Proto == c.ip
}

// etherType is that of a layer; one inside a tunnel may have no link header.
func etherType(p *record.Packet) uint16 {
	switch {
	case p.ARP != "":
		return etherARP
	case !p.Flow.IsValid():
		return p.EtherType
	case p.Flow.Src.Addr().Unmap().Is4():
		return etherIPv4
	}
	return etherIPv6
}

// layer says whether is holds for a packet or one inside of it.
func layer(d *record.Drop, is func(*record.Packet) bool) bool {
	for p := d.Packet; p != nil; p = p.Inner {
		if is(p) {
			return true
		}
	}
	return false
}

// ofProtocol is a protocol alone: "tcp", "ip proto 47".
type ofProtocol struct{ protocol }

func (n ofProtocol) match(d *record.Drop) bool {
	if d.Packet == nil { // not decoded: what the count's key tells
		return (n.ether == 0 || n.ether == d.EtherType) && (!n.hasIP || n.ip == d.IPProto)
	}
	return layer(d, n.holds)
}

// ofNet is an address or a prefix: "src host 10.0.0.1".
type ofNet struct {
	protocol
	side side
	net  netip.Prefix
}

func (n ofNet) match(d *record.Drop) bool {
	return layer(d, func(p *record.Packet) bool {
		if !n.holds(p) {
			return false
		}
		src, dst := ends(p)
		return n.side.of(n.net.Contains(src), n.net.Contains(dst))
	})
}

// ends are the addresses of a layer; of ARP those of its sender and its target.
func ends(p *record.Packet) (src, dst netip.Addr) {
	if p.ARP != "" {
		return arpEnds(p.ARP)
	}
	return p.Flow.Src.Addr().Unmap(), p.Flow.Dst.Addr().Unmap()
}

// arpEnds reads what record.Packet.ARP says: "who-has T tell S", "S is-at MAC",
// "op N from S for T".
func arpEnds(text string) (src, dst netip.Addr) {
	w := strings.Fields(text)
	addr := func(i int) netip.Addr {
		if i >= len(w) {
			return netip.Addr{}
		}
		a, _ := netip.ParseAddr(w[i]) // the zero value is in no prefix
		return a
	}
	switch {
	case len(w) == 0:
		return src, dst
	case w[0] == "who-has":
		return addr(3), addr(1)
	case w[0] == "op":
		return addr(3), addr(5)
	}
	return addr(0), dst
}

// ofPorts are ports: "udp dst port 53", "portrange 8000-8010".
type ofPorts struct {
	protocol
	side   side
	lo, hi uint16
}

func (n ofPorts) match(d *record.Drop) bool {
	return layer(d, func(p *record.Packet) bool {
		if !n.holds(p) || !p.Flow.IsValid() || p.ICMPType != nil {
			return false
		}
		src, dst := p.Flow.Src.Port(), p.Flow.Dst.Port()
		if src == 0 && dst == 0 { // a protocol without ports, or a later fragment
			return false
		}
		in := func(port uint16) bool { return n.lo <= port && port <= n.hi }
		return n.side.of(in(src), in(dst))
	})
}

// ofVLAN is a tag, or any one.
type ofVLAN struct {
	id  uint16
	any bool
}

func (n ofVLAN) match(d *record.Drop) bool {
	return layer(d, func(p *record.Packet) bool {
		if n.any {
			return len(p.VLANs) > 0
		}
		return slices.Contains(p.VLANs, n.id)
	})
}
