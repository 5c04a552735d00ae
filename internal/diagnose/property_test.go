package diagnose

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// recorded are the observations of all cases of the knowledge base. Nobody may
// change what is in them.
func recorded(t *testing.T) []record.Observation {
	t.Helper()
	all, err := observations()
	if err != nil || len(all) < 20 {
		t.Fatalf("%d cases, %v", len(all), err)
	}
	return slices.Clone(all)
}

var observations = sync.OnceValues(func() ([]record.Observation, error) {
	names, err := fs.Glob(knowledge.FS, "causes/*/cases/*.txtar")
	if err != nil {
		return nil, err
	}
	var out []record.Observation
	for _, name := range names {
		text, err := fs.ReadFile(knowledge.FS, name)
		if err != nil {
			return nil, err
		}
		files, err := splitCase(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		var o record.Observation
		if err := json.Unmarshal([]byte(files[caseObservation]), &o); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, o)
	}
	return out, nil
})

// clone is a copy that shares nothing which the tests change.
func clone(o record.Observation) record.Observation {
	o.Sources, o.Counts, o.Samples = slices.Clone(o.Sources), slices.Clone(o.Counts), slices.Clone(o.Samples)
	o.Counters, o.Facts = slices.Clone(o.Counters), slices.Clone(o.Facts)
	return o
}

// mix is an observation of both losses at once, as counters would tell of them:
// those of the same name and place are added up.
func mix(a, b record.Observation) record.Observation {
	out := clone(a)
	out.Counts = append(out.Counts, b.Counts...)
	out.Samples = append(out.Samples, b.Samples...)
	out.Accounting.Add(b.Accounting)
	type part struct {
		spot
		object string
	}
	at := map[part]int{}
	for i := range out.Counters {
		c := &out.Counters[i]
		at[part{spotOf(c), c.Object}] = i
	}
	for _, c := range b.Counters {
		if i, ok := at[part{spotOf(&c), c.Object}]; ok {
			out.Counters[i].Before += c.Before
			out.Counters[i].After += c.After
			out.Counters[i].Delta += c.Delta
			continue
		}
		out.Counters = append(out.Counters, c)
	}
	asked := func(f record.Fact) string { return fmt.Sprint(f.Kind, "|", f.Request, "|", f.NetNS.Inode) }
	known := map[string]bool{}
	for _, f := range a.Facts {
		known[asked(f)] = true
	}
	for _, f := range b.Facts {
		if !known[asked(f)] || slices.Contains(lists, f.Kind) && f.Value != none {
			out.Facts = append(out.Facts, f)
		}
	}
	return out
}

// lists are the kinds of facts of which an answer has any number.
var lists = []string{
	"addresses", "firewall", "nft-chains", "nfqueues", "routes", "rules", "sockets", "tcp-listeners", "tcp-states", "udp-sockets",
}

// invented makes n observations: one to three recorded losses at once, of which
// some numbers are changed by chance.
func invented(t *testing.T, seed uint64, n int) []record.Observation {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	cases := recorded(t)
	out := make([]record.Observation, 0, n)
	for range n {
		o := clone(cases[r.IntN(len(cases))])
		for range r.IntN(3) {
			o = mix(o, cases[r.IntN(len(cases))])
		}
		for i := range o.Counters {
			if c := &o.Counters[i]; r.IntN(20) == 0 && !c.Level {
				c.Delta = r.Uint64N(1 + 1<<r.IntN(16))
				c.After = c.Before + c.Delta
			}
		}
		for i := range o.Counts {
			if r.IntN(10) == 0 {
				o.Counts[i].Drops = 1 + r.Uint64N(1<<r.IntN(16))
			}
		}
		if len(o.Facts) > 0 && r.IntN(4) == 0 {
			i := r.IntN(len(o.Facts))
			o.Facts[i] = record.Fact{Kind: o.Facts[i].Kind, Request: o.Facts[i].Request, NetNS: o.Facts[i].NetNS, Value: fmt.Sprint(r.IntN(1 << r.IntN(20)))}
		}
		out = append(out, o)
	}
	return out
}

// alone leaves out a test of numbers alone where time is short: under the race
// detector. What it would find in these, TestLoadAccepted, TestBooksBalance and
// TestNative do at the same time there.
func alone(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a test of numbers; for the race detector TestLoadAccepted, TestBooksBalance and TestNative read the base and judge at the same time")
	}
}

// Alone is alone for the tests of the other package.
func Alone(t *testing.T) { t.Helper(); alone(t) }

// some is every thirtieth where time is short.
func some(list []record.Observation) []record.Observation {
	if !testing.Short() {
		return list
	}
	var out []record.Observation
	for i := 0; i < len(list); i += 30 {
		out = append(out, list[i])
	}
	return out
}

func all(o *record.Observation, k *Knowledge) []record.Finding {
	return everyFinding(Run(o, k, Options{All: true}).Findings)
}

// loaded is the knowledge base, which no test changes.
var loaded = sync.OnceValues(func() (*Knowledge, error) { return Load(knowledge.FS) })

