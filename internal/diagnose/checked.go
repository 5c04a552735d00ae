package diagnose

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// checked says what was looked at, a line each. The result is never nil.
func (m *matcher) checked(l *ledger) []string {
	out := []string{}
	if l.watched() {
		out = append(out, m.checkedDrops())
	}
	out = append(out, m.checkedCounters()...)
	return append(out, m.checkedConclusions()...)
}

// checkedDrops is about the drops that were seen.
func (m *matcher) checkedDrops() string {
	a := &m.b.o.Accounting
	var by []string
	for _, s := range m.b.o.Sources {
		if s.Name != sourceCounters && (s.State == record.SourceOK || s.State == record.SourceDegraded) {
			by = append(by, s.Name)
		}
	}
	line := fmt.Sprintf("drops: each packet that the kernel freed as lost, for %s: %d were", seconds(m.b.o.Window), a.DropsSeen)
	if len(by) > 0 {
		line += ", seen by " + strings.Join(by, " and ")
	}
	return line
}

// seconds is how long a window was.
func seconds(w record.Window) string { return fmt.Sprintf("%.3g s", w.Duration.Seconds()) }

// checkedCounters is about the counters that were read: how many, and at which
// stations there were some of a loss.
func (m *matcher) checkedCounters() []string {
	cs := m.b.o.Counters
	if len(cs) == 0 {
		return nil
	}
	type at struct{ read, moved int }
	stations := map[record.Station]*at{}
	meanings := map[string]*CounterMeaning{}
	devices := map[deviceAt]bool{}
	for i := range cs {
		c := &cs[i]
		if c.Device.Index != 0 {
			devices[deviceAt{c.NetNS.Inode, c.Device.Index}] = true
		}
		what, ok := meanings[c.Name]
		if !ok {
			if found, known := m.k.Counter(c.Name); known && found.Kind == "loss" {
				what = &found
			}
			meanings[c.Name] = what
		}
		if what == nil || c.Level {
			continue
		}
		s := stations[what.Station]
		if s == nil {
			s = &at{}
			stations[what.Station] = s
		}
		s.read++
		s.moved += btoi(c.Delta > 0)
	}
	var quiet, moved []string
	for _, s := range record.Stations() {
		switch n := stations[s]; {
		case n == nil:
		case n.moved > 0:
			moved = append(moved, fmt.Sprintf("%s (%d of %d)", s, n.moved, n.read))
		default:
			quiet = append(quiet, fmt.Sprintf("%s (%d)", s, n.read))
		}
	}
	out := []string{fmt.Sprintf("counters: %d, of the host, of %s and of %s", len(cs),
		plural(len(m.b.spaces), "network namespace"), plural(len(devices), "device"))}
	if len(quiet) > 0 {
		out = append(out, "counters of a loss that did not move: "+strings.Join(quiet, ", "))
	}
	if len(moved) > 0 {
		out = append(out, "counters of a loss that moved: "+strings.Join(moved, ", "))
	}
	return out
}

func plural(n int, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// checkedConclusions is about the conclusions: which could be tested, and which
// could not because a number is missing.
func (m *matcher) checkedConclusions() []string {
	var tested, unknown []string
	for _, c := range m.k.conclusions {
		known := slices.ContainsFunc(m.placesFor(c), func(p place) bool { return m.tests(c, p) })
		if known {
			tested = append(tested, c.ID)
		} else {
			unknown = append(unknown, c.ID)
		}
	}
	var out []string
	if len(tested) > 0 {
		out = append(out, "troubles that are no loss here, tested: "+strings.Join(tested, ", "))
	}
	if len(unknown) > 0 {
		out = append(out, "troubles that are no loss here, not tested because numbers were not read: "+strings.Join(unknown, ", "))
	}
	return out
}

// tests says whether it is known there if a conclusion holds.
func (m *matcher) tests(c *Cause, p place) bool {
	s := m.probe(c, p)
	if c.when != nil {
		if ok, err := c.when.truth(s); err != nil || !ok {
			return err == nil
		}
	}
	_, err := c.holds.truth(s)
	return err == nil
}
