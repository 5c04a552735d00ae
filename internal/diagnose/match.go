package diagnose

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// instance is a cause in one namespace (or on one device of it) that some of
// the drops, or the counters, make possible.
type instance struct {
	cause *Cause
	place place
	// total are all drops that could be its own, drops those it was given;
	// ofPattern is total by pattern, totalBytes what they come to.
	total, drops uint64
	totalBytes   uint64
	ofPattern    []uint64
	portions     []given
	samples      []*record.Drop
	// excluded: a condition that it needs does not hold.
	excluded bool
	// unsure: it is excluded because a condition is not known.
	unsure bool
	// estimated: how many are its own is known from samples only.
	estimated bool
	// contested: some of them may be another cause's.
	contested bool
	// rivals are the causes, one's own or built in, that could have had the same
	// drops, yielded how many of these such took; sure is what sureness came to.
	rivals  []*Cause
	yielded uint64
	sure    record.Confidence
	// shares are what is left of the share of each pattern, nil of one without.
	shares []*quota
	// devices counts total by device, where place has none; summary is what
	// scope keeps of samples.
	devices map[record.Device]uint64
	summary *scope
}

// given is what an instance was given of a portion.
type given struct {
	portion *portion
	drops   uint64
}

// quota is what is left of a pattern's share. extra is by how much the counters
// behind it may be behind the drops, where they did not see the whole window.
type quota struct {
	left, extra uint64
	known       bool
}

// candidate is a pattern that holds for a portion.
type candidate struct {
	*instance
	pattern int
	weight  int
	// rank above 0 comes first, below 0 last among those of its weight.
	rank int
}

// compareCandidates orders those first that take first.
func compareCandidates(a, b candidate) int {
	return cmp.Or(cmp.Compare(max(b.rank, 0), max(a.rank, 0)), cmp.Compare(b.weight, a.weight), cmp.Compare(b.rank, a.rank))
}

// portion is a count of drops for which the same patterns hold: a whole
// count, or the part of it that its samples show.
type portion struct {
	count      int // index in matcher.counts
	drops      uint64
	left       uint64
	samples    []*record.Drop
	candidates []candidate
	estimated  bool
	// contested: some of the candidates are somebody's own, others built in.
	contested bool
}

// matcher finds the causes that the drops of an observation can have.
type matcher struct {
	k         *Knowledge
	b         *base
	names     deviceNames
	counts    []record.Count // of the observation, with the names of devices
	kinds     []*kind        // of each count
	instances map[instanceKey]*instance
	order     []*instance
	portions  []*portion
	// sites are the keys, without names, that the counts had in the observation;
	// located are the counts that locate has found a place for.
	sites   []siteKey
	located map[int]bool
	// rests are the counts that are what locate left of others, whole says that
	// the one that is looked at is none of them.
	rests map[int]bool
	whole bool
	// results are the findings; nil before these are there.
	results []result
	scopes  map[place]*scope
	// store is what lists of candidates are cut from, places where portions lie.
	store  []candidate
	places []portion
}

type instanceKey struct {
	cause     *Cause
	ns, index uint32
}

func newMatcher(o *record.Observation, k *Knowledge) *matcher {
	m := &matcher{k: k, b: newBase(o), names: learnNames(o), instances: map[instanceKey]*instance{}, scopes: map[place]*scope{}}
	m.counts = merge(o.Counts, m.names)
	known := &kinds{by: map[kindKey]*kind{}}
	m.locate(known)
	samples := make(map[siteKey][]*record.Drop, min(len(o.Samples), len(m.counts)))
	for i := range o.Samples {
		key := &o.Samples[i].Key
		s := known.of(key, k).site(key)
		samples[s] = append(samples[s], &o.Samples[i])
	}
	known.rank()
	m.portions = make([]*portion, 0, len(m.counts))
	for _, i := range inOrder(m.counts, m.kinds) {
		k := m.sites[i]
		found, ok := samples[k]
		m.split(i, found)
		if ok {
			delete(samples, k) // the greatest of those that differ in what is not in it
		}
	}
	for _, p := range m.portions {
		of := &m.counts[p.count]
		dev, bytes := of.Device, mulDiv(of.Bytes, p.drops, max(of.Drops, 1))
		for _, c := range p.candidates {
			c.total += p.drops
			c.totalBytes += bytes
			c.ofPattern[c.pattern] += p.drops
			c.on(dev, p.drops)
			c.instance.samples = append(c.instance.samples, p.samples...)
		}
	}
	m.tryLost()
	return m
}