// BuiltIn is the knowledge base for the tests of the other package.
func BuiltIn() (*Knowledge, error) { return loaded() }

func builtIn(t *testing.T) *Knowledge {
	t.Helper()
	k, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// like finds the finding of the same cause at the same place.
func like(fs []record.Finding, f *record.Finding) *record.Finding {
	for i := range fs {
		if fs[i].Cause == f.Cause && slices.EqualFunc(fs[i].NetNS, f.NetNS, sameSpace) && slices.EqualFunc(fs[i].Devices, f.Devices, sameDevice) {
			return &fs[i]
		}
	}
	return nil
}

// sameSpace says whether two labels may be of one namespace: what gave it its name
// may be among what was taken away.
func sameSpace(a, b string) bool {
	const nameless = "net:["
	return a == b || strings.HasPrefix(a, nameless) != strings.HasPrefix(b, nameless)
}

func sameDevice(a, b string) bool {
	a, inA, _ := strings.Cut(a, " (netns ")
	b, inB, _ := strings.Cut(b, " (netns ")
	return a == b && sameSpace(inA, inB)
}

// TestBooksBalance: whatever was observed, each drop is in one finding, the sums
// by station are those of the findings, and each entry of the ledger is closed or
// a finding tells of it; a focus only moves findings.
func TestBooksBalance(t *testing.T) {
	t.Parallel()
	k := builtIn(t)
	r := rand.New(rand.NewPCG(5, 6))
	for n, o := range some(invented(t, 7, 600)) {
		var drops uint64
		for _, c := range o.Counts {
			drops += c.Drops
		}
		d := Run(&o, k, Options{})
		if a := d.Accounting; a.DropsExplained+a.DropsUnexplained != drops {
			t.Fatalf("%d: %d drops, %+v", n, drops, a)
		}
		var lost, stations uint64
		for _, f := range everyFinding(d.Findings) {
			lost += f.Drops
		}
		for _, s := range d.Ledger.Stations {
			stations += s.Explained + s.Unexplained
		}
		if lost != stations {
			t.Fatalf("%d: findings lost %d, stations %d", n, lost, stations)
		}
		for _, e := range d.Ledger.Entries {
			// One that moved by less than its drops lost nothing more.
			if !e.Closed && e.Relation != record.RelationLess && len(e.ExplainedBy) == 0 {
				t.Fatalf("%d: nothing tells of %+v", n, e)
			}
		}
		port := uint16(r.IntN(10_000))
		some := Run(&o, k, Options{Focus: func(s *record.Drop) bool {
			return s.Packet != nil && s.Packet.Flow.Dst.Port() < port
		}})
		var shown, count uint64
		for _, f := range everyFinding(some.Findings) {
			shown, count = shown+f.Drops, count+1
		}
		if shown+some.Elsewhere.Drops != lost || count+some.Elsewhere.Findings != uint64(len(everyFinding(d.Findings))) {
			t.Fatalf("%d: %d shown and %d elsewhere, of %d", n, shown, some.Elsewhere.Drops, lost)
		}
		if some.Accounting != d.Accounting {
			t.Fatalf("%d: the focus changes the accounting: %+v, %+v", n, some.Accounting, d.Accounting)
		}
	}
}

// TestContradictionIsNeverCertain takes each finding that is certain, and turns
// each counter that confirms it into one that does not.
func TestContradictionIsNeverCertain(t *testing.T) {
	alone(t)
	t.Parallel()
	k := builtIn(t)
	turned := 0
	for n, o := range some(append(recorded(t), invented(t, 11, 300)...)) {
		for _, f := range all(&o, k) {
			if f.Confidence != record.ConfidenceCertain {
				continue
			}
			for _, e := range f.Evidence {
				if e.Kind == "counter" && e.Supports && turn(t, k, o, &f, e.Name, fmt.Sprint(n)) {
					turned++
				}
			}
		}
	}
	t.Logf("%d contradictions", turned)
	if turned < 25 {
		t.Errorf("only %d contradictions were tried", turned)
	}
}

// turn contradicts what a finding expects of a counter.
func turn(t *testing.T, k *Knowledge, o record.Observation, f *record.Finding, name, what string) bool {
	t.Helper()
	c := k.Cause(f.Cause)
	i := slices.IndexFunc(c.Evidence, func(it Item) bool { return it.Counter == name && it.Role == roleConfirms })
	if i < 0 || f.LostBy != "drops" {
		return false
	}
	var delta uint64
	switch c.Evidence[i].Expect {
	case "equal":
		delta = 2*f.Drops + o.Accounting.DropsFiltered + 100
	case "at-least", "moves":
	default:
		return false
	}
	changed := clone(o)
	for i := range changed.Counters {
		if x := &changed.Counters[i]; x.Name == name {
			x.Delta, x.After = delta, x.Before+delta
		}
	}
	now := like(all(&changed, k), f)
	// Where `when` names the counter, the item may be left out for another.
	left := strings.Contains(c.Evidence[i].When, name)
	if now != nil && now.Confidence == record.ConfidenceCertain && now.LostBy == "drops" && now.Drops == f.Drops && !left {
		t.Errorf("%s: %s is certain although %s moved by %d: %+v", what, f.Cause, name, delta, now.Evidence)
	}
	return true
}

// less are the observations that lack something of o.
func less(r *rand.Rand, o record.Observation) record.Observation {
	out := clone(o)
	if r.IntN(3) == 0 {
		out.Samples = nil
	} else if len(out.Samples) > 0 && r.IntN(2) == 0 {
		out.Samples = out.Samples[:r.IntN(len(out.Samples))]
	}
	if r.IntN(3) == 0 {
		out.Facts = nil
	} else if len(out.Facts) > 0 {
		kind := out.Facts[r.IntN(len(out.Facts))].Kind
		out.Facts = slices.DeleteFunc(out.Facts, func(f record.Fact) bool { return f.Kind == kind })
	}
	switch r.IntN(3) {
	case 0: // the drops
		out.Counts, out.Samples = nil, nil
		out.Sources = append(slices.DeleteFunc(out.Sources, func(s record.Source) bool { return s.Name != sourceCounters }),
			record.Source{Name: "skbdrop", State: record.SourceFailed})
	case 1: // a table of counters
		if len(out.Counters) > 0 {
			table, _, _ := strings.Cut(out.Counters[r.IntN(len(out.Counters))].Name, ".")
			out.Counters = slices.DeleteFunc(out.Counters, func(c record.Counter) bool { return strings.HasPrefix(c.Name, table+".") })
		}
	default: // a counter
		if len(out.Counters) > 0 {
			name := out.Counters[r.IntN(len(out.Counters))].Name
			out.Counters = slices.DeleteFunc(out.Counters, func(c record.Counter) bool { return c.Name == name })
		}
	}
	return out
}

// refuted says whether what is known speaks against a cause at the place of a
// finding, or there is nothing that could be its.
func refuted(o *record.Observation, k *Knowledge, f *record.Finding) bool {
	m := newMatcher(o, k)
	// A contributor stands where its numbers say so; which of the findings it is
	// attached to is another question.
	if i := slices.IndexFunc(k.causes, func(c *Cause) bool { return c.ID == f.Cause && c.is(kindContributor) }); i >= 0 {
		_, stands := m.stands(&instance{cause: k.causes[i], place: place{anywhere: true}}, max(1, f.Drops))
		return !stands
	}
	for _, in := range m.order {
		if in.cause.ID != f.Cause || len(f.NetNS) > 0 && !slices.Contains(f.NetNS, netnsLabel(in.place.ns)) {
			continue
		}
		if !m.excluded(in) {
			return false
		}
	}
	return true
}

// TestLessIsNeverAgainstMore takes sources from observations. What is found for
// certain without them must not be what they speak against.
func TestLessIsNeverAgainstMore(t *testing.T) {
	alone(t)
	t.Parallel()
	k := builtIn(t)
	r := rand.New(rand.NewPCG(13, 14))
	certain := 0
	for n, o := range some(append(recorded(t), invented(t, 17, 300)...)) {
		full := all(&o, k)
		for range 4 {
			reduced := less(r, o)
			for _, f := range all(&reduced, k) {
				if f.Confidence != record.ConfidenceCertain {
					continue
				}
				certain++
				if same := like(full, &f); same != nil && same.Confidence != record.ConfidencePossible {
					continue
				}
				if !isMoreGeneral(&f, full) && refuted(&o, k, &f) {
					t.Errorf("%d: %s (%d, by %s) is certain with less, and with all there is %s", n, f.Cause, f.Drops, f.LostBy, labels(full))
				}
			}
		}
	}
	t.Logf("%d findings were certain with less", certain)
	if certain < 50 {
		t.Errorf("only %d findings were certain with less", certain)
	}
}

// special are causes with those that are cases of them: where what tells them
// apart was not seen, the general one is true.
var special = map[string][]string{
	"nf-rule-drop":     {"nf-ratelimit", "ct-invalid"}, // a rule
	"out-no-route":     {"out-special-route"},          // no route that may be taken
	"ct-insert-failed": {"nat-port-exhaustion"},        // an entry that found no place
	"tunnel-ecn":       {"vxlan-hdr"},                  // what the tunnel's device counts as a frame error
	"udp-noport":       {"n-port-scan-udp"},            // closed ports, of which few were sampled
}

// isMoreGeneral says whether one of the findings is a special case of f.
func isMoreGeneral(f *record.Finding, full []record.Finding) bool {
	return slices.ContainsFunc(full, func(o record.Finding) bool { return slices.Contains(special[f.Cause], o.Cause) })
}

func labels(fs []record.Finding) string {
	var out []string
	for _, f := range fs {
		out = append(out, fmt.Sprintf("%s:%d:%s", f.Cause, f.Drops, f.Confidence))
	}
	return strings.Join(out, " ")
}
