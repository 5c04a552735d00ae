package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// lostByCounters is Finding.LostBy where counters tell more than drops.
const lostByCounters = "counters"

// sourceCounters is the one source of an observation that sees no drops.
const sourceCounters = "counters"

// because adds a reason why counter and drops may differ.
func (x *ledgerLine) because(why string) {
	if why != "" && !slices.Contains(x.why, why) {
		x.why = append(x.why, why)
	}
}

// close says that nothing is left open, and why.
func (x *ledgerLine) close(why string) {
	x.Closed = true
	x.because(why)
}

// packets says whether the line is a number of packets.
func (x *ledgerLine) packets() bool { return inPackets(x.meaning.Unit) }

func (x *ledgerLine) whyUnit() string { return "it counts " + x.meaning.Unit + ", not packets" }

// compare says how the delta stands to the drops that it was given, and leaves
// in rest what these do not explain.
func (l *ledger) compare(x *ledgerLine) {
	x.Drops = x.exact + x.least + x.most
	switch {
	case x.Drops == 0:
		x.Relation, x.rest = record.RelationNoDrops, x.Delta
	case x.Drops == x.Delta:
		x.Relation = record.RelationEqual
		x.Closed, x.why = true, nil
	case x.Drops < x.Delta:
		x.Relation, x.rest = record.RelationGreater, x.Delta-x.Drops
	default:
		x.Relation = record.RelationLess
		short := float64(x.Drops - x.Delta)
		switch {
		case !x.packets():
			x.close(x.whyUnit())
		case near(float64(x.Delta), float64(x.Drops)):
			x.close(whySkew)
		case short <= l.m.b.missed(float64(x.Drops)):
			x.close(l.between(x.Drops-x.Delta, x.Drops))
		}
	}
	if n := min(x.rest, x.spared); n > 0 {
		x.rest -= n
		x.because(fmt.Sprintf("%d of them are no loss: %s", n, strings.Join(l.m.k.noLoss[x.Counter], ", ")))
		x.Closed = x.rest == 0
	}
}

// between says how many packets lie between the reading of a counter and that of the
// drops, and why so many can.
func (l *ledger) between(short, drops uint64) string {
	b := l.m.b
	whole := b.o.Window.Duration.Seconds()
	n := b.slack * float64(drops)
	return fmt.Sprintf("%d packets between the two readings: drops were watched %.0f ms longer than counters, and came at %.0f a second (%.0f in that time, by chance up to %.0f)",
		short, 1000*b.slack*whole, float64(drops)/whole, n, math.Floor(b.missed(float64(drops))))
}

// surplus looks for what explains counters that moved by more than the drops
// do, the most precise counters first, and last those of which it is not known
// what raises them. What nothing explains is a finding.
func (l *ledger) surplus() {
	order := slices.Clone(l.lines)
	slices.SortStableFunc(order, func(a, b *ledgerLine) int {
		return cmp.Or(
			cmp.Compare(btoi(a.raised == nil)+btoi(a.alien()), btoi(b.raised == nil)+btoi(b.alien())),
			cmp.Compare(b.kin.depth, a.kin.depth),
			cmp.Compare(len(a.kin.same), len(b.kin.same)),
			cmp.Compare(btoi(a.NetNS.Inode == 0), btoi(b.NetNS.Inode == 0)),
		)
	})
	done := map[*ledgerLine]bool{}
	for _, x := range order {
		x.ExplainedBy = l.explainedBy(x)
		if x.rest > 0 && !l.covered(x, done) {
			l.explain(x)
		}
		done[x] = true
	}
}

