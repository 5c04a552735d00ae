package diagnose

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// The ledger sets each loss counter that moved beside the drops that raise it.
// Each drop is given to a counter at most once; counters that count the same
// packets share it.

// ledgerLine is an entry in the making.
type ledgerLine struct {
	record.LedgerEntry
	counter *record.Counter
	meaning CounterMeaning
	raised  *raised // nil where nothing is known
	kin     *kinship
	// exact, least and most are the drops given to it, by relation.
	exact, least, most uint64
	uses               []int // the counts of these drops
	why                []string
	// spared of the delta are no loss: other counters say so.
	spared uint64
	// rest is what the drops leave of the delta, alone the part of it that no
	// more precise counter has.
	rest, alone uint64
	findings    []*result // that account for it
	// kind is that of its device, as base.kindOf gives it.
	kind      string
	kindKnown bool
}

// spot is where a counter counts: a namespace, or 0 for the host, and a device,
// or 0.
type spot struct {
	name         string
	inode, index uint32
}

// taken is what a line took of a count.
type taken struct {
	line  *ledgerLine
	drops uint64
}

// doubt is a count that may have raised the counter of some lines, all of one
// counter.
type doubt struct {
	lines  []*ledgerLine
	count  int
	weight int
	why    string
}

// quoteKey is a counter, and the label of a namespace or "" for all.
type quoteKey struct{ name, netns string }

// twinKey is a counter, and by how much it moved.
type twinKey struct {
	name  string
	delta uint64
}

// movedKey is a device, and by how much a counter of it moved.
type movedKey struct {
	inode, index uint32
	delta        uint64
}

// ledger is the set of lines with the drops that are given to them.
type ledger struct {
	m      *matcher
	lines  []*ledgerLine
	byName map[string][]*ledgerLine
	at     map[spot][]*ledgerLine
	// overlapped are the counters that say of themselves that they overlap with
	// one that does not know of it, as those of drivers do.
	overlapped map[string][]string
	// inside are the lines of a counter on devices of a namespace.
	inside map[spot][]*ledgerLine
	taken  [][]taken // by count
	doubts []doubt
	// equal are the lines of devices by their counter and delta, moved by their
	// device and delta.
	equal map[twinKey][]*ledgerLine
	moved map[movedKey][]*ledgerLine
	// hidden and filtered are what is left of the drops that could not be
	// looked at, or were not asked for: each may be in one counter.
	hidden, filtered uint64
	// owners are the findings of each count, names the counters that each
	// quotes, quoting the findings by what they quote.
	owners  [][]*result
	names   map[*result][]string
	quoting map[quoteKey][]*result
	found   []result
}

// ledger makes the ledger of the findings all, and the findings of the loss
// that only counters show.
func (m *matcher) ledger(all []result) *ledger {
	l := &ledger{
		m: m, byName: map[string][]*ledgerLine{}, at: map[spot][]*ledgerLine{}, inside: map[spot][]*ledgerLine{},
		taken: make([][]taken, len(m.counts)), owners: make([][]*result, len(m.counts)), names: map[*result][]string{},
		equal: map[twinKey][]*ledgerLine{}, moved: map[movedKey][]*ledgerLine{}, quoting: map[quoteKey][]*result{},
		overlapped: map[string][]string{},
	}
	l.hidden, l.filtered = unseenDrops(&m.b.o.Accounting), m.b.o.Accounting.DropsFiltered
	l.collect()
	l.accounts(all)
	if len(l.lines) == 0 {
		return l
	}
	l.give()
	l.doubtful()
	for _, x := range l.lines {
		l.compare(x)
	}
	l.surplus()
	l.chains()
	return l
}

