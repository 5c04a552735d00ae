package diagnose

import (
	"cmp"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// sourceDropmon is the source of drops that tells neither the namespace of a
// drop nor its device.
const sourceDropmon = "dropmon"

// placeless says whether the drops of o were seen by that source.
func placeless(o *record.Observation) bool {
	return slices.ContainsFunc(o.Sources, func(s record.Source) bool {
		return s.Name == sourceDropmon && (s.State == record.SourceOK || s.State == record.SourceDegraded)
	})
}

// portionAt is how many of the drops of a count were at a place.
type portionAt struct {
	ns    record.NetNS
	dev   record.Device
	drops uint64
}

// locate finds where drops were whose source does not tell it: in the
// namespaces, and on the devices, whose counters they raise. A count that was at
// several places is divided as these counters are, where they leave no doubt.
// What no counter places stays without a place.
func (m *matcher) locate(known *kinds) {
	m.sites, m.kinds = make([]siteKey, 0, len(m.counts)), make([]*kind, 0, len(m.counts))
	noteKey := func(origin *record.Key) {
		d := known.of(origin, m.k)
		m.sites, m.kinds = append(m.sites, d.site(origin)), append(m.kinds, d)
	}
	if !m.b.placeless {
		for i := range m.counts {
			noteKey(&m.counts[i].Key)
		}
		return
	}
	moved := m.movedInSpaces()
	m.located, m.rests = map[int]bool{}, map[int]bool{}
	given := m.counts
	m.counts = make([]record.Count, 0, len(given))
	for _, c := range given {
		origin, left, bytes := c.Key, c.Drops, c.Bytes
		for _, p := range m.placesOf(c, moved) {
			part := c
			part.NetNS, part.Drops, part.Bytes = p.ns, p.drops, mulDiv(bytes, p.drops, max(c.Drops, 1))
			if p.dev.Index != 0 {
				part.Device = p.dev
			}
			left, c.Bytes = left-p.drops, c.Bytes-min(c.Bytes, part.Bytes)
			m.located[len(m.counts)] = true
			m.counts = append(m.counts, part)
			noteKey(&origin)
		}
		if whole := left == c.Drops; left > 0 || whole {
			c.Drops = left
			m.rests[len(m.counts)] = !whole
			m.counts = append(m.counts, c)
			noteKey(&origin)
		}
	}
}

// movedAt is a counter of a namespace, or of a device in it, that moved.
type movedAt struct {
	ns    record.NetNS
	dev   record.Device
	delta uint64
}

// movedInSpaces are the counters of namespaces that moved, by their names. Of
// one that has a total the parts are left out, else they are added up.
func (m *matcher) movedInSpaces() map[string][]movedAt {
	cs := m.b.o.Counters
	whole := totals(cs)
	out := map[string][]movedAt{}
	at := map[spot]int{}
	for i := range cs {
		c := &cs[i]
		if c.Delta == 0 || c.Level || c.NetNS.Inode == 0 || c.Object != "" && whole[spotOf(c)] {
			continue
		}
		if j, ok := at[spotOf(c)]; ok {
			out[c.Name][j].delta += c.Delta
			continue
		}
		at[spotOf(c)] = len(out[c.Name])
		out[c.Name] = append(out[c.Name], movedAt{c.NetNS, c.Device, c.Delta})
	}
	return out
}

// spaceOf is what the counters of a namespace have of a count.
type spaceOf struct {
	ns record.NetNS
	// most is what the counter with the most has, devices the same by device.
	most    uint64
	devices map[record.Device]uint64
}

// placesOf divides a count among the places whose counters it raises.
func (m *matcher) placesOf(c record.Count, moved map[string][]movedAt) []portionAt {
	if c.NetNS.Inode != 0 || c.Hardware() || c.Drops == 0 {
		return nil
	}
	spaces := m.spacesOf(c.Key, moved)
	var all []portionAt
	var sum uint64
	for _, s := range spaces {
		parts := s.parts()
		for _, p := range parts {
			sum += p.drops
		}
		all = append(all, parts...)
	}
	switch {
	case sum <= c.Drops:
		return all
	case len(all) == 1:
		all[0].drops = c.Drops // the counter counts others too
		return all
	case near(float64(sum), float64(c.Drops)):
		return shorten(all, sum-c.Drops)
	case len(spaces) == 1:
		return []portionAt{{ns: spaces[0].ns, drops: c.Drops}}
	}
	return nil
}

// shorten takes n off the greatest portion, which has it.
func shorten(all []portionAt, n uint64) []portionAt {
	i := 0
	for j := range all {
		if all[j].drops > all[i].drops {
			i = j
		}
	}
	all[i].drops -= min(n, all[i].drops)
	return all
}

// spacesOf are the namespaces in which counters moved that drops with this key
// raise, in the order of their inodes.
func (m *matcher) spacesOf(key record.Key, moved map[string][]movedAt) []*spaceOf {
	found := map[uint32]*spaceOf{}
	seen := map[string]bool{}
	d := describe(&key, nil, nil)
	for _, at := range d.sites() {
		for _, r := range m.k.raisings[at] {
			if seen[r.counter] || r.Scope == scopeHost || !r.holdsKey(d) || r.meets(&key) == no {
				continue
			}
			seen[r.counter] = true
			of := map[uint32]uint64{}
			for _, c := range moved[r.counter] {
				s := found[c.ns.Inode]
				if s == nil {
					s = &spaceOf{ns: c.ns, devices: map[record.Device]uint64{}}
					found[c.ns.Inode] = s
				}
				if c.dev.Index != 0 && r.Scope == "" {
					s.devices[c.dev] = max(s.devices[c.dev], c.delta)
				}
				of[c.ns.Inode] += c.delta
				s.most = max(s.most, of[c.ns.Inode])
			}
		}
	}
	out := make([]*spaceOf, 0, len(found))
	for _, s := range found {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *spaceOf) int { return cmp.Compare(a.ns.Inode, b.ns.Inode) })
	return out
}

// parts are the devices of a namespace, and what none of them has.
func (s *spaceOf) parts() []portionAt {
	var out []portionAt
	var sum uint64
	for dev, n := range s.devices {
		out = append(out, portionAt{s.ns, dev, n})
		sum += n
	}
	slices.SortFunc(out, func(a, b portionAt) int { return cmp.Compare(a.dev.Index, b.dev.Index) })
	if sum == 0 || sum < s.most && !near(float64(sum), float64(s.most)) {
		out = append(out, portionAt{ns: s.ns, drops: s.most - sum})
	}
	return out
}

// where is the evidence that says how the place of drops is known; false where
// the drops told it.
func (m *matcher) where(in *instance) (record.Evidence, bool) {
	for _, p := range in.portions {
		c := m.counts[p.portion.count]
		if !m.located[p.portion.count] {
			continue
		}
		label := cmp.Or(deviceLabel(c.Device, c.NetNS), netnsLabel(c.NetNS))
		return record.Evidence{
			Kind: "counter", Name: "where it was", Value: label, Supports: true,
			Says: "counters of such drops moved there; the drop monitor itself does not tell the place",
		}, true
	}
	return record.Evidence{}, false
}
