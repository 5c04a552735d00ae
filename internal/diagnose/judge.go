package diagnose

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// tryLost adds the instances of causes that counters alone show.
func (m *matcher) tryLost() {
	for _, c := range m.k.causes {
		if c.lost == nil || c.Per == perDevice && m.tryLostDevices(c) {
			continue
		}
		// Counters of the host alone say nothing about one namespace: they
		// make a finding only where no drop does. An expression that asks whether
		// a counter is there can be reckoned without it too.
		names := named(c.lost)
		inSpaces := slices.ContainsFunc(m.b.spaces, func(ns record.NetNS) bool { return m.b.any(names, ns.Inode, false) })
		if n, ok := m.tryLostAt(c, record.NetNS{}); ok && (n > 0 || !inSpaces) {
			continue
		}
		for _, ns := range m.b.spaces {
			// Where none moved, nothing was lost.
			if len(names) == 0 || m.b.any(names, ns.Inode, true) || m.b.any(names, 0, true) {
				m.tryLostAt(c, ns)
			}
		}
	}
}

// any says whether one of these counters is there, or where moved is set whether
// one moved.
func (b *base) any(names []string, inode uint32, moved bool) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		return slices.ContainsFunc(b.counters[numberKey{name, inode}], func(c *record.Counter) bool { return !moved || c.Delta > 0 })
	})
}

// tryLostDevices tries each device that has a counter of the loss; false where
// none has one.
func (m *matcher) tryLostDevices(c *Cause) bool {
	names := named(c.lost)
	if len(m.b.devicesWith(names, false)) == 0 {
		return false
	}
	for _, p := range m.b.devicesWith(names, true) {
		n, err := c.lost.number(m.probe(c, p))
		if err == nil && n > 0 {
			m.instance(c, p.ns, p.dev)
		}
	}
	return true
}

// tryLostAt says how much was lost there, and whether that could be reckoned.
func (m *matcher) tryLostAt(c *Cause, ns record.NetNS) (uint64, bool) {
	n, err := c.lost.number(m.probe(c, place{ns: ns}))
	if err == nil && n > 0 && (ns.Inode != 0 || !m.has(c)) && !m.onDevice(c, ns) {
		m.instance(c, ns, record.Device{})
	}
	return n, err == nil
}

// has says whether drops made the cause possible somewhere.
func (m *matcher) has(c *Cause) bool {
	return slices.ContainsFunc(m.order, func(in *instance) bool { return in.cause == c })
}

// onDevice says whether drops made the cause possible on a device there.
func (m *matcher) onDevice(c *Cause, ns record.NetNS) bool {
	return slices.ContainsFunc(m.order, func(in *instance) bool {
		return in.cause == c && in.place.ns.Inode == ns.Inode && in.place.dev.Index != 0
	})
}

// excluded says whether a condition that the cause needs does not hold. Where the
// source does not tell enough to look at it, or no packet was sampled, one that is
// not known counts as that for causes that are hidden: no loss may be hidden by
// what was not looked at.
func (m *matcher) excluded(in *instance) bool {
	var s *scope
	for i := range in.cause.Evidence {
		it := &in.cause.Evidence[i]
		if it.Role != roleNeeds {
			continue
		}
		if s == nil {
			s = m.supposed(in)
		}
		switch j := m.weigh(it, in, s); {
		case j.state == speaksAgainst:
			in.unsure = in.unsure || j.unsampled && !in.cause.Class.Shown()
			return true
		case j.state == notKnown && (m.b.placeless || j.unsampled) && !in.cause.Class.Shown():
			in.unsure = true
			return true
		}
	}
	return false
}

// supposed is the scope of an instance that all that could be its own is taken for:
// the drops, or without any what counters say was lost.
func (m *matcher) supposed(in *instance) *scope {
	s := m.scope(in, in.total)
	s.Bytes = clamp(in.totalBytes)
	if in.total == 0 && in.cause.lost != nil {
		if n, err := in.cause.lost.number(s); err == nil && n > 0 {
			s = m.scope(in, n)
		}
	}
	return s
}

// state is what an item of evidence comes to.
type state int

const (
	leftOut state = iota
	notKnown
	speaksFor
	speaksAgainst
)

// judgement is an item that was looked at.
type judgement struct {
	state    state
	why      string // of notKnown
	evidence record.Evidence
	// unsampled: it is not known because no packet was sampled.
	unsampled bool
}

// weigh looks at one item of evidence.
func (m *matcher) weigh(it *Item, in *instance, s *scope) judgement {
	j := m.look(it, in, s)
	s.Delta, s.Before, s.After, s.Value = 0, 0, 0, nil // of this item alone
	return j
}

