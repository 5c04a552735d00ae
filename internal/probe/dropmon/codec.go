package dropmon

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"

	"golang.org/x/sys/unix"
)

// The commands (NET_DM_CMD_… of include/uapi/linux/net_dropmon.h, Linux 7.2).
const (
	CommandAlert       = 1 // a summary
	CommandConfig      = 2 // set the configuration
	CommandStart       = 3
	CommandStop        = 4
	CommandPacketAlert = 5
	CommandConfigGet   = 6
	CommandConfigNew   = 7 // the answer to CommandConfigGet
	CommandStatsGet    = 8
	CommandStatsNew    = 9 // the answer to CommandStatsGet
)

// The attributes (enum net_dm_attr).
const (
	attrEntries      = 0 // NET_DM_ATTR_UNSPEC: struct net_dm_alert_msg
	attrMode         = 1
	attrPC           = 2
	attrSymbol       = 3
	attrInPort       = 4 // nested
	attrTimestamp    = 5 // nanoseconds of CLOCK_REALTIME
	attrProtocol     = 6 // in the host's byte order
	attrPayload      = 7
	attrPad          = 8 // aligns what has 64 bits, on some machines
	attrTruncate     = 9
	attrLength       = 10 // of the packet, before it was cut
	attrQueue        = 11
	attrStats        = 12 // nested
	attrHardStats    = 13 // nested
	attrOrigin       = 14
	attrTrapGroup    = 15
	attrTrap         = 16
	attrHardEntries  = 17 // nested, holds attrHardEntry
	attrHardEntry    = 18 // nested, holds attrTrap and attrTrapCount
	attrTrapCount    = 19
	attrSoftwareFlag = 20
	attrHardwareFlag = 21
	attrCookie       = 22
	attrReason       = 23
)

// The attributes in attrInPort, and the one in attrStats and attrHardStats.
const (
	portIndex    = 0
	portName     = 1
	statsDropped = 0
)

// sizes of struct genlmsghdr, and of struct net_dm_alert_msg and the struct
// net_dm_drop_point in it.
const (
	headerSize  = 4
	entriesSize = 4
	pointSize   = 12
)

// Errors of messages that are not what they should be.
var (
	errShort   = errors.New("too short")
	errCommand = errors.New("unexpected command")
	errMissing = errors.New("attribute is missing")
)

// open reads the header of generic netlink. The family's header has no bytes,
// and its version, 2 since Linux 2.6.30, never told anything.
func open(b []byte) (command uint8, a attributes, err error) {
	if len(b) < headerSize {
		return 0, a, fmt.Errorf("header of generic netlink: %d bytes: %w", len(b), errShort)
	}
	return b[0], attributes{rest: b[headerSize:]}, nil
}

// Decode reads an alert: the header of generic netlink and what follows, as it
// stands behind the header of netlink. What the alert holds is its own: b may be
// used again. An error means that the message is none, or is cut; attributes
// that are unknown, unusable or missing are counted in Skipped.
func Decode(b []byte) (Alert, error) {
	command, a, err := open(b)
	if err != nil {
		return Alert{}, fmt.Errorf("decode alert: %w", err)
	}
	alert := Alert{Command: command}
	switch command {
	case CommandAlert:
		err = alert.summary(&a)
	case CommandPacketAlert:
		err = alert.packet(&a)
	default:
		err = fmt.Errorf("%w %d", errCommand, command)
	}
	if err != nil {
		return Alert{Command: command}, fmt.Errorf("decode alert: %w", err)
	}
	return alert, nil
}

// summary reads what send_dm_alert and net_dm_hw_summary_report_fill
// (net/core/drop_monitor.c) write: for hardware the first attribute is there
// too, with no entry.
func (alert *Alert) summary(a *attributes) error {
	var had seen
	for a.next() {
		switch {
		case a.kind == attrPad:
		case !had.first(a.kind):
			alert.Skipped++
		case a.kind == attrEntries:
			if err := alert.points(a.data); err != nil {
				return err
			}
		case a.kind == attrHardEntries:
			if err := alert.traps(a.data); err != nil {
				return err
			}
		default:
			alert.Skipped++
		}
	}
	if a.err != nil {
		return a.err
	}
	if !had.has(attrEntries) {
		return fmt.Errorf("summary: entries: %w", errMissing)
	}
	if len(alert.Points) == 0 && !had.has(attrHardEntries) {
		// Rare, and a longer one that was cut here looks the same.
		alert.Empty = true
		alert.Skipped++
	}
	return nil
}

