// Package diagnose turns an observation into findings. It holds the loaded
// knowledge base and its linter, the classification of single drops, the
// causes with their expressions, what facts would decide between them (Wants),
// and the weighing of drops, counters and facts into findings (Run).
//
// It is pure: from the same record and the same knowledge it makes the same
// diagnosis, on any machine. It must NOT look at a host, read a clock, open a
// socket or a file but those of the knowledge that it is handed (fs.FS), or
// print: it imports record, the standard library without os and net, and the
// modules that read YAML, expressions and cases.
package diagnose

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/whydrop/whydrop/record"
)

// The words of the knowledge base that are no reasons of any kernel.
const (
	// anyReason in a rule stands for every reason.
	anyReason = "ANY"
	// noReason in a rule stands for a kernel without reasons (before 5.17).
	noReason = "NO_REASON"
	// toMulticast is the one destination that a rule can ask for.
	toMulticast = "multicast"
	// otherEthertype is the one EtherType that a rule can ask for.
	otherEthertype = "other"
)

// notSpecified is the kernel's name for a drop without a reason
// (include/net/dropreason-core.h).
const notSpecified = "NOT_SPECIFIED"

// meaning is what is known about a reason or a location.
type meaning struct {
	Class    record.Class   `yaml:"class"`
	Station  record.Station `yaml:"station"`
	Sentence string         `yaml:"sentence"`
}

// conditions choose drops; all that are given must hold.
type conditions struct {
	Reasons     []string `yaml:"reasons"`
	Symbols     []string `yaml:"symbols"`
	Stack       []string `yaml:"stack"`
	Destination string   `yaml:"destination"`
	EtherType   string   `yaml:"ethertype"`
}

// rule gives a meaning to drops for which all its conditions hold.
type rule struct {
	ID         string `yaml:"id"`
	conditions `yaml:",inline"`
	meaning    `yaml:",inline"`
}

// Knowledge is the loaded and checked knowledge base. It is not changed after
// Load and safe for use from several goroutines.
type Knowledge struct {
	reasons map[string]meaning
	// rules has the more specific ones first.
	rules []rule
	// rulesOf are their places, in order, by the drops that they can hold for.
	rulesOf map[siteOf][]int
	// causes are in the order of their ids.
	causes []*Cause
	// patterns are theirs, by the drops that they can hold for.
	patterns map[siteOf][]patternOf
	// contributors are those to a cause, by its id; conclusions all of them.
	contributors map[string][]*Cause
	conclusions  []*Cause
	// counters by name; stations' hints.
	counters map[string]CounterMeaning
	// noLoss are the counters that are part of one and no loss.
	noLoss map[string][]string
	// drivers knows those that only a pattern is known of.
	drivers counterPatterns
	// raised are the drops that raise counters, raisings the same by what drops
	// are, related how counters are to each other.
	raised   map[string]*raised
	raisings map[siteOf][]raisingOf
	related  map[string]*kinship
	// kinded are the counters that only devices of some kinds raise.
	kinded map[string]bool
	next   map[record.Station][]string
	layers map[string]Layer
}

// Load reads reasons, locations, causes, counters and stations of fsys (knowledge.FS, or a
// directory of the same form) and checks them. An error names the file and
// the entry; a base that is only partly good is refused as a whole.
func Load(fsys fs.FS) (*Knowledge, error) { return load(fsys, fresh) }

// LoadAccepted is Load for a base that Load has accepted before, as that which
// the program is built with: it takes half the time, because it does not look
// into expressions before they are needed. What a wrong one asks for is not
// known. It takes what is compiled (CompiledFile), as LoadTriage and LoadCounters do.
func LoadAccepted(fsys fs.FS) (*Knowledge, error) { return load(withCompiled(fsys), accepted) }

func load(fsys fs.FS, how trust) (*Knowledge, error) {
	k, err := loadTriage(fsys)
	if err != nil {
		return nil, err
	}
	if err := loadCauses(fsys, k, how); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	if err := loadCatalogue(fsys, k); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	if err := loadRaised(fsys, k, how); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	return k, nil
}

// LoadTriage is Load without causes and counters, for those who only class
// drops: it takes a tenth of the time.
func LoadTriage(fsys fs.FS) (*Knowledge, error) { return loadTriage(withCompiled(fsys)) }

func loadTriage(fsys fs.FS) (*Knowledge, error) {
	k := &Knowledge{reasons: map[string]meaning{}}
	if err := loadReasons(fsys, k); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	if err := loadRules(fsys, k); err != nil {
		return nil, fmt.Errorf("load knowledge: %w", err)
	}
	return k, nil
}

func loadReasons(fsys fs.FS, k *Knowledge) error {
	files, err := yamlFiles(fsys, "reasons")
	if err != nil {
		return err
	}
	type file struct {
		Reasons map[string]meaning `yaml:"reasons"`
	}
	list, err := decodeEach[file](fsys, files)
	if err != nil {
		return err
	}
	for i, f := range list {
		for reason, m := range f.Reasons {
			if _, ok := k.reasons[reason]; ok {
				return fmt.Errorf("%s: reason %s is described twice", files[i], reason)
			}
			if err := checkReason(reason, m); err != nil {
				return fmt.Errorf("%s: reason %s: %w", files[i], reason, err)
			}
			k.reasons[reason] = m
		}
	}
	return nil
}

