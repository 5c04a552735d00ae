package counter

import (
	"strings"

	"github.com/whydrop/whydrop/record"
)

// group is a counter with its parts.
type group struct {
	name   string
	device uint32
}

// shares are a total and the sums of its parts.
type shares struct {
	// before and after are those of the total in the two snapshots, as far as
	// it is there; partsBefore and partsAfter the sums of the parts, delta that
	// of what they grew by, and gone that of those that are gone.
	before, after, partsBefore, partsAfter, delta, gone uint64
	// deltas are those of the parts, in their order.
	deltas []uint64
	total  *record.Counter // nil where there is none
	// was says that the total was there before, cpus that the parts are CPUs,
	// unknown that nothing is known of one from before.
	was, cpus, unknown bool
	// reset says that a part went back, or is gone that was not 0.
	reset bool
}

// disturb notes that a counter cannot be compared as a whole.
func (d *diff) disturb(v *Value) *shares {
	if d.disturbed == nil {
		d.disturbed = map[group]*shares{}
	}
	g := group{v.Name, v.Device.Index}
	s := d.disturbed[g]
	if s == nil {
		s = &shares{}
		d.disturbed[g] = s
	}
	return s
}

// totals corrects the totals that have a part which came, went or went back.
// list are the counters of after.
func (d *diff) totals(list []record.Counter) {
	if d.old.hits < len(d.old.values) {
		for i := range d.old.values {
			v := &d.old.values[i]
			if d.old.there[i] || v.Object == "" || v.Level || !d.after.whole(listOf(v)) {
				continue
			}
			s := d.disturb(v)
			s.gone += v.Value
			s.reset = s.reset || v.Value > 0 && !isSocket(v)
		}
	}
	if len(d.disturbed) == 0 || d.before.Time.IsZero() {
		return
	}
	for i := range d.old.values {
		v := &d.old.values[i]
		if s := d.disturbed[group{v.Name, v.Device.Index}]; s == nil {
			continue
		} else if v.Object == "" {
			s.before, s.was = v.Value, true
		} else {
			s.partsBefore += v.Value
		}
	}
	for i := range list {
		c := &list[i]
		s := d.disturbed[group{c.Name, c.Device.Index}]
		switch {
		case s == nil:
		case c.Object == "":
			s.total, s.after = c, c.After
		default:
			s.partsAfter += c.After
			s.delta += c.Delta
			s.deltas = append(s.deltas, c.Delta)
			s.reset = s.reset || c.Reset
			s.cpus = strings.HasPrefix(c.Object, "cpu ")
		}
	}
	for g, s := range d.disturbed {
		if s.total != nil && !s.total.Level {
			d.settle(g, s)
		}
	}
}

// settle says by how much a total grew.
func (d *diff) settle(g group, s *shares) {
	c := s.total
	sum, isTree := d.treeSum(g, s.deltas)
	switch {
	case isTree:
		s.delta = sum
	case len(s.deltas) == 0 && s.partsBefore == 0:
		return // it has no parts at all
	case (s.cpus || !s.was || !s.unknown) && s.partsBefore == s.before && s.partsAfter == s.after:
		// What is not known of a CPU is what it counted until it was taken offline.
	case s.was && s.partsBefore <= s.before && s.partsAfter <= s.after:
		// It may have more parts than those that are known one by one.
		before := s.before - min(s.before, s.gone)
		s.delta = max(s.delta, c.Delta, c.After-min(c.After, before))
	default: // they count other things than it
		return
	}
	c.Reset = s.reset || c.Reset && !isSocketTotal(g.name)
	c.Delta = min(s.delta, c.After)
	c.Before = c.After - c.Delta
}

// treeSum is what the qdiscs of a device lost together; false for what is not
// of qdiscs, or where not all of them are known.
func (d *diff) treeSum(g group, deltas []uint64) (uint64, bool) {
	if !strings.HasPrefix(g.name, "qdisc.") {
		return 0, false
	}
	if d.queues == nil {
		d.queues = map[uint32][]qdiscPlace{}
		for _, q := range d.after.queues {
			d.queues[q.device] = append(d.queues[q.device], q)
		}
	}
	queues := d.queues[g.device]
	if len(queues) == 0 || len(queues) != len(deltas) {
		return 0, false
	}
	qdiscs := make([]qdisc, len(queues))
	for i, q := range queues {
		qdiscs[i] = qdisc{handle: q.handle, parent: q.parent, stats: tcStats{drops: deltas[i]}}
	}
	sum := tree(qdiscs)
	return sum.drops, true
}

// listOf is what Missing names where not all parts of the kind of v were read.
func listOf(v *Value) string {
	if isSocket(v) {
		table, _, _ := strings.Cut(v.Name, ".")
		return missingSockets(table)
	}
	return v.Source
}

// isSocketTotal says whether a counter is what all sockets of a kind have lost.
func isSocketTotal(name string) bool {
	table, field, _ := strings.Cut(name, ".")
	return field == "drops" && isSocketTable(table)
}
