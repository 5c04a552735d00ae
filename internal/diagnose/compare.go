package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// What makes two shares of loss different. Losses come in bursts, so a difference
// below a tenth says nothing, nor does one that chance makes with so few packets.
const (
	sameWithin = 0.1
	sigmas     = 3
	// enough is how many packets must have been expected to be lost for none to
	// mean something: by chance none of 5 is lost once in 150 times.
	enough = 5
	// underLoad is the part of the former traffic a second below which a queue
	// that is too small need not overflow.
	underLoad = 0.5
	// unplacedPart is the part of the drops that were expected which may have come
	// without a place and none still means none.
	unplacedPart = 0.01
)

// Compare says what became of the findings of before in after, which was
// observed on the same host later. Each finding is compared for itself, those
// that are symptoms too. Losses are set beside the traffic that they are a part
// of, so that less loss because of less traffic is no success. It needs no more
// than the two observations.
func Compare(before, after *record.Observation, k *Knowledge) record.Comparison {
	out := record.Comparison{
		Type: record.TypeComparison, SchemaVersion: record.SchemaVersion, Host: after.Host, Kernel: after.Kernel,
		Before: before.Window, After: after.Window, Changes: []record.FindingChange{}, Notes: notes(before, after),
	}
	then, now := newSide(before, k), newSide(after, k)
	for _, f := range then.findings {
		c := record.FindingChange{Finding: f, Now: now.take(k.identity(&f))}
		then.measure(now, &c)
		if c.Outcome, c.Why = outcome(&c, then, now); c.Outcome == record.OutcomeNotKnown {
			c.Change = 0
		}
		out.Changes = append(out.Changes, c)
	}
	for _, f := range now.findings {
		if now.taken[k.identity(&f)] {
			continue
		}
		c := record.FindingChange{Outcome: record.OutcomeNew, Finding: f, Now: new(f), Why: "it was not there before"}
		then.measure(now, &c)
		c.Change = 0
		out.Changes = append(out.Changes, c)
	}
	return out
}

// side is one of the two observations.
type side struct {
	o        *record.Observation
	findings []record.Finding
	taken    map[string]bool
	k        *Knowledge
}

func newSide(o *record.Observation, k *Knowledge) *side {
	s := &side{o: o, taken: map[string]bool{}, k: k}
	for _, f := range Run(o, k, Options{}).Findings {
		below := f.Symptoms
		f.Symptoms = nil
		s.findings = append(s.findings, f)
		s.findings = append(s.findings, below...)
	}
	slices.SortStableFunc(s.findings, func(a, b record.Finding) int { return cmp.Compare(b.Drops, a.Drops) })
	return s
}

// take is the finding with an identity, nil where there is none.
func (s *side) take(id string) *record.Finding {
	for i := range s.findings {
		if s.k.identity(&s.findings[i]) == id && !s.taken[id] {
			s.taken[id] = true
			return new(s.findings[i])
		}
	}
	return nil
}

// identity is what is the same of a finding in two observations of a host. The
// title is not: there are numbers in it.
func (k *Knowledge) identity(f *record.Finding) string {
	parts := []string{f.Cause, string(f.Station)}
	add := func(list []string) {
		list = slices.Clone(list)
		slices.Sort(list)
		parts = append(parts, strings.Join(list, ","))
	}
	if f.Cause != record.CauseNotKnown {
		add(f.NetNS)
		if c := k.Cause(f.Cause); c != nil && c.Per == perDevice {
			add(f.Devices)
		}
		return strings.Join(parts, "|")
	}
	add(f.Reasons)
	var functions []string
	for _, l := range f.Locations {
		name, _, _ := strings.Cut(l, "+")
		functions = append(functions, name)
	}
	slices.Sort(functions)
	parts = append(parts, strings.Join(slices.Compact(functions), ","))
	if f.LostBy == lostByCounters && len(f.Evidence) > 0 {
		parts = append(parts, f.Evidence[0].Name)
		add(f.NetNS)
		add(f.Devices)
	}
	return strings.Join(parts, "|")
}

