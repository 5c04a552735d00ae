package shell

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// Names says which function an address of the kernel lies in.
type Names interface {
	Resolve(addr uint64) record.Location
}

// format writes what dropwatch prints, line for line. It is pure: the same
// alert gives the same lines in every place with the same time zone.
type format struct {
	// names is nil without a lookup method.
	names Names
	zone  *time.Location
}

// point is a line of a summary.
func (f format) point(p dropmon.Point) string {
	if f.names != nil && p.PC != 0 {
		if at := f.names.Resolve(p.PC); at.Symbol != "" {
			return fmt.Sprintf("%d drops at %s+%x (%s) [software]\n", p.Drops, report.Clean(at.Symbol), at.Offset, pointer(p.PC))
		}
	}
	return fmt.Sprintf("%d drops at location %s [software]\n", p.Drops, pointer(p.PC))
}

// pointer is glibc's %p.
func pointer(addr uint64) string {
	if addr == 0 {
		return "(nil)"
	}
	return fmt.Sprintf("0x%x", addr)
}

// trap is a line of a hardware summary.
func (f format) trap(t dropmon.Trap) string {
	return fmt.Sprintf("%d drops at %s [hardware]\n", t.Drops, report.Clean(t.Name))
}

// packet is a line for each thing that is known of a packet, and an empty one.
func (f format) packet(p *dropmon.Packet) string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%s: %s\n", key, report.Clean(fmt.Sprintf(format, args...)))
	}
	switch {
	case p.PC != 0:
		line("drop at", "%s (0x%x)", f.symbol(p), p.PC)
	case p.TrapName != "" && p.TrapGroup != "":
		line("drop at", "%s (%s)", p.TrapName, p.TrapGroup)
	}
	line("origin", "%s", origin(p.Origin))
	if p.InIndex != 0 {
		line("input port ifindex", "%d", p.InIndex)
	}
	if p.InName != "" {
		line("input port name", "%s", p.InName)
	}
	if len(p.Cookie) > 0 {
		line("cookie", "%x", p.Cookie)
	}
	if !p.Time.IsZero() {
		// asctime(3) of the local time.
		t := p.Time.In(f.zone)
		line("timestamp", "%s %09d nsec", t.Format(time.ANSIC), t.Nanosecond())
	}
	line("protocol", "0x%x", p.Protocol)
	if len(p.Payload) > 0 {
		line("length", "%d", len(p.Payload))
	}
	line("original length", "%d", p.OriginalLength)
	if p.Reason != "" {
		line("drop reason", "%s", p.Reason)
	}
	b.WriteByte('\n')
	return b.String()
}

// symbol is where a packet was dropped: the kernel's own text for it (%pS),
// which is the address where there is no name.
func (f format) symbol(p *dropmon.Packet) string {
	if p.Symbol != "" || f.names == nil {
		return cmp.Or(p.Symbol, pointer(p.PC))
	}
	at := f.names.Resolve(p.PC)
	if at.Symbol == "" {
		return pointer(p.PC)
	}
	text := fmt.Sprintf("%s+0x%x", at.Symbol, at.Offset)
	if at.Module != "" {
		text += " [" + at.Module + "]"
	}
	return text
}

func origin(o dropmon.Origin) string {
	switch o {
	case dropmon.OriginSoftware, dropmon.OriginHardware:
		return o.String()
	}
	return "unknown"
}

// config is what show prints.
func (f format) config(c dropmon.Config) string {
	mode := "Invalid alert mode"
	switch c.Mode {
	case dropmon.ModeSummary:
		mode = "Summary"
	case dropmon.ModePacket:
		mode = "Packet"
	}
	return fmt.Sprintf("Alert mode: %s\nTruncation length: %d\nQueue length: %d\n", mode, c.Truncate, c.Queue)
}

// stats is what stats prints, as far as the source knows it.
func (f format) stats(s dropmon.Stats) string {
	var b strings.Builder
	for _, part := range []struct {
		title string
		tail  dropmon.Tail
	}{{"Software", s.Software}, {"Hardware", s.Hardware}} {
		if part.tail.Known {
			fmt.Fprintf(&b, "%s statistics:\nTail dropped: %d\n", part.title, part.tail.Dropped)
		}
	}
	return b.String()
}

// help is dropwatch's own, to the byte.
const help = `Command Syntax:
exit				 - Quit dropwatch
help				 - Display this message
set:
	alertlimit <number>	 - capture only this many alert packets
	alertmode <mode>	 - set mode to "summary" or "packet"
	trunc <len>		 - truncate packets to this length. Only applicable when "alertmode" is set to "packet"
	queue <len>		 - queue up to this many packets in the kernel. Only applicable when "alertmode" is set to "packet"
	sw <true | false>	 - monitor software drops
	hw <true | false>	 - monitor hardware drops
start				 - start capture
stop				 - stop capture
show				 - show existing configuration
stats				 - show statistics
`
