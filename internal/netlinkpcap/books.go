package netlinkpcap

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// Source is the name of the source that the drop monitor is.
const Source = "dropmon"

// books is what a file says about itself.
type books struct {
	// software are packets that the kernel dropped, reasons those of them with a
	// reason.
	packets, software, reasons uint64
	summaries                  bool
	broken                     uint64 // of the messages, already accounted for
	ahead                      uint64 // alerts with a time that cannot be
	crowded                    uint64 // packets that are no samples

	// lostAlerts and lostDrops are not accounted for yet; the others are all.
	lostAlerts, lostDrops uint64
	overruns, tail        uint64
	stats                 *dropmon.Stats // the latest answer
}

// addStats takes the monitor's answer about packets that found its queue full.
func (b *books) addStats(attrs []byte) {
	s, ok := readStats(attrs)
	if !ok {
		return
	}
	if b.stats != nil {
		n := TailDropped(*b.stats, s)
		b.tail += n
		b.lostDrops += n
	}
	b.stats = &s
}

// overrun notes n alerts that the socket had no room for. In packet mode each
// was a drop; what the mode is tell the alerts before.
func (b *books) overrun(n uint64) {
	b.overruns += n
	if b.summaries {
		b.lostAlerts += n
	} else {
		b.lostDrops += n
	}
}

// settle accounts for what was lost.
func (b *books) settle(a *record.Accounting) {
	a.DropsLost += b.lostDrops
	a.AlertsLost += b.lostAlerts
	b.lostDrops, b.lostAlerts = 0, 0
}

// TailDropped is how many packets found the monitor's queue full between two
// answers. A number that went back belongs to a module that was loaded anew.
func TailDropped(before, after dropmon.Stats) uint64 {
	grown := func(a, b dropmon.Tail) uint64 { return b.Dropped - min(a.Dropped, b.Dropped) }
	return grown(before.Software, after.Software) + grown(before.Hardware, after.Hardware)
}

func (b *books) packet(p *dropmon.Packet) {
	b.packets++
	if p.Origin != dropmon.OriginSoftware {
		return
	}
	b.software++
	if p.Reason != "" {
		b.reasons++
	}
}

// lost says what is known to be missing in the file.
func (b *books) lost() []string {
	var out []string
	if b.tail > 0 {
		out = append(out, fmt.Sprintf("%d dropped packets are not in the file: the kernel's queue of alerts was full (dump -l makes it longer)", b.tail))
	}
	if b.overruns > 0 {
		out = append(out, fmt.Sprintf("%d alerts are not in the file: the buffer of the socket was full (dump -b makes it larger)", b.overruns))
	}
	if b.crowded > 0 {
		out = append(out, fmt.Sprintf("%d packets are counted and not shown one by one: there are more than %d in a second", b.crowded, maxSamples))
	}
	if b.ahead > 0 {
		out = append(out, fmt.Sprintf("%d alerts tell a time long after they were written: the time of writing was taken", b.ahead))
	}
	return out
}

// sources says how well the one source of a file worked.
func (b *books) sources(found, guessed bool) []record.Source {
	src := record.Source{Name: Source, State: record.SourceOK}
	why := b.lost()
	if guessed {
		why = append(why, "no message says which family of generic netlink the drop monitor has here: it was told by what its alerts look like")
	}
	switch {
	case !found:
		src.State, src.Why = record.SourceOff, "the file has no alert of the drop monitor, nor its family"
	case len(why) > 0:
		src.State, src.Why = record.SourceDegraded, strings.Join(why, "; ")
	}
	return []record.Source{src}
}

// blind is what could not be seen by this source, or is not in such a file.
func (b *books) blind() []record.Blind {
	list := []record.Blind{
		{
			What: "counters, settings and sockets of the host",
			Why:  "a capture of the drop monitor has none, so causes that need them stay open",
			Fix:  "`whydrop record -w FILE` has them",
		},
		{
			What: "loss before there is an skb, and hardware drops unless they were asked for",
			Why:  "the drop monitor raises no alert",
		},
		{
			What: "network namespace, socket, process and stack of a drop",
			Why:  "alerts of the drop monitor do not carry them",
			Fix:  "eBPF does: `whydrop record`",
		},
	}
	if b.packets > 0 || !b.summaries {
		list = append(list, record.Blind{
			What: "packets dropped before their link header was set: sent here and refused by a firewall, a route or a socket",
			Why:  "the monitor's packet mode leaves them out without counting them",
			Fix:  "eBPF sees them: `whydrop record`",
		})
	}
	if b.summaries {
		list = append(list,
			record.Blind{
				What: "reason, device and contents of what the monitor's summary mode counted",
				Why:  "it tells address and number alone",
				Fix:  "`whydrop dump` sets packet mode",
			},
			record.Blind{
				What: "drops at further places than 64 in a second on a CPU, of what summary mode counted",
				Why:  "the monitor's table has no room for them (dm_hit_limit, net/core/drop_monitor.c)",
			})
	}
	if b.software > 0 && b.reasons == 0 {
		list = append(list, record.Blind{
			What: "why packets were dropped", Why: "the kernel gave no reasons", Fix: "Linux 6.0 or newer gives them to the drop monitor",
		})
	}
	return list
}
