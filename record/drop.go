package record

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Reason is the kernel's own name for why a packet was dropped.
type Reason struct {
	// Name has no SKB_DROP_REASON_ prefix. It is empty on kernels without
	// reasons and where the source does not tell, and the number where the
	// kernel does not give the name. Of a drop by hardware it is the devlink trap.
	Name string `json:"name"`
	// Subsystem is core, openvswitch, mac80211_unusable, qdisc … in lower
	// case; empty on kernels without reasons and where the source does not tell.
	// SubsystemDevlink is a drop by hardware.
	Subsystem string `json:"subsystem"`
	// Value is the kernel's number: it means nothing on another kernel.
	Value uint32 `json:"value"`
	// Group is the devlink trap group of a drop by hardware, where the source
	// tells it.
	Group string `json:"group,omitempty"`
}

// SubsystemDevlink is the subsystem of the reasons of hardware: a network card
// dropped the packet and told the kernel of it by a devlink trap. Such a drop
// has no Location.
const SubsystemDevlink = "devlink"

// Hardware says whether a device dropped the packets, and not the kernel.
func (k Key) Hardware() bool { return k.Reason.Subsystem == SubsystemDevlink }

// Location is a place in the kernel's code.
type Location struct {
	// Symbol is empty where the symbols could not be read or give no answer.
	Symbol string `json:"symbol"`
	// Module is empty for the kernel itself.
	Module string `json:"module,omitempty"`
	// Offset is in bytes from the start of Symbol, and where there is none,
	// from the start of Module.
	Offset  uint64  `json:"offset"`
	Address Address `json:"address"`
	// Beyond says that Address lies behind the end of Symbol, as far as that
	// end is known: the name is a guess.
	Beyond bool `json:"beyond,omitempty"`
	// OffsetCut says that Offset is not known: the name came as text that was
	// cut behind it. Symbol ends in … where it was cut itself.
	OffsetCut bool `json:"offset_cut,omitempty"`
	// File and Line are the place in the source, where debugging information
	// was at hand. File is relative to the kernel's source tree.
	File string `json:"file,omitempty"`
	Line int    `json:"line,omitempty"`
}

// Address is a kernel address. In JSON it is a string such as
// "0xffffffff81000010": as a number it would lose digits in readers that have
// only floating point.
type Address uint64

func (a Address) String() string { return fmt.Sprintf("0x%x", uint64(a)) }

// MarshalText writes what String returns.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Address) UnmarshalText(b []byte) error {
	hex, ok := strings.CutPrefix(string(b), "0x")
	n, err := strconv.ParseUint(hex, 16, 64)
	if !ok || err != nil {
		return fmt.Errorf("kernel address %q: want 0x and hexadecimal digits", b)
	}
	*a = Address(n)
	return nil
}

// String prints symbol+0xoffset [module] (file:line), or [module]+0xoffset, or
// the address when there is neither. An offset that is not known is a question
// mark.
func (l Location) String() string {
	if l.Symbol == "" && l.Module == "" {
		return l.Address.String()
	}
	if l.Symbol == "" {
		return fmt.Sprintf("[%s]+0x%x", l.Module, l.Offset)
	}
	s := fmt.Sprintf("%s+0x%x", l.Symbol, l.Offset)
	if l.OffsetCut {
		s = l.Symbol + "+?"
	}
	if l.Module != "" {
		s += " [" + l.Module + "]"
	}
	if l.Beyond {
		s += " (beyond its end)"
	}
	if l.File != "" {
		s += fmt.Sprintf(" (%s:%d)", l.File, l.Line)
	}
	return s
}

// NetNS is a network namespace.
type NetNS struct {
	// Inode is the number in /proc/PID/ns/net; 0 where the packet had
	// neither a device nor a socket to tell.
	Inode uint32 `json:"inode"`
	// Name is the name under /run/netns, "host" for that of PID 1, "own" where
	// that is not known, that of the container, pod or unit in it, or empty.
	// Only the last has a slash: docker/ID, pod/UID, unit/NAME.
	Name string `json:"name,omitempty"`
}

