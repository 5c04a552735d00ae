// Package dropmon is the kernel's own drop monitor as a source of events: the
// generic netlink family NET_DM (include/uapi/linux/net_dropmon.h). It holds
// the codec of its messages, a connection that sends its commands, and a
// monitor with good manners. It must not name or judge what it sees, and must
// not stop or set what another process started: the monitor is one for the
// whole host.
package dropmon

import (
	"fmt"
	"time"
)

// Mode is how the monitor reports drops.
type Mode uint8

const (
	// ModeSummary reports, about once a second for each CPU, how many drops
	// each location had (enum net_dm_alert_mode).
	ModeSummary Mode = 0
	// ModePacket reports each dropped packet with what is known of it.
	ModePacket Mode = 1
)

// String is "summary", "packet" or the number.
func (m Mode) String() string {
	switch m {
	case ModeSummary:
		return "summary"
	case ModePacket:
		return "packet"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Origin is who dropped a packet.
type Origin uint16

const (
	// OriginSoftware is the kernel (enum net_dm_origin).
	OriginSoftware Origin = 0
	// OriginHardware is a device that tells the kernel of it by a devlink trap.
	OriginHardware Origin = 1
)

// String is "software", "hardware" or the number.
func (o Origin) String() string {
	switch o {
	case OriginSoftware:
		return "software"
	case OriginHardware:
		return "hardware"
	}
	return fmt.Sprintf("origin %d", uint16(o))
}

// Config is the configuration of the monitor. It is the kernel's, for the whole
// host, and outlives who set it.
type Config struct {
	Mode Mode
	// Truncate is how many bytes of a packet an alert carries; 0 is all.
	Truncate uint32
	// Queue is how many packets wait for each CPU in packet mode.
	Queue uint32
}

// String is the configuration in words.
func (c Config) String() string {
	return fmt.Sprintf("mode %s, packets cut to %d bytes, queue of %d packets", c.Mode, c.Truncate, c.Queue)
}

// Tail is a count of packets that found the monitor's queue full, since the
// module was loaded.
type Tail struct {
	Dropped uint64
	// Known is false where the kernel did not say.
	Known bool
}

// Stats are the counts of drops that packet mode did not report.
type Stats struct {
	Software, Hardware Tail
}

// Point is a location of the kernel and its drops, from summary mode.
type Point struct {
	// PC is the address that freed the packets; 0 stands for a device whose
	// own count of dropped packets moved (trace_napi_poll_hit,
	// net/core/drop_monitor.c).
	PC    uint64
	Drops uint32
}

// Trap is a devlink trap and its drops, from summary mode.
type Trap struct {
	Name  string
	Drops uint32
}

// Packet is one dropped packet, from packet mode. What the message did not say
// is zero.
type Packet struct {
	Origin Origin
	// PC is the address that freed the packet; 0 for hardware.
	PC uint64
	// Symbol is the kernel's text for PC (%pS), cut at 39 bytes.
	Symbol string
	// Reason is the kernel's name of the reason, without SKB_DROP_REASON_;
	// Linux 5.10 sends none, 6.1 does.
	Reason string
	// InIndex and InName are the device the packet came in by, in its own
	// network namespace, which the message does not name. Only hardware drops
	// carry a name.
	InIndex uint32
	InName  string
	// Time is when the packet was dropped, by the host's clock.
	Time time.Time
	// Protocol is the ethertype.
	Protocol uint16
	// OriginalLength is the packet's, in bytes from the MAC header on; Payload
	// holds the first Config.Truncate of them.
	OriginalLength uint32
	Payload        []byte
	// TrapName and TrapGroup are devlink's, for hardware.
	TrapName, TrapGroup string
	// Cookie is what the user of tc's flow action gave it, for hardware.
	Cookie []byte
}

// Alert is one message of the monitor.
type Alert struct {
	// Command is the message's (NET_DM_CMD_…).
	Command uint8
	// Points and Traps are a summary; Packet is a packet alert.
	Points []Point
	Traps  []Trap
	Packet *Packet
	// Skipped is how many attributes were unknown, twice there, or unusable.
	Skipped int
	// Empty says that it is a summary without entries: of a second in which
	// nothing came after what was sent already (send_dm_alert,
	// net/core/drop_monitor.c).
	Empty bool
}