func (m *matcher) look(it *Item, in *instance, s *scope) judgement {
	if it.when != nil {
		ok, err := it.when.truth(s)
		if err != nil {
			return judgement{state: notKnown, why: err.Error()}
		}
		if !ok {
			return judgement{state: leftOut}
		}
	}
	j := m.quote(it, in, s)
	// Without a sample such names are 0: that can refuse a cause, and bears none.
	j.unsampled = s.Samples == 0 && (it.value.ofSamples() || it.expect.ofSamples())
	if j.state == notKnown {
		return j
	}
	ok, err := m.expected(it, s)
	if err != nil {
		return judgement{state: notKnown, why: err.Error(), evidence: j.evidence, unsampled: j.unsampled}
	}
	switch {
	case !ok:
		j.state = speaksAgainst
	case j.unsampled:
		return judgement{state: notKnown, why: "no packet was sampled", unsampled: true}
	default:
		j.state = speaksFor
	}
	j.evidence.Supports = ok
	j.evidence.Says, _ = it.says.expand(s)
	return j
}

// quote reads the item's number into s and into evidence.
func (m *matcher) quote(it *Item, in *instance, s *scope) judgement {
	e := record.Evidence{Name: it.Counter}
	switch {
	case it.Counter != "":
		c, ok := m.b.counter(it.Counter, in.place)
		if !ok {
			return judgement{state: notKnown, why: "counter " + it.Counter + " was not read"}
		}
		s.Delta, s.Before, s.After = clamp(c.Delta), clamp(c.Before), clamp(c.After)
		e.Kind, e.Source, e.Command = "counter", c.Source, c.Command
		e.Value, e.Before, e.After = utoa(c.Delta), utoa(c.Before), utoa(c.After)
	case it.Fact != "":
		request, err := it.fact.expand(s)
		if err != nil {
			return judgement{state: notKnown, why: err.Error()}
		}
		found, err := m.b.answers(request, in.place)
		if err != nil {
			return judgement{state: notKnown, why: err.Error()}
		}
		s.Value = number(found[0].Value)
		e.Kind, e.Name, e.Value, e.Source, e.Command = "fact", request, found[0].Value, found[0].Source, found[0].Command
	default:
		v, err := it.value.run(s)
		if err != nil {
			return judgement{state: notKnown, why: err.Error()}
		}
		s.Value = v
		name, _ := it.name.expand(s)
		e.Kind, e.Name, e.Value = "fact", name, format(v)
	}
	if e.Command != "" {
		e.Command = s.NS + e.Command
	}
	return judgement{evidence: e}
}

func utoa(n uint64) string { return strconv.FormatUint(n, 10) }

// expected says whether the item is as the cause would have it.
func (m *matcher) expected(it *Item, s *scope) (bool, error) {
	delta, drops := float64(s.Delta), float64(s.Drops)
	switch it.Expect {
	case "equal":
		return m.agrees(delta, drops)
	case "at-least":
		if delta >= drops {
			return true, nil
		}
		return m.agrees(delta, drops)
	}
	return it.expect.truth(s)
}

// agrees is matches for evidence: a counter that did not move at all bears
// nothing, though it may have missed so few drops.
func (m *matcher) agrees(counter, drops float64) (bool, error) {
	ok := m.matches(counter, drops)
	if ok && counter == 0 && drops > 0 {
		return false, unknownf("so few drops may be missing in a counter that did not move")
	}
	return ok, nil
}

// matches says whether a counter counts the same as drops. It may have less
// where it did not see the whole window, and more where drops were filtered
// out: at most those.
func (m *matcher) matches(counter, drops float64) bool {
	if counter < drops {
		return near(counter, drops) || drops-counter <= m.b.missed(drops)
	}
	return near(counter, drops) || counter <= drops+float64(m.b.o.Accounting.DropsFiltered)
}

// started is a finding with what its cause alone says of it.
func started(c *Cause) record.Finding {
	return record.Finding{
		Cause: c.ID, Class: c.Class, Station: c.Station, Direction: c.Direction,
		Reasons: []string{}, Evidence: []record.Evidence{}, Remedy: []record.Remedy{}, Verify: []string{},
		Unchecked: []string{}, Next: []string{},
	}
}

// finding turns an instance into what is reported of it; false where nothing
// was lost.
func (m *matcher) finding(in *instance) (record.Finding, bool) {
	c := in.cause
	s := m.scope(in, in.drops)
	s.Elsewhere = clamp(in.total - min(in.total, in.drops))
	f := started(c)
	f.Drops, f.LostBy = in.drops, "drops"
	if c.lost != nil {
		if n, err := c.lost.number(s); err == nil && in.lostBeside(n) > f.Drops {
			n = in.lostBeside(n)
			f.Drops, f.LostBy = n, "counters"
			s = m.scope(in, n)
		}
	}
	if f.Drops == 0 {
		return f, false
	}
	if sec := m.b.o.Window.Duration.Seconds(); sec > 0 {
		f.Rate = float64(f.Drops) / sec
		s.Rate = f.Rate
	}
	f.Title, _ = c.title.say(s)
	m.describe(&f, in)
	m.weighAll(&f, in, s)
	m.advise(&f, c, s)
	in.nameRivals(&f)
	if c.Unit == unitEvents {
		f.Drops, f.Events, f.Rate = 0, f.Drops, 0
	}
	return f, true
}

