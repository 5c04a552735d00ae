package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Options choose what Run shows.
type Options struct {
	// All shows the findings of the classes benign and expected too.
	All bool
	// Focus chooses samples of the traffic that was asked for. Findings that have
	// such samples, or whose cause meets the whole host, are shown, those with
	// samples first; others are only counted. Nil: all traffic was asked for.
	Focus func(*record.Drop) bool
}

// Run reduces an observation to its findings: one for each cause and namespace
// (or device), and one that is not known for each reason, function and station
// that no cause explains, and for each loss that only counters show. A finding
// that is only the consequence of another is among the symptoms of that one.
// The one that explains most packets comes first, then the graver class, then
// the surer one; with opt.Focus those about that traffic come before others.
//
// Findings of hidden classes are left out unless opt.All, and counted in the
// accounting. What opt.Focus leaves out is counted in Elsewhere.
//
// In the accounting, DropsExplained and DropsUnexplained add up to the drops
// in o.Counts. No slice of the result is nil.
func Run(o *record.Observation, k *Knowledge, opt Options) record.Diagnosis {
	d := record.Diagnosis{
		SchemaVersion: record.SchemaVersion,
		Host:          o.Host,
		Kernel:        o.Kernel,
		Window:        o.Window,
		Sources:       append([]record.Source{}, o.Sources...),
		Accounting:    o.Accounting,
		Blind:         append(append([]record.Blind{}, o.Blind...), WentBack(o.Counters, k)...),
	}
	a := &d.Accounting
	a.DropsExplained, a.DropsUnexplained, a.DropsHiddenBenign, a.DropsHiddenExpected = 0, 0, 0, 0
	m := newMatcher(o, k)
	m.assign()
	m.settle()
	all := append(m.causes(), m.rest()...)
	l := m.ledger(all) // hidden findings explain counters too
	all = append(all, l.found...)
	slices.SortStableFunc(all, compareFindings)
	m.results = append([]result{}, all...)
	m.contribute(all)
	var shown []*result
	for i := range all {
		f := &all[i]
		n := f.events
		if f.explained {
			a.DropsExplained += n
		} else {
			a.DropsUnexplained += n
		}
		switch {
		case opt.All || f.Class.Shown():
			shown = append(shown, f)
		case f.Class == record.ClassBenign:
			a.DropsHiddenBenign += n
		case f.Class == record.ClassExpected:
			a.DropsHiddenExpected += n
		}
	}
	d.Findings, d.Elsewhere = chosen(m.fold(shown), opt.Focus)
	d.Conclusions = slices.DeleteFunc(m.conclude(), func(f record.Finding) bool { return !opt.All && f.Class == record.ClassBenign })
	d.Checked = m.checked(l)
	d.Counters = l.counters()
	d.Ledger = record.Ledger{Stations: stations(all), Entries: l.entries()}
	return d
}

// result is a finding with the drop events that it accounts for.
type result struct {
	record.Finding
	events    uint64
	explained bool
	counts    []int // in matcher.counts, of which some are its own
	samples   []*record.Drop
	in        *instance // nil for what is not known
}

// onlyCounted says that a counter is all there is to it.
func (r *result) onlyCounted() bool {
	return r.Cause == record.CauseNotKnown && r.LostBy == lostByCounters
}

// own says that its cause is somebody's own.
func (r *result) own() bool { return r.in != nil && r.in.cause.own }

// compareFindings orders the greatest first; the rest makes the order total.
func compareFindings(a, b result) int {
	return cmp.Or(
		cmp.Compare(b.Drops, a.Drops),
		compareClasses(a.Class, b.Class),
		compareConfidence(a.Confidence, b.Confidence),
		cmp.Compare(btoi(b.own()), btoi(a.own())),
		cmp.Compare(btoi(a.onlyCounted()), btoi(b.onlyCounted())),
		cmp.Compare(stationIndex(a.Station), stationIndex(b.Station)),
		strings.Compare(a.Cause, b.Cause),
		slices.Compare(a.NetNS, b.NetNS),
		slices.Compare(a.Devices, b.Devices),
		strings.Compare(a.Title, b.Title),
		slices.Compare(a.Locations, b.Locations),
		slices.Compare(a.Reasons, b.Reasons),
	)
}

