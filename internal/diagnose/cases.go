package diagnose

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/record"
)

// The files of a case.
const (
	caseObservation = "observation.json"
	caseWant        = "want.yaml"
	caseNear        = "near/"
)

// want is what must, and must not, be found in an observation.
type want struct {
	Findings []wantFinding `yaml:"findings"`
	// Conclusions are compared where they are given.
	Conclusions []wantFinding `yaml:"conclusions"`
	Never       []string      `yaml:"never"`
	Ledger      []wantEntry   `yaml:"ledger"`
	// Hidden is how many drops are of classes that are not shown.
	Hidden *uint64 `yaml:"hidden"`
	// All shows hidden classes too.
	All bool `yaml:"all"`
}

// wantEntry is an entry of the ledger, compared in what it gives.
type wantEntry struct {
	Counter  string          `yaml:"counter"`
	Delta    uint64          `yaml:"delta"`
	Drops    *uint64         `yaml:"drops"`
	Relation record.Relation `yaml:"relation"`
	Open     bool            `yaml:"open"`
	Chain    int             `yaml:"chain"`
	// Why must be part of it.
	Why string `yaml:"why"`
}

// wantFinding is compared in what it gives.
type wantFinding struct {
	Cause      string            `yaml:"cause"`
	Drops      *uint64           `yaml:"drops"`
	Confidence record.Confidence `yaml:"confidence"`
	Class      record.Class      `yaml:"class"`
	Station    record.Station    `yaml:"station"`
	LostBy     string            `yaml:"lost_by"`
	// Says must be part of the title.
	Says string `yaml:"says"`
	// Remedy must be part of one of the remedy's commands.
	Remedy string `yaml:"remedy"`
	// Events is how many, of a conclusion.
	Events *uint64 `yaml:"events"`
	// Symptoms and Contributors are compared where they are given.
	Symptoms     []wantFinding `yaml:"symptoms"`
	Contributors []wantFinding `yaml:"contributors"`
}

// caseResult says which causes a case proves to be found, and not to be.
type caseResult struct{ finds, near []string }

// runCase runs a case file and its near misses.
func (k *Knowledge) runCase(text []byte) (caseResult, error) {
	var r caseResult
	files, err := splitCase(text)
	if err != nil {
		return r, err
	}
	w, err := readWant(files[caseWant])
	if err != nil {
		return r, fmt.Errorf("%s: %w", caseWant, err)
	}
	if err := k.compareCase(files[caseObservation], w); err != nil {
		return r, err
	}
	r.finds = append(causesOf(w.Findings), causesOf(w.Conclusions)...)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		base, isDiff := strings.CutSuffix(name, ".diff")
		if !isDiff {
			if pair := strings.TrimSuffix(name, ".yaml") + ".diff"; name != caseObservation && name != caseWant && files[pair] == "" {
				return r, fmt.Errorf("%s: no file of that name belongs into a case", name)
			}
			continue
		}
		if !strings.HasPrefix(name, caseNear) {
			return r, fmt.Errorf("%s: near misses are called near/…", name)
		}
		changed, err := applyLine(files[caseObservation], files[name])
		if err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
		nw, err := readWant(files[base+".yaml"])
		if err != nil {
			return r, fmt.Errorf("%s.yaml: %w", base, err)
		}
		if err := k.compareCase(changed, nw); err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
		r.near = append(r.near, nw.Never...)
	}
	return r, nil
}

func splitCase(text []byte) (map[string]string, error) {
	files := map[string]string{}
	for _, f := range txtar.Parse(text).Files {
		if _, ok := files[f.Name]; ok {
			return nil, fmt.Errorf("file %s is there twice", f.Name)
		}
		files[f.Name] = string(f.Data)
	}
	for _, name := range []string{caseObservation, caseWant} {
		if files[name] == "" {
			return nil, fmt.Errorf("no %s", name)
		}
	}
	return files, nil
}

