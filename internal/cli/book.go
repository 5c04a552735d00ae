package cli

import (
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// The kinds of things that can be explained.
const (
	kindCause   = "cause"
	kindReason  = "reason"
	kindCounter = "counter"
	kindStation = "station"
	kindClass   = "class"
	kindSymbol  = "symbol"
)

// book is the knowledge base by names.
type book struct {
	knowledge *diagnose.Knowledge
	// names of each kind, sorted.
	names map[string][]string
}

// classes say what a class means, in the order of their weight.
var classes = []struct {
	class    record.Class
	sentence string
}{
	{record.ClassFault, "Loss to fix: something is broken, missing or wrongly configured."},
	{record.ClassCapacity, "A queue, buffer or budget is too small for what comes, or what empties it is too slow."},
	{record.ClassPolicy, "Loss that someone asked for: a firewall's rule, a filter, a check that is switched on."},
	{record.ClassExpected, "Normal life of the protocols. It is counted, and shown with --all only."},
	{record.ClassBenign, "Noise: a buffer was freed, and nothing was lost. It is counted, and shown with --all only."},
}

func (b *book) kinds() []string {
	return []string{kindCause, kindReason, kindCounter, kindStation, kindClass, kindSymbol}
}

// loadBook reads the knowledge base, with causes of somebody's own.
func (a *app) loadBook() (*book, error) {
	k, err := a.loadKnowledge()
	if err != nil {
		return nil, err
	}
	b := &book{knowledge: k, names: map[string][]string{}}
	for _, c := range k.Causes() {
		b.names[kindCause] = append(b.names[kindCause], c.ID)
	}
	for _, s := range record.Stations() {
		b.names[kindStation] = append(b.names[kindStation], string(s))
	}
	for _, c := range classes {
		b.names[kindClass] = append(b.names[kindClass], string(c.class))
	}
	b.names[kindReason], b.names[kindCounter], b.names[kindSymbol] = k.Names()
	for _, c := range k.Causes() {
		for _, p := range c.Patterns {
			b.names[kindSymbol] = append(b.names[kindSymbol], p.Symbols...)
		}
	}
	slices.Sort(b.names[kindSymbol])
	b.names[kindSymbol] = slices.Compact(b.names[kindSymbol])
	return b, nil
}

// find explains a name: what is spelled exactly so, else what is in other
// letters or, for counters, in nstat's spelling; else the counters of all tables
// that have a field of that name.
func (b *book) find(name string) []report.Topic {
	spellings := []func(have string) bool{
		func(have string) bool { return have == name },
		func(have string) bool { return strings.EqualFold(have, name) },
		func(have string) bool { return plain(have) == plain(name) },
		func(have string) bool {
			_, field, ok := strings.Cut(have, ".")
			return ok && strings.EqualFold(field, name)
		},
	}
	for _, same := range spellings {
		var out []report.Topic
		for _, kind := range b.kinds() {
			for _, have := range b.names[kind] {
				if same(have) {
					out = append(out, b.topic(kind, have))
				}
			}
		}
		if out != nil {
			return out
		}
	}
	// Those of drivers are known by the pattern of their names.
	if _, ok := b.knowledge.Counter(name); ok {
		return []report.Topic{b.topic(kindCounter, name)}
	}
	return nil
}

func (b *book) topic(kind, name string) report.Topic {
	t := report.Topic{Kind: kind, Name: name}
	switch kind {
	case kindCause:
		b.fillCause(&t)
	case kindReason:
		v, _ := b.knowledge.Reason(name)
		t.Class, t.Station, t.Sentence = v.Class, v.Station, v.Sentence
		t.Causes = b.causes(func(c *diagnose.Cause) bool {
			return slices.ContainsFunc(c.Patterns, func(p diagnose.Pattern) bool { return slices.Contains(p.Reasons, name) })
		})
	case kindCounter:
		m, _ := b.knowledge.Counter(name)
		t.Station, t.Direction, t.Sentence, t.Kernel, t.Overlaps = m.Station, m.Direction, m.Sentence, m.Kernel, m.Overlaps
		t.Counts = m.Kind
		if m.Unit != "" {
			t.Counts += ", in " + m.Unit
		}
		t.Causes = b.causes(func(c *diagnose.Cause) bool { return usesCounter(c, name) })
	case kindStation:
		s := record.Station(name)
		t.Sentence = "A station on the packet's way through the host."
		t.Next = b.knowledge.Next(s)
		t.Causes = b.causes(func(c *diagnose.Cause) bool { return c.Station == s })
	case kindClass:
		i := slices.Index(b.names[kindClass], name)
		t.Class, t.Sentence = classes[i].class, classes[i].sentence
		t.Causes = b.causes(func(c *diagnose.Cause) bool { return c.Class == t.Class })
	case kindSymbol:
		b.fillSymbol(&t)
	}
	return t
}

// causes are the ids of those for which is holds.
func (b *book) causes(is func(*diagnose.Cause) bool) []string {
	var out []string
	for _, c := range b.knowledge.Causes() {
		if is(c) {
			out = append(out, c.ID)
		}
	}
	return out
}

// usesCounter says whether a cause reckons with a counter.
func usesCounter(c *diagnose.Cause, name string) bool {
	quoted := `"` + name + `"`
	return strings.Contains(c.Lost, quoted) ||
		slices.ContainsFunc(c.Evidence, func(it diagnose.Item) bool {
			return it.Counter == name || strings.Contains(it.Value, quoted) || strings.Contains(it.Expect, quoted)
		}) ||
		slices.ContainsFunc(c.Patterns, func(p diagnose.Pattern) bool { return strings.Contains(p.Share, quoted) })
}

func (b *book) fillCause(t *report.Topic) {
	c := b.knowledge.Cause(t.Name)
	t.Class, t.Station, t.Direction = c.Class, c.Station, c.Direction
	t.Sentence, t.Text, t.Verified = c.Title, c.Explanation, c.Verified
	t.Verify, t.Next = c.Verify, c.Next
	for _, r := range c.Remedies {
		t.Remedy = append(t.Remedy, record.Remedy{
			Command: r.Command, Persist: r.Persist, Undo: r.Undo, Risk: r.Risk, Why: r.Why,
		})
	}
}

// fillSymbol says what a drop in a function means where the kernel gives no
// better reason.
func (b *book) fillSymbol(t *report.Topic) {
	v := b.knowledge.Classify(record.Key{Location: record.Location{Symbol: strings.TrimSuffix(t.Name, "*")}}, nil)
	if v.Known {
		t.Class, t.Station, t.Sentence = v.Class, v.Station, v.Sentence
	} else {
		t.Sentence = "Drops here mean different things, by their reason, their callers or the packet."
	}
	t.Causes = b.causes(func(c *diagnose.Cause) bool {
		return slices.ContainsFunc(c.Patterns, func(p diagnose.Pattern) bool { return slices.Contains(p.Symbols, t.Name) })
	})
}
