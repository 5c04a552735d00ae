package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/whydrop/whydrop/record"
)

// drawing are the characters of the station map.
type drawing struct {
	way, stop, across, up, down, arrow, then, rest string
}

func (s Style) drawing() drawing {
	if s.ASCII {
		return drawing{way: "|", stop: "+", across: "-", up: "^", down: "v", arrow: ">", then: ">", rest: "..."}
	}
	return drawing{way: "│", stop: "├", across: "─", up: "▲", down: "▼", arrow: "▶", then: "›", rest: "…"}
}

// mapRows are the lines of the map: on the left the way in, downwards; on the
// right the way out, upwards, each station beside the one that is its like.
var mapRows = [][2]record.Station{
	{record.StationNIC, record.StationNICTX},
	{record.StationRing, record.StationDriverTX},
	{record.StationXDP, ""},
	{record.StationSoftirq, ""},
	{record.StationBacklog, ""},
	{record.StationTCIngress, record.StationQdisc},
	{record.StationBridge, record.StationNeigh},
	{record.StationNetfilter, record.StationNetfilterTX},
	{record.StationRouting, record.StationRoutingTX},
	{record.StationIP, ""},
	{record.StationTransport, record.StationTransportTX},
	{record.StationSocket, record.StationSocketTX},
}

// The columns of the map.
const (
	mapLeft  = 10 // the longest name on the left
	mapRight = 12 // and on the right
	mapHalf  = 40 // where the right half begins
)

// writeMap draws the packet's way with the loss at each station, in at most 80
// columns and 18 lines.
func writeMap(b *strings.Builder, r record.CounterReport, s Style) {
	d := s.drawing()
	at := map[record.Station]record.StationCounters{}
	for _, c := range r.Stations {
		at[c.Station] = c
	}
	mapEnd(b, d.way+"  in from the wire", "out to the wire  "+d.up)
	for _, row := range mapRows {
		left := fmt.Sprintf("  %-*s ", mapLeft, row[0]) + s.mapMark(at[row[0]], d)
		length := 2 + mapLeft + 1 + markLength(at[row[0]])
		if row[0] == record.StationRouting {
			left, length = forward(left, length, d)
		}
		right := strings.Repeat(" ", mapRight+1) + d.way
		if row[1] != "" {
			right = fmt.Sprintf("%*s ", mapRight, row[1]) + s.mapMark(at[row[1]], d)
		}
		b.WriteString(left + strings.Repeat(" ", max(1, mapHalf-length)) + right + "\n")
	}
	mapEnd(b, d.down+"  to the program", "from the program  "+d.way)
	mapLegend(b, r.Stations, len(r.Interfaces) > 0, s)
}

// mapEnd draws what is at one end of both ways.
func mapEnd(b *strings.Builder, in, out string) {
	in = strings.Repeat(" ", 2+mapLeft+1) + in
	room := mapHalf + mapRight + 2 - utf8.RuneCountInString(in) - utf8.RuneCountInString(out)
	b.WriteString(in + strings.Repeat(" ", max(1, room)) + out + "\n")
}

// forward draws the way from routing to routing-tx.
func forward(left string, length int, d drawing) (string, int) {
	const text = " forward "
	room := mapHalf - length - 3
	if room < len(text)+2 {
		return left, length
	}
	line := strings.Repeat(d.across, room-len(text)-1)
	return left + " " + line + text + d.across + d.arrow, length + 1 + room + 1
}

// mapMark is a station on its way, with what was lost there.
func (s Style) mapMark(c record.StationCounters, d drawing) string {
	n := lossText(c, shortNumber)
	switch {
	case n != "":
		return d.stop + d.across + " " + s.paint(record.ClassFault, n)
	case c.Blind:
		return "?"
	}
	return d.stop
}

func markLength(c record.StationCounters) int {
	if n := lossText(c, shortNumber); n != "" {
		return 3 + utf8.RuneCountInString(n)
	}
	return 1
}

// lossText is what was lost at a station, with numbers as print writes them:
// packets, in parentheses where a station further along counts them too, and
// events with an asterisk.
func lossText(c record.StationCounters, print func(uint64) string) string {
	var text string
	if c.Lost > 0 {
		text = print(c.Lost)
		if c.Shared >= c.Lost {
			text = "(" + text + ")"
		}
	}
	if c.LossEvents > 0 {
		if text != "" {
			text += " +"
		}
		text += print(c.LossEvents) + "*"
	}
	return text
}

// shortNumber is exact up to eight digits.
func shortNumber(n uint64) string {
	if n < 1e8 {
		return fmt.Sprint(n)
	}
	f := float64(n)
	for _, unit := range []string{"k", "M", "G", "T", "P"} {
		if f /= 1000; f < 999.5 {
			return fmt.Sprintf("%.3g%s", f, unit)
		}
	}
	return fmt.Sprintf("%.3gE", f/1000)
}

// mapLegend says what the marks mean, as far as there are any, and what was
// lost beside the two ways. chosen says that some devices were asked for.
func mapLegend(b *strings.Builder, stations []record.StationCounters, chosen bool, s Style) {
	var blind, shared, events bool
	var beside []string
	for _, c := range stations {
		n := lossText(c, shortNumber)
		blind = blind || c.Blind && n == "" && onMap(c.Station)
		shared = shared || strings.Contains(n, "(")
		events = events || strings.Contains(n, "*")
		if n != "" && !onMap(c.Station) {
			beside = append(beside, Clean(string(c.Station))+" "+n)
		}
	}
	if beside != nil {
		wrap(b, "  ", "elsewhere: "+strings.Join(beside, ", "), s.width())
	}
	for _, l := range []struct {
		used bool
		text string
	}{
		{blind && !chosen, "?    no counter of a loss at this station was read"},
		{blind && chosen, "?    no counter of a loss at this station is of what -i asks for"},
		{shared, "(n)  a station further along counts these packets too"},
		{events, "n*   events, which are no number of packets"},
	} {
		if l.used {
			b.WriteString("  " + l.text + "\n")
		}
	}
}

func onMap(s record.Station) bool {
	for _, row := range mapRows {
		if row[0] == s || row[1] == s {
			return true
		}
	}
	return false
}
