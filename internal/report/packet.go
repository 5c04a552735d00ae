package report

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// flowText prints a 5-tuple: udp 10.0.0.1:4242 > 10.0.0.2:53. Protocols
// without ports have addresses alone.
func flowText(f record.Flow) string {
	src, dst := f.Src.String(), f.Dst.String()
	if f.Src.Port() == 0 && f.Dst.Port() == 0 {
		src, dst = f.Src.Addr().String(), f.Dst.Addr().String()
	}
	return Clean(fmt.Sprintf("%s %s > %s", record.ProtoName(f.Proto), src, dst))
}

// packetText says in a few words what a packet was; it is empty for nil.
func packetText(p *record.Packet) string {
	switch {
	case p == nil:
		return ""
	case p.ARP != "":
		return "arp " + Clean(p.ARP)
	case !p.Flow.IsValid():
		return strings.TrimSpace(etherTypeText(p.EtherType) + macText(p))
	}
	s := flowText(p.Flow)
	if p.ICMPType != nil {
		s += fmt.Sprintf(" type %d", *p.ICMPType)
		if p.ICMPCode != nil {
			s += fmt.Sprintf(" code %d", *p.ICMPCode)
		}
	}
	if p.TCPFlags != 0 {
		s += " [" + tcpFlags(p.TCPFlags) + "]"
	}
	if p.Fragment {
		s += " fragment"
	}
	if p.Inner != nil {
		s += fmt.Sprintf(" (%s: %s)", Clean(p.Tunnel), packetText(p.Inner))
	}
	return s
}

func macText(p *record.Packet) string {
	if p.SrcMAC == "" && p.DstMAC == "" {
		return ""
	}
	return " " + Clean(p.SrcMAC) + " > " + Clean(p.DstMAC)
}

// tcpFlags prints flags as tcpdump does. Bit n of the field is flag n.
func tcpFlags(flags uint16) string {
	const letters = "FSRP.UEW"
	var b strings.Builder
	for i, c := range letters {
		if flags&(1<<i) != 0 {
			b.WriteRune(c)
		}
	}
	return b.String()
}

// etherTypes names those of IEEE 802's numbers that a reader knows by name.
var etherTypes = map[uint16]string{
	0x0800: "ipv4", 0x0806: "arp", 0x86dd: "ipv6", 0x8100: "vlan",
	0x88cc: "lldp", 0x8809: "slow-protocols", 0x888e: "eapol",
}

// etherTypeText names an EtherType; it is empty for 0, which local sockets
// have.
func etherTypeText(t uint16) string {
	if t == 0 {
		return ""
	}
	if s, ok := etherTypes[t]; ok {
		return s
	}
	return fmt.Sprintf("ethertype 0x%04x", t)
}

// keyText says what a count's packets were, as far as its key tells.
func keyText(k record.Key) string {
	s := etherTypeText(k.EtherType)
	if k.IPProto != 0 {
		s = strings.TrimSpace(s + " " + record.ProtoName(k.IPProto))
	}
	return s
}

// reasonText is the reason's name, or says that the kernel gives none.
func reasonText(r record.Reason) string {
	if r.Name == "" {
		return "no-reason"
	}
	if r.Group != "" {
		return Clean(r.Name) + " (" + Clean(r.Group) + ")"
	}
	return Clean(r.Name)
}

// deviceText names a device, or its index, or "-".
func deviceText(d record.Device) string {
	switch {
	case d.Name != "":
		return Clean(d.Name)
	case d.Index != 0:
		return fmt.Sprintf("#%d", d.Index)
	}
	return "-"
}

// netnsText names a namespace as /proc/PID/ns/net does where it has no name.
func netnsText(n record.NetNS) string {
	switch {
	case n.Name != "":
		return Clean(n.Name)
	case n.Inode != 0:
		return fmt.Sprintf("net:[%d]", n.Inode)
	}
	return "-"
}