// covered takes off what more precise counters have of the rest; true where
// that is all.
func (l *ledger) covered(x *ledgerLine, done map[*ledgerLine]bool) bool {
	var by []string
	var n uint64
	same := l.kinOf(x)
	if x.alien() {
		same = l.alike(x)
	}
	for _, y := range same {
		if !done[y] {
			continue
		}
		if y.packets() != x.packets() {
			if x.toldBy(y) {
				x.close(x.whyUnit() + ", and what they lost is in " + y.Counter)
				return true
			}
			continue
		}
		if y.alone == 0 {
			continue
		}
		n = plus(n, y.alone)
		if !slices.Contains(by, y.Counter) {
			by = append(by, y.Counter)
		}
		for _, id := range y.ExplainedBy {
			if !slices.Contains(x.ExplainedBy, id) {
				x.ExplainedBy = append(x.ExplainedBy, id)
			}
		}
	}
	// Without drops of its own it is known by those of a counter of the same.
	// What a device loses has no skb that could be dropped.
	if (x.raised == nil || len(x.raised.By) == 0) && !x.ofDevice() {
		y, most := l.borrowed(x)
		if most > n {
			n, by = most, []string{y}
		}
	}
	if n == 0 {
		return false
	}
	if n >= x.rest || x.rest-n <= l.apart(x.rest) {
		x.close("the same packets are in " + strings.Join(by, " and "))
		return true
	}
	x.rest -= n
	return false
}

// ofDevice says that a device counts alone: what it lost was no skb yet, or no
// longer.
func (x *ledgerLine) ofDevice() bool { return slices.Contains(deviceStations, x.Station) }

// deviceStations are where devices and their drivers count.
var deviceStations = []record.Station{
	record.StationNIC, record.StationRing, record.StationDriverTX, record.StationNICTX, record.StationRDMA,
}

// toldBy says whether y, which counts packets, tells of what x lost, which
// counts events of a packet or more: y moved as often, without drops too or by
// drops that x can have caused.
func (x *ledgerLine) toldBy(y *ledgerLine) bool {
	n := y.alone
	if !x.ofDevice() {
		n = plus(n, y.Drops)
	}
	return !x.packets() && n >= x.rest
}

// alien says that nothing is known of a device's counter beside others, as of
// those that only its driver has.
func (x *ledgerLine) alien() bool {
	return x.raised == nil && len(x.kin.names)+len(x.meaning.Overlaps) == 0 && x.Device.Index != 0
}

// alike are the lines of x's device that moved by as much, in the same
// direction: mostly other names for the same packets.
func (l *ledger) alike(x *ledgerLine) []*ledgerLine {
	var out []*ledgerLine
	for _, y := range l.moved[movedKey{x.NetNS.Inode, x.Device.Index, x.Delta}] {
		if y != x && !opposite(x, y) {
			out = append(out, y)
		}
	}
	return out
}

// borrowed is how many drops raise the counter of the same packets that has
// the most.
func (l *ledger) borrowed(x *ledgerLine) (name string, drops uint64) {
	sums := map[string]uint64{}
	for _, y := range l.kinOf(x) {
		if !y.packets() {
			continue
		}
		sums[y.Counter] += y.Drops
		if n := sums[y.Counter]; n > drops || n == drops && y.Counter < name {
			name, drops = y.Counter, n
		}
	}
	return name, drops
}

// kinOf are the lines that may count packets of x too.
func (l *ledger) kinOf(x *ledgerLine) []*ledgerLine {
	var out []*ledgerLine
	for _, name := range x.kin.names {
		out = l.around(out, name, x)
	}
	for _, name := range x.meaning.Overlaps {
		if !x.kin.same[name] {
			out = l.around(out, name, x)
		}
	}
	for _, name := range l.overlapped[x.Counter] {
		if !x.kin.same[name] && !slices.Contains(x.meaning.Overlaps, name) {
			out = l.around(out, name, x)
		}
	}
	return out
}