// notes are what makes two observations less comparable.
func notes(before, after *record.Observation) []string {
	out := []string{}
	a, b := before.Host, after.Host
	switch {
	case a.Hostname != b.Hostname:
		out = append(out, fmt.Sprintf("the first is of host %s, the second of %s", a.Hostname, b.Hostname))
	case a.BootID != b.BootID:
		out = append(out, "the host was started anew between the two")
	}
	if a, b := before.Kernel.Release, after.Kernel.Release; a != b {
		out = append(out, fmt.Sprintf("the kernel was %s, now it is %s", a, b))
	}
	if !before.Window.End.IsZero() && after.Window.Start.Before(before.Window.End) {
		out = append(out, "the second was not observed after the first")
	}
	worked := func(o *record.Observation, name string) bool {
		return slices.ContainsFunc(o.Sources, func(s record.Source) bool {
			return s.Name == name && (s.State == record.SourceOK || s.State == record.SourceDegraded)
		})
	}
	var names []string
	for _, s := range slices.Concat(before.Sources, after.Sources) {
		if !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}
	for _, name := range names {
		switch x, y := worked(before, name), worked(after, name); {
		case x && !y:
			out = append(out, name+" worked in the first alone")
		case y && !x:
			out = append(out, name+" worked in the second alone")
		}
	}
	return out
}

// lossOf is what a finding lost, in packets or events.
func lossOf(f *record.Finding) uint64 {
	if f == nil {
		return 0
	}
	return cmp.Or(f.Drops, f.Events)
}

// measure fills in the losses and the traffic that both are a part of.
func (s *side) measure(now *side, c *record.FindingChange) {
	c.Before.Lost, c.After.Lost = lossOf(&c.Finding), lossOf(c.Now)
	if c.Outcome == record.OutcomeNew {
		c.Before.Lost = 0
	}
	c.Traffic = ofTime
	least := math.Inf(1)
	for _, t := range trafficOf(&c.Finding) {
		a, ok := t.in(s.o, &c.Finding)
		b, ok2 := t.in(now.o, &c.Finding)
		if !ok || !ok2 {
			continue
		}
		x, y := t.with(a, c.Before.Lost), t.with(b, c.After.Lost)
		// Where nothing is lost any more the traffic that shrank most is asked
		// whether there was something to lose; else the nearest to the loss counts.
		if part := float64(y) / float64(max(x, 1)); c.Traffic == ofTime || c.After.Lost == 0 && part < least {
			least = part
			c.Traffic, c.Before.Traffic, c.After.Traffic = t.say(&c.Finding), x, y
		}
	}
	c.Before.Share = share(c.Before, s.o, c.Traffic)
	c.After.Share = share(c.After, now.o, c.Traffic)
	if c.Before.Share > 0 {
		c.Change = c.After.Share/c.Before.Share - 1
	}
}

// ofTime stands for traffic where none was counted.
const ofTime = "time"

func share(l record.LossShare, o *record.Observation, traffic string) float64 {
	of := float64(l.Traffic)
	if traffic == ofTime {
		of = o.Window.Duration.Seconds()
	}
	if of <= 0 {
		return 0
	}
	return float64(l.Lost) / of
}

// outcome says what became of a finding, and what that rests on.
func outcome(c *record.FindingChange, then, now *side) (record.Outcome, string) {
	if c.After.Lost == 0 {
		return absent(c, then, now)
	}
	// How many would have been lost at the former share.
	expected, ratio := c.Before.Share*now.o.Window.Duration.Seconds(), 1.0
	if c.Traffic != ofTime {
		expected = c.Before.Share * float64(c.After.Traffic)
	}
	if c.Before.Lost > 0 {
		ratio = expected / float64(c.Before.Lost)
	}
	got := float64(c.After.Lost)
	chance := sigmas * math.Sqrt(got+expected*ratio)
	why := fmt.Sprintf("lost %s of %s before, %s now", percent(c.Before, c.Traffic), c.Traffic, percent(c.After, c.Traffic))
	switch d := math.Abs(got - expected); {
	case expected == 0:
		return cannotTell("the first observation has no share to compare with")
	case d <= sameWithin*expected || d <= chance:
		return record.OutcomeSame, why + ": so much is chance"
	case got < expected && c.Traffic == ofTime:
		return cannotTell(why + "; nothing was counted that says whether as much traffic flowed")
	case got < expected && idle(c, then, now):
		return cannotTell(why + slower(c, then, now))
	case got < expected:
		return record.OutcomeLess, why + slower(c, then, now)
	}
	return record.OutcomeWorse, why
}