// Device is a network device. Index is unique only within a NetNS.
type Device struct {
	Index uint32 `json:"index"`
	Name  string `json:"name,omitempty"`
}

// Direction is a hint at which way the packet went.
type Direction string

// The directions.
const (
	DirectionUnknown Direction = "unknown"
	DirectionRX      Direction = "rx"
	DirectionTX      Direction = "tx"
	DirectionForward Direction = "fwd"
)

// Key is what drops are counted by. It is comparable.
type Key struct {
	Reason    Reason    `json:"reason"`
	Location  Location  `json:"location"`
	NetNS     NetNS     `json:"netns"`
	Device    Device    `json:"device"`
	EtherType uint16    `json:"ethertype"`
	IPProto   uint8     `json:"ip_proto"`
	Direction Direction `json:"direction"`
}

// Count is an exact number of drops with the same key.
type Count struct {
	Key
	Drops uint64 `json:"drops"`
	// Bytes is the sum of skb->len.
	Bytes uint64 `json:"bytes"`
}

// Drop is one sampled drop with all the detail that the kernel gave.
type Drop struct {
	// Time is the wall clock, from KernelTime and the clocks' offset at start.
	Time time.Time `json:"time"`
	// KernelTime is CLOCK_MONOTONIC in nanoseconds, read in the kernel.
	KernelTime uint64 `json:"kernel_time_ns"`
	Key
	CPU uint32 `json:"cpu"`
	// Queue is skb->queue_mapping: the receive queue plus one while received,
	// the transmit queue while sent.
	Queue uint16 `json:"queue"`
	// Length is skb->len, DataLength its part in fragments, TrueSize what is
	// charged to a socket; all in bytes.
	Length      uint32 `json:"length"`
	DataLength  uint32 `json:"data_length"`
	TrueSize    uint32 `json:"truesize"`
	GSOSegments uint16 `json:"gso_segments"`
	GSOSize     uint16 `json:"gso_size"`
	Mark        uint32 `json:"mark"`
	// Packet is nil where the headers could not be decoded.
	Packet *Packet `json:"packet,omitempty"`
	// Headers are the first bytes of the packet, from its link or network
	// header on.
	Headers []byte  `json:"headers,omitempty"`
	Socket  *Socket `json:"socket,omitempty"`
	// CurrentTask ran on the CPU at that moment. It is NOT the owner of the
	// packet: in softirq it is whoever was interrupted.
	CurrentTask Task       `json:"current_task"`
	Stack       []Location `json:"stack,omitempty"`
	// OfProcess, in a record, says that it was of the process that Header.Asked
	// names, as far as that one's sockets were seen.
	OfProcess bool `json:"of_process,omitempty"`
}

// Socket is the socket that a dropped packet belonged to.
type Socket struct {
	// Inode is the number in /proc/PID/fd (socket:[N]); 0 for a socket
	// without a file, such as a request or time-wait socket.
	Inode uint64 `json:"inode"`
	// Cookie is the one of sock_diag; 0 if nothing has asked for it yet.
	Cookie uint64 `json:"cookie,omitempty"`
	// From is rx_sk (the tracepoint's argument) or skb (skb->sk).
	From     string `json:"from"`
	Family   uint16 `json:"family"`
	Protocol uint16 `json:"protocol"`
	// State is the TCP state by name; empty for other protocols.
	State string `json:"state,omitempty"`
}

// Task is a thread.
type Task struct {
	PID  uint32 `json:"pid"`
	TID  uint32 `json:"tid"`
	Comm string `json:"comm"`
}