// collect makes a line of each loss counter that moved, but for those that count
// bytes. Of a counter that has a total the parts are left out.
func (l *ledger) collect() {
	o := l.m.b.o
	whole := totals(o.Counters)
	for i := range o.Counters {
		c := &o.Counters[i]
		if c.Delta == 0 || c.Level || c.Object != "" && whole[spotOf(c)] {
			continue
		}
		m, known := l.m.k.Counter(c.Name)
		if !known || m.Kind != "loss" || m.Unit == "bytes" {
			continue
		}
		x := &ledgerLine{
			counter: c, meaning: m, raised: l.m.k.raised[c.Name], kin: l.m.k.related[c.Name],
			LedgerEntry: record.LedgerEntry{
				Counter: c.Name, Station: m.Station, NetNS: c.NetNS, Device: c.Device, Object: c.Object,
				Delta: c.Delta, ExplainedBy: []string{},
			},
		}
		if x.kin == nil {
			x.kin = &kinship{}
		}
		if c.Device.Index != 0 {
			x.kind, x.kindKnown = l.m.b.kindOf(c.NetNS, c.Device)
		}
		x.spared = min(l.m.spared(c), c.Delta)
		l.lines = append(l.lines, x)
	}
	slices.SortStableFunc(l.lines, compareLedgerLines)
	for _, x := range l.lines {
		if len(l.byName[x.Counter]) == 0 {
			for _, name := range x.meaning.Overlaps {
				if !x.kin.same[name] {
					l.overlapped[name] = append(l.overlapped[name], x.Counter)
				}
			}
		}
		l.byName[x.Counter] = append(l.byName[x.Counter], x)
		s := spotOf(x.counter)
		l.at[s] = append(l.at[s], x)
		if s.index != 0 {
			s.index = 0
			l.inside[s] = append(l.inside[s], x)
			k := twinKey{x.Counter, x.Delta}
			l.equal[k] = append(l.equal[k], x)
			m := movedKey{x.NetNS.Inode, x.Device.Index, x.Delta}
			l.moved[m] = append(l.moved[m], x)
		}
	}
}

// totals are the counters that have a total beside parts that moved. One that
// did not move itself, because it was reset, tells nothing of them.
func totals(cs []record.Counter) map[spot]bool {
	parts, whole := map[spot]bool{}, map[spot]bool{}
	for i := range cs {
		if c := &cs[i]; c.Object != "" && c.Delta > 0 {
			parts[spotOf(c)] = true
		}
	}
	if len(parts) == 0 {
		return whole
	}
	for i := range cs {
		if c := &cs[i]; c.Object == "" && c.Delta > 0 && parts[spotOf(c)] {
			whole[spotOf(c)] = true
		}
	}
	return whole
}

func spotOf(c *record.Counter) spot { return spot{c.Name, c.NetNS.Inode, c.Device.Index} }

// compareLedgerLines orders lines by the packet's way; the rest makes it total.
func compareLedgerLines(a, b *ledgerLine) int {
	return cmp.Or(
		cmp.Compare(stationIndex(a.Station), stationIndex(b.Station)),
		cmp.Compare(a.NetNS.Inode, b.NetNS.Inode),
		cmp.Compare(a.Device.Index, b.Device.Index),
		strings.Compare(a.Counter, b.Counter),
		strings.Compare(a.Object, b.Object),
	)
}

// accounts notes which findings account for which lines, and for which counts:
// a finding accounts for the counters that it quotes for itself, and for those
// that it is reckoned from.
func (l *ledger) accounts(all []result) {
	causes := map[string]*Cause{}
	for _, c := range l.m.k.causes {
		causes[c.ID] = c
	}
	for i := range all {
		f := &all[i]
		for _, n := range f.counts {
			l.owners[n] = append(l.owners[n], f)
		}
		l.names[f] = quoted(f.Finding, causes[f.Cause])
		for _, name := range l.names[f] {
			for _, ns := range append([]string{""}, f.NetNS...) {
				k := quoteKey{name, ns}
				l.quoting[k] = append(l.quoting[k], f)
			}
		}
	}
	for _, x := range l.lines {
		x.findings = l.findingsOf(x.counter)
	}
}