// instance returns the one of a cause for drops with this key.
func (m *matcher) instance(c *Cause, ns record.NetNS, dev record.Device) *instance {
	k := instanceKey{cause: c, ns: ns.Inode}
	p := place{ns: ns, anywhere: m.b.placeless && m.whole && ns.Inode == 0}
	if c.Per == perDevice {
		k.index, p.dev = dev.Index, dev
	}
	in, ok := m.instances[k]
	if ok && !m.whole {
		in.place.anywhere = false
	}
	if !ok {
		in = &instance{cause: c, place: p, shares: make([]*quota, len(c.Patterns)), ofPattern: make([]uint64, len(c.Patterns))}
		m.instances[k] = in
		m.order = append(m.order, in)
	}
	return in
}

// on notes drops of a device.
func (in *instance) on(dev record.Device, drops uint64) {
	if in.cause.Per == perDevice {
		return
	}
	if in.devices == nil {
		in.devices = map[record.Device]uint64{}
	}
	in.devices[dev] += drops
}

// split divides a count by what its samples show. Nearly always they show the
// same, and the count stays whole.
func (m *matcher) split(i int, samples []*record.Drop) {
	c := &m.counts[i]
	m.whole = !m.rests[i]
	if len(samples) < 2 {
		p := m.portion(portion{count: i, drops: c.Drops, samples: samples})
		if len(samples) == 0 {
			p.candidates = m.candidates(i, nil)
		} else {
			p.candidates = m.candidates(i, samples[0])
		}
		m.portions = append(m.portions, p)
		return
	}
	byText := map[string]*portion{}
	for _, s := range samples {
		found := m.candidates(i, s)
		sig := signature(found)
		p, ok := byText[sig]
		if !ok {
			p = m.portion(portion{count: i, candidates: found})
			byText[sig] = p
		}
		p.samples = append(p.samples, s)
	}
	var parts []*portion
	rest, of := c.Drops, uint64(len(samples))
	for n, sig := range slices.Sorted(maps.Keys(byText)) {
		p := byText[sig]
		parts = append(parts, p)
		p.estimated = len(byText) > 1
		p.drops = mulDiv(c.Drops, uint64(len(p.samples)), of)
		if n == len(byText)-1 {
			p.drops = rest
		}
		rest -= p.drops
	}
	m.portions = append(m.portions, parts...)
}

// portion puts p beside the others.
func (m *matcher) portion(p portion) *portion {
	if len(m.places) == cap(m.places) {
		m.places = make([]portion, 0, max(64, min(len(m.counts), 1024)))
	}
	m.places = append(m.places, p)
	return &m.places[len(m.places)-1]
}

// mulDiv is a*b/c for b <= c without overflow; what is lost to rounding is
// below c.
func mulDiv(a, b, c uint64) uint64 { return a/c*b + a%c*b/c }

// candidates are the patterns that hold, one for each cause at most: its most
// specific. s is nil where no sample is there; then the key must suffice.
func (m *matcher) candidates(count int, s *record.Drop) []candidate {
	key, d := &m.counts[count].Key, m.kinds[count]
	var hits []hit
	switch {
	case s != nil:
		hits = m.hits(d, describe(key, s.Stack, s.Packet), s)
	case d.bare == nil:
		d.bare = m.hits(d, d.drop, nil)
		fallthrough
	default:
		hits = d.bare
	}
	// Many small lists lie in few large ones.
	if cap(m.store)-len(m.store) < len(hits) {
		m.store = make([]candidate, 0, max(1024, len(hits)))
	}
	from := len(m.store)
	for _, h := range hits {
		m.store = append(m.store, candidate{m.instance(h.cause, key.NetNS, key.Device), h.pattern, h.weight, 0})
	}
	return m.store[from:len(m.store):len(m.store)]
}

