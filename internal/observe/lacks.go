package observe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/counter"
	"github.com/whydrop/whydrop/record"
)

// lacks collects what could not be read, each reason once however many
// namespaces it holds for.
type lacks struct {
	list []lack
	// read says whether any counter was read at all.
	read bool
}

type lack struct {
	what, why, fix string
	labels         []string
	// passing is set for what no source is to blame for.
	passing bool
}

// maxLabels bounds the namespaces that are named in a sentence.
const maxLabels = 3

// add notes a lack; label is the namespace, empty for the whole host.
func (l *lacks) add(what, why, fix, label string) {
	i := slices.IndexFunc(l.list, func(o lack) bool { return o.what == what && o.why == why })
	if i < 0 {
		i = len(l.list)
		l.list = append(l.list, lack{what: what, why: why, fix: fix})
	}
	if label != "" && !slices.Contains(l.list[i].labels, label) {
		l.list[i].labels = append(l.list[i].labels, label)
	}
}

// pass notes what no source is to blame for.
func (l *lacks) pass(what, why string) {
	l.list = append(l.list, lack{what: what, why: why, passing: true})
}

// snapshot notes what a read of counters lacks.
func (l *lacks) snapshot(s counter.Snapshot, label string) {
	l.read = l.read || len(s.Values) > 0
	for _, b := range s.Missing {
		l.add(b.What, b.Why, b.Fix, label)
	}
}

// clone is a copy that shares nothing with l.
func (l *lacks) clone() lacks {
	c := lacks{list: slices.Clone(l.list), read: l.read}
	for i := range c.list {
		c.list[i].labels = slices.Clone(c.list[i].labels)
	}
	return c
}

// blind are the lacks as a record has them.
func (l *lacks) blind() []record.Blind {
	var out []record.Blind
	for _, o := range l.list {
		what := o.what
		if n := len(o.labels); n > 0 {
			what += " in network namespace"
			if n > 1 {
				what += "s"
			}
			what += " " + strings.Join(o.labels[:min(n, maxLabels)], ", ")
			if n > maxLabels {
				what += fmt.Sprintf(" and %d more", n-maxLabels)
			}
		}
		out = append(out, record.Blind{What: what, Why: o.why, Fix: o.fix})
	}
	return out
}

// source says how well the counters could be read.
func (l *lacks) source() record.Source {
	s := record.Source{Name: SourceCounters, State: record.SourceOK}
	faults := slices.DeleteFunc(slices.Clone(l.list), func(o lack) bool { return o.passing })
	if len(faults) > 0 {
		s.State = record.SourceDegraded
		s.Why = faults[0].what + ": " + faults[0].why
		if n := len(faults) - 1; n > 0 {
			s.Why += fmt.Sprintf("; and %d more", n)
		}
	}
	if !l.read {
		s.State = record.SourceOff
		if s.Why == "" {
			s.Why = "no network namespace could be entered"
		}
	}
	return s
}
