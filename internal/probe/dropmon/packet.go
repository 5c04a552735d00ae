package dropmon

import (
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

// symbolRoom is how many bytes of a location's name an alert carries at most:
// the kernel formats it into a buffer of 40 bytes, without saying that it cut
// it (NET_DM_MAX_SYMBOL_LEN, net/core/drop_monitor.c).
const symbolRoom = 39

// Location is where an alert says that the kernel dropped: the address and the
// kernel's text for it (%pS: symbol+0xoffset/0xsize [module], or the address
// where it has no name). Of a text that was cut it keeps what is whole. Where
// the module was cut off, nothing tells that there is one.
func Location(pc uint64, text string) record.Location {
	l := record.Location{Address: record.Address(pc)}
	cut := len(text) >= symbolRoom
	name, rest, found := strings.Cut(text, "+0x")
	switch {
	case name == "" || strings.ContainsAny(name, " /") || strings.HasPrefix(name, "0x"):
		return l
	case !found:
		if cut {
			l.Symbol, l.OffsetCut = cutName(name), true
		}
		return l
	}
	digits, rest, whole := strings.Cut(rest, "/")
	offset, err := strconv.ParseUint(digits, 16, 64)
	if !whole || err != nil {
		if cut {
			l.Symbol, l.OffsetCut = name, true
		}
		return l
	}
	l.Symbol, l.Offset = name, offset
	_, module, _ := strings.Cut(rest, " [")
	if module, ok := strings.CutSuffix(module, "]"); ok {
		// A build id may stand behind the name (CONFIG_STACKTRACE_BUILD_ID).
		l.Module, _, _ = strings.Cut(module, " ")
	}
	return l
}

// cutName is a name that goes on, unless the cut is just behind it.
func cutName(text string) string {
	for _, end := range []string{"+0", "+"} {
		if name, ok := strings.CutSuffix(text, end); ok {
			return name
		}
	}
	return text + "…"
}

// Headers reads the headers of the packet into h and returns how its bytes
// begin; it is false, and h means nothing, where they are no packet. They begin
// where skb->mac_header points, and not every device has an Ethernet header
// there: one is believed where it agrees with the protocol that the kernel had
// noted.
func (p *Packet) Headers(h *packet.Headers) (packet.Start, bool) {
	if h.Decode(p.Payload, packet.StartEthernet, 0) == nil && (p.Protocol == 0 || h.EtherType == p.Protocol || p.firstType() == p.Protocol) {
		return packet.StartEthernet, true
	}
	err := h.Decode(p.Payload, packet.StartNetwork, p.Protocol)
	return packet.StartNetwork, err == nil && (h.HasIP() || h.Has(packet.PartARP))
}

// firstType is the type field of an Ethernet header: that of its outermost VLAN
// tag where it has one.
func (p *Packet) firstType() uint16 {
	if len(p.Payload) < 14 {
		return 0
	}
	return binary.BigEndian.Uint16(p.Payload[12:])
}