func readWant(text string) (want, error) {
	var w want
	dec := yaml.NewDecoder(strings.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&w); err != nil {
		return w, fmt.Errorf("decode: %w", err)
	}
	if len(w.Findings)+len(w.Conclusions) == 0 && len(w.Never) == 0 {
		return w, errors.New("neither findings nor conclusions nor never")
	}
	return w, nil
}

// applyLine makes the one change that a near miss consists of.
func applyLine(text, diff string) (string, error) {
	var from, to []string
	for line := range strings.Lines(diff) {
		switch {
		case strings.HasPrefix(line, "-"):
			from = append(from, strings.TrimSpace(line[1:]))
		case strings.HasPrefix(line, "+"):
			to = append(to, strings.TrimSpace(line[1:]))
		case strings.TrimSpace(line) != "":
			return "", fmt.Errorf("line %q begins with neither - nor +", line)
		}
	}
	if len(from) != 1 || len(to) > 1 {
		return "", errors.New("want one line with - and at most one with +")
	}
	lines := strings.Split(text, "\n")
	at := -1
	for i, l := range lines {
		if strings.TrimSpace(l) != from[0] {
			continue
		}
		if at >= 0 {
			return "", fmt.Errorf("line %q is there twice", from[0])
		}
		at = i
	}
	if at < 0 {
		return "", fmt.Errorf("line %q is not there", from[0])
	}
	lines[at] = strings.Join(to, "")
	return strings.Join(lines, "\n"), nil
}

// compareCase diagnoses an observation and compares.
func (k *Knowledge) compareCase(text string, w want) error {
	var o record.Observation
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		return fmt.Errorf("%s: %w", caseObservation, err)
	}
	d := Run(&o, k, Options{All: w.All})
	var problems []string
	for _, f := range everyFinding(slices.Concat(d.Findings, d.Conclusions)) {
		if slices.Contains(w.Never, f.Cause) {
			problems = append(problems, fmt.Sprintf("found %s", brief(f)))
		}
	}
	if w.Findings != nil {
		problems = append(problems, compareFound(d.Findings, w.Findings)...)
	}
	if w.Conclusions != nil {
		problems = append(problems, compareFound(d.Conclusions, w.Conclusions)...)
	}
	if w.Ledger != nil {
		problems = append(problems, compareLedger(d.Ledger.Entries, w.Ledger)...)
	}
	if n := d.Accounting.DropsHiddenBenign + d.Accounting.DropsHiddenExpected; w.Hidden != nil && n != *w.Hidden {
		problems = append(problems, fmt.Sprintf("%d drops hidden, want %d", n, *w.Hidden))
	}
	if len(problems) > 0 {
		return errors.New(strings.Join(problems, "; "))
	}
	return nil
}

func compareLedger(got []record.LedgerEntry, want []wantEntry) []string {
	var problems []string
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			problems = append(problems, "the ledger lacks "+want[i].Counter)
		case i >= len(want):
			problems = append(problems, fmt.Sprintf("the ledger has %+v too", got[i]))
		case !want[i].matches(got[i]):
			problems = append(problems, fmt.Sprintf("entry %d of the ledger is %+v, want %+v", i+1, got[i], want[i]))
		}
	}
	return problems
}

func (w wantEntry) matches(e record.LedgerEntry) bool {
	return w.Counter == e.Counter && w.Delta == e.Delta && w.Open != e.Closed &&
		(w.Drops == nil || *w.Drops == e.Drops) &&
		(w.Relation == "" || w.Relation == e.Relation) &&
		(w.Chain == 0 || w.Chain == e.Chain) &&
		strings.Contains(e.Why, w.Why)
}

