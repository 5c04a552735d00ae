package diagnose

import (
	"cmp"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// root is a finding with those that are only its consequence.
type root struct {
	*result
	symptoms []*result
}

// fold puts each finding below that of a cause which it depends on. all is in
// the order in which findings are shown, and so are the roots and the symptoms
// of each.
func (m *matcher) fold(all []*result) []*root {
	above := map[*result]*result{}
	for _, r := range all {
		if p := m.reasonFor(r, all); p != nil {
			above[r] = p
		}
	}
	roots := map[*result]*root{}
	var out []*root
	for _, r := range all {
		if above[r] == nil {
			roots[r] = &root{result: r}
			out = append(out, roots[r])
		}
	}
	for _, r := range all {
		top := r
		for above[top] != nil {
			top = above[top]
		}
		if top != r {
			roots[top].symptoms = append(roots[top].symptoms, r)
		}
	}
	slices.SortStableFunc(out, compareRoots)
	return out
}

// compareRoots orders by the packets that they explain, then by class, then by
// confidence.
func compareRoots(a, b *root) int {
	return cmp.Or(
		cmp.Compare(b.explains(), a.explains()),
		compareClasses(a.Class, b.Class),
		compareConfidence(a.Confidence, b.Confidence),
	)
}

// compareConfidence orders the most sure first.
func compareConfidence(a, b record.Confidence) int {
	order := []record.Confidence{record.ConfidenceCertain, record.ConfidenceLikely, record.ConfidencePossible}
	return cmp.Compare(slices.Index(order, a), slices.Index(order, b))
}

func (r *root) explains() uint64 {
	n := r.Drops
	for _, s := range r.symptoms {
		n = plus(n, s.Drops)
	}
	return n
}

// finding is what is reported of a root.
func (r *root) finding() record.Finding {
	f := r.Finding
	for _, s := range r.symptoms {
		f.Symptoms = append(f.Symptoms, s.Finding)
	}
	return f
}

// reasonFor is the finding of which r is only the consequence, or nil: of a
// cause that r's depends on, the nearest first, and of several such the one with
// most drops.
func (m *matcher) reasonFor(r *result, all []*result) *result {
	if r.in == nil || len(r.in.cause.DependsOn) == 0 || !r.Class.Shown() || !m.depends(r) {
		return nil
	}
	for _, id := range m.k.ancestors(r.in.cause) {
		for _, p := range all {
			if p != r && p.Cause == id && m.justified(p, r) {
				return p
			}
		}
	}
	return nil
}

// depends says whether the finding is a consequence at all. Where that is not
// known it is not.
func (m *matcher) depends(r *result) bool {
	e := r.in.cause.dependsWhen
	if e == nil {
		return true
	}
	ok, err := e.truth(m.scope(r.in, r.Drops))
	return ok && err == nil
}

// ancestors are the ids that a cause depends on, and those that these depend on,
// the nearest first.
func (k *Knowledge) ancestors(c *Cause) []string {
	ids := slices.Clone(c.DependsOn)
	for i := 0; i < len(ids); i++ {
		up := k.Cause(ids[i])
		if up == nil {
			continue
		}
		for _, id := range up.DependsOn {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// justified says whether what is known of a finding bears that another is only
// its consequence: its cause is at least likely, it is a loss that is shown, it
// was where the other was, and it did not begin after the other had ended.
func (m *matcher) justified(cause, symptom *result) bool {
	switch {
	case cause.in == nil || cause.Confidence == record.ConfidencePossible || !cause.Class.Shown():
		return false
	case len(cause.samples) > 0 && len(symptom.samples) > 0 && first(cause.samples) > last(symptom.samples):
		return false
	case cause.wholeHost():
		return true
	case len(cause.NetNS) == 0 && len(symptom.NetNS) == 0:
		// Nothing told where: there is one place at most.
		return len(m.b.spaces) <= 1
	case !common(cause.NetNS, symptom.NetNS):
		return false
	}
	return cause.in.cause.Per != perDevice || len(symptom.Devices) == 0 || common(cause.Devices, symptom.Devices)
}

// common says whether two lists have an element in common.
func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// first and last are when the first and the last of some samples were.
func first(samples []*record.Drop) uint64 {
	return moment(slices.MinFunc(samples, compareMoments))
}

func last(samples []*record.Drop) uint64 {
	return moment(slices.MaxFunc(samples, compareMoments))
}

func compareMoments(a, b *record.Drop) int { return cmp.Compare(moment(a), moment(b)) }
