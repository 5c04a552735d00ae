package diagnose

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// capacityStations are those where what only a counter shows is a queue that
// was full.
var capacityStations = []record.Station{
	record.StationRing, record.StationBacklog, record.StationQdisc, record.StationSocket,
}

// onlyCounted is the finding of a loss that a counter shows and nothing
// explains.
func (l *ledger) onlyCounted(x *ledgerLine) record.Finding {
	c := x.counter
	f := record.Finding{
		Cause: record.CauseNotKnown, Class: record.ClassFault,
		Station: x.Station, Direction: x.meaning.Direction, Title: l.titleOf(x),
		Drops: x.rest, LostBy: lostByCounters, Confidence: record.ConfidencePossible,
		Reasons: []string{}, Locations: []string{}, Devices: []string{}, NetNS: []string{},
		Owners: []string{}, Flows: []record.FlowShare{}, Remedy: []record.Remedy{}, Verify: []string{},
		Unchecked: []string{},
		Next:      []string{"whydrop explain " + c.Name},
		Evidence: []record.Evidence{{
			Kind: "counter", Name: c.Name, Value: utoa(c.Delta), Before: utoa(c.Before), After: utoa(c.After),
			Source: c.Source, Command: c.Command, Supports: true, Says: strings.TrimSuffix(x.meaning.Sentence, "."),
		}},
	}
	if !x.packets() {
		f.Drops, f.Events = 0, x.rest
	}
	if slices.Contains(capacityStations, x.Station) {
		f.Class = record.ClassCapacity
	}
	if c.Command != "" {
		f.Evidence[0].Command = l.m.b.enter(c.NetNS) + c.Command
	}
	if s := l.m.b.o.Window.Duration.Seconds(); s > 0 {
		f.Rate = float64(f.Drops) / s
	}
	if label := deviceLabel(c.Device, c.NetNS); label != "" {
		f.Devices = append(f.Devices, label)
	}
	if label := netnsLabel(c.NetNS); label != "" {
		f.NetNS = append(f.NetNS, label)
	}
	for _, s := range l.m.k.next[x.Station] {
		if c.Device.Name != "" && harmless.MatchString(c.Device.Name) {
			s = devWord.ReplaceAllLiteralString(s, c.Device.Name)
		}
		f.Next = append(f.Next, s)
	}
	return f
}

// devWord is the word of stations.yaml that stands for a device.
var devWord = regexp.MustCompile(`\bDEV\b`)

// titleOf says what was lost, where, and why no drop tells of it.
func (l *ledger) titleOf(x *ledgerLine) string {
	where := string(x.Station)
	switch device, ns := deviceLabel(x.Device, x.NetNS), netnsLabel(x.NetNS); {
	case device != "":
		where += " of " + device
	case ns != "" && ns != hostNetNS:
		where += " (netns " + ns + ")"
	}
	name := x.Counter
	if x.Object != "" {
		name += ", " + x.Object
	}
	moved := fmt.Sprintf("%s (%s +%d)", where, name, x.Delta)
	if !x.packets() {
		moved = fmt.Sprintf("%s (%s +%d %s; how many packets is not known)", where, name, x.Delta, x.meaning.Unit)
	}
	switch {
	case l.unsure(x):
		return fmt.Sprintf("lost at %s, or not: the drops were not all seen, and %s", moved, x.raised.Harmless)
	case !l.watched():
		return fmt.Sprintf("lost at %s; drops were not watched", moved)
	case x.rest < x.Delta:
		return fmt.Sprintf("lost at %s; %d of them raised no drop that was seen", moved, x.rest)
	case slices.Contains([]record.Station{record.StationNIC, record.StationRing}, x.Station):
		return fmt.Sprintf("lost before the stack: %s; no skb existed, so no drop was seen", moved)
	case slices.Contains([]record.Station{record.StationDriverTX, record.StationNICTX}, x.Station):
		return fmt.Sprintf("lost below the stack: %s; no drop was seen", moved)
	}
	return fmt.Sprintf("lost at %s; no drop was seen", moved)
}

// watched says whether anything looked for drops.
func (l *ledger) watched() bool {
	others := 0
	for _, s := range l.m.b.o.Sources {
		if s.Name == sourceCounters {
			continue
		}
		if s.State == record.SourceOK || s.State == record.SourceDegraded {
			return true
		}
		others++
	}
	return others == 0
}

// stations sums up the loss of findings by station. The result is never nil.
func stations(all []result) []record.StationLoss {
	sums := map[record.Station]*record.StationLoss{}
	for i := range all {
		f := &all[i]
		if !f.Class.Shown() || f.Drops == 0 {
			continue
		}
		s := sums[f.Station]
		if s == nil {
			s = &record.StationLoss{Station: f.Station}
			sums[f.Station] = s
		}
		if f.Cause == record.CauseNotKnown {
			s.Unexplained += f.Drops
		} else {
			s.Explained += f.Drops
		}
	}
	out := []record.StationLoss{}
	for _, s := range record.Stations() {
		if sums[s] != nil {
			out = append(out, *sums[s])
		}
	}
	return out
}

// entries are the lines as they are reported. The result is never nil.
func (l *ledger) entries() []record.LedgerEntry {
	out := make([]record.LedgerEntry, 0, len(l.lines))
	for _, x := range l.lines {
		x.Why = strings.Join(x.why, "; ")
		out = append(out, x.LedgerEntry)
	}
	return out
}

// lossWords are in the names of counters that are of a loss, mostly.
var lossWords = []string{
	"drop", "discard", "loss", "lost", "err", "fail", "miss", "overflow", "overrun", "oversize", "reject",
	"no_buf", "nobuf", "refuse", "abort", "prune", "crc", "fifo", "bad", "invalid", "trunc",
	"underrun", "underflow", "ovflow", "exceed", "starv", "denied", "filtered", "no_desc", "nodesc", "no_mem", "no_space",
	"noskb", "no_skb", "oob", "out_of", "unav", "too_long", "too_short", "toolong", "tooshort", "purge", "timeout",
}

// soundsLikeLoss says whether the name of a counter has one of them.
func soundsLikeLoss(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(lossWords, func(w string) bool { return strings.Contains(name, w) })
}

// counters are the counters that moved and are not only activity, with their
// stations and the findings that account for them. One that the knowledge base
// does not know is among them where its name says that it counts loss. The
// result is never nil.
func (l *ledger) counters() []record.Counter {
	lines := map[*record.Counter]*ledgerLine{}
	for _, x := range l.lines {
		lines[x.counter] = x
	}
	out := []record.Counter{}
	sounds := map[string]bool{} // those that are not known, by their names
	cs := l.m.b.o.Counters
	for i := range cs {
		if cs[i].Delta == 0 {
			continue
		}
		c := cs[i]
		m, known := l.m.k.Counter(c.Name)
		if _, asked := sounds[c.Name]; !known && !asked {
			sounds[c.Name] = soundsLikeLoss(c.Name)
		}
		switch {
		case !known && !sounds[c.Name]:
			continue
		case !known:
			m.Station = record.StationUnknown
		case m.Kind == "activity" || m.Kind == "nothing":
			continue
		}
		c.Station, c.ExplainedBy = string(m.Station), []string{}
		if x := lines[&cs[i]]; x != nil {
			c.ExplainedBy = append(c.ExplainedBy, x.ExplainedBy...)
		} else {
			for _, f := range l.findingsOf(&c) {
				if !slices.Contains(c.ExplainedBy, f.Cause) {
					c.ExplainedBy = append(c.ExplainedBy, f.Cause)
				}
			}
		}
		out = append(out, c)
	}
	return out
}