func compareFound(got []record.Finding, want []wantFinding) []string {
	var problems []string
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			problems = append(problems, "did not find "+want[i].Cause)
		case i >= len(want):
			problems = append(problems, "found "+brief(got[i])+" too")
		case !want[i].matches(got[i]):
			problems = append(problems, fmt.Sprintf("finding %d is %s, want %s", i+1, brief(got[i]), want[i]))
		default:
			problems = append(problems, want[i].compareBelow(got[i])...)
		}
	}
	return problems
}

// compareBelow compares what hangs on a finding.
func (w wantFinding) compareBelow(f record.Finding) []string {
	var problems []string
	if w.Symptoms != nil {
		problems = append(problems, compareFound(f.Symptoms, w.Symptoms)...)
	}
	if w.Contributors != nil {
		problems = append(problems, compareFound(f.Contributors, w.Contributors)...)
	}
	return problems
}

// causesOf are those of findings and of what hangs on them.
func causesOf(ws []wantFinding) []string {
	var out []string
	for _, w := range ws {
		out = append(out, w.Cause)
		out = append(out, causesOf(w.Symptoms)...)
		out = append(out, causesOf(w.Contributors)...)
	}
	return out
}

// everyFinding are findings with what hangs on them.
func everyFinding(fs []record.Finding) []record.Finding {
	var out []record.Finding
	for _, f := range fs {
		out = append(out, f)
		out = append(out, everyFinding(f.Symptoms)...)
		out = append(out, everyFinding(f.Contributors)...)
	}
	return out
}

func brief(f record.Finding) string {
	s := fmt.Sprintf("%s (%d drops by %s, %s, %s at %s, %q", f.Cause, f.Drops, f.LostBy, f.Confidence, f.Class, f.Station, f.Title)
	for _, e := range f.Evidence {
		if !e.Supports {
			s += fmt.Sprintf(", against: %s %s", e.Name, e.Value)
		}
	}
	for _, u := range f.Unchecked {
		s += ", unchecked: " + u
	}
	return s + ")"
}

func (w wantFinding) String() string {
	s := w.Cause
	if w.Drops != nil {
		s += fmt.Sprintf(" %d drops", *w.Drops)
	}
	for _, t := range []string{w.LostBy, string(w.Confidence), string(w.Class), string(w.Station), w.Says, w.Remedy} {
		if t != "" {
			s += " " + t
		}
	}
	return s
}

func (w wantFinding) matches(f record.Finding) bool {
	remedied := w.Remedy == "" || slices.ContainsFunc(f.Remedy, func(r record.Remedy) bool {
		return strings.Contains(r.Command, w.Remedy)
	})
	return w.Cause == f.Cause && remedied &&
		(w.Drops == nil || *w.Drops == f.Drops) &&
		(w.Confidence == "" || w.Confidence == f.Confidence) &&
		(w.Class == "" || w.Class == f.Class) &&
		(w.Station == "" || w.Station == f.Station) &&
		(w.Events == nil || *w.Events == f.Events) &&
		(w.LostBy == "" || w.LostBy == f.LostBy) &&
		strings.Contains(f.Title, w.Says)
}

// headings are the parts of explain.md, in their order.
var headings = []string{"## What happened", "## How to recognise it", "## What to do", "## Not to be confused with"}

// maxExplain bounds the lines of explain.md.
const maxExplain = 60

// Lint checks a knowledge base, or a directory of the same form, beyond what
// Load refuses: explanations, cases, near misses, counters that the catalogue
// does not know, and requests that checkFact refuses. Each problem names its
// file.
func Lint(fsys fs.FS, checkFact func(kind, arg string) error) (*Knowledge, []string) {
	k, err := Load(fsys)
	if err != nil {
		return nil, []string{err.Error()}
	}
	var problems []string
	for _, c := range k.causes {
		dir := path.Join("causes", c.ID)
		for _, p := range slices.Concat(c.lintText(), k.lintNames(c, checkFact), k.lintCases(fsys, c)) {
			problems = append(problems, dir+"/"+p)
		}
	}
	for _, l := range k.MissingLinks() {
		id, other, _ := strings.Cut(l, ": ")
		problems = append(problems, fmt.Sprintf("causes/%s/cause.yaml: depends on, or contributes to, %s, which is no cause of a loss", id, other))
	}
	return k, problems
}