func cannotTell(why string) (record.Outcome, string) { return record.OutcomeNotKnown, why }

// absent is the outcome of a finding that is no longer there.
func absent(c *record.FindingChange, then, now *side) (record.Outcome, string) {
	ofDrops := c.Finding.LostBy != lostByCounters
	switch {
	case ofDrops && !watchedDrops(now.o):
		return cannotTell("drops were not watched the second time")
	case !now.sees(c.Finding.NetNS):
		return cannotTell("nothing was read of " + strings.Join(c.Finding.NetNS, ", ") + " the second time")
	case c.Traffic == ofTime:
		return cannotTell("nothing was counted that says whether traffic flowed")
	case c.After.Traffic == 0:
		return cannotTell(fmt.Sprintf("no traffic: %s did not move", c.Traffic))
	}
	expected := c.Before.Share * float64(c.After.Traffic)
	if expected < enough {
		return cannotTell(fmt.Sprintf("too little traffic: of %d packets (%s) only %s would have been lost at the former share",
			c.After.Traffic, c.Traffic, format(expected)))
	}
	if why := unplaced(now.o, expected); ofDrops && why != "" {
		return cannotTell(why)
	}
	if idle(c, then, now) {
		return cannotTell(fmt.Sprintf("too little traffic: %s was %.0f %% of what it was, and what overflowed then need not now", c.Traffic, 100*loadRatio(c, then, now)))
	}
	return record.OutcomeGone, fmt.Sprintf("none of %d packets (%s) was lost; at the former share %s would have been%s",
		c.After.Traffic, c.Traffic, format(math.Round(expected)), slower(c, then, now))
}

// unplaced says that so many drops have no place, or are not even counted, that
// those which were expected may be among them.
func unplaced(o *record.Observation, expected float64) string {
	a := &o.Accounting
	if a.AlertsLost > 0 {
		return fmt.Sprintf("%d alerts of the drop monitor were lost the second time, and how many drops they told of is not known", a.AlertsLost)
	}
	n := plus(plus(a.MapFull, a.DropsUnattributed), a.DropsLost)
	if float64(n) <= unplacedPart*expected {
		return ""
	}
	return fmt.Sprintf("where %d drops of the second time were is not known", n)
}

// idle says whether a queue that overflowed had so little to do the second time
// that it need not overflow any more.
func idle(c *record.FindingChange, then, now *side) bool {
	return c.Finding.Class == record.ClassCapacity && loadRatio(c, then, now) < underLoad
}

// loadRatio is the traffic a second of the second observation, as a part of that of
// the first; 1 where it is not known.
func loadRatio(c *record.FindingChange, then, now *side) float64 {
	s, t := then.o.Window.Duration.Seconds(), now.o.Window.Duration.Seconds()
	if c.Before.Traffic == 0 || s <= 0 || t <= 0 {
		return 1
	}
	return float64(c.After.Traffic) / t / (float64(c.Before.Traffic) / s)
}

// slower says that there was less traffic, where that may be why less was lost.
func slower(c *record.FindingChange, then, now *side) string {
	part := loadRatio(c, then, now)
	if c.Finding.Class != record.ClassCapacity || part >= 0.8 {
		return ""
	}
	return fmt.Sprintf("; but there was only %.0f %% of the traffic a second, and a queue overflows under load", 100*part)
}

func percent(l record.LossShare, traffic string) string {
	if traffic == ofTime {
		return fmt.Sprintf("%.3g a second", l.Share)
	}
	return fmt.Sprintf("%.3g %%", 100*l.Share)
}

// watchedDrops says whether anything looked for drops.
func watchedDrops(o *record.Observation) bool {
	l := ledger{m: &matcher{b: &base{o: o}}}
	return l.watched()
}

// sees says whether the observation has numbers of one of these namespaces.
func (s *side) sees(spaces []string) bool {
	return len(spaces) == 0 || slices.ContainsFunc(s.o.Counters, func(c record.Counter) bool {
		return slices.Contains(spaces, netnsLabel(c.NetNS))
	})
}