// hit is the most specific pattern of a cause that holds.
type hit struct {
	cause           *Cause
	pattern, weight int
}

// hits are those for drops of a kind, as d describes them. It is never nil.
func (m *matcher) hits(of *kind, d drop, s *record.Drop) []hit {
	out := []hit{}
	for _, r := range of.patterns {
		c := m.k.causes[r.cause]
		w, ok := m.holds(c, &c.Patterns[r.pattern], d, s)
		switch last := len(out) - 1; {
		case !ok:
		case last < 0 || out[last].cause != c:
			out = append(out, hit{c, r.pattern, w})
		case w > out[last].weight:
			out[last] = hit{c, r.pattern, w}
		}
	}
	return out
}

// holds says whether a pattern of c holds, and with which weight. What only
// samples tell of holds where one shows it. Where the source gives none, one
// condition on them is left to the share: counters then say how many there are.
// That must hide no loss, so it is for causes that are shown.
func (m *matcher) holds(c *Cause, p *Pattern, d drop, s *record.Drop) (weight int, ok bool) {
	switch {
	case !p.holdsKey(d):
		return 0, false
	case !p.ofSample():
		return p.weight(), true
	case s != nil:
		return p.weight(), p.holdsSample(d) && p.whereHolds(s)
	}
	alone := len(p.Stack) == 0 && p.Destination == ""
	return p.conditions.weight(), alone && p.share != nil && c.Class.Shown() && m.b.unsampled
}

func (p *Pattern) whereHolds(s *record.Drop) bool {
	if p.where == nil {
		return true
	}
	ok, err := p.where.truth(newSampleScope(s))
	return ok && err == nil
}

func signature(cs []candidate) string {
	var b strings.Builder
	for _, c := range cs {
		b.WriteString(c.cause.ID)
		b.WriteByte(byte('0' + c.pattern))
		b.WriteByte(' ')
	}
	return b.String()
}

// assign gives every portion's drops to the causes that can have them, and
// leaves in portion.left what none takes.
func (m *matcher) assign() {
	for _, in := range m.order {
		in.excluded = m.excluded(in)
		for i := range in.cause.Patterns {
			if e := in.cause.Patterns[i].share; e != nil {
				n, err := e.number(m.scope(in, in.ofPattern[i]))
				q := &quota{left: n, known: err == nil}
				if n > 0 && m.b.slack > 0 {
					q.extra = 3 + uint64(m.b.missed(float64(in.total)))
				}
				in.shares[i] = q
			}
		}
	}
	for _, p := range m.portions {
		p.left = p.drops
		if slices.ContainsFunc(p.candidates, func(c candidate) bool { return c.unsure }) {
			for _, c := range p.candidates {
				c.contested = true
			}
		}
		p.candidates = slices.DeleteFunc(p.candidates, func(c candidate) bool { return c.excluded })
		p.contested = m.contest(p)
		slices.SortStableFunc(p.candidates, compareCandidates)
	}
	m.rebalance()
	// What is known from whole counts comes before what samples suggest.
	slices.SortStableFunc(m.portions, func(a, b *portion) int { return cmp.Compare(btoi(a.estimated), btoi(b.estimated)) })
	for _, p := range m.portions {
		for rest := p.candidates; len(rest) > 0 && p.left > 0; {
			n := slices.IndexFunc(rest, func(c candidate) bool { return compareCandidates(c, rest[0]) != 0 })
			if n < 0 {
				n = len(rest)
			}
			if !p.share(rest[:n], m.b.slack) {
				break // ambiguous: what is left is not known
			}
			rest = rest[n:]
		}
		if p.contested {
			p.yield()
		}
	}
}

