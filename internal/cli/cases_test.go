package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// This file turns observations into cases and tests all cases together.

// prune leaves of an observation what a diagnosis can depend on, and nothing
// that says which machine it was or when.
func prune(o record.Observation, causes string) record.Observation {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := record.Observation{
		SchemaVersion: o.SchemaVersion,
		Kernel:        record.Kernel{Release: plainRelease(o.Kernel.Release), Machine: o.Kernel.Machine, KfreeSkbArgs: o.Kernel.KfreeSkbArgs, ReasonsFrom: o.Kernel.ReasonsFrom},
		Window:        record.Window{Start: start, End: start.Add(o.Window.Duration), Duration: o.Window.Duration},
		Sources:       o.Sources, Accounting: o.Accounting, Facts: o.Facts,
	}
	for _, c := range o.Counts {
		c.Location = withoutAddress(c.Location)
		p.Counts = append(p.Counts, c)
	}
	for _, c := range o.Counters {
		if c.Delta > 0 || strings.Contains(causes, c.Name) {
			p.Counters = append(p.Counters, c)
		}
	}
	for _, d := range fewSamples(o.Samples, 3) {
		d.Time, d.KernelTime, d.Headers, d.CurrentTask = start, 0, nil, record.Task{}
		d.Location = withoutAddress(d.Location)
		d.Stack = slices.Clone(d.Stack)
		for i := range d.Stack {
			d.Stack[i] = withoutAddress(d.Stack[i])
		}
		p.Samples = append(p.Samples, d)
	}
	return p
}

func withoutAddress(l record.Location) record.Location {
	if l.Symbol != "" {
		l.Address = 0
	}
	return l
}

// fewSamples are n samples, of each key one before any has a second.
func fewSamples(all []record.Drop, n int) []record.Drop {
	seen := map[record.Key]bool{}
	var first, more []record.Drop
	for _, d := range all {
		if !seen[d.Key] {
			seen[d.Key] = true
			first = append(first, d)
		} else {
			more = append(more, d)
		}
	}
	few := append(first, more...)
	return few[:min(len(few), n)]
}

// plainRelease is 6.18.44 of 6.18.44-whatever: what a distribution adds may name a
// machine.
func plainRelease(release string) string {
	v, _, _ := strings.Cut(release, "-")
	return v
}

// shortRelease is 6.18 of 6.18.44-whatever.
func shortRelease(release string) string {
	parts := strings.SplitN(release, ".", 3)
	return strings.Join(parts[:min(len(parts), 2)], ".")
}

// caseText is a case: an observation and what is to be found in it. It is nil
// where nothing could be said about it.
func caseText(title string, never []string, o record.Observation, d record.Diagnosis) []byte {
	type wanted struct {
		Cause      string            `yaml:"cause"`
		Drops      uint64            `yaml:"drops"`
		Confidence record.Confidence `yaml:"confidence"`
		LostBy     string            `yaml:"lost_by"`
	}
	var want struct {
		Findings []wanted `yaml:"findings,flow,omitempty"`
		Never    []string `yaml:"never,flow,omitempty"`
	}
	for _, f := range d.Findings {
		want.Findings = append(want.Findings, wanted{f.Cause, f.Drops, f.Confidence, f.LostBy})
	}
	want.Never = never
	if len(want.Findings)+len(never) == 0 {
		return nil
	}
	text, err := yaml.Marshal(want)
	if err != nil {
		return nil
	}
	return txtar.Format(&txtar.Archive{
		Comment: fmt.Appendf(nil, "Observed on Linux %s: %s.\n", shortRelease(o.Kernel.Release), strings.TrimSuffix(title, ".")),
		Files:   []txtar.File{{Name: "observation.json", Data: observationText(o)}, {Name: "want.yaml", Data: text}},
	})
}

// observationText is JSON with a line for each element of the lists, so that
// a near miss can change one.
func observationText(o record.Observation) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"schema_version\": %d", o.SchemaVersion)
	for _, f := range []struct {
		name  string
		value any
	}{{"kernel", o.Kernel}, {"window", o.Window}, {"accounting", o.Accounting}} {
		fmt.Fprintf(&b, ",\n  %q: %s", f.name, line(f.value))
	}
	list(&b, "sources", o.Sources)
	list(&b, "counts", o.Counts)
	list(&b, "samples", o.Samples)
	list(&b, "counters", slimCounters(o.Counters))
	list(&b, "facts", o.Facts)
	b.WriteString("\n}\n")
	return b.Bytes()
}

// slimCounter is a record.Counter without what is zero.
type slimCounter struct {
	Name    string        `json:"name"`
	NetNS   record.NetNS  `json:"netns,omitzero"`
	Device  record.Device `json:"device,omitzero"`
	Object  string        `json:"object,omitempty"` // a part must not become a second total
	Before  uint64        `json:"before,omitzero"`
	After   uint64        `json:"after,omitzero"`
	Delta   uint64        `json:"delta,omitzero"`
	Source  string        `json:"source,omitempty"`
	Command string        `json:"command,omitempty"`
}

func slimCounters(cs []record.Counter) []slimCounter {
	var out []slimCounter
	for _, c := range cs {
		n := slimCounter{Name: c.Name, NetNS: c.NetNS, Device: c.Device, Object: c.Object, Before: c.Before, After: c.After, Delta: c.Delta}
		if c.Delta > 0 {
			n.Source, n.Command = c.Source, c.Command
		}
		out = append(out, n)
	}
	return out
}

