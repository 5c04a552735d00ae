package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// CounterView says what Counters prints below its first line.
type CounterView struct {
	Map, List bool
}

// What is listed of a station at most, unless all is asked for.
const (
	maxRows  = 25
	maxParts = 8
	// maxAlike is how many rows there are of one counter that tells of no loss,
	// such as that of each device.
	maxAlike = 3
)

// Counters prints r as text: what was lost where in the first line, then the
// station map and the counters by station, and what could not be read.
func Counters(w io.Writer, r record.CounterReport, view CounterView, s Style) error {
	var b strings.Builder
	wrap(&b, "", counterVerdict(r), s.width())
	if view.Map && (!s.Quiet || !view.List) {
		b.WriteByte('\n')
		writeMap(&b, r, s)
	}
	if view.List {
		writeStations(&b, r, s)
	}
	if !view.List {
		r.Hidden = 0
	}
	if !s.Quiet {
		writeCounterBooks(&b, r, s)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print counters: %w", err)
	}
	return nil
}

// CounterInterval prints r without what is the same in every interval: what
// could not be read. More than a line is followed by a blank one.
func CounterInterval(w io.Writer, r record.CounterReport, view CounterView, s Style) error {
	r.Blind, r.Hidden = nil, 0
	var b strings.Builder
	if err := Counters(&b, r, view, s); err != nil {
		return err
	}
	if strings.Contains(b.String(), "\n\n") {
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print counters: %w", err)
	}
	return nil
}

// CounterBooks prints what could not be read, after the last interval.
func CounterBooks(w io.Writer, r record.CounterReport, s Style) error {
	r.Hidden = 0
	var b strings.Builder
	if !s.Quiet {
		writeCounterBooks(&b, r, s)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print counters: %w", err)
	}
	return nil
}

func during(r record.CounterReport) string {
	if r.SinceBoot {
		return "since boot"
	}
	return "in " + seconds(r.Window.Duration)
}

// counterVerdict says in a sentence what was lost where.
func counterVerdict(r record.CounterReport) string {
	var lost []string
	for _, c := range r.Stations {
		if n := lossText(c, exact); n != "" {
			lost = append(lost, Clean(string(c.Station))+" "+n)
		}
	}
	text := "packets lost "
	if len(r.Interfaces) > 0 {
		text += "on " + Clean(strings.Join(r.Interfaces, ", ")) + " "
	}
	text += during(r)
	if r.SinceBoot {
		text += " (or since their device, namespace or socket was made)"
	} else {
		text = r.Window.End.Format("15:04:05") + "  " + text
	}
	unread := Clean(strings.Join(r.Unread, ", "))
	switch {
	case lost != nil:
		text += ": " + strings.Join(lost, ", ")
	case !anySeen(r):
		text += ": not known, for nothing could be read"
		if unread != "" {
			text += " of " + unread
			unread = ""
		}
	default:
		text += ": none by the counters that were read"
	}
	if unread != "" {
		text += "; nothing could be read of " + unread
	}
	switch n := resets(r); {
	case n == 1:
		text += "; one counter of loss was reset meanwhile, and may have more"
	case n > 1:
		text += fmt.Sprintf("; %d counters of loss were reset meanwhile, and may have more", n)
	}
	return text + "."
}

// anySeen says whether a counter of a loss was read at any station.
func anySeen(r record.CounterReport) bool {
	return slices.ContainsFunc(r.Stations, func(c record.StationCounters) bool { return onMap(c.Station) && !c.Blind })
}

// resets is how many counters of loss are only known to have grown by what is
// shown, or more.
func resets(r record.CounterReport) (n int) {
	for _, c := range r.Stations {
		for _, x := range c.Counters {
			if x.Reset && x.Kind == "loss" {
				n++
			}
		}
	}
	return n
}

func exact(n uint64) string { return strconv.FormatUint(n, 10) }

// counterRow is a line of the list, as text.
type counterRow struct {
	numbers    []string
	name, note string
}