// causes are the findings that have a cause.
func (m *matcher) causes() []result {
	var out []result
	for _, in := range m.order {
		if in.excluded {
			continue
		}
		if f, ok := m.finding(in); ok {
			r := result{Finding: f, events: in.drops, explained: true, samples: in.samples, in: in}
			for _, p := range in.portions {
				r.counts = append(r.counts, p.portion.count)
			}
			out = append(out, r)
		}
	}
	return settleCounted(out)
}

// rest are the findings of the drops that no cause took: not known, unless
// their reason or location is known for protocol life or noise.
func (m *matcher) rest() []result {
	o := m.b.o
	could := map[int][]candidate{}
	for _, p := range m.portions {
		if p.left > 0 && len(p.candidates) > 0 {
			if before, ok := could[p.count]; ok {
				could[p.count] = slices.Concat(before, p.candidates)
			} else {
				could[p.count] = p.candidates
			}
		}
	}
	var out []result
	for _, g := range m.groups() {
		f := g.notKnown(o.Window, m.b.placeless)
		f.Owners = m.owners(&instance{place: place{ns: g.space}}, g)
		f.Next = m.k.whatNext(f, g, could)
		out = append(out, result{Finding: f, events: g.drops, explained: g.key.Known && !g.key.Class.Shown(), counts: g.counts, samples: g.dropped})
	}
	return out
}

// gravest is the gravest verdict on the samples of a portion; without samples
// the key alone decides.
func (m *matcher) gravest(p *portion) *Verdict {
	if len(p.samples) == 0 {
		return m.kinds[p.count].verdict(m.k)
	}
	worst := m.k.ClassifyDrop(p.samples[0])
	for _, d := range p.samples[1:] {
		if v := m.k.ClassifyDrop(d); compareVerdicts(v, worst) < 0 {
			worst = v
		}
	}
	return &worst
}

// whatNext says where to look for a cause.
func (k *Knowledge) whatNext(f record.Finding, g *group, could map[int][]candidate) []string {
	next := []string{}
	var ids []string
	for _, i := range g.counts {
		for _, c := range could[i] {
			if !slices.Contains(ids, c.cause.ID) {
				ids = append(ids, c.cause.ID)
			}
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		next = append(next, "whydrop explain "+id+"   # could be, but the evidence does not suffice")
	}
	for _, r := range f.Reasons {
		if _, ok := k.reasons[r]; ok {
			next = append(next, "whydrop explain "+r)
		}
	}
	return append(next, k.next[f.Station]...)
}

// Tally sums up what became of counts with these verdicts: the four fields
// DropsExplained, DropsUnexplained, DropsHiddenBenign and DropsHiddenExpected
// are set, the others are 0. verdicts is in the order of counts.
func Tally(counts []record.Count, verdicts []Verdict, opt Options) record.Accounting {
	var a record.Accounting
	for i, v := range verdicts {
		n := counts[i].Drops
		if v.Known {
			a.DropsExplained += n
		} else {
			a.DropsUnexplained += n
		}
		switch {
		case opt.All:
		case v.Class == record.ClassBenign:
			a.DropsHiddenBenign += n
		case v.Class == record.ClassExpected:
			a.DropsHiddenExpected += n
		}
	}
	return a
}

// ExceedsFailOn says whether d has a finding of the class or a graver one, also
// as a symptom of another. No finding exceeds an empty class, nor one that is
// hidden by default. Conclusions are no findings.
func ExceedsFailOn(d record.Diagnosis, class record.Class) bool {
	return class.Shown() && exceeds(d.Findings, class)
}

func exceeds(fs []record.Finding, class record.Class) bool {
	return slices.ContainsFunc(fs, func(f record.Finding) bool {
		return f.Class.Severity() >= class.Severity() || exceeds(f.Symptoms, class)
	})
}
