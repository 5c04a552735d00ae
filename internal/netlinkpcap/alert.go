package netlinkpcap

import (
	"slices"
	"time"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// maxText is the longest name that is believed, in bytes. The kernel's are
// much shorter; a file may claim anything, and names are kept.
const maxText = 128

// maxHeaders is how many of a packet's first bytes a sample keeps.
const maxHeaders = 256

// converter turns packets of alerts into record's types.
type converter struct {
	headers packet.Headers
}

// drop is a packet alert. It is false where a name in it cannot be one. at is
// the time for an alert that has none.
func (c *converter) drop(p *dropmon.Packet, at time.Time) (record.Drop, bool) {
	for _, s := range []string{p.Symbol, p.Reason, p.InName, p.TrapName, p.TrapGroup} {
		if len(s) > maxText {
			return record.Drop{}, false
		}
	}
	d := record.Drop{
		Time: p.Time, Length: p.OriginalLength,
		Key: record.Key{
			Reason:    record.Reason{Name: p.Reason},
			Location:  dropmon.Location(p.PC, p.Symbol),
			Device:    record.Device{Index: p.InIndex, Name: p.InName},
			EtherType: p.Protocol,
			Direction: record.DirectionUnknown,
		},
		Headers: slices.Clone(p.Payload[:min(len(p.Payload), maxHeaders)]),
	}
	if p.Time.IsZero() {
		d.Time = at
	}
	if p.Origin == dropmon.OriginHardware {
		d.Reason, d.Location = trapReason(p.TrapName, p.TrapGroup), record.Location{}
		d.Direction = record.DirectionRX // a trap is of a device that received
	}
	if _, ok := p.Headers(&c.headers); ok {
		d.Packet = c.headers.Record()
		d.IPProto = c.headers.Proto
	}
	return d, true
}

// trapReason is the reason of a packet that hardware dropped. A summary does not
// tell the group.
func trapReason(trap, group string) record.Reason {
	return record.Reason{Name: trap, Subsystem: record.SubsystemDevlink, Group: group}
}
