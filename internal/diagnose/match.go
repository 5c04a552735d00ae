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
	// total are all drops that could be its own, drops those it was given.
	total, drops uint64
	portions     []given
	samples      []*record.Drop
	// excluded: a condition that it needs does not hold.
	excluded bool
	// estimated: how many are its own is known from samples only.
	estimated bool
	// contested: some of them may be another cause's.
	contested bool
	// shares are what is left of the share of each pattern that has one.
	shares map[int]*quota
	// devices counts total by device; summary is what scope keeps of samples.
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
}

// matcher finds the causes that the drops of an observation can have.
type matcher struct {
	k         *Knowledge
	b         *base
	names     deviceNames
	counts    []record.Count // of the observation, with the names of devices
	instances map[instanceKey]*instance
	order     []*instance
	portions  []*portion
	patterns  []patternOf // kept for candidates to use again
}

type instanceKey struct {
	id        string
	ns, index uint32
}

func newMatcher(o *record.Observation, k *Knowledge) *matcher {
	m := &matcher{k: k, b: newBase(o), names: learnNames(o), instances: map[instanceKey]*instance{}}
	samples := map[record.Key][]*record.Drop{}
	for i := range o.Samples {
		s := site(o.Samples[i].Key)
		samples[s] = append(samples[s], &o.Samples[i])
	}
	m.counts = merge(o.Counts, m.names)
	for _, i := range inOrder(m.counts) {
		k := site(m.counts[i].Key)
		found, ok := samples[k]
		m.split(i, found)
		if ok {
			delete(samples, k) // the greatest of two that differ in a namespace's name
		}
	}
	for _, p := range m.portions {
		dev := m.counts[p.count].Device
		for _, c := range p.candidates {
			c.total += p.drops
			c.devices[dev] += p.drops
			c.instance.samples = append(c.instance.samples, p.samples...)
		}
	}
	m.tryLost()
	return m
}

// merge adds up counts that differ only in a device's name that was not known
// yet.
func merge(counts []record.Count, names deviceNames) []record.Count {
	out := make([]record.Count, len(counts))
	changed := false
	for i, c := range counts {
		key := names.fill(c.Key)
		changed = changed || key.Device.Name != c.Device.Name
		c.Key = key
		out[i] = c
	}
	if !changed {
		return out // no two can have become one
	}
	counts, out = out, make([]record.Count, 0, len(counts))
	at := make(map[record.Key]int, len(counts))
	for _, c := range counts {
		i, ok := at[c.Key]
		if !ok {
			at[c.Key] = len(out)
			out = append(out, c)
			continue
		}
		out[i].Drops += c.Drops
		out[i].Bytes += c.Bytes
	}
	return out
}

// inOrder are the places of counts in an order that does not depend on theirs:
// shares are used up in it.
func inOrder(counts []record.Count) []int {
	out := make([]int, len(counts))
	for i := range out {
		out[i] = i
	}
	slices.SortFunc(out, func(i, j int) int {
		a, b := &counts[i], &counts[j]
		if a.Drops != b.Drops {
			return cmp.Compare(b.Drops, a.Drops)
		}
		if a.Reason.Name != b.Reason.Name || a.Location.Symbol != b.Location.Symbol {
			return cmp.Or(strings.Compare(a.Reason.Name, b.Reason.Name), strings.Compare(a.Location.Symbol, b.Location.Symbol))
		}
		return cmp.Or(
			cmp.Compare(a.NetNS.Inode, b.NetNS.Inode),
			cmp.Compare(a.Device.Index, b.Device.Index),
			strings.Compare(a.Reason.Subsystem, b.Reason.Subsystem),
			cmp.Compare(a.Location.Address, b.Location.Address),
			cmp.Compare(a.Location.Offset, b.Location.Offset),
			strings.Compare(a.Device.Name, b.Device.Name),
			cmp.Compare(a.EtherType, b.EtherType),
			cmp.Compare(a.IPProto, b.IPProto),
			strings.Compare(string(a.Direction), string(b.Direction)),
			cmp.Compare(a.Bytes, b.Bytes),
			cmp.Compare(i, j),
		)
	})
	return out
}

// instance returns the one of a cause for drops with this key.
func (m *matcher) instance(c *Cause, ns record.NetNS, dev record.Device) *instance {
	k := instanceKey{id: c.ID, ns: ns.Inode}
	p := place{ns: ns}
	if c.Per == perDevice {
		k.index, p.dev = dev.Index, dev
	}
	in, ok := m.instances[k]
	if !ok {
		in = &instance{cause: c, place: p, shares: map[int]*quota{}, devices: map[record.Device]uint64{}}
		m.instances[k] = in
		m.order = append(m.order, in)
	}
	return in
}