// Packet is what the headers of a dropped packet said.
type Packet struct {
	SrcMAC    string   `json:"src_mac,omitempty"`
	DstMAC    string   `json:"dst_mac,omitempty"`
	VLANs     []uint16 `json:"vlans,omitempty"`
	EtherType uint16   `json:"ethertype"`
	// Flow is the zero value where there is no IP header.
	Flow Flow `json:"flow"`
	// TTL is the IPv6 hop limit too.
	TTL      uint8 `json:"ttl,omitempty"`
	DSCP     uint8 `json:"dscp,omitempty"`
	Fragment bool  `json:"fragment,omitempty"`
	// SourceRoute says that the IPv4 header names routers to pass, in an option.
	SourceRoute bool `json:"source_route,omitempty"`
	// TCP fields; Flags is as in the header (FIN is 1).
	TCPFlags uint16 `json:"tcp_flags,omitempty"`
	TCPSeq   uint32 `json:"tcp_seq,omitempty"`
	TCPAck   uint32 `json:"tcp_ack,omitempty"`
	// ICMPType and ICMPCode are set for ICMP and ICMPv6 only.
	ICMPType *uint8 `json:"icmp_type,omitempty"`
	ICMPCode *uint8 `json:"icmp_code,omitempty"`
	// ARP is the text of an ARP message: "who-has 10.0.0.2 tell 10.0.0.1".
	ARP string `json:"arp,omitempty"`
	// Tunnel is vxlan, geneve, gre, ipip …, with the packet inside in Inner;
	// or icmp-error, with the packet that the error is about in Inner.
	Tunnel string  `json:"tunnel,omitempty"`
	Inner  *Packet `json:"inner,omitempty"`
}

// Flow is a 5-tuple. It is comparable. Ports are 0 where the protocol has
// none or a later fragment does not carry them.
type Flow struct {
	Proto uint8          `json:"proto"`
	Src   netip.AddrPort `json:"src"`
	Dst   netip.AddrPort `json:"dst"`
}

// IsValid says whether f names two addresses.
func (f Flow) IsValid() bool { return f.Src.IsValid() && f.Dst.IsValid() }

type flowJSON struct {
	Proto   string `json:"proto"`
	Src     string `json:"src"`
	SrcPort uint16 `json:"src_port"`
	Dst     string `json:"dst"`
	DstPort uint16 `json:"dst_port"`
}

// MarshalJSON writes addresses and ports as fields of their own, and null for
// a flow that is not valid.
func (f Flow) MarshalJSON() ([]byte, error) {
	if !f.IsValid() {
		return []byte("null"), nil
	}
	return json.Marshal(flowJSON{
		Proto: ProtoName(f.Proto),
		Src:   f.Src.Addr().String(), SrcPort: f.Src.Port(),
		Dst: f.Dst.Addr().String(), DstPort: f.Dst.Port(),
	})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *Flow) UnmarshalJSON(b []byte) error {
	*f = Flow{}
	if string(b) == "null" {
		return nil
	}
	var j flowJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	src, err := netip.ParseAddr(j.Src)
	if err != nil {
		return fmt.Errorf("flow source: %w", err)
	}
	dst, err := netip.ParseAddr(j.Dst)
	if err != nil {
		return fmt.Errorf("flow destination: %w", err)
	}
	proto, err := parseProto(j.Proto)
	if err != nil {
		return err
	}
	*f = Flow{
		Proto: proto,
		Src:   netip.AddrPortFrom(src, j.SrcPort),
		Dst:   netip.AddrPortFrom(dst, j.DstPort),
	}
	return nil
}

// protoNames are IANA's names of the protocols that a reader expects to see
// by name. These numbers are part of the wire format, not of a kernel.
var protoNames = map[uint8]string{
	1: "icmp", 2: "igmp", 4: "ipip", 6: "tcp", 17: "udp", 33: "dccp",
	41: "ipv6", 47: "gre", 50: "esp", 51: "ah", 58: "icmpv6", 89: "ospf",
	103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite",
}

// ProtoName names an IP protocol, or prints its number as proto-N.
func ProtoName(p uint8) string {
	if s, ok := protoNames[p]; ok {
		return s
	}
	return fmt.Sprintf("proto-%d", p)
}

func parseProto(s string) (uint8, error) {
	for n, name := range protoNames {
		if name == s {
			return n, nil
		}
	}
	var n uint8
	if _, err := fmt.Sscanf(s, "proto-%d", &n); err != nil {
		return 0, fmt.Errorf("ip protocol %q: %w", s, err)
	}
	return n, nil
}
