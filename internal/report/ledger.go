package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// maxOpen and maxChains bound what is printed of the ledger; -j has all.
const (
	maxOpen   = 5
	maxChains = 2
)

// writeLedger prints the ledger in short: the stations with a loss on their way,
// and the counters that are left open.
func writeLedger(b *strings.Builder, l record.Ledger, s Style) {
	for i, text := range wayTexts(l.Stations, s.drawing()) {
		head := ""
		if i == 0 {
			head = "way"
		}
		wrap(b, field(head), text, s.width())
	}
	if len(l.Entries) == 0 {
		return
	}
	var open []record.LedgerEntry
	for _, e := range l.Entries {
		if !e.Closed {
			open = append(open, e)
		}
	}
	moved := plural(uint64(len(l.Entries)), "counter") + " of loss moved"
	if len(open) == 0 {
		wrap(b, field("ledger"), moved+", all explained by the drops and findings above", s.width())
		writeChains(b, l.Entries, s)
		return
	}
	wrap(b, field("ledger"), fmt.Sprintf("%s, %d explained; open:", moved, len(l.Entries)-len(open)), s.width())
	for _, e := range open[:min(len(open), maxOpen)] {
		wrap(b, field(""), entryText(e), s.width())
	}
	if n := len(open) - maxOpen; n > 0 {
		fmt.Fprintf(b, "%sand %d more (-j lists them)\n", field(""), n)
	}
	writeChains(b, l.Entries, s)
}

// writeChains prints the losses that several counters count, each once.
func writeChains(b *strings.Builder, es []record.LedgerEntry, s Style) {
	var order []int
	chains := map[int][]record.LedgerEntry{}
	for _, e := range es {
		if e.Chain == 0 {
			continue
		}
		if chains[e.Chain] == nil {
			order = append(order, e.Chain)
		}
		chains[e.Chain] = append(chains[e.Chain], e)
	}
	for i, c := range order {
		if i == maxChains {
			fmt.Fprintf(b, "%sand %d more such losses (-j lists them)\n", field(""), len(order)-i)
			return
		}
		var names []string
		for _, e := range chains[c] {
			names = append(names, Clean(e.Counter))
		}
		e := chains[c][0]
		wrap(b, field(""), fmt.Sprintf("one loss, counted %d times: %s, each +%d%s", len(names),
			strings.Join(names, " = "), e.Delta, whereText(record.Counter{NetNS: e.NetNS})), s.width())
	}
}

// entryText is a counter that moved, beside the drops that raise it.
func entryText(e record.LedgerEntry) string {
	whose := whereText(record.Counter{NetNS: e.NetNS, Device: e.Device, Object: e.Object})
	text := fmt.Sprintf("%s +%d%s", Clean(e.Counter), e.Delta, whose)
	if e.Station != "" {
		text += " at " + Clean(string(e.Station))
	}
	drops := plural(e.Drops, "drop")
	switch e.Relation {
	case record.RelationEqual:
		text += ": as many as the drops that raise it"
	case record.RelationGreater:
		text += fmt.Sprintf(": %d more than the %s that raise it", e.Delta-min(e.Delta, e.Drops), drops)
	case record.RelationLess:
		text += fmt.Sprintf(": %d fewer than the %s that raise it", e.Drops-min(e.Delta, e.Drops), drops)
	case record.RelationNoDrops:
		text += ": no drop was seen that raises it"
	}
	if e.Why != "" {
		text += "; " + Clean(e.Why)
	}
	return text
}

// wayTexts draws the ways in and out, as far as something was lost there: the
// stations with a loss, and dots for those without. The rest is beside them.
func wayTexts(losses []record.StationLoss, d drawing) []string {
	at := map[record.Station]record.StationLoss{}
	for _, l := range losses {
		if l.Explained > 0 || l.Unexplained > 0 {
			at[l.Station] = l
		}
	}
	all := record.Stations()
	split, end := slices.Index(all, record.StationSocketTX), slices.Index(all, record.StationNICTX)+1
	var out []string
	for _, way := range []struct {
		name     string
		stations []record.Station
	}{{"rx  ", all[:split]}, {"tx  ", all[split:end]}} {
		if text := wayText(way.stations, at, d); text != "" {
			out = append(out, way.name+text)
		}
	}
	var beside []string
	for _, s := range all[end:] {
		if l, ok := at[s]; ok {
			beside = append(beside, stationLossText(l))
		}
	}
	if beside != nil {
		out = append(out, "elsewhere  "+strings.Join(beside, ", "))
	}
	return out
}

// wayText is one way, with its first and last stations; empty without a loss.
func wayText(stations []record.Station, at map[record.Station]record.StationLoss, d drawing) string {
	var steps []string
	lost := false
	for i, s := range stations {
		l, ok := at[s]
		lost = lost || ok
		switch {
		case ok:
			steps = append(steps, stationLossText(l))
		case i == 0 || i == len(stations)-1:
			steps = append(steps, string(s))
		case steps[len(steps)-1] != d.rest:
			steps = append(steps, d.rest)
		}
	}
	if !lost {
		return ""
	}
	return strings.Join(steps, " "+d.then+" ")
}

// stationLossText says what was lost at a station, and whether it is explained.
func stationLossText(l record.StationLoss) string {
	text := fmt.Sprintf("%s %d lost", Clean(string(l.Station)), l.Explained+l.Unexplained)
	switch {
	case l.Unexplained == 0:
		return text + " (explained)"
	case l.Explained == 0:
		return text + " (not explained)"
	}
	return fmt.Sprintf("%s (%d not explained)", text, l.Unexplained)
}
