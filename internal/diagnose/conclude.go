package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Contributors and conclusions are looked at when the findings are there: the
// first are attached to them, the others stand beside them.

// indexKinds makes the causes that are no loss to be found.
func (k *Knowledge) indexKinds() {
	k.contributors, k.conclusions = map[string][]*Cause{}, nil
	for _, c := range k.causes {
		if c.is(kindConclusion) {
			k.conclusions = append(k.conclusions, c)
		}
		for _, id := range c.ContributesTo {
			k.contributors[id] = append(k.contributors[id], c)
		}
	}
}

// named are the counters that expressions name by a constant.
func named(es ...*expression) []string {
	var out []string
	for _, e := range es {
		if e != nil {
			out = append(out, e.counters()...)
		}
	}
	return out
}

func (e *expression) namesCounters() []string {
	var out []string
	for _, call := range e.calls() {
		if slices.Contains([]string{"counter", "total", "has", "most", "growths"}, call[0]) && !slices.Contains(out, call[1]) {
			out = append(out, call[1])
		}
	}
	return out
}

// devicesWith are the devices that have one of these counters as their own, and
// where moved is set only those of which one moved.
func (b *base) devicesWith(names []string, moved bool) []place {
	var out []place
	seen := map[numberKey]map[uint32]bool{}
	for _, ns := range append([]record.NetNS{{}}, b.spaces...) {
		at := numberKey{inode: ns.Inode}
		for _, name := range names {
			for _, c := range b.counters[numberKey{name, ns.Inode}] {
				if c.Device.Index == 0 || moved && c.Delta == 0 || seen[at][c.Device.Index] {
					continue
				}
				if seen[at] == nil {
					seen[at] = map[uint32]bool{}
				}
				seen[at][c.Device.Index] = true
				out = append(out, place{ns: ns, dev: c.Device})
			}
		}
	}
	slices.SortFunc(out, func(x, y place) int {
		return cmp.Or(cmp.Compare(x.ns.Inode, y.ns.Inode), cmp.Compare(x.dev.Index, y.dev.Index))
	})
	return out
}

// placesFor are where a conclusion is looked at: in the namespaces, or on the
// devices, that have its counters, else once for the host.
func (m *matcher) placesFor(c *Cause) []place {
	names := named(c.when, c.holds, c.count)
	if c.Per == perDevice {
		return m.b.devicesWith(names, false)
	}
	var out []place
	for _, ns := range m.b.spaces {
		if slices.ContainsFunc(names, func(n string) bool { return len(m.b.counters[numberKey{n, ns.Inode}]) > 0 }) {
			out = append(out, place{ns: ns})
		}
	}
	if out == nil {
		return []place{{}}
	}
	return out
}

// as is what a contributor sees of the instance that it may contribute to.
func (in *instance) as(c *Cause) *instance {
	return &instance{
		cause: c, place: in.place, total: in.total, drops: in.drops,
		portions: in.portions, samples: in.samples, devices: in.devices,
	}
}

// worthwhile says whether the facts of a contributor or conclusion are worth
// reading.
func worthwhile(c *Cause, s *scope) bool {
	if c.when == nil {
		return true
	}
	ok, err := c.when.truth(s)
	return ok && err == nil
}

// conclude looks at every conclusion. The result has the one with most events
// first; it is nil where nothing holds.
func (m *matcher) conclude() []record.Finding {
	var out []record.Finding
	for _, c := range m.k.conclusions {
		for _, p := range m.placesFor(c) {
			in := &instance{cause: c, place: p}
			if n, ok := m.stands(in, 0); ok {
				f := m.beside(in, n)
				f.Events = n
				out = append(out, f)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b record.Finding) int {
		return cmp.Or(
			cmp.Compare(b.Events, a.Events), strings.Compare(a.Cause, b.Cause),
			slices.Compare(a.NetNS, b.NetNS), slices.Compare(a.Devices, b.Devices),
		)
	})
	return out
}

// contribute attaches to findings what contributes to them.
func (m *matcher) contribute(all []result) {
	for i := range all {
		r := &all[i]
		if r.in == nil {
			continue
		}
		for _, c := range m.k.contributors[r.Cause] {
			in := r.in.as(c)
			if in.place.ns.Inode == 0 {
				in.place.anywhere = true // what is of the whole host, each namespace can make worse
			}
			if _, ok := m.stands(in, r.Drops); !ok {
				continue
			}
			f := m.beside(in, r.Drops)
			f.Devices, f.NetNS = slices.Clone(r.Devices), slices.Clone(r.NetNS)
			r.Contributors = append(r.Contributors, f)
		}
	}
}

// stands says whether a contributor or conclusion is true there, and of how many
// drops or events it is. What is not known does not hold.
func (m *matcher) stands(in *instance, drops uint64) (uint64, bool) {
	c := in.cause
	s := m.scope(in, drops)
	if !worthwhile(c, s) {
		return 0, false
	}
	if ok, err := c.holds.truth(s); err != nil || !ok {
		return 0, false
	}
	if c.count != nil {
		drops, _ = c.count.number(s) // 0 where it is not known
	}
	in.total, in.drops = drops, drops
	return drops, !m.excluded(in)
}

// beside is what is reported of a contributor or conclusion.
func (m *matcher) beside(in *instance, drops uint64) record.Finding {
	s := m.scope(in, drops)
	f := started(in.cause)
	f.LostBy = lostByCounters
	f.Title, _ = in.cause.title.say(s)
	m.describe(&f, &instance{cause: in.cause, place: in.place})
	m.weighAll(&f, in, s)
	m.advise(&f, in.cause, s)
	return f
}

// here says whether a finding is about a place, or about everything.
func (m *matcher) here(r *result, p place) bool {
	if p.ns.Inode == 0 || len(r.NetNS) == 0 || r.wholeHost() {
		return true
	}
	return slices.Contains(r.NetNS, netnsLabel(p.ns))
}

// wholeHost says that the finding's cause meets all traffic of the host.
func (r *result) wholeHost() bool { return r.in != nil && r.in.cause.wholeHost() }

// afterwards fills in what expressions can ask about the findings, which is not
// known before these are there.
func (m *matcher) afterwards(s *scope, p place) {
	sum := func(chosen func(*result) bool) (int, error) {
		if m.results == nil {
			return 0, unknownf("the findings are not known yet")
		}
		var n uint64
		for i := range m.results {
			if r := &m.results[i]; chosen(r) && m.here(r, p) {
				n = plus(n, max(r.Drops, r.Events))
			}
		}
		return clamp(n), nil
	}
	s.Found = func(id string) (int, error) {
		return sum(func(r *result) bool { return r.Cause == id })
	}
	s.LostHere = func(direction string) (int, error) {
		return sum(func(r *result) bool {
			return r.Class.Shown() && (direction == "" || string(r.Direction) == direction)
		})
	}
}
