package diagnose

import (
	"cmp"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/whydrop/whydrop/record"
)

// CounterOptions say what CountersByStation shows.
type CounterOptions struct {
	// Interval is the time between Before and After; 0 is since boot.
	Interval time.Duration
	// All shows what is 0 or did not move, and what counts no loss, too.
	All bool
	// Devices are those whose counters alone are shown; nil is everything.
	Devices *Devices
	// Straddle is that of the intervals before; nil where there are none.
	Straddle *Straddle
}

// CountersByStation sorts counters into all stations, in the order of the
// packet's way: within a station losses come first, the greatest at the top, and
// parts stand under their total. Without opt.All it leaves out what did not move
// (since boot: what is 0) and what neither counts nor announces a loss; what is
// not in the catalogue and moved is at the station unknown. hidden is how many
// were left out. No slice of the result is nil.
func CountersByStation(cs []record.Counter, k *Knowledge, opt CounterOptions) (stations []record.StationCounters, hidden int) {
	s := sorter{
		k: k, opt: opt, lines: map[record.Station][]*stationLine{}, seen: map[record.Station]bool{},
		spared: map[where]uint64{},
	}
	if s.opt.Straddle == nil {
		s.opt.Straddle = &Straddle{}
	}
	s.opt.Straddle.next()
	groups := groupCounters(cs)
	for i := range groups {
		s.add(&groups[i])
	}
	sums := s.sums()
	for _, station := range record.Stations() {
		out := record.StationCounters{
			Station: station, AlsoAt: []record.Station{}, Counters: []record.StationCounter{},
			Blind: !s.seen[station] && stationIndex(station) < stationIndex(record.StationRemote),
		}
		lines := s.lines[station]
		out.Counters = slices.Grow(out.Counters, len(lines))
		slices.SortStableFunc(lines, compareStationLines)
		s.lost(&out, lines, sums)
		for _, l := range lines {
			out.Counters = append(out.Counters, l.StationCounter)
		}
		stations = append(stations, out)
	}
	return stations, s.hidden
}

// counterGroup is a counter with its parts. Without a total, parts are all.
type counterGroup struct {
	total *record.Counter
	parts []*record.Counter
}

// groupCounters joins parts and totals, in the order of their first ones.
func groupCounters(cs []record.Counter) []counterGroup {
	type key struct {
		name string
		at   scopeOf
	}
	places := make(map[key]int, len(cs))
	groups := make([]counterGroup, 0, len(cs))
	for i := range cs {
		c := &cs[i]
		id := key{c.Name, scopeOf{c.NetNS.Inode, c.Device}}
		at, known := places[id]
		if !known {
			at = len(groups)
			places[id] = at
			groups = append(groups, counterGroup{})
		}
		if g := &groups[at]; c.Object == "" && g.total == nil {
			g.total = c
		} else {
			g.parts = append(g.parts, c)
		}
	}
	return groups
}

// scopeOf is whose counter it is; the zero value is the whole host.
type scopeOf struct {
	netns  uint32
	device record.Device
}

// stationLine is a counter that is shown at its station. What adds to its loss
// is always shown.
type stationLine struct{ record.StationCounter }

func (l *stationLine) scope() scopeOf { return scopeOf{l.NetNS.Inode, l.Device} }

// sorter sorts groups into stations.
type sorter struct {
	k     *Knowledge
	opt   CounterOptions
	lines map[record.Station][]*stationLine
	seen  map[record.Station]bool // where a counter of loss was read
	// spared is how much of a counter is no loss, as others say.
	spared map[where]uint64
	hidden int
}

// add takes a counter. Parts without a total are lines of their own.
func (s *sorter) add(g *counterGroup) {
	all := g.parts
	if g.total != nil {
		all = []*record.Counter{g.total}
	}
	m, known := s.k.Counter(all[0].Name)
	if !known {
		m = CounterMeaning{Station: record.StationUnknown, Direction: record.DirectionUnknown, Kind: record.KindUnknown}
	}
	if s.opt.Devices != nil && !s.opt.Devices.has(all[0]) {
		s.hidden += len(all)
		if g.total != nil {
			s.hidden += len(g.parts)
		}
		return
	}
	if m.Kind == "loss" {
		s.seen[m.Station] = true
	}
	for _, whole := range m.PartOf {
		for _, c := range all {
			w := where{whole, scopeOf{c.NetNS.Inode, c.Device}, false}
			s.spared[w] = plus(s.spared[w], s.grown(c.After, c.Delta))
		}
	}
	var parts []*record.Counter
	if g.total != nil {
		parts = g.parts
	}
	shows := func(c *record.Counter) bool { return s.shows(c, m) }
	for _, c := range all {
		// Nearly all did not move, and a part that did brings its total along.
		if !shows(c) && !slices.ContainsFunc(parts, shows) {
			s.hidden += 1 + len(parts)
			continue
		}
		l := s.line(c, m)
		s.parts(l, parts, m)
		s.lines[m.Station] = append(s.lines[m.Station], l)
	}
}