// settle leaves each instance with the samples and devices of the drops that
// it was given: those of others say nothing about it.
func (m *matcher) settle() {
	for _, in := range m.order {
		if in.drops == 0 {
			continue
		}
		in.samples, in.devices, in.summary = nil, nil, nil
		for _, g := range in.portions {
			in.samples = append(in.samples, g.portion.samples...)
			in.on(m.counts[g.portion.count].Device, g.drops)
		}
	}
}

// rebalance corrects what samples suggested about how a count divides by what
// the kernel's counters say exactly, as far as samples can be wrong by chance:
// where only one of the portions can have causes, and all of these have shares.
func (m *matcher) rebalance() {
	byCount := map[int][]*portion{}
	for _, p := range m.portions {
		if p.estimated {
			byCount[p.count] = append(byCount[p.count], p)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(byCount)) {
		var with, without []*portion
		samples := 0
		for _, p := range byCount[i] {
			samples += len(p.samples)
			if n, ok := p.quotas(); ok && n == 0 {
				without = append(without, p)
			} else {
				with = append(with, p)
			}
		}
		if len(with) != 1 || len(without) == 0 {
			continue
		}
		p := with[0]
		want, ok := p.quotas()
		other := slices.MaxFunc(without, func(a, b *portion) int { return cmp.Compare(a.drops, b.drops) })
		// Three standard deviations of the greatest error of a fraction.
		chance := 1.5 * float64(m.counts[i].Drops) / math.Sqrt(float64(samples))
		if sum := p.drops + other.drops; ok && want <= sum && math.Abs(float64(want)-float64(p.drops)) <= chance {
			p.drops, other.drops = want, sum-want
			p.left, other.left = p.drops, other.drops
		}
	}
}

// quotas is how many of the portion's drops its causes account for, as far as
// their shares are known; false where one can have any number.
func (p *portion) quotas() (n uint64, ok bool) {
	for _, c := range p.candidates {
		q := c.shares[c.pattern]
		if q == nil {
			return 0, false
		}
		if q.known {
			n += q.left - min(q.left, c.total-min(c.total, p.drops))
		}
	}
	return n, true
}

// share gives a portion's drops to candidates of equal weight. It returns
// false where these leave open whose the drops are, as a share that is not
// known does. What counters leave of a portion because they were not read at
// the same time as the drops goes with the rest.
func (p *portion) share(tier []candidate, slack float64) bool {
	var all, late []candidate
	open, few := false, false
	whole := p.left
	for _, c := range tier {
		q := c.shares[c.pattern]
		switch {
		case q == nil:
			all = append(all, c)
		case q.known:
			n := min(q.left, p.left)
			if n < whole && float64(n) <= slack*float64(whole) {
				few = few || n > 0
				continue // so few can be what the other's counter missed
			}
			q.left -= n
			c.take(p, n)
			if q.extra > 0 {
				late = append(late, c)
			}
		default:
			open = true
		}
	}
	// Only where one alone can have it.
	if len(late) == 1 && len(all) == 0 && !open {
		if q := late[0].shares[late[0].pattern]; p.left <= q.extra {
			q.extra -= p.left
			late[0].take(p, p.left)
			late[0].contested = late[0].contested || few
		}
	}
	switch {
	case p.left == 0:
		return true
	case open || len(all) > 1:
		return false
	case len(all) == 1:
		all[0].take(p, p.left)
	}
	return true
}

// take gives n drops of p to c.
func (c candidate) take(p *portion, n uint64) {
	if n == 0 {
		return
	}
	p.left -= n
	c.drops += n
	// Without samples it is not known whether they are what the cause is about.
	blindly := len(p.samples) == 0 && c.cause.Patterns[c.pattern].ofSample()
	c.estimated = c.estimated || p.estimated || blindly
	c.instance.portions = append(c.instance.portions, given{p, n})
}
