package diagnose

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// CounterMeaning is what the knowledge base says about a counter;
// knowledge/counters/README.md describes its form.
type CounterMeaning struct {
	Station   record.Station   `yaml:"station"`
	Direction record.Direction `yaml:"direction"`
	Unit      string           `yaml:"unit"`
	// Kind is loss, retransmission, pressure, activity or nothing.
	Kind     string `yaml:"kind"`
	Sentence string `yaml:"sentence"`
	Kernel   string `yaml:"kernel"`
	// Overlaps are counters that count the same packet too.
	Overlaps []string `yaml:"overlaps"`
	// PartOf are counters of loss that have its packets too, which are no loss.
	PartOf []string `yaml:"part_of"`
}

var counterKinds = []string{"loss", "retransmission", "pressure", "activity", "nothing"}

// loadCatalogue reads counters/*.yaml and stations.yaml, where they are.
func loadCatalogue(fsys fs.FS, k *Knowledge) error {
	k.counters = map[string]CounterMeaning{}
	files, err := fs.Glob(fsys, "counters/*.yaml")
	if err != nil {
		return fmt.Errorf("list counters: %w", err)
	}
	slices.Sort(files)
	files = slices.DeleteFunc(files, func(name string) bool { return name == dropsFile || name == patternsFile })
	type file struct {
		Counters map[string]CounterMeaning `yaml:"counters"`
	}
	list, err := decodeEach[file](fsys, files)
	if err != nil {
		return err
	}
	for i, f := range list {
		for id, c := range f.Counters {
			if _, ok := k.counters[id]; ok {
				return fmt.Errorf("%s: counter %s is described twice", files[i], id)
			}
			if err := c.check(); err != nil {
				return fmt.Errorf("%s: counter %s: %w", files[i], id, err)
			}
			k.counters[id] = c
		}
	}
	if err := loadPatterns(fsys, k); err != nil {
		return err
	}
	if err := k.spareParts(); err != nil {
		return err
	}
	return loadStations(fsys, k)
}

// spareParts fills in k.noLoss from part_of.
func (k *Knowledge) spareParts() error {
	k.noLoss = map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(k.counters)) {
		c := k.counters[name]
		for _, whole := range c.PartOf {
			if w, ok := k.counters[whole]; !ok || w.Kind != "loss" || w.Unit != c.Unit || c.Kind != "nothing" {
				return fmt.Errorf("counter %s: part_of: %q is no counter of loss of the same unit, or itself is no \"nothing\"", name, whole)
			}
			k.noLoss[whole] = append(k.noLoss[whole], name)
		}
	}
	return nil
}

func (c CounterMeaning) check() error {
	m := meaning{Class: record.ClassFault, Station: c.Station, Sentence: c.Sentence}
	if !slices.Contains(counterKinds, c.Kind) {
		return fmt.Errorf("unknown kind %q", c.Kind)
	}
	return m.check()
}

// loadStations reads what to look at next, by station.
func loadStations(fsys fs.FS, k *Knowledge) error {
	const name = "stations.yaml"
	if _, err := fs.Stat(fsys, name); err != nil {
		return nil
	}
	var f struct {
		Next   map[record.Station][]string `yaml:"next"`
		Layers map[string]Layer            `yaml:"layers"`
	}
	if err := decodeStrict(fsys, name, &f); err != nil {
		return err
	}
	for s := range f.Next {
		if !slices.Contains(record.Stations(), s) {
			return fmt.Errorf("%s: unknown station %q", name, s)
		}
	}
	for layer, l := range f.Layers {
		if !slices.Contains(record.Stations(), l.RX) || !slices.Contains(record.Stations(), l.TX) {
			return fmt.Errorf("%s: layer %s: unknown station", name, layer)
		}
	}
	k.next, k.layers = f.Next, f.Layers
	return nil
}

// Layer is where a layer that engineers speak of lies on the packet's way.
type Layer struct {
	RX record.Station `yaml:"rx"`
	TX record.Station `yaml:"tx"`
}

// Layers maps the layers' names to their stations. It must not be changed.
func (k *Knowledge) Layers() map[string]Layer { return k.layers }

// Counter returns what is known about a counter.
func (k *Knowledge) Counter(name string) (CounterMeaning, bool) {
	if c, ok := k.counters[name]; ok {
		return c, ok
	}
	// An entry whose name ends in N is for every number in its place.
	if n := strings.TrimRight(name, "0123456789"); n != name {
		if c, ok := k.counters[n+"N"]; ok {
			return c, ok
		}
	}
	return k.drivers.find(name)
}

// Names are those of the reasons, of the counters and of the functions that have
// an entry, each sorted. Counters that a pattern is known of are not among them.
func (k *Knowledge) Names() (reasons, counters, symbols []string) {
	for i := range k.rules {
		symbols = append(symbols, k.rules[i].Symbols...)
	}
	slices.Sort(symbols)
	return slices.Sorted(maps.Keys(k.reasons)), slices.Sorted(maps.Keys(k.counters)), slices.Compact(symbols)
}

// Next is what to look at next where something was lost at a station. It must
// not be changed.
func (k *Knowledge) Next(s record.Station) []string { return k.next[s] }

// Reason returns what is known about a drop reason by its name alone.
func (k *Knowledge) Reason(name string) (Verdict, bool) {
	m, ok := k.reasons[name]
	return verdict(m), ok
}