// writeStations lists the counters that are shown, by station.
func writeStations(b *strings.Builder, r record.CounterReport, s Style) {
	stations := splitUnknown(r.Stations)
	rows := make([][]counterRow, len(stations))
	var widths [3]int
	name := 0
	for i, c := range stations {
		rows[i] = stationRows(c, r.SinceBoot, s)
		for _, row := range rows[i] {
			for j, n := range row.numbers {
				widths[j] = max(widths[j], len(n))
			}
			name = max(name, len(row.name))
		}
	}
	for i, c := range stations {
		if len(rows[i]) == 0 {
			continue
		}
		b.WriteString("\n" + stationHead(c, s) + "\n")
		for _, row := range rows[i] {
			line := "  "
			for j, n := range row.numbers {
				line += fmt.Sprintf("%*s  ", widths[j], n)
			}
			line += pad(row.name, min(name, maxName)) + "  " + row.note
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
		if n := len(c.Counters) - len(shown(c.Counters, s)); n > 0 {
			fmt.Fprintf(b, "  and %d more (--all or -j lists them)\n", n)
		}
	}
}

// splitUnknown makes a station of their own of the counters that the catalogue
// does not have: at the station unknown there are others too.
func splitUnknown(stations []record.StationCounters) []record.StationCounters {
	i := slices.IndexFunc(stations, func(c record.StationCounters) bool { return c.Station == record.StationUnknown })
	if i < 0 {
		return stations
	}
	known, unknown := stations[i], record.StationCounters{Station: record.StationUnknown}
	known.Counters = nil
	for _, n := range stations[i].Counters {
		if n.Kind == record.KindUnknown {
			unknown.Counters = append(unknown.Counters, n)
		} else {
			known.Counters = append(known.Counters, n)
		}
	}
	return slices.Concat(stations[:i], []record.StationCounters{known, unknown}, stations[i+1:])
}

// shown are the counters of a station that have a row.
func shown(all []record.StationCounter, s Style) []record.StationCounter {
	if s.All {
		return all
	}
	alike := map[string]int{}
	var out []record.StationCounter
	for _, n := range all {
		if n.Kind != "loss" {
			if alike[n.Name]++; alike[n.Name] > maxAlike {
				continue
			}
		}
		if len(out) < maxRows {
			out = append(out, n)
		}
	}
	return out
}

// stationHead names a station and what was lost there.
func stationHead(c record.StationCounters, s Style) string {
	text := Clean(string(c.Station))
	if c.Station == record.StationUnknown && c.Counters[0].Kind == record.KindUnknown {
		return text + "  not in the catalogue of counters: nothing is known about them"
	}
	if c.Lost > 0 {
		text += "  " + s.paint(record.ClassFault, plural(c.Lost, "packet")+" lost")
	}
	if c.LossEvents > 0 {
		text += "  " + plural(c.LossEvents, "event") + " of loss"
	}
	if c.Shared > 0 {
		var names []string
		for _, a := range c.AlsoAt {
			names = append(names, Clean(string(a)))
		}
		text += fmt.Sprintf("; %s may count %s too", strings.Join(names, ", "), thatMany(c))
	}
	return text
}

func thatMany(c record.StationCounters) string {
	if c.Shared >= c.Lost {
		return "them"
	}
	return fmt.Sprintf("%d of them", c.Shared)
}

// stationRows are the lines of a station.
func stationRows(c record.StationCounters, sinceBoot bool, s Style) []counterRow {
	var rows []counterRow
	for _, n := range shown(c.Counters, s) {
		rows = append(rows, counterRow{
			numbers: amounts(n.Before, n.After, n.Delta, n.Rate, n.Level, n.Reset, sinceBoot),
			name:    Clean(n.Name), note: counterNote(n),
		})
		if only(n) {
			continue // it is in the note
		}
		for j, p := range n.Parts {
			if j == maxParts && !s.All {
				rows = append(rows, counterRow{
					numbers: make([]string, len(rows[len(rows)-1].numbers)),
					name:    fmt.Sprintf("  and %d more parts", len(n.Parts)-j),
				})
				break
			}
			rows = append(rows, counterRow{
				numbers: amounts(p.Before, p.After, p.Delta, p.Rate, n.Level, p.Reset, sinceBoot), name: "  " + Clean(p.Object),
			})
		}
	}
	return rows
}

// only says whether a counter has a single part, which is all of it.
func only(n record.StationCounter) bool {
	return len(n.Parts) == 1 && n.Parts[0].After == n.After && n.Parts[0].Delta == n.Delta
}

// amounts are the numbers of a line: the counter; after an interval what it
// grew by, its rate and the counter. A level has none but itself. Of one that was
// reset it is not known whether it grew.
func amounts(before, after, delta uint64, each float64, level, reset, sinceBoot bool) []string {
	total := fmt.Sprint(after)
	switch {
	case sinceBoot:
		return []string{total}
	case reset && delta == 0:
		return []string{"?", "", total}
	case level && before != after:
		return []string{fmt.Sprintf("was %d", before), "", total}
	case level || delta == 0:
		return []string{"", "", total}
	}
	return []string{fmt.Sprintf("+%d", delta), rate(each), total}
}

// counterNote says whose counter it is, and what it counts if that is not lost
// packets.
func counterNote(c record.StationCounter) string {
	var parts []string
	if c.Device != (record.Device{}) {
		parts = append(parts, deviceText(c.Device))
	}
	if c.Object != "" {
		parts = append(parts, Clean(c.Object))
	}
	if only(c) {
		parts = append(parts, Clean(c.Parts[0].Object))
	}
	switch {
	case c.NetNS.Inode == 0:
		parts = append(parts, "whole host")
	case c.NetNS.Name != "host":
		parts = append(parts, "netns "+netnsText(c.NetNS))
	}
	var what []string
	if c.Level {
		what = append(what, "level")
	}
	if c.Kind != "loss" && c.Kind != record.KindUnknown {
		what = append(what, Clean(c.Kind))
	}
	if c.Unit != "packets" && c.Unit != "" {
		what = append(what, Clean(c.Unit))
	}
	if c.Reset {
		what = append(what, "reset meanwhile, may have more")
	}
	text := strings.Join(parts, ", ")
	if what != nil {
		text = strings.TrimSpace(text + "  [" + strings.Join(what, ", ") + "]")
	}
	return text
}

// writeCounterBooks says what was left out and what could not be read.
func writeCounterBooks(b *strings.Builder, r record.CounterReport, s Style) {
	if r.Hidden > 0 || len(r.Blind) > 0 {
		b.WriteByte('\n')
	}
	if r.Hidden > 0 {
		still := "did not move"
		if r.SinceBoot {
			still = "are 0"
		}
		wrap(b, field("hidden"), fmt.Sprintf("%d counters %s or count no loss (--all shows them)", r.Hidden, still), s.width())
	}
	writeBlind(b, r.Blind, s)
}