// split divides a count by what its samples show. Nearly always they show the
// same, and the count stays whole.
func (m *matcher) split(i int, samples []*record.Drop) {
	c := &m.counts[i]
	key := c.Key
	if len(samples) == 0 {
		m.portions = append(m.portions, &portion{count: i, drops: c.Drops, candidates: m.candidates(key, nil)})
		return
	}
	byText := map[string]*portion{}
	for _, s := range samples {
		found := m.candidates(key, s)
		sig := signature(found)
		p, ok := byText[sig]
		if !ok {
			p = &portion{count: i, candidates: found}
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

// mulDiv is a*b/c for b <= c without overflow; what is lost to rounding is
// below c.
func mulDiv(a, b, c uint64) uint64 { return a/c*b + a%c*b/c }

// candidates are the patterns that hold, one for each cause at most: its most
// specific. s is nil where no sample is there; then the key must suffice.
func (m *matcher) candidates(key record.Key, s *record.Drop) []candidate {
	d := describe(key, nil, nil)
	if s != nil {
		d = describe(key, s.Stack, s.Packet)
	}
	var out []candidate
	best := candidate{pattern: -1}
	take := func(c *Cause) {
		if best.pattern >= 0 {
			best.instance = m.instance(c, key.NetNS, key.Device)
			out = append(out, best)
		}
		best = candidate{pattern: -1}
	}
	found := m.k.patternsOf(d, m.patterns[:0])
	m.patterns = found
	for n, r := range found {
		c := m.k.causes[r.cause]
		p := &c.Patterns[r.pattern]
		if p.holdsKey(d) && (!p.ofSample() || s != nil && p.holdsSample(d) && p.whereHolds(s)) &&
			(best.pattern < 0 || p.weight() > best.weight) {
			best.pattern, best.weight = r.pattern, p.weight()
		}
		if n == len(found)-1 || found[n+1].cause != r.cause {
			take(c)
		}
	}
	return out
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

func newSampleScope(d *record.Drop) sampleScope {
	s := sampleScope{
		Length: int(d.Length), EtherType: int(d.EtherType), Device: d.Device.Name,
		GSO: int(d.GSOSegments), ICMPType: -1, ICMPCode: -1,
	}
	p := d.Packet
	if p == nil {
		return s
	}
	const fin, syn, rst, ack = 1, 2, 4, 16
	s.FIN, s.SYN, s.RST, s.ACK = p.TCPFlags&fin != 0, p.TCPFlags&syn != 0, p.TCPFlags&rst != 0, p.TCPFlags&ack != 0
	s.TTL, s.Fragment, s.Tunnel, s.Multicast = int(p.TTL), p.Fragment, p.Tunnel, multicast(p)
	if p.ICMPType != nil && p.ICMPCode != nil {
		s.ICMPType, s.ICMPCode = int(*p.ICMPType), int(*p.ICMPCode)
	}
	if len(p.VLANs) > 0 {
		s.VLAN = int(p.VLANs[0])
	}
	if p.Flow.IsValid() {
		s.Proto = record.ProtoName(p.Flow.Proto)
		s.Src, s.SrcPort = p.Flow.Src.Addr().String(), int(p.Flow.Src.Port())
		s.Dst, s.DstPort = p.Flow.Dst.Addr().String(), int(p.Flow.Dst.Port())
	}
	return s
}

// assign gives every portion's drops to the causes that can have them, and
// leaves in portion.left what none takes.
func (m *matcher) assign() {
	for _, in := range m.order {
		in.excluded = m.excluded(in)
		for i := range in.cause.Patterns {
			if e := in.cause.Patterns[i].share; e != nil {
				n, err := e.number(m.scope(in, in.total))
				q := &quota{left: n, known: err == nil}
				if n > 0 && m.b.slack > 0 {
					q.extra = 3 + uint64(m.b.slack*float64(in.total))
				}
				in.shares[i] = q
			}
		}
	}
	for _, p := range m.portions {
		p.left = p.drops
		p.candidates = slices.DeleteFunc(p.candidates, func(c candidate) bool { return c.excluded })
		slices.SortStableFunc(p.candidates, func(a, b candidate) int { return cmp.Compare(b.weight, a.weight) })
	}
	m.rebalance()
	// What is known from whole counts comes before what samples suggest.
	slices.SortStableFunc(m.portions, func(a, b *portion) int { return cmp.Compare(btoi(a.estimated), btoi(b.estimated)) })
	for _, p := range m.portions {
		for rest := p.candidates; len(rest) > 0 && p.left > 0; {
			n := slices.IndexFunc(rest, func(c candidate) bool { return c.weight != rest[0].weight })
			if n < 0 {
				n = len(rest)
			}
			if !p.share(rest[:n], m.b.slack) {
				break // ambiguous: what is left is not known
			}
			rest = rest[n:]
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
		in.samples, in.devices, in.summary = nil, map[record.Device]uint64{}, nil
		for _, g := range in.portions {
			in.samples = append(in.samples, g.portion.samples...)
			in.devices[m.counts[g.portion.count].Device] += g.drops
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
	c.estimated = c.estimated || p.estimated
	c.instance.portions = append(c.instance.portions, given{p, n})
}
