package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// What may excuse the growth of a counter that drops do not explain. Each has a
// bound: nothing excuses more than it can be shown to be.

const whySkew = "the two are not read at the same instant"

// maxSkew is by how many drops a counter may be ahead: the kernel counts a
// packet a moment before it frees it, with some in bulk (64 at once in
// net/sched/sch_fq_codel.c, fq_codel_drop). The time between the two reads is
// no reason: that of the counters lies within that of the drops.
const maxSkew = 64

// fewSkew is what may always lie between two numbers.
const fewSkew = 3

// ahead is by how much a counter that moved by n may be ahead of its drops.
func ahead(n uint64) uint64 { return max(fewSkew, min(n/50, maxSkew)) }

// apart is by how much two counters of n packets may differ because one is read
// after the other: by what was lost in the time that the counters did not see.
func (l *ledger) apart(n uint64) uint64 {
	return max(ahead(n), uint64(min(0.02, l.m.b.slack)*float64(n)))
}

// explain looks for what explains the rest of x, which no other counter has.
func (l *ledger) explain(x *ledgerLine) {
	x.alone = x.rest
	var rule raised
	if x.raised != nil {
		rule = *x.raised
	}
	switch {
	case x.Drops > 0 && x.rest <= ahead(x.Delta):
		x.alone = 0
		x.close(whySkew)
	case l.reckoned(x):
		x.close(cmp.Or(rule.Silent, rule.Harmless, "its packets raise no drop event"))
	case !x.packets() && lostBy(x.findings) >= x.rest:
		x.close(x.whyUnit())
	case x.least > 0:
		x.close("a packet can be counted more than once")
	case l.harmless(x):
		x.close(rule.Harmless)
	case l.unseen(x):
	case slices.ContainsFunc(x.findings, func(f *result) bool { return l.others(f, x) >= x.rest }):
		// A finding quotes it, of drops that it was not given.
	case x.Station != record.StationUnknown:
		l.report(x)
	}
}

// reckoned says whether findings that counters tell of have the rest.
func (l *ledger) reckoned(x *ledgerLine) bool {
	var n uint64
	for _, f := range x.findings {
		if f.LostBy == lostByCounters {
			n += f.Drops - min(f.Drops, f.events) + f.Events
		}
	}
	return n > 0 && (n >= x.rest || x.rest-n <= l.apart(x.rest))
}

// others are the drops of a finding that x was not given.
func (l *ledger) others(f *result, x *ledgerLine) uint64 {
	n := f.events
	for _, i := range f.counts {
		for _, t := range l.taken[i] {
			if t.line == x {
				n -= min(n, t.drops)
			}
		}
	}
	return n
}

// lostBy is what findings tell of.
func lostBy(fs []*result) (n uint64) {
	for _, f := range fs {
		n = plus(n, max(f.Drops, f.Events))
	}
	return n
}

// spared is how much of c other counters say to be no loss.
func (m *matcher) spared(c *record.Counter) (n uint64) {
	for _, name := range m.k.noLoss[c.Name] {
		if part, ok := m.b.counter(name, place{ns: c.NetNS, dev: c.Device}); ok {
			n = plus(n, part.Delta)
		}
	}
	return n
}

// harmless takes from the rest what is no loss; true where that is all of it.
func (l *ledger) harmless(x *ledgerLine) bool {
	if x.raised == nil || x.raised.Harmless == "" {
		return false
	}
	n := l.spare(x)
	if n >= x.rest {
		return true
	}
	x.rest -= n
	return false
}

// spare is how much of the counter can be without any loss: 0 where it is not
// known.
func (l *ledger) spare(x *ledgerLine) uint64 {
	e := x.raised.spare
	if e == nil {
		if l.unsure(x) {
			return 0
		}
		return math.MaxUint64 // what was lost raised a drop
	}
	var s scope
	l.m.b.functions(&s, place{ns: x.NetNS, dev: x.Device})
	n, err := e.number(&s)
	if err != nil {
		return 0
	}
	return n
}

// unsure says that the rest of x may be no loss, and that only drops could tell,
// of which none or not all were seen.
func (l *ledger) unsure(x *ledgerLine) bool {
	r := x.raised
	return r != nil && r.Harmless != "" && r.spare == nil && !(l.watched() && l.m.b.o.Accounting.AlertsLost == 0)
}

// unseenDrops are those of which nothing but their number is known.
func unseenDrops(a *record.Accounting) uint64 {
	return a.DropsUnattributed + a.MapFull + a.DropsLost
}

// unseen closes x where the rest may be drops that nobody could look at, or
// that were filtered out, and takes it off them.
func (l *ledger) unseen(x *ledgerLine) bool {
	if x.raised == nil || len(x.raised.By) == 0 {
		return false
	}
	a := &l.m.b.o.Accounting
	filtered := l.filtered
	if x.NetNS.Inode != 0 && x.raised.Silent != "" {
		filtered = 0
	}
	switch {
	case l.hidden >= x.rest:
		l.hidden -= x.rest
		x.close(fmt.Sprintf("%d drops could not be looked at", unseenDrops(a)))
	case filtered >= x.rest && x.NetNS.Inode == 0:
		l.filtered -= x.rest
		x.close(fmt.Sprintf("it counts for the whole host, and %d drops were filtered out", a.DropsFiltered))
	case filtered >= x.rest:
		l.filtered -= x.rest
		x.close(fmt.Sprintf("%d drops were filtered out", a.DropsFiltered))
	default:
		return false
	}
	return true
}

// report makes a finding of the rest.
func (l *ledger) report(x *ledgerLine) {
	if !x.packets() {
		x.because(x.whyUnit())
	}
	if l.unsure(x) {
		x.because("it may be no loss: " + x.raised.Harmless)
	}
	if !slices.Contains(x.ExplainedBy, record.CauseNotKnown) {
		x.ExplainedBy = append(x.ExplainedBy, record.CauseNotKnown)
	}
	l.found = append(l.found, result{Finding: l.onlyCounted(x)})
}