func loadRules(fsys fs.FS, k *Knowledge) error {
	files, err := yamlFiles(fsys, "locations")
	if err != nil {
		return err
	}
	type file struct {
		Rules []rule `yaml:"rules"`
	}
	list, err := decodeEach[file](fsys, files)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for n, f := range list {
		for i, r := range f.Rules {
			if r.ID == "" {
				return fmt.Errorf("%s: rule %d has no id", files[n], i+1)
			}
			if seen[r.ID] {
				return fmt.Errorf("%s: rule %s is there twice", files[n], r.ID)
			}
			seen[r.ID] = true
			if err := checkRule(r); err != nil {
				return fmt.Errorf("%s: rule %s: %w", files[n], r.ID, err)
			}
			k.rules = append(k.rules, r)
		}
	}
	slices.SortStableFunc(k.rules, func(a, b rule) int {
		return b.weight() - a.weight()
	})
	k.rulesOf = map[siteOf][]int{}
	for i := range k.rules {
		for _, s := range k.rules[i].sites() {
			k.rulesOf[s] = append(k.rulesOf[s], i)
		}
	}
	return nil
}

// yamlFiles lists dir's YAML files in the order of their names. None at all
// is an error: it is a directory that is no knowledge base.
func yamlFiles(fsys fs.FS, dir string) ([]string, error) {
	files, err := fs.Glob(fsys, dir+"/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("list %s: no *.yaml: %w", dir, fs.ErrNotExist)
	}
	slices.Sort(files)
	return files, nil
}

// decodeEach is decodeStrict for many files, several at a time. The error is
// that of the first file that is not good.
func decodeEach[T any](fsys fs.FS, names []string) ([]*T, error) {
	out, errs := make([]*T, len(names)), make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			out[i] = new(T)
			errs[i] = decodeStrict(fsys, name, out[i])
		})
	}
	wg.Wait()
	return out, cmp.Or(errs...)
}

// decodeStrict reads one YAML document and refuses fields that v lacks.
func decodeStrict(fsys fs.FS, name string, v any) error {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	compiled, _ := fsys.(*compiledFS)
	if compiled != nil && compiled.decoded(name, b, v) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode %s: %w", name, err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("decode %s: more than one document", name)
	}
	if compiled == nil || compiled.made == nil {
		return nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("compile %s: %w", name, err)
	}
	compiled.made.Store(name, text)
	return nil
}

// The shapes of names: reasons are enumerators, or devlink traps in lower case;
// symbols are functions and may end in a star.
var (
	reasonShape = regexp.MustCompile(`^([A-Z][A-Z0-9_]*|[a-z][a-z0-9_]*)$`)
	symbolShape = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*\*?$`)
)

func checkReason(name string, m meaning) error {
	switch {
	case !reasonShape.MatchString(name):
		return errors.New("not a reason's name")
	case name == anyReason, name == noReason, name == notSpecified:
		return errors.New("needs rules by location, not an entry")
	}
	return m.check()
}

func checkRule(r rule) error {
	if err := r.conditions.check(); err != nil {
		return err
	}
	if len(r.Symbols) == 0 && len(r.Stack) == 0 {
		return errors.New("neither symbols nor stack")
	}
	return r.meaning.check()
}

func (c conditions) check() error {
	if len(c.Reasons) == 0 {
		return errors.New("no reasons")
	}
	for _, s := range c.Reasons {
		if !reasonShape.MatchString(s) {
			return fmt.Errorf("reason %q is not a reason's name", s)
		}
	}
	if slices.Contains(c.Reasons, anyReason) && len(c.Reasons) > 1 {
		return fmt.Errorf("reason %s beside others", anyReason)
	}
	for _, s := range slices.Concat(c.Symbols, c.Stack) {
		if !symbolShape.MatchString(s) {
			return fmt.Errorf("symbol %q is not a function's name", s)
		}
	}
	if c.Destination != "" && c.Destination != toMulticast {
		return fmt.Errorf("unknown destination %q", c.Destination)
	}
	if c.EtherType != "" && c.EtherType != otherEthertype {
		return fmt.Errorf("unknown ethertype %q", c.EtherType)
	}
	return nil
}

func (m meaning) check() error {
	switch m.Class {
	case record.ClassFault, record.ClassCapacity, record.ClassPolicy,
		record.ClassExpected, record.ClassBenign:
	default:
		return fmt.Errorf("unknown class %q", m.Class)
	}
	if !slices.Contains(record.Stations(), m.Station) {
		return fmt.Errorf("unknown station %q", m.Station)
	}
	if m.Sentence == "" || strings.ContainsFunc(m.Sentence, unicode.IsControl) {
		return errors.New("the sentence is empty or not one line")
	}
	return nil
}

// What a sample must show (stack, destination) weighs more than all that a
// key can (reason, symbol, EtherType): it is nearer to the one packet.
const ofKey, ofSample = 1, 4

// weight says how specific conditions are.
func (c conditions) weight() int {
	n := 0
	for _, w := range []struct {
		given  bool
		weight int
	}{
		{!slices.Contains(c.Reasons, anyReason), ofKey},
		{len(c.Symbols) > 0, ofKey},
		{c.EtherType != "", ofKey},
		{len(c.Stack) > 0, ofSample},
		{c.Destination != "", ofSample},
	} {
		if w.given {
			n += w.weight
		}
	}
	return n
}
