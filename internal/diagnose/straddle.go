package diagnose

import (
	"slices"

	"github.com/whydrop/whydrop/record"
)

// Straddle keeps packets from being counted twice by intervals that follow each
// other: counters are not all read in the same instant, so of two that count the
// same packet one may show it in this interval and the other in the next. Hand the
// same one to each CountersByStation of a run of intervals; the zero value is for
// the first. What one interval leaves is only good for the next.
type Straddle struct {
	last, now []surplus
}

// surplus is a counter whose loss was counted, and what others of the same
// packets had meanwhile: as much as they lag behind may come later.
type surplus struct {
	name     string
	station  record.Station
	at       scopeOf
	overlaps []string
	lost     uint64
	had      map[string]uint64 // by their names
}

// next begins an interval.
func (t *Straddle) next() { t.last, t.now = t.now, t.last[:0] }

// of says whether s and l can count the same packet at the same station.
func (s *surplus) of(m CounterMeaning, l *stationLine) bool {
	return s.station == m.Station && s.at.near(l.scope()) &&
		(slices.Contains(m.Overlaps, s.name) || slices.Contains(s.overlaps, l.Name))
}

// take is how much of a loss of n the interval before has counted, by another
// counter.
func (t *Straddle) take(m CounterMeaning, l *stationLine, n uint64) uint64 {
	var taken uint64
	for i := range t.last {
		s := &t.last[i]
		if !s.of(m, l) || s.had[l.Name] >= s.lost {
			continue
		}
		some := min(n-taken, s.lost-s.had[l.Name])
		s.lost, taken = s.lost-some, taken+some
	}
	return taken
}

// keep notes a counter whose loss n is counted in this interval.
func (t *Straddle) keep(m CounterMeaning, l *stationLine, n uint64) {
	t.now = append(t.now, surplus{l.Name, m.Station, l.scope(), m.Overlaps, n, map[string]uint64{}})
}

// match notes n of a counter that is not counted, because another one is.
func (t *Straddle) match(m CounterMeaning, l *stationLine, n uint64) {
	for i := range t.now {
		s := &t.now[i]
		if !s.of(m, l) || s.had[l.Name] >= s.lost {
			continue
		}
		some := min(n, s.lost-s.had[l.Name])
		s.had[l.Name], n = s.had[l.Name]+some, n-some
	}
}

// near says whether counters of two scopes can count the same packet.
func (s scopeOf) near(o scopeOf) bool {
	none := record.Device{}
	switch {
	case s == scopeOf{} || o == scopeOf{}:
		return true
	case s.netns != o.netns:
		return false
	}
	return s.device == o.device || s.device == none || o.device == none
}
