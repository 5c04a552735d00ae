package observe

import (
	"net"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/skbdrop"
	"github.com/whydrop/whydrop/record"
)

// reasonNames and symbolNames are what a resolver needs of internal/kernel.
type reasonNames interface {
	Lookup(value uint32) record.Reason
}

type symbolNames interface {
	Resolve(addr uint64) record.Location
}

// trapNames is what it needs of the probe.
type trapNames interface {
	Trap(skbdrop.Key) (skbdrop.Trap, error)
}

// resolver turns the probe's numbers into the names of this kernel and host.
// A name is looked up once for each key, not for each drop.
type resolver struct {
	reasons reasonNames
	symbols symbolNames // nil where they cannot be read
	traps   trapNames   // nil where hardware tells no drops
	netns   *netns.Names
	// offset is CLOCK_REALTIME minus CLOCK_MONOTONIC.
	offset  time.Duration
	devices map[deviceKey]string
	keys    map[skbdrop.Key]record.Key
	headers packet.Headers
}

type deviceKey struct{ netns, index uint32 }

// maxCached bounds the caches: a host where devices come and go all day.
const maxCached = 1 << 16

func newResolver(r reasonNames, s symbolNames, n *netns.Names, offset time.Duration) *resolver {
	return &resolver{
		reasons: r, symbols: s, netns: n, offset: offset,
		devices: map[deviceKey]string{},
		keys:    map[skbdrop.Key]record.Key{},
	}
}

// learn takes the name of a device from a sample, which carries it.
func (r *resolver) learn(s *skbdrop.Sample) {
	k := deviceKey{s.NetNS, s.Ifindex}
	name := s.Device()
	if name == "" || k.netns == 0 || r.devices[k] == name {
		return
	}
	if len(r.devices) >= maxCached {
		clear(r.devices)
	}
	r.devices[k] = name
	// Keys resolved before without the name, or with an old one.
	for raw := range r.keys {
		if (deviceKey{raw.NetNS, raw.Ifindex}) == k {
			delete(r.keys, raw)
		}
	}
}

// refresh forgets what may have changed since it was looked up.
func (r *resolver) refresh() {
	if r.netns.Refresh() {
		clear(r.keys)
	}
}

func (r *resolver) key(k skbdrop.Key) record.Key {
	if v, ok := r.keys[k]; ok {
		return v
	}
	v := record.Key{
		NetNS:     record.NetNS{Inode: k.NetNS, Name: r.netns.Name(k.NetNS)},
		Device:    record.Device{Index: k.Ifindex, Name: r.device(k)},
		EtherType: k.EtherType,
		IPProto:   k.IPProto,
		Direction: direction(k.Direction),
	}
	if k.Direction == skbdrop.Hardware {
		v.Reason = r.trap(k)
	} else {
		v.Reason, v.Location = r.reasons.Lookup(k.Reason), r.location(k.Location)
	}
	if len(r.keys) >= maxCached {
		clear(r.keys)
	}
	r.keys[k] = v
	return v
}

// trap is the reason of a drop by hardware. One whose words cannot be read is
// known to be that all the same.
func (r *resolver) trap(k skbdrop.Key) record.Reason {
	if r.traps != nil {
		if t, err := r.traps.Trap(k); err == nil {
			return trapReason(t.Name, t.Group)
		}
	}
	return trapReason("", "")
}

func (r *resolver) location(addr uint64) record.Location {
	if r.symbols == nil {
		return record.Location{Address: record.Address(addr)}
	}
	return r.symbols.Resolve(addr)
}

func (r *resolver) device(k skbdrop.Key) string {
	if k.Ifindex == 0 {
		return ""
	}
	if name, ok := r.devices[deviceKey{k.NetNS, k.Ifindex}]; ok {
		return name
	}
	if k.NetNS != r.netns.Own() {
		return "" // an index means nothing in another namespace
	}
	ifi, err := net.InterfaceByIndex(int(k.Ifindex))
	if err != nil {
		return ""
	}
	r.devices[deviceKey{k.NetNS, k.Ifindex}] = ifi.Name
	return ifi.Name
}