func (s *sorter) line(c *record.Counter, m CounterMeaning) *stationLine {
	return &stationLine{record.StationCounter{
		Name: c.Name, Kind: m.Kind, Direction: m.Direction, Unit: m.Unit,
		NetNS: c.NetNS, Device: c.Device, Object: c.Object, Level: c.Level,
		Before: c.Before, After: c.After, Delta: c.Delta, Rate: s.rate(c), Reset: c.Reset,
		Source: c.Source, Command: c.Command, Parts: []record.CounterPart{},
	}}
}

// parts adds what is shown of the parts of a total.
func (s *sorter) parts(l *stationLine, parts []*record.Counter, m CounterMeaning) {
	for _, p := range parts {
		if !s.shows(p, m) {
			s.hidden++
			continue
		}
		l.Parts = append(l.Parts, record.CounterPart{
			Object: p.Object, Before: p.Before, After: p.After, Delta: p.Delta, Rate: s.rate(p), Reset: p.Reset,
		})
	}
	slices.SortStableFunc(l.Parts, func(a, b record.CounterPart) int {
		return cmp.Or(cmp.Compare(b.Delta, a.Delta), cmp.Compare(b.After, a.After), strings.Compare(a.Object, b.Object))
	})
}

func (s *sorter) rate(c *record.Counter) float64 {
	if s.opt.Interval <= 0 {
		return 0
	}
	return float64(c.Delta) / s.opt.Interval.Seconds()
}

// shows says whether a counter is of interest by itself.
func (s *sorter) shows(c *record.Counter, m CounterMeaning) bool {
	switch {
	case s.opt.All:
		return true
	case m.Kind == "activity" || m.Kind == "nothing" || m.Kind == record.KindUnknown && c.Level:
		return false
	case s.opt.Interval <= 0:
		return c.After > 0
	}
	return c.Delta > 0 || c.Level && c.Before != c.After || c.Reset && m.Kind != record.KindUnknown
}

// amount is what a line adds to the loss of its station: at least what any part
// of it does.
func (s *sorter) amount(l *stationLine) uint64 {
	if l.Level || l.Kind != "loss" {
		return 0
	}
	n := s.grown(l.After, l.Delta)
	for _, p := range l.Parts {
		if s.opt.Interval > 0 {
			n = max(n, p.Delta)
		}
	}
	if l.Object == "" {
		n -= min(n, s.spared[where{l.Name, l.scope(), false}])
	}
	return n
}

// grown is what a counter adds: all since boot, or in the interval.
func (s *sorter) grown(after, delta uint64) uint64 {
	if s.opt.Interval <= 0 {
		return after
	}
	return delta
}

func inPackets(unit string) bool { return unit == "packets" || unit == "segments" }

// plus adds without starting again at 0.
func plus(a, b uint64) uint64 {
	if a > math.MaxUint64-b {
		return math.MaxUint64
	}
	return a + b
}

// where is a counter and whose it is; see lossSums.
type where struct {
	name string
	at   scopeOf
	any  bool // of any device, or of any namespace where netns is 0
}

// lossSums are losses by the name of the counter and by whose it is: of a
// device, of all in a namespace, of all.
type lossSums map[where]uint64

func (m lossSums) add(name string, at scopeOf, n uint64) {
	for _, w := range []where{{name, at, false}, {name, scopeOf{netns: at.netns}, true}, {name, scopeOf{}, true}} {
		m[w] = plus(m[w], n)
	}
}

// of is what a counter has that can count the same packets as one of at: a
// device's and its namespace's, a namespace's and the host's.
func (m lossSums) of(name string, at scopeOf) uint64 {
	host := m[where{name, scopeOf{}, false}]
	switch {
	case at == scopeOf{}:
		return m[where{name, at, true}]
	case at.device == record.Device{}:
		return plus(m[where{name, at, true}], host)
	}
	return plus(plus(m[where{name, at, false}], m[where{name, scopeOf{netns: at.netns}, false}]), host)
}

// sums are those of all stations.
func (s *sorter) sums() lossSums {
	sums := lossSums{}
	for _, lines := range s.lines {
		for _, l := range lines {
			if n := s.amount(l); n > 0 && inPackets(l.Unit) {
				sums.add(l.Name, l.scope(), n)
			}
		}
	}
	return sums
}

