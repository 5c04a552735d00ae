package skbdrop

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"
)

// Start says where the bytes of a sample's packet begin.
type Start uint8

// The values of enum start in skbdrop.bpf.c.
const (
	// StartNone: there are no bytes.
	StartNone Start = iota
	// StartLink: at an Ethernet header.
	StartLink
	// StartNetwork: at a header of the key's EtherType.
	StartNetwork
)

// SocketFrom says where a sample's socket was found.
type SocketFrom uint8

// The values of enum sk_from in skbdrop.bpf.c.
const (
	SocketNone SocketFrom = iota
	// SocketRX: the tracepoint's argument rx_sk.
	SocketRX
	// SocketSKB: skb->sk.
	SocketSKB
)

// Sample is the whole record of one drop, in the kernel's numbers.
type Sample struct {
	// Time is CLOCK_MONOTONIC in nanoseconds.
	Time uint64
	Key
	SocketFrom     SocketFrom
	SocketInode    uint64
	SocketCookie   uint64
	SocketFamily   uint16
	SocketProtocol uint16
	SocketState    uint8
	// Length, DataLength, TrueSize are of the skb, in bytes.
	Length, DataLength, TrueSize uint32
	Mark                         uint32
	CPU                          uint32
	// PID and TID are of the task that ran there, not of the owner.
	PID, TID           uint32
	GSOSegs, GSOSize   uint16
	Queue              uint16
	VLANTCI, VLANProto uint16
	Start              Start
	comm, dev          []byte
	headers            []byte
	stack              []uint64
	raw                skbdropEvent
	_                  [0]func() // not comparable
}

// Comm is the name of the task PID.
func (s *Sample) Comm() string { return string(s.comm) }

// Device is the name of the device in skb->dev; empty where there is none.
func (s *Sample) Device() string { return string(s.dev) }

// Headers are the first bytes of the packet. The slice is used again.
func (s *Sample) Headers() []byte { return s.headers }

// Stack are return addresses, the innermost first. The slice is used again.
func (s *Sample) Stack() []uint64 { return s.stack }

// ErrRecord is the class of errors in decoding a record from the kernel.
var ErrRecord = errors.New("record of a drop")

// decode reads one record. s keeps no reference to b.
func (s *Sample) decode(b []byte) error {
	const size = int(unsafe.Sizeof(s.raw))
	// The ring buffer rounds lengths up to 8 bytes.
	if len(b) < size || len(b) > size+7 {
		return fmt.Errorf("%w: %d bytes, not %d", ErrRecord, len(b), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&s.raw)), size), b)
	r := &s.raw
	if int(r.SnapBytes) > len(r.Snap) {
		return fmt.Errorf("%w: %d bytes of headers, at most %d fit", ErrRecord, r.SnapBytes, len(r.Snap))
	}
	if int(r.StackBytes) > len(r.Stack)*8 {
		return fmt.Errorf("%w: %d bytes of stack, at most %d fit", ErrRecord, r.StackBytes, len(r.Stack)*8)
	}
	s.Time = r.TimeNs
	s.Key = Key{
		Location: r.Key.Location, Reason: r.Key.Reason, NetNS: r.Key.Netns, Ifindex: r.Key.Ifindex,
		EtherType: r.Key.Ethertype, IPProto: r.Key.IpProto, Direction: Direction(r.Key.Direction),
	}
	s.SocketFrom, s.SocketInode, s.SocketCookie = SocketFrom(r.SkFrom), r.SkInode, r.SkCookie
	s.SocketFamily, s.SocketProtocol, s.SocketState = r.SkFamily, r.SkProtocol, r.SkState
	s.Length, s.DataLength, s.TrueSize, s.Mark = r.Len, r.DataLen, r.Truesize, r.Mark
	s.CPU, s.PID, s.TID = r.Cpu, r.Pid, r.Tid
	s.GSOSegs, s.GSOSize, s.Queue = r.GsoSegs, r.GsoSize, r.Queue
	s.VLANTCI, s.VLANProto = r.VlanTci, r.VlanProto
	s.Start = Start(r.Start)
	s.comm, s.dev = cString(r.Comm[:]), cString(r.Dev[:])
	s.headers = r.Snap[:r.SnapBytes]
	// A negative length is the errno of bpf_get_stack: no stack then.
	s.stack = r.Stack[:max(0, r.StackBytes)/8]
	return nil
}

// cString returns the bytes of c before its first NUL.
func cString(c []int8) []byte {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&c[0])), len(c))
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}