func direction(d skbdrop.Direction) record.Direction {
	switch d {
	case skbdrop.RX, skbdrop.Hardware:
		return record.DirectionRX
	case skbdrop.TX:
		return record.DirectionTX
	case skbdrop.Forward:
		return record.DirectionForward
	}
	return record.DirectionUnknown
}

// drop turns a sample into its public form, which shares no memory with it.
func (r *resolver) drop(s *skbdrop.Sample) record.Drop {
	d := record.Drop{
		Time:       time.Unix(0, int64(s.Time)).Add(r.offset),
		KernelTime: s.Time,
		Key:        r.key(s.Key),
		CPU:        s.CPU, Queue: s.Queue,
		Length: s.Length, DataLength: s.DataLength, TrueSize: s.TrueSize,
		GSOSegments: s.GSOSegs, GSOSize: s.GSOSize, Mark: s.Mark,
		CurrentTask: record.Task{PID: s.PID, TID: s.TID, Comm: s.Comm()},
		Packet:      r.packet(s),
		Headers:     append([]byte(nil), s.Headers()...),
		Socket:      socket(s),
	}
	for _, a := range callers(s.Stack(), s.Location) {
		d.Stack = append(d.Stack, r.location(a))
	}
	if s.Direction == skbdrop.Hardware {
		d.Stack = reporters(d.Stack)
	}
	return d
}

// reporters cuts off the stack of a trap what is before devlink_trap_report,
// which the driver calls.
func reporters(stack []record.Location) []record.Location {
	for i, l := range stack {
		if kernel.Base(l.Symbol) == "devlink_trap_report" {
			return stack[i:]
		}
	}
	return stack
}

// packet decodes the headers; nil where the bytes are none.
func (r *resolver) packet(s *skbdrop.Sample) *record.Packet {
	start := packet.StartNetwork
	switch s.Start {
	case skbdrop.StartNone:
		return nil
	case skbdrop.StartLink:
		start = packet.StartEthernet
	}
	if err := r.headers.Decode(s.Headers(), start, s.EtherType); err != nil {
		return nil
	}
	p := r.headers.Record()
	// A tag that the device took out of the frame is the outermost.
	if s.VLANProto != 0 {
		p.VLANs = append([]uint16{s.VLANTCI & 0xfff}, p.VLANs...)
	}
	return p
}

// callers cuts the frames of the tracing itself off a stack: those before the
// one that called kfree_skb, which is the drop's location.
func callers(stack []uint64, location uint64) []uint64 {
	for i, a := range stack {
		if a == location {
			return stack[i:]
		}
	}
	return stack
}

// tcpStates are BPF_TCP_* of include/uapi/linux/bpf.h, which the kernel holds
// equal to its own TCP states (net/ipv4/tcp.c): ABI, the same on all.
var tcpStates = [...]string{
	1: "ESTABLISHED", 2: "SYN_SENT", 3: "SYN_RECV", 4: "FIN_WAIT1",
	5: "FIN_WAIT2", 6: "TIME_WAIT", 7: "CLOSE", 8: "CLOSE_WAIT",
	9: "LAST_ACK", 10: "LISTEN", 11: "CLOSING", 12: "NEW_SYN_RECV",
}

// tcpTimeWait and tcpNewSynRecv are sockets too small to have a protocol
// field: they are TCP by their state.
const (
	protoTCP      = 6
	tcpTimeWait   = 6
	tcpNewSynRecv = 12
)

func socket(s *skbdrop.Sample) *record.Socket {
	if s.SocketFrom == skbdrop.SocketNone {
		return nil
	}
	v := &record.Socket{
		Inode: s.SocketInode, Cookie: s.SocketCookie, From: "skb",
		Family: s.SocketFamily, Protocol: s.SocketProtocol,
	}
	if s.SocketFrom == skbdrop.SocketRX {
		v.From = "rx_sk"
	}
	if s.SocketState == tcpTimeWait || s.SocketState == tcpNewSynRecv {
		v.Protocol = protoTCP
	}
	if v.Protocol == protoTCP && int(s.SocketState) < len(tcpStates) {
		v.State = tcpStates[s.SocketState]
	}
	return v
}