// lost sums up a station. Of counters that count the same packet only the
// greatest is taken.
func (s *sorter) lost(out *record.StationCounters, lines []*stationLine, sums lossSums) {
	taken := lossSums{}
	// naming are the counters taken that name another, which need not name
	// them: those of drivers are known by pattern alone.
	naming := map[string][]string{}
	byAmount := slices.Clone(lines)
	slices.SortStableFunc(byAmount, func(a, b *stationLine) int { return cmp.Compare(s.amount(b), s.amount(a)) })
	for _, l := range byAmount {
		n := s.amount(l)
		m, _ := s.k.Counter(l.Name)
		switch {
		case n == 0:
			return
		case !inPackets(l.Unit):
			if l.Unit != "bytes" {
				out.LossEvents = plus(out.LossEvents, n)
			}
			continue
		case slices.ContainsFunc(slices.Concat(m.Overlaps, naming[l.Name]), func(o string) bool { return taken.of(o, l.scope()) > 0 }):
			s.opt.Straddle.match(m, l, n-s.opt.Straddle.take(m, l, n))
			continue
		}
		taken.add(l.Name, l.scope(), n)
		had := s.opt.Straddle.take(m, l, n)
		n -= had
		s.opt.Straddle.keep(m, l, n)
		for _, o := range m.Overlaps {
			if !slices.Contains(naming[o], l.Name) {
				naming[o] = append(naming[o], l.Name)
			}
		}
		out.Lost = plus(out.Lost, n)
		out.Shared = plus(out.Shared, min(n, s.elsewhere(out, m, l, sums)))
	}
}

// elsewhere is how many of the packets of a line counters of stations further
// along the same way may count too.
func (s *sorter) elsewhere(out *record.StationCounters, m CounterMeaning, l *stationLine, sums lossSums) (n uint64) {
	for _, o := range m.Overlaps {
		other, ok := s.k.Counter(o)
		if !ok || !further(out.Station, other.Station) {
			continue
		}
		if same := sums.of(o, l.scope()); same > 0 {
			n = max(n, same)
			if !slices.Contains(out.AlsoAt, other.Station) {
				out.AlsoAt = append(out.AlsoAt, other.Station)
			}
		}
	}
	return n
}

// further says whether b comes after a on the way in, or on the way out.
func further(a, b record.Station) bool {
	i, j := stationIndex(a), stationIndex(b)
	out, end := stationIndex(record.StationSocketTX), stationIndex(record.StationNICTX)
	return i < j && j <= end && (i < out) == (j < out)
}

// compareStationLines orders losses first, then the greatest.
func compareStationLines(a, b *stationLine) int {
	return cmp.Or(
		cmp.Compare(kindRank(a), kindRank(b)),
		cmp.Compare(b.Delta, a.Delta),
		cmp.Compare(b.After, a.After),
		strings.Compare(a.Name, b.Name),
		strings.Compare(a.NetNS.Name, b.NetNS.Name),
		cmp.Compare(a.NetNS.Inode, b.NetNS.Inode),
		strings.Compare(a.Device.Name, b.Device.Name),
		cmp.Compare(a.Device.Index, b.Device.Index),
		strings.Compare(a.Object, b.Object),
	)
}

// kindRank is that of the catalogue's kinds, levels after the counters.
func kindRank(l *stationLine) int {
	i := slices.Index(counterKinds, l.Kind)
	if i < 0 {
		i = len(counterKinds)
	}
	if l.Level {
		i += len(counterKinds) + 1
	}
	return i
}

// SinceBoot are the counters of loss that did not move and are not 0, the
// greatest first, with their stations. Of parts there are those without a total.
func SinceBoot(cs []record.Counter, k *Knowledge) []record.Counter {
	out := []record.Counter{}
	for _, g := range groupCounters(cs) {
		all := g.parts
		if g.total != nil {
			all = []*record.Counter{g.total}
		}
		m, ok := k.Counter(all[0].Name)
		if !ok || m.Kind != "loss" {
			continue
		}
		for _, c := range all {
			if c.Delta == 0 && !c.Reset && c.After > 0 && !c.Level {
				still := *c
				still.Station, still.ExplainedBy = string(m.Station), []string{}
				out = append(out, still)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b record.Counter) int { return cmp.Compare(b.After, a.After) })
	return out
}

// WentBack says which counters of loss were reset, so that only the least is
// known of what they grew by; nothing where none was.
func WentBack(cs []record.Counter, k *Knowledge) []record.Blind {
	const most = 3 // names
	var names []string
	n := 0
	for i := range cs {
		c := &cs[i]
		if !c.Reset || c.Level {
			continue
		}
		if m, ok := k.Counter(c.Name); !ok || m.Kind != "loss" {
			continue
		}
		n++
		if !slices.Contains(names, c.Name) {
			names = append(names, c.Name)
		}
	}
	if n == 0 {
		return nil
	}
	text := strings.Join(names[:min(len(names), most)], ", ")
	if len(names) > most {
		text += " …"
	}
	return []record.Blind{{
		What: fmt.Sprintf("how much counters of loss grew that were reset meanwhile (%d: %s)", n, text),
		Why:  "they went back, or a part of them is gone: it may be more than is shown",
	}}
}

// LoadCounters is Load with nothing but the catalogue of counters.
func LoadCounters(fsys fs.FS) (*Knowledge, error) {
	k := &Knowledge{}
	if err := loadCatalogue(withCompiled(fsys), k); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	return k, nil
}
