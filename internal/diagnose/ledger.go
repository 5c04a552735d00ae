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
	// rest is what the drops leave of the delta, alone the part of it that no
	// more precise counter has.
	rest, alone uint64
	findings    []*result // that account for it
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
	// elsewhere: not on the drop's own device.
	elsewhere bool
	why       string
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
	// owners are the findings of each count, names the counters that each
	// quotes, quoting the findings by what they quote.
	owners  map[int][]*result
	names   map[*result][]string
	quoting map[quoteKey][]*result
	found   []result
}

// ledger makes the ledger of the findings all, and the findings of the loss
// that only counters show.
func (m *matcher) ledger(all []result) *ledger {
	l := &ledger{
		m: m, byName: map[string][]*ledgerLine{}, at: map[spot][]*ledgerLine{}, inside: map[spot][]*ledgerLine{},
		taken: make([][]taken, len(m.counts)), owners: map[int][]*result{}, names: map[*result][]string{},
		equal: map[twinKey][]*ledgerLine{}, moved: map[movedKey][]*ledgerLine{}, quoting: map[quoteKey][]*result{},
		overlapped: map[string][]string{},
	}
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

// totals are the counters that have a total beside parts that moved.
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
		if c := &cs[i]; c.Object == "" && parts[spotOf(c)] {
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
	for i := range l.m.counts {
		c := &l.m.counts[i]
		if c.Drops == 0 {
			continue
		}
		d := describe(c.Key, nil, nil)
		for _, r := range l.raisings(c.Key, d) {
			l.place(i, r)
		}
	}
}

// candidateRaising is a raising whose conditions a count meets.
type candidateRaising struct {
	raisingOf
	certainty certainty
}

// raisings are those that hold for drops with a key: one for each counter that
// moved, the most certain.
func (l *ledger) raisings(key record.Key, d drop) []candidateRaising {
	var out []candidateRaising
	for _, s := range d.sites() {
		for _, r := range l.m.k.raisings[s] {
			if len(l.byName[r.counter]) == 0 {
				continue
			}
			how := r.meets(key, d)
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
	}
	return out
}

// place gives a count to the lines of a raising's counter: to those where it
// happened, or, where that is not known, to all of them as a doubt.
func (l *ledger) place(count int, r candidateRaising) {
	key := &l.m.counts[count].Key
	ns, dev := key.NetNS.Inode, key.Device.Index
	if ns == 0 || r.Scope == scopeHost {
		l.offer(l.byName[r.counter], count, r, maybe)
		return
	}
	l.offer(l.at[spot{r.counter, 0, 0}], count, r, r.certainty)
	l.offer(l.at[spot{r.counter, ns, 0}], count, r, r.certainty)
	if dev != 0 && r.Scope == "" {
		l.offer(l.at[spot{r.counter, ns, dev}], count, r, r.certainty)
		return
	}
	l.offer(l.inside[spot{r.counter, ns, 0}], count, r, maybe)
}

// offer gives a count to lines, for certain or as a doubt. A part of something
// can only be doubtful: which part a drop was of its key does not tell.
func (l *ledger) offer(lines []*ledgerLine, count int, r candidateRaising, how certainty) {
	if len(lines) == 0 {
		return
	}
	if how == maybe || lines[0].Object != "" {
		d := doubt{lines, count, 2 * r.weight(), r.Scope == scopeHost, r.Why}
		// Before all others has it who is quoted by the finding of the drops.
		if slices.ContainsFunc(l.owners[count], func(f *result) bool { return slices.Contains(l.names[f], r.counter) }) {
			d.weight++
		}
		l.doubts = append(l.doubts, d)
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
		key := &l.m.counts[d.count].Key
		for _, x := range d.lines {
			if d.elsewhere && x.Device.Index != 0 && x.Device.Index == key.Device.Index && x.NetNS.Inode == key.NetNS.Inode {
				continue
			}
			has := x.exact + x.least + x.most
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

// samePackets says whether two lines may count one packet.
func samePackets(a, b *ledgerLine) bool {
	return a.kin.same[b.Counter] || b.kin.same[a.Counter] ||
		slices.Contains(a.meaning.Overlaps, b.Counter) || slices.Contains(b.meaning.Overlaps, a.Counter)
}