// findingsOf are the findings that account for a counter.
func (l *ledger) findingsOf(c *record.Counter) []*result {
	found := l.quoting[quoteKey{c.Name, netnsLabel(c.NetNS)}]
	label := deviceLabel(c.Device, c.NetNS)
	if label == "" {
		return found
	}
	var out []*result
	for _, f := range found {
		if len(f.Devices) == 0 || slices.Contains(f.Devices, label) {
			out = append(out, f)
		}
	}
	return out
}

// quoted are the counters that account for a finding. c is its cause, or nil.
func quoted(f record.Finding, c *Cause) []string {
	var names []string
	for _, e := range f.Evidence {
		if e.Kind == "counter" && e.Supports && !slices.Contains(names, e.Name) {
			names = append(names, e.Name)
		}
	}
	if c == nil || c.lost == nil || f.LostBy != lostByCounters {
		return names
	}
	for _, call := range c.lost.calls() {
		if call[0] == "counter" && !slices.Contains(names, call[1]) {
			names = append(names, call[1])
		}
	}
	return names
}

// give hands each drop to the counters that it raises for certain, and notes
// which others it may raise.
func (l *ledger) give() {
	sought := map[*kind]bool{}
	var found []candidateRaising
	for i := range l.m.counts {
		c, d := &l.m.counts[i], l.m.kinds[i]
		if c.Drops == 0 {
			continue
		}
		if !sought[d] {
			sought[d], d.raisings = true, l.moving(d.drop)
		}
		found = d.raised(&c.Key, found[:0])
		for _, r := range found {
			l.place(i, r)
		}
	}
}

// moving are the raisings of counters that moved which can hold for d.
func (l *ledger) moving(d drop) []raisingOf {
	var out []raisingOf
	for _, s := range d.sites() {
		for _, r := range l.m.k.raisings[s] {
			if len(l.byName[r.counter]) > 0 && r.holdsKey(d) {
				out = append(out, r)
			}
		}
	}
	return out
}

// candidateRaising is a raising whose conditions a count meets.
type candidateRaising struct {
	raisingOf
	certainty certainty
}

// raised adds to out the raisings that hold for drops with a key: one for each
// counter that moved, the most certain.
func (d *kind) raised(key *record.Key, out []candidateRaising) []candidateRaising {
	for _, r := range d.raisings {
		how := r.meets(key)
		if how == no {
			continue
		}
		i := slices.IndexFunc(out, func(o candidateRaising) bool { return o.counter == r.counter })
		switch {
		case i < 0:
			out = append(out, candidateRaising{r, how})
		case how > out[i].certainty || how == out[i].certainty && r.weight() > out[i].weight():
			out[i] = candidateRaising{r, how}
		}
	}
	return out
}

// place gives a count to the lines of a raising's counter: to those where it
// happened, or, where that is not known, to all of them as a doubt. Its own
// device comes before others.
func (l *ledger) place(count int, r candidateRaising) {
	key := &l.m.counts[count].Key
	ns, dev := key.NetNS.Inode, key.Device.Index
	if ns == 0 || r.Scope == scopeHost {
		l.offer(l.fitting(l.byName[r.counter], key, r), count, r, maybe)
		return
	}
	l.offer(l.at[spot{r.counter, 0, 0}], count, r, r.certainty)
	l.offer(l.at[spot{r.counter, ns, 0}], count, r, r.certainty)
	if dev != 0 {
		own := l.at[spot{r.counter, ns, dev}]
		l.offer(l.fitting(own, key, r), count, r, r.certainty)
		if r.Scope == "" {
			return
		}
	}
	l.offer(l.fitting(l.inside[spot{r.counter, ns, 0}], key, r), count, r, maybe)
}

// fitting are the lines whose devices a drop with the key may have been
// counted by.
func (l *ledger) fitting(lines []*ledgerLine, key *record.Key, r candidateRaising) []*ledgerLine {
	if (key.Device.Index == 0 || key.NetNS.Inode == 0) && len(r.Kinds) == 0 {
		return lines
	}
	var out []*ledgerLine
	for _, x := range lines {
		if l.fits(x, key, r) {
			out = append(out, x)
		}
	}
	return out
}