// around adds the lines of a counter that count where x does: the host, its
// namespaces, their devices. What comes in by a device and what goes out by it
// are never the same packets.
func (l *ledger) around(out []*ledgerLine, name string, x *ledgerLine) []*ledgerLine {
	all := l.byName[name]
	if len(all) == 0 {
		return out
	}
	ns := x.NetNS.Inode
	if ns == 0 {
		return append(out, all...)
	}
	out = append(out, l.at[spot{name, 0, 0}]...)
	out = append(out, l.at[spot{name, ns, 0}]...)
	switch {
	case x.Device.Index == 0:
		out = append(out, l.inside[spot{name, ns, 0}]...)
	case !opposite(x, all[0]):
		out = append(out, l.at[spot{name, ns, x.Device.Index}]...)
	}
	return out
}

// opposite says whether one counts what comes in and the other what goes out.
func opposite(a, b *ledgerLine) bool {
	x, y := a.meaning.Direction, b.meaning.Direction
	return x == record.DirectionRX && y == record.DirectionTX || x == record.DirectionTX && y == record.DirectionRX
}

// explainedBy are the causes of the findings that account for the line, or for
// the drops that it was given.
func (l *ledger) explainedBy(x *ledgerLine) []string {
	out := []string{}
	add := func(f *result) {
		if (f.Cause != record.CauseNotKnown || f.Class.Shown()) && !slices.Contains(out, f.Cause) {
			out = append(out, f.Cause)
		}
	}
	// A count can be of several findings: those that quote the counter have it.
	for _, i := range x.uses {
		quoting := slices.ContainsFunc(l.owners[i], func(f *result) bool { return slices.Contains(x.findings, f) })
		for _, f := range l.owners[i] {
			if !quoting || slices.Contains(x.findings, f) {
				add(f)
			}
		}
	}
	for _, f := range x.findings {
		add(f)
	}
	return out
}

// chains numbers the lines that count the same packets, as far as their
// numbers are equal.
func (l *ledger) chains() {
	head := map[*ledgerLine]*ledgerLine{}
	var find func(x *ledgerLine) *ledgerLine
	find = func(x *ledgerLine) *ledgerLine {
		if h, ok := head[x]; ok && h != x {
			head[x] = find(h)
			return head[x]
		}
		return x
	}
	twins := make(map[*ledgerLine][]*ledgerLine, len(l.lines))
	for _, x := range l.lines {
		twins[x] = l.twins(x)
	}
	for _, x := range l.lines {
		for _, y := range twins[x] {
			if slices.Contains(twins[y], x) {
				head[find(y)] = find(x)
			}
		}
	}
	size := map[*ledgerLine]int{}
	for _, x := range l.lines {
		size[find(x)]++
	}
	number := map[*ledgerLine]int{}
	for _, x := range l.lines {
		h := find(x)
		if size[h] < 2 {
			continue
		}
		if number[h] == 0 {
			number[h] = len(number) + 1
		}
		x.Chain = number[h]
	}
}

// twins are the lines that count the packets of x and moved by as much, where
// there is one of a name. Those of devices include the other end of a veth pair,
// which counts the other way, where the number is exactly the same.
func (l *ledger) twins(x *ledgerLine) []*ledgerLine {
	if !x.packets() {
		return nil
	}
	var out []*ledgerLine
	for _, y := range l.kinOf(x) {
		a, b := float64(x.Delta), float64(y.Delta)
		if y.packets() && max(a, b)-min(a, b) <= 0.02*max(a, b) {
			out = append(out, y)
		}
	}
	if x.Device.Index != 0 {
		for _, name := range x.kin.names {
			for _, y := range l.equal[twinKey{name, x.Delta}] {
				if opposite(x, y) && spotOf(x.counter) != (spot{x.Counter, y.NetNS.Inode, y.Device.Index}) {
					out = append(out, y)
				}
			}
		}
	}
	if len(out) < 2 {
		return out
	}
	of := map[string]int{}
	for _, y := range out {
		of[y.Counter]++
	}
	return slices.DeleteFunc(out, func(y *ledgerLine) bool { return of[y.Counter] > 1 })
}