// points reads struct net_dm_alert_msg.
func (alert *Alert) points(b []byte) error {
	if len(b) < entriesSize {
		return fmt.Errorf("summary: %d bytes: %w", len(b), errShort)
	}
	n := uint64(binary.NativeEndian.Uint32(b))
	b = b[entriesSize:]
	if n > uint64(len(b)/pointSize) {
		return fmt.Errorf("summary: %d entries in %d bytes: %w", n, len(b), errShort)
	}
	if uint64(len(b)) != n*pointSize {
		alert.Skipped++ // bytes behind the entries
	}
	if n == 0 {
		return nil
	}
	alert.Points = make([]Point, n)
	for i := range alert.Points {
		alert.Points[i] = Point{PC: binary.NativeEndian.Uint64(b), Drops: binary.NativeEndian.Uint32(b[8:])}
		b = b[pointSize:]
	}
	return nil
}

// traps reads the entries of hardware.
func (alert *Alert) traps(b []byte) error {
	a := attributes{rest: b}
	for a.next() {
		if a.kind != attrHardEntry {
			alert.Skipped++
			continue
		}
		if err := alert.trap(a.data); err != nil {
			return err
		}
	}
	if a.err != nil {
		return fmt.Errorf("summary of hardware: %w", a.err)
	}
	return nil
}

func (alert *Alert) trap(b []byte) error {
	var had seen
	var t Trap
	a := attributes{rest: b}
	for a.next() {
		ok := had.first(a.kind)
		switch {
		case !ok:
		case a.kind == attrTrap:
			ok = a.text(&t.Name)
		case a.kind == attrTrapCount:
			ok = a.u32(&t.Drops)
		default:
			ok = false
		}
		if !ok {
			alert.Skipped++
		}
	}
	if a.err != nil {
		return fmt.Errorf("entry of hardware: %w", a.err)
	}
	if !had.has(attrTrap) || !had.has(attrTrapCount) {
		alert.Skipped++
		return nil
	}
	alert.Traps = append(alert.Traps, t)
	return nil
}

// packet reads what net_dm_packet_report_fill and its twin for hardware write.
func (alert *Alert) packet(a *attributes) error {
	p := &Packet{}
	var had seen
	for a.next() {
		switch {
		case a.kind == attrPad:
		case !had.first(a.kind):
			alert.Skipped++
		case a.kind == attrInPort:
			skipped, err := p.port(a.data)
			if err != nil {
				return err
			}
			alert.Skipped += skipped
		default:
			if !p.set(a) {
				alert.Skipped++
			}
		}
	}
	if a.err != nil {
		return a.err
	}
	if had == 0 {
		return fmt.Errorf("packet: every %w", errMissing)
	}
	alert.Skipped += p.missing(had)
	alert.Packet = p
	return nil
}

// set takes over one attribute and says whether it could be used.
func (p *Packet) set(a *attributes) bool {
	switch a.kind {
	case attrOrigin:
		return a.u16((*uint16)(&p.Origin))
	case attrPC:
		return a.u64(&p.PC)
	case attrSymbol:
		return a.text(&p.Symbol)
	case attrReason:
		return a.text(&p.Reason)
	case attrTimestamp:
		var ns uint64
		if !a.u64(&ns) || ns > math.MaxInt64 {
			return false
		}
		p.Time = time.Unix(0, int64(ns))
		return true
	case attrLength:
		return a.u32(&p.OriginalLength)
	case attrProtocol:
		return a.u16(&p.Protocol)
	case attrPayload:
		p.Payload = bytes.Clone(a.data)
		return true
	case attrTrapGroup:
		return a.text(&p.TrapGroup)
	case attrTrap:
		return a.text(&p.TrapName)
	case attrCookie:
		p.Cookie = bytes.Clone(a.data)
		return true
	}
	return false
}

// port reads the device that the packet came in by.
func (p *Packet) port(b []byte) (skipped int, err error) {
	var had seen
	a := attributes{rest: b}
	for a.next() {
		ok := had.first(a.kind)
		switch {
		case !ok:
		case a.kind == portIndex:
			ok = a.u32(&p.InIndex)
		case a.kind == portName:
			ok = a.text(&p.InName)
		default:
			ok = false
		}
		if !ok {
			skipped++
		}
	}
	if a.err != nil {
		return 0, fmt.Errorf("input port: %w", a.err)
	}
	return skipped, nil
}

