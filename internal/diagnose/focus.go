package diagnose

import (
	"cmp"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// concern counts which of a finding's samples are of the traffic that was asked
// for.
func (r *result) concern(focus func(*record.Drop) bool) record.Concern {
	c := record.Concern{Of: uint64(len(r.samples)), WholeHost: r.wholeHost()}
	for _, d := range r.samples {
		if focus(d) {
			c.Samples++
		}
	}
	return c
}

// focused is a root with what it has of the traffic that was asked for.
type focused struct {
	record.Finding
	// own is how many packets it has of that traffic, as far as samples tell;
	// mine says whether it has any, stays whether it is shown without.
	own         uint64
	mine, stays bool
}

// look sets a root beside the traffic that was asked for. Without samples nothing
// says whose the packets were, and so nothing that it was another's.
func (r *root) look(focus func(*record.Drop) bool) focused {
	f := focused{Finding: r.Finding}
	add := func(x *result) record.Finding {
		c := x.concern(focus)
		f.mine = f.mine || c.Samples > 0
		f.stays = f.stays || c.WholeHost || c.Of == 0
		if c.Of > 0 {
			f.own = plus(f.own, mulDiv(x.Drops, c.Samples, c.Of))
		}
		out := x.Finding
		out.Concerns = &c
		return out
	}
	f.Finding = add(r.result)
	for _, s := range r.symptoms {
		f.Symptoms = append(f.Symptoms, add(s))
	}
	return f
}

// chosen are the findings that are shown of roots, in their order: those with
// samples of the traffic that was asked for first. What is left out is summed up;
// nil where all traffic was asked for.
func chosen(roots []*root, focus func(*record.Drop) bool) ([]record.Finding, *record.Elsewhere) {
	out := []record.Finding{}
	if focus == nil {
		for _, r := range roots {
			out = append(out, r.finding())
		}
		return out, nil
	}
	away := &record.Elsewhere{Causes: []string{}}
	var list []focused
	for _, r := range roots {
		if f := r.look(focus); f.mine || f.stays {
			list = append(list, f)
			continue
		}
		away.Findings += 1 + uint64(len(r.symptoms))
		away.Drops = plus(away.Drops, r.explains())
		for _, x := range append([]*result{r.result}, r.symptoms...) {
			if !slices.Contains(away.Causes, x.Cause) {
				away.Causes = append(away.Causes, x.Cause)
			}
		}
	}
	slices.SortStableFunc(list, func(a, b focused) int {
		return cmp.Or(cmp.Compare(btoi(b.mine), btoi(a.mine)), cmp.Compare(b.own, a.own))
	})
	for _, f := range list {
		out = append(out, f.Finding)
	}
	return out, away
}
