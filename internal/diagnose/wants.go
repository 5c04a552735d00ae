package diagnose

import (
	"slices"
	"strconv"

	"github.com/whydrop/whydrop/record"
)

// maxRequests bounds how many facts are asked for: what they are asked about
// comes from packets.
const maxRequests = 500

// Wants says which facts would decide what the drops and counters of o leave
// open. Whoever observes the host reads them into o.Facts before Run. The
// order is that of the causes' importance: the first ones are about the most
// drops.
func Wants(o *record.Observation, k *Knowledge) []record.FactRequest {
	m := newMatcher(o, k)
	open := slices.Clone(m.order)
	slices.SortStableFunc(open, func(a, b *instance) int { return int(min(b.total, 1<<31)) - int(min(a.total, 1<<31)) })
	w := wishes{seen: map[record.FactRequest]bool{}}
	for _, in := range open {
		if m.excluded(in) {
			continue
		}
		w.addAll(in, m.scope(in, in.total))
		w.add("netns", "", in.place.ns)
		for _, c := range m.k.contributors[in.cause.ID] {
			with := in.as(c)
			w.addAll(with, m.scope(with, in.total))
		}
	}
	for _, c := range m.k.conclusions {
		if len(c.requests) == 0 {
			continue
		}
		for _, p := range m.placesFor(c) {
			in := &instance{cause: c, place: p}
			w.addAll(in, m.scope(in, 0))
		}
	}
	for _, inode := range inodes(o) {
		w.add("owner", strconv.FormatUint(inode.inode, 10), inode.ns)
	}
	m.wantKinds(&w)
	return w.list
}

// wantKinds asks for the devices that drops may have been counted by, where only
// devices of some kinds do.
func (m *matcher) wantKinds(w *wishes) {
	moved := map[string][]*record.Counter{}
	for i := range m.b.o.Counters {
		c := &m.b.o.Counters[i]
		if c.Delta > 0 && c.Object == "" && c.Device.Name != "" && m.k.kinded[c.Name] {
			moved[c.Name] = append(moved[c.Name], c)
		}
	}
	if len(moved) == 0 {
		return
	}
	of := map[*kind][]raisingOf{}
	for i, d := range m.kinds {
		raisings, ok := of[d]
		if !ok {
			for _, s := range d.sites() {
				for _, r := range m.k.raisings[s] {
					if len(r.Kinds) > 0 && len(moved[r.counter]) > 0 && r.holdsKey(d.drop) {
						raisings = append(raisings, r)
					}
				}
			}
			of[d] = raisings
		}
		key := &m.counts[i].Key
		for _, r := range raisings {
			if r.meets(key) == no {
				continue
			}
			for _, c := range moved[r.counter] {
				if r.Scope == scopeHost || key.NetNS.Inode == 0 || key.NetNS.Inode == c.NetNS.Inode {
					w.add(linkFact, c.Device.Name, c.NetNS)
				}
			}
		}
	}
}

// request fills in the expressions; false where one is not known or empty:
// without samples there is no address to ask about.
func (t *template) request(env any) (string, bool) {
	for _, p := range t.parts {
		if p.value == nil {
			continue
		}
		if v, err := p.value.run(env); err != nil || format(v) == "" {
			return "", false
		}
	}
	text, err := t.expand(env)
	return text, err == nil
}

// wishes is a list without repetitions.
type wishes struct {
	list []record.FactRequest
	seen map[record.FactRequest]bool
}

// addAll adds the requests of a cause, where they are worth it.
func (w *wishes) addAll(in *instance, s *scope) {
	if !worthwhile(in.cause, s) {
		return
	}
	for _, t := range in.cause.requests {
		if text, ok := t.request(s); ok {
			kind, arg := splitRequest(text)
			w.add(kind, arg, in.place.ns)
		}
	}
}

func (w *wishes) add(kind, arg string, ns record.NetNS) {
	r := record.FactRequest{Kind: kind, Arg: arg, NetNS: ns.Inode}
	if len(w.list) < maxRequests && !w.seen[r] {
		w.seen[r] = true
		w.list = append(w.list, r)
	}
}

type socketIn struct {
	inode uint64
	ns    record.NetNS
}

// inodes are the sockets that samples name, the most frequent first.
func inodes(o *record.Observation) []socketIn {
	counts := map[socketIn]int{}
	var out []socketIn
	for i := range o.Samples {
		d := &o.Samples[i]
		if d.Socket == nil || d.Socket.Inode == 0 {
			continue
		}
		k := socketIn{d.Socket.Inode, record.NetNS{Inode: d.NetNS.Inode}}
		if counts[k]++; counts[k] == 1 {
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b socketIn) int { return counts[b] - counts[a] })
	return out[:min(len(out), 100)]
}
