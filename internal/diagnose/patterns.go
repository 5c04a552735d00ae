package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// patternsFile says what counters mean by the pattern of their names;
// knowledge/counters/README.md describes its form.
const patternsFile = "counters/ethtool-patterns.yaml"

// patternTable is the table of a pattern that names none: the strings of
// drivers, and of PHYs behind patternTablePHY.
const (
	patternTable    = "ethtool"
	patternTablePHY = "ethtool-phy"
)

// counterPattern is what counters mean whose names match.
type counterPattern struct {
	Table   string   `yaml:"table"`
	Match   []string `yaml:"match"`
	Drivers []string `yaml:"drivers"`
	// CounterMeaning has no Kernel in the file: it is where the drivers have
	// their names.
	CounterMeaning `yaml:",inline"`

	// whole matches names that none of the plain words of Match is; nil where
	// all are plain.
	whole *regexp.Regexp
}

// counterPatterns find the meaning of a counter by the pattern of its name.
type counterPatterns struct {
	// plain are the meanings of whole names, patterns the others in their order.
	plain    map[string]CounterMeaning
	patterns map[string][]*counterPattern // by table
}

// plainName says whether a pattern is a name and nothing more. A dot is one of
// a driver that writes port.rx_bytes.
var plainName = regexp.MustCompile(`^[a-z0-9_. ]+$`)

// loadPatterns reads the patterns. A base without the file is good.
func loadPatterns(fsys fs.FS, k *Knowledge) error {
	if _, err := fs.Stat(fsys, patternsFile); err != nil {
		return nil
	}
	var f struct {
		Drivers  map[string]string `yaml:"drivers"`
		Patterns []*counterPattern `yaml:"patterns"`
	}
	if err := decodeStrict(fsys, patternsFile, &f); err != nil {
		return err
	}
	k.drivers = counterPatterns{plain: map[string]CounterMeaning{}, patterns: map[string][]*counterPattern{}}
	used := map[string]bool{}
	for i, p := range f.Patterns {
		if err := p.check(f.Drivers); err != nil {
			return fmt.Errorf("%s: pattern %d: %w", patternsFile, i+1, err)
		}
		for _, d := range p.Drivers {
			used[d] = true
		}
		if err := k.drivers.add(p); err != nil {
			return fmt.Errorf("%s: pattern %d: %w", patternsFile, i+1, err)
		}
	}
	for _, d := range slices.Sorted(maps.Keys(f.Drivers)) {
		if !used[d] {
			return fmt.Errorf("%s: no pattern is of driver %s", patternsFile, d)
		}
	}
	return nil
}

// check holds a pattern to the form, and makes Kernel of its drivers.
func (p *counterPattern) check(files map[string]string) error {
	if p.Kernel != "" {
		return errors.New("kernel: the drivers' files say that")
	}
	if len(p.Match) == 0 {
		return errors.New("match: nothing")
	}
	if p.Table == "" {
		p.Table = patternTable
	}
	var where []string
	for _, d := range p.Drivers {
		file, ok := files[d]
		if !ok {
			return fmt.Errorf("driver %s has no file", d)
		}
		where = append(where, fmt.Sprintf("%s (%s)", file, d))
	}
	p.Kernel = strings.Join(where, ", ")
	if p.Kernel == "" {
		p.Kernel = "net/ethtool/stats.c"
	}
	return p.CounterMeaning.check()
}

// add puts a pattern in its place.
func (c *counterPatterns) add(p *counterPattern) error {
	var rest []string
	for _, m := range p.Match {
		if !plainName.MatchString(m) {
			rest = append(rest, m)
			continue
		}
		name := p.Table + "." + m
		if _, twice := c.plain[name]; twice {
			return fmt.Errorf("match: %s is there twice", m)
		}
		c.plain[name] = p.without(name)
	}
	if rest == nil {
		return nil
	}
	whole, err := regexp.Compile("^(?:" + strings.Join(rest, "|") + ")$")
	if err != nil {
		return fmt.Errorf("match: %w", err)
	}
	p.whole = whole
	c.patterns[p.Table] = append(c.patterns[p.Table], p)
	return nil
}

// without is the meaning of one of the names: it does not overlap with itself.
func (p *counterPattern) without(name string) CounterMeaning {
	m := p.CounterMeaning
	if slices.Contains(m.Overlaps, name) {
		m.Overlaps = slices.DeleteFunc(slices.Clone(m.Overlaps), func(o string) bool { return o == name })
	}
	return m
}

// find returns the meaning of a counter by its name, whatever its letters.
func (c *counterPatterns) find(name string) (CounterMeaning, bool) {
	table, field, ok := strings.Cut(name, ".")
	if !ok || c.plain == nil {
		return CounterMeaning{}, false
	}
	if table == patternTablePHY {
		table = patternTable
	}
	field = strings.ToLower(field)
	if m, ok := c.plain[table+"."+field]; ok {
		return m, true
	}
	for _, p := range c.patterns[table] {
		// That a name is of no loss though it sounds so must be said of the name.
		if p.whole.MatchString(field) && !(p.Kind == "activity" && soundsLikeLoss(field)) {
			return p.without(name), true
		}
	}
	return CounterMeaning{}, false
}
