package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// maxCounters bounds the counters that are printed; -j has all of them.
const maxCounters = 10

// booked is a counter as the ledger tells it apart.
type booked struct {
	name, object  string
	netns, device uint32
}

func bookedAs(c record.Counter) booked {
	return booked{c.Name, c.Object, c.NetNS.Inode, c.Device.Index}
}

// moved are the counters that moved, that no finding quotes and that the ledger
// does not explain. Of a total the parts are not among them.
func moved(d record.Diagnosis) []record.Counter {
	closed, totals := map[booked]bool{}, map[booked]bool{}
	for _, e := range d.Ledger.Entries {
		closed[booked{e.Counter, e.Object, e.NetNS.Inode, e.Device.Index}] = e.Closed
	}
	for _, c := range d.Counters {
		if c.Object == "" {
			totals[bookedAs(c)] = true
		}
	}
	var out []record.Counter
	for _, c := range d.Counters {
		total := bookedAs(c)
		total.object = ""
		part := c.Object != "" && totals[total]
		if c.Delta > 0 && len(c.ExplainedBy) == 0 && !closed[bookedAs(c)] && !part {
			out = append(out, c)
		}
	}
	return out
}

// unbooked are those of the counters that the ledger does not list.
func unbooked(cs []record.Counter, l record.Ledger) []record.Counter {
	listed := map[booked]bool{}
	for _, e := range l.Entries {
		listed[booked{e.Counter, e.Object, e.NetNS.Inode, e.Device.Index}] = true
	}
	return slices.DeleteFunc(cs, func(c record.Counter) bool {
		return listed[bookedAs(c)]
	})
}

// writeCounters prints the counters that the findings and the ledger leave over:
// those that moved, and, where the diagnosis has them, those that did not move
// and are not 0.
func writeCounters(b *strings.Builder, d record.Diagnosis, s Style) {
	var texts []string
	left := unbooked(moved(d), d.Ledger)
	for _, c := range left[:min(len(left), maxCounters)] {
		texts = append(texts, fmt.Sprintf("%s +%d%s", Clean(c.Name), c.Delta, whereText(c)))
	}
	if n := len(left) - maxCounters; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more (-j lists them)", n))
	}
	if len(texts) > 0 {
		wrap(b, field("moved too"), "counters of loss or pressure that no finding quotes: "+strings.Join(texts, ", "), s.width())
	}
	writeSinceBoot(b, d, s)
}

// writeSinceBoot prints the counters that did not move, in columns.
func writeSinceBoot(b *strings.Builder, d record.Diagnosis, s Style) {
	var still []record.Counter
	for _, c := range d.Counters {
		if c.Delta == 0 && c.After > 0 {
			still = append(still, c)
		}
	}
	if len(still) == 0 {
		return
	}
	wrap(b, field("since boot"), fmt.Sprintf("%s of loss did not move in these %s, but %s not 0 since boot (or since the device or namespace was made):",
		plural(uint64(len(still)), "counter"), seconds(d.Window.Duration), isAre(len(still))), s.width())
	shown := still[:min(len(still), maxCounters)]
	cells := make([][]string, len(shown))
	for i, c := range shown {
		cells[i] = []string{fmt.Sprint(c.After), Clean(c.Name) + whereText(c), Clean(c.Command)}
	}
	widths := columnWidths(cells)
	for _, c := range cells {
		line := fmt.Sprintf("%s%*s  %s  %s", field(""), widths[0], c[0], pad(c[1], min(widths[1], maxName)), c[2])
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	if n := len(still) - len(shown); n > 0 {
		fmt.Fprintf(b, "%sand %d more (-j lists them)\n", field(""), n)
	}
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// whereText says whose counter it is: " (queue rx-0, eth0, netns blue)", or
// nothing for one of the whole host.
func whereText(c record.Counter) string {
	var parts []string
	if c.Object != "" {
		parts = append(parts, Clean(c.Object))
	}
	if c.Device.Index != 0 || c.Device.Name != "" {
		parts = append(parts, deviceText(c.Device))
	}
	if c.NetNS.Inode != 0 && c.NetNS.Name != "host" {
		parts = append(parts, "netns "+netnsText(c.NetNS))
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}