// describe fills in where the drops were and whose they are.
func (m *matcher) describe(f *record.Finding, in *instance) {
	g := newGroup()
	var order []*kind
	drops := map[*kind]uint64{}
	for _, p := range in.portions {
		c := &m.counts[p.portion.count]
		g.add(c, p.drops)
		d := m.kinds[p.portion.count]
		if drops[d] == 0 {
			order = append(order, d)
		}
		drops[d] += p.drops
	}
	for _, d := range order {
		if name := d.of.reason.Name; name != "" && !slices.Contains(f.Reasons, name) {
			f.Reasons = append(f.Reasons, name)
		}
		f.Evidence = m.addDropEvidence(f.Evidence, d, drops[d])
	}
	if e, ok := m.where(in); ok {
		f.Evidence = append(f.Evidence, e)
	}
	for _, d := range in.samples {
		g.addSample(d)
	}
	g.where(f)
	f.Flows = g.topFlows()
	if label := netnsLabel(in.place.ns); len(f.NetNS) == 0 && label != "" {
		f.NetNS = []string{label}
	}
	if label := deviceLabel(in.place.dev, in.place.ns); len(f.Devices) == 0 && label != "" {
		f.Devices = []string{label}
	}
	f.Owners = m.owners(in, g)
}

// owners names the processes of the sockets that the samples name.
func (m *matcher) owners(in *instance, g *group) []string {
	out := []string{}
	for _, inode := range g.inodes.ranked() {
		if len(out) == maxListed {
			break
		}
		label := "socket inode " + inode
		if found, err := m.b.answers("owner "+inode, in.place); err == nil && found[0].Value != none {
			label = fmt.Sprintf("%s (socket inode %s)", found[0].Value, inode)
		}
		out = append(out, label)
	}
	return out
}

// addDropEvidence quotes an exact count, once for each reason and function.
func (m *matcher) addDropEvidence(es []record.Evidence, d *kind, drops uint64) []record.Evidence {
	e := dropEvidence(d.of.reason, symbolOrAddress(d.of.location), drops, m.b.placeless)
	i := slices.IndexFunc(es, func(o record.Evidence) bool { return o.Name == e.Name })
	if i < 0 {
		return append(es, e)
	}
	if n, err := strconv.ParseUint(es[i].Value, 10, 64); err == nil {
		es[i].Value = utoa(n + drops)
	}
	return es
}

// weighAll looks at the evidence and says how sure the finding is.
func (m *matcher) weighAll(f *record.Finding, in *instance, s *scope) {
	confirmed, against, open := 0, 0, 0
	for i := range in.cause.Evidence {
		it := &in.cause.Evidence[i]
		decides := it.Role == roleConfirms || it.Role == roleNeeds
		j := m.weigh(it, in, s)
		if j.unsampled && j.state == speaksAgainst {
			j = judgement{state: notKnown, why: "no packet was sampled"}
		}
		switch j.state {
		case notKnown:
			if decides {
				open++
			}
			f.Unchecked = append(f.Unchecked, j.why)
		case speaksFor:
			if it.Role == roleConfirms {
				confirmed++
			}
			f.Evidence = append(f.Evidence, j.evidence)
		case speaksAgainst:
			if decides {
				against++
			}
			f.Evidence = append(f.Evidence, j.evidence)
		}
	}
	slices.Sort(f.Unchecked)
	f.Unchecked = slices.Compact(f.Unchecked)
	switch {
	case against > 0:
		f.Confidence = record.ConfidencePossible
	case confirmed > 0 && open == 0 && len(in.cause.Verified) > 0 && !in.estimated && !in.contested:
		f.Confidence = record.ConfidenceCertain
	default:
		f.Confidence = record.ConfidenceLikely
	}
}

// hostSettings is where settings of the host's own namespace are kept.
const hostSettings = "/etc/sysctl.d/"

// advise fills in what to do and how to see that it helped.
func (m *matcher) advise(f *record.Finding, c *Cause, s *scope) {
	run := s.forCommands()
	for i := range c.Remedies {
		r := &c.Remedies[i]
		if r.when != nil {
			if ok, err := r.when.truth(s); err != nil || !ok {
				continue
			}
		}
		command, err := r.command.command(run)
		if err != nil {
			f.Unchecked = append(f.Unchecked, "a remedy: "+err.Error())
			continue
		}
		out := record.Remedy{Command: command}
		out.Persist, _ = r.persist.expand(run)
		if run.NS != "" && strings.HasPrefix(command, run.NS) && strings.Contains(out.Persist, hostSettings) {
			out.Persist = "set it where the namespace is made: files of the host are not read for it"
		}
		out.Undo, _ = r.undo.expand(run)
		out.Risk, _ = r.risk.expand(s)
		out.Why, _ = r.why.expand(s)
		f.Remedy = append(f.Remedy, out)
	}
	f.Verify = commands(c.verify, run)
	if f.Confidence != record.ConfidenceCertain {
		f.Next = commands(c.next, run)
	}
}

// commands leaves out the texts of which a part is not known.
func commands(ts []*template, s *scope) []string {
	out := []string{}
	for _, t := range ts {
		if text, err := t.command(s); err == nil {
			out = append(out, text)
		}
	}
	return out
}