// missing counts the attributes that every kernel sends and that are not there:
// a message that was cut between two attributes lacks some.
func (p *Packet) missing(had seen) int {
	want := seen(1<<attrOrigin | 1<<attrTimestamp | 1<<attrLength)
	switch p.Origin {
	case OriginSoftware:
		want |= 1<<attrPC | 1<<attrSymbol | 1<<attrInPort
	case OriginHardware:
		want |= 1<<attrTrap | 1<<attrTrapGroup
	}
	if p.OriginalLength > 0 {
		want |= 1<<attrProtocol | 1<<attrPayload
	}
	return bits.OnesCount64(uint64(want &^ had))
}

// decodeConfig reads the answer to CommandConfigGet.
func decodeConfig(b []byte) (c Config, err error) {
	a, err := answer(b, CommandConfigNew)
	if err != nil {
		return Config{}, fmt.Errorf("decode configuration: %w", err)
	}
	var had seen
	for a.next() {
		ok := true
		switch a.kind {
		case attrMode:
			ok = a.u8((*uint8)(&c.Mode))
		case attrTruncate:
			ok = a.u32(&c.Truncate)
		case attrQueue:
			ok = a.u32(&c.Queue)
		}
		if !ok {
			return Config{}, fmt.Errorf("decode configuration: attribute %d of %d bytes: %w", a.kind, len(a.data), errAttribute)
		}
		had.first(a.kind)
	}
	if a.err != nil {
		return Config{}, fmt.Errorf("decode configuration: %w", a.err)
	}
	for _, kind := range []uint16{attrMode, attrTruncate, attrQueue} {
		if !had.has(kind) {
			return Config{}, fmt.Errorf("decode configuration: %d: %w", kind, errMissing)
		}
	}
	return c, nil
}

// decodeStats reads the answer to CommandStatsGet.
func decodeStats(b []byte) (s Stats, err error) {
	a, err := answer(b, CommandStatsNew)
	for err == nil && a.next() {
		switch a.kind {
		case attrStats:
			s.Software, err = decodeTail(a.data)
		case attrHardStats:
			s.Hardware, err = decodeTail(a.data)
		}
	}
	if err == nil {
		err = a.err
	}
	if err == nil && s == (Stats{}) {
		err = errMissing
	}
	if err != nil {
		return Stats{}, fmt.Errorf("decode statistics: %w", err)
	}
	return s, nil
}

func decodeTail(b []byte) (t Tail, err error) {
	a := attributes{rest: b}
	for a.next() {
		if a.kind != statsDropped {
			continue
		}
		if t.Known = a.u64(&t.Dropped); !t.Known {
			return Tail{}, fmt.Errorf("packets dropped in %d bytes: %w", len(a.data), errAttribute)
		}
	}
	return t, a.err
}

// answer opens a message that must have this command.
func answer(b []byte, want uint8) (attributes, error) {
	command, a, err := open(b)
	if err == nil && command != want {
		err = fmt.Errorf("%w %d, not %d", errCommand, command, want)
	}
	return a, err
}

// encode makes the attributes of CommandConfig.
func (c Config) encode() []byte {
	b := appendAttribute(nil, attrMode, byte(c.Mode))
	b = appendU32(b, attrTruncate, c.Truncate)
	return appendU32(b, attrQueue, c.Queue)
}

// encodeOrigins makes the attributes of CommandStart and CommandStop: flags,
// which have no content.
func encodeOrigins(software, hardware bool) (b []byte) {
	if software {
		b = appendAttribute(b, attrSoftwareFlag)
	}
	if hardware {
		b = appendAttribute(b, attrHardwareFlag)
	}
	return b
}

// splitMessages hands on each message of a datagram of netlink, with its header.
// An error means that the rest of the datagram is cut or is none.
func splitMessages(b []byte, f func(kind uint16, message []byte) error) error {
	for len(b) > 0 {
		if len(b) < unix.SizeofNlMsghdr {
			return fmt.Errorf("header of netlink: %d bytes: %w", len(b), errShort)
		}
		length := uint64(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > uint64(len(b)) {
			return fmt.Errorf("message of netlink: says %d bytes, %d are left: %w", length, len(b), errShort)
		}
		if err := f(binary.NativeEndian.Uint16(b[4:]), b[:length]); err != nil {
			return err
		}
		b = b[min(aligned(int(length)), len(b)):]
	}
	return nil
}