func list[T any](b *bytes.Buffer, name string, items []T) {
	fmt.Fprintf(b, ",\n  %q: [", name)
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, "\n    %s", line(item))
	}
	if len(items) > 0 {
		b.WriteString("\n  ")
	}
	b.WriteByte(']')
}

func line(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err) // types of record alone
	}
	return bytes.TrimSpace(b.Bytes())
}

// A case written from an observation is one that the linter takes, and says
// the same.
func TestCaseOfAnObservation(t *testing.T) {
	o, err := (&app{}).readObservation(&watching{file: recorded(t, true)})
	if err != nil {
		t.Fatal(err)
	}
	o.Counters = []record.Counter{
		{Name: "Udp.RcvbufErrors", NetNS: record.NetNS{Inode: 4026531833}, After: 174, Delta: 174},
		{Name: "X.Unmoved", After: 5, Before: 5},
		{Name: "X.Named", After: 5, Before: 5},
	}
	o.Samples[0].Headers, o.Samples[0].CurrentTask.Comm = []byte("secret"), "secret"
	o.Host.Hostname = "secret"
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	p := prune(*o, "counter: X.Named")
	before, after := diagnose.Run(o, k, diagnose.Options{}), diagnose.Run(&p, k, diagnose.Options{})
	if len(before.Findings) != 1 || len(after.Findings) != 1 || after.Findings[0].Drops != before.Findings[0].Drops ||
		after.Findings[0].Cause != before.Findings[0].Cause {
		t.Errorf("before pruning %+v, after %+v", before.Findings, after.Findings)
	}
	text := string(caseText("a loss.", []string{"udp-csum"}, p, after))
	for _, want := range []string{"Observed on Linux 6.18: a loss.\n", `    {"name":"X.Named"`, "cause: " + after.Findings[0].Cause, "drops: 174", "never: [udp-csum]"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, not := range []string{"X.Unmoved", "secret", "ffffffff81000437", "null\n"} {
		if strings.Contains(text, not) {
			t.Errorf("%q in\n%s", not, text)
		}
	}
	var back record.Observation
	if err := json.Unmarshal(observationText(p), &back); err != nil || len(back.Counts) != len(p.Counts) || len(back.Counters) != 2 {
		t.Errorf("reads back as %+v, %v", back, err)
	}
	if caseText("", nil, p, record.Diagnosis{}) != nil {
		t.Error("a case that says nothing")
	}
}

// TestNoWrongCauseWithoutTheRight removes each cause in turn: its losses must
// become not known, and not another cause's. What is left out of this are the
// benign patterns (n-…): without them the losses are what they look like.
func TestNoWrongCauseWithoutTheRight(t *testing.T) {
	b, err := (&app{}).loadBook()
	if err != nil {
		t.Fatal(err)
	}
	full := b.knowledge
	for i, c := range full.Causes() {
		if strings.HasPrefix(c.ID, "n-") || testing.Short() && i%8 != 0 { // a few at the same time will do
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			observations := observationsOf(t, c.ID)
			if len(observations) == 0 {
				return
			}
			fewer := full.Without(c.ID)
			for name, o := range observations {
				complete(&o, b.names[kindCounter])
				had := dropsByCause(diagnose.Run(&o, full, diagnose.Options{All: true}))
				if had[c.ID] == 0 {
					continue // a case of what is not the cause
				}
				for cause, n := range dropsByCause(diagnose.Run(&o, fewer, diagnose.Options{All: true})) {
					if cause != record.CauseNotKnown && n > had[cause] {
						t.Errorf("%s: %d drops became those of %s, which had %d", name, n, cause, had[cause])
					}
				}
			}
		})
	}
}

// complete adds the counters that did not move, which a case may leave out: a
// host's record is not without them.
func complete(o *record.Observation, names []string) {
	have := map[string]bool{}
	for _, c := range o.Counters {
		have[fmt.Sprint(c.Name, c.NetNS.Inode)] = true
	}
	spaces := map[record.NetNS]bool{}
	for _, c := range o.Counts {
		spaces[c.NetNS] = true
	}
	for ns := range spaces {
		for _, name := range names {
			if !have[fmt.Sprint(name, ns.Inode)] {
				o.Counters = append(o.Counters, record.Counter{Name: name, NetNS: ns})
			}
		}
	}
}

func dropsByCause(d record.Diagnosis) map[string]uint64 {
	m := map[string]uint64{}
	for _, f := range d.Findings {
		m[f.Cause] += f.Drops
	}
	return m
}

// observationsOf are those of a cause's cases, by file.
func observationsOf(t *testing.T, id string) map[string]record.Observation {
	t.Helper()
	files, err := fs.Glob(knowledge.FS, path.Join("causes", id, "cases", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]record.Observation{}
	for _, name := range files {
		text, err := fs.ReadFile(knowledge.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range txtar.Parse(text).Files {
			if f.Name != "observation.json" {
				continue
			}
			var o record.Observation
			if err := json.Unmarshal(f.Data, &o); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out[path.Base(name)] = o
		}
	}
	return out
}

// without is the knowledge base without one cause.
func without(t *testing.T, id string) fs.FS {
	t.Helper()
	m := fstest.MapFS{}
	err := fs.WalkDir(knowledge.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(name, "causes/"+id+"/") {
			return err
		}
		text, err := fs.ReadFile(knowledge.FS, name)
		m[name] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}
