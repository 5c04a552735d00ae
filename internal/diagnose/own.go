package diagnose

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// A cause of somebody's own comes before one that is built in, where both can be of
// the same packets and the own one is as sure: whoever wrote it knows the host. The
// other one is named beside it.

// isOwn says whether a file is of a layer above the lowest, which is built in.
func (o overlay) isOwn(name string) bool {
	return len(o) > 1 && slices.ContainsFunc(o[1:], func(l fs.FS) bool {
		_, err := fs.Stat(l, unit(name))
		return err == nil
	})
}

// markOwn notes whether a cause is somebody's own, which only an overlay tells.
func (c *Cause) markOwn(fsys fs.FS, name string) {
	o, ok := fsys.(overlay)
	c.own = ok && o.isOwn(path.Dir(name))
}

// contest ranks the candidates of a portion where some are somebody's own and some are
// built in, and says whether there are both. An own one that can have nothing, as where
// its share is not known, is left out: what is built in is as sure without it.
func (m *matcher) contest(p *portion) bool {
	var best record.Confidence
	own := false
	for _, c := range p.candidates {
		switch {
		case c.cause.own:
			own = true
		case m.claim(c.instance) > 0 && (best == "" || compareConfidence(m.sureness(c.instance), best) < 0):
			best = m.sureness(c.instance)
		}
	}
	if !own || best == "" {
		return false
	}
	for i := range p.candidates {
		c := &p.candidates[i]
		if c.cause.own {
			c.rank = 1
			if compareConfidence(m.sureness(c.instance), best) > 0 {
				c.rank = -1
			}
		}
		for _, r := range p.candidates {
			if r.cause.own != c.cause.own && !slices.Contains(c.rivals, r.cause) {
				c.rivals = append(c.rivals, r.cause)
			}
		}
	}
	p.candidates = slices.DeleteFunc(p.candidates, func(c candidate) bool { return c.cause.own && m.claim(c.instance) == 0 })
	return true
}

// claim is how many drops an instance can have at most: all that its patterns hold
// for, as far as shares let it.
func (m *matcher) claim(in *instance) uint64 {
	var sum uint64
	for i, n := range in.ofPattern {
		switch q := in.shares[i]; {
		case q == nil:
			sum += n
		case q.known:
			sum += min(n, q.left)
		}
	}
	return sum
}

// sureness is how sure an instance would be of all that it can have. It is not asked
// for after drops have been given.
func (m *matcher) sureness(in *instance) record.Confidence {
	if in.sure == "" {
		var f record.Finding
		m.weighAll(&f, in, m.scope(in, m.claim(in)))
		in.sure = f.Confidence
	}
	return in.sure
}

// given to candidates of a portion: to those that are somebody's own, and to others.
func (p *portion) given() (own, builtIn uint64) {
	for _, c := range p.candidates {
		for _, g := range c.instance.portions {
			switch {
			case g.portion != p:
			case c.cause.own:
				own += g.drops
			default:
				builtIn += g.drops
			}
		}
	}
	return own, builtIn
}

// yield notes which drops of a contested portion went to the other side: counters by
// which a candidate counts a loss count these too.
func (p *portion) yield() {
	own, builtIn := p.given()
	for _, c := range p.candidates {
		if c.cause.own {
			c.yielded += builtIn
		} else {
			c.yielded += own
		}
	}
}

// lostBeside is what n, lost by counters, leaves when the drops that went to the other
// side are taken off; an expression that knows of them (elsewhere) has done that.
func (in *instance) lostBeside(n uint64) uint64 {
	if strings.Contains(in.cause.Lost, "elsewhere") {
		return n
	}
	return n - min(n, in.yielded)
}

// nameRivals adds to a finding what else could have been its cause.
func (in *instance) nameRivals(f *record.Finding) {
	for _, c := range in.rivals {
		whose := "built in"
		if c.own {
			whose = "a cause of your own"
		}
		f.Next = append(f.Next, "whydrop explain "+c.ID+"   # "+whose+": it could be this as well")
	}
}

// settleCounted leaves one of two findings of the same counters, one of somebody's own
// cause and one that is built in: the surer one, else the own one.
func settleCounted(all []result) []result {
	gone := map[*instance]bool{}
	for i := range all {
		own := &all[i]
		if !own.own() || own.events > 0 {
			continue
		}
		for j := range all {
			other := &all[j]
			if other.own() || gone[own.in] || gone[other.in] || !own.countsSame(other) {
				continue
			}
			stays, goes := own, other
			if compareConfidence(other.Confidence, own.Confidence) < 0 {
				stays, goes = other, own
			}
			gone[goes.in] = true
			(&instance{rivals: []*Cause{goes.in.cause}}).nameRivals(&stays.Finding)
		}
	}
	return slices.DeleteFunc(all, func(r result) bool { return gone[r.in] })
}

// countsSame says whether two findings without drops are of the same counters at the
// same place.
func (r *result) countsSame(o *result) bool {
	if r.events > 0 || o.events > 0 || r.in.place != o.in.place {
		return false
	}
	names := named(o.in.cause.lost)
	return slices.ContainsFunc(named(r.in.cause.lost), func(n string) bool { return slices.Contains(names, n) })
}