func (l *ledger) fits(x *ledgerLine, key *record.Key, r candidateRaising) bool {
	if x.Device.Index == 0 {
		return true
	}
	// Without its namespace the device is that by which the packet came in, in
	// whichever namespace that was.
	ns, dev := key.NetNS.Inode, key.Device.Index
	own := ns != 0 && ns == x.NetNS.Inode && dev == x.Device.Index
	switch {
	case own && r.Scope == scopeHost, !own && ns != 0 && dev != 0 && r.Scope == "":
		return false
	case len(r.Kinds) == 0:
		return true
	}
	return x.kindKnown && slices.Contains(r.Kinds, x.kind) || !x.kindKnown && own
}

// offer gives a count to lines, for certain or as a doubt. A part of something
// can only be doubtful: which part a drop was of its key does not tell.
func (l *ledger) offer(lines []*ledgerLine, count int, r candidateRaising, how certainty) {
	if len(lines) == 0 {
		return
	}
	if how == maybe || lines[0].Object != "" {
		l.doubts = append(l.doubts, doubt{lines, count, l.weightOf(lines[0], count, r), r.Why})
		return
	}
	n := l.m.counts[count].Drops
	for _, x := range lines {
		if r.Relation == relationAtLeast {
			x.least += n
		} else {
			x.exact += n
		}
		l.take(x, count, n, r.Why)
	}
}

// weightOf orders doubts: by how much the raising says of the drop, then who is
// quoted by the finding of the drops, then the drop's own device.
func (l *ledger) weightOf(x *ledgerLine, count int, r candidateRaising) int {
	w := 4 * r.weight()
	if slices.ContainsFunc(l.owners[count], func(f *result) bool { return slices.Contains(l.names[f], r.counter) }) {
		w += 2
	}
	key := &l.m.counts[count].Key
	if x.Device.Index != 0 && x.Device.Index == key.Device.Index && x.NetNS.Inode == key.NetNS.Inode {
		w++
	}
	return w
}

func (l *ledger) take(x *ledgerLine, count int, n uint64, why string) {
	x.uses = append(x.uses, count)
	x.because(why)
	l.taken[count] = append(l.taken[count], taken{x, n})
}

// doubtful gives the drops that may have raised a counter to the counters that
// need them, as far as no other counter of other packets has them: those that
// say more of the drop first.
func (l *ledger) doubtful() {
	slices.SortStableFunc(l.doubts, func(a, b doubt) int { return cmp.Compare(b.weight, a.weight) })
	for _, d := range l.doubts {
		left := uint64(math.MaxUint64) // not known yet; the same for all of a counter
		for _, x := range d.lines {
			has := x.exact + x.least + x.most + x.spared
			if has >= x.Delta {
				continue
			}
			if left == math.MaxUint64 {
				left = l.left(d.count, x)
			}
			if left == 0 {
				break
			}
			n := min(left, x.Delta-has)
			left -= n
			x.most += n
			l.take(x, d.count, n, d.why)
		}
	}
}

// left is how many drops of a count can still be x's.
func (l *ledger) left(count int, x *ledgerLine) uint64 {
	n := l.m.counts[count].Drops
	for _, t := range l.taken[count] {
		if !samePackets(t.line, x) {
			n -= min(n, t.drops)
		}
	}
	return n
}

// samePackets says whether two lines may count one packet. On two devices they
// can only where it goes out by one and comes in by the other.
func samePackets(a, b *ledgerLine) bool {
	if a.Device.Index != 0 && b.Device.Index != 0 && !opposite(a, b) &&
		(a.NetNS.Inode != b.NetNS.Inode || a.Device.Index != b.Device.Index) {
		return false
	}
	return a.kin.same[b.Counter] || b.kin.same[a.Counter] ||
		slices.Contains(a.meaning.Overlaps, b.Counter) || slices.Contains(b.meaning.Overlaps, a.Counter)
}