func (c *Cause) lintText() []string {
	var problems, found []string
	lines := strings.Split(strings.TrimSpace(c.Explanation), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "## ") {
			found = append(found, l)
		}
		if i == 0 && !strings.HasPrefix(l, "# ") {
			problems = append(problems, "explain.md: does not begin with a title")
		}
	}
	if !slices.Equal(found, headings) {
		problems = append(problems, fmt.Sprintf("explain.md: headings are %q, want %q", found, headings))
	}
	if len(lines) > maxExplain {
		problems = append(problems, fmt.Sprintf("explain.md: %d lines, at most %d", len(lines), maxExplain))
	}
	return problems
}

// lintNames looks up what the cause names.
func (k *Knowledge) lintNames(c *Cause, checkFact func(kind, arg string) error) []string {
	var names, problems []string
	for _, it := range c.Evidence {
		if it.Counter != "" {
			names = append(names, it.Counter)
		}
	}
	for _, e := range c.expressions() {
		for _, call := range e.calls() {
			if call[0] == "counter" || call[0] == "total" {
				names = append(names, call[1])
			}
		}
	}
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		if _, ok := k.Counter(n); !ok {
			problems = append(problems, "cause.yaml: counter "+n+" is not in knowledge/counters")
		}
	}
	for _, r := range c.Requests {
		if err := checkFact(splitRequest(fillIn(r))); err != nil {
			problems = append(problems, fmt.Sprintf("cause.yaml: fact %q: %v", r, err))
		}
	}
	return problems
}

// fillIn puts something in the place of each expression of a request, which is
// known only with an observation.
func fillIn(request string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(request, "${")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		_, rest, _ := cutBrace(after)
		switch kind, _ := splitRequest(b.String()); kind {
		case "owner", "sockets", "cgroup":
			b.WriteString("1")
		case "conntrack-entries":
			b.WriteString("192.0.2.1")
		case "route", "neigh":
			// The first expression is an address, a later one a device too.
			if strings.HasSuffix(b.String(), kind+" ") || strings.HasSuffix(b.String(), "from ") {
				b.WriteString("192.0.2.1")
			} else {
				b.WriteString("dev")
			}
		case "bridge-fdb":
			if strings.HasSuffix(b.String(), kind+" ") {
				b.WriteString("02:00:00:00:00:01")
			} else {
				b.WriteString("dev")
			}
		default:
			b.WriteString("dev")
		}
		request = rest
	}
}

// seen says whether what has the cause is ever shown by default.
func (c *Cause) seen() bool { return c.Class.Shown() || !c.is(kindLoss) }

// lintCases runs the cases and sees that the cause is found by one, and
// missed by a near miss.
func (k *Knowledge) lintCases(fsys fs.FS, c *Cause) []string {
	files, err := fs.Glob(fsys, path.Join("causes", c.ID, "cases", "*.txtar"))
	if err != nil {
		return []string{"cases: " + err.Error()}
	}
	var problems []string
	var all caseResult
	for _, name := range files {
		text, err := fs.ReadFile(fsys, name)
		var r caseResult
		if err == nil {
			r, err = k.runCase(text)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("cases/%s: %v", path.Base(name), err))
			continue
		}
		all.finds, all.near = append(all.finds, r.finds...), append(all.near, r.near...)
	}
	if !c.seen() {
		return problems
	}
	if !slices.Contains(all.finds, c.ID) {
		problems = append(problems, "cases: none finds "+c.ID)
	}
	if !slices.Contains(all.near, c.ID) {
		problems = append(problems, "cases: no near miss never finds "+c.ID)
	}
	return problems
}
