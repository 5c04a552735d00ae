package diagnose

import (
	"fmt"
	"io/fs"
	"slices"

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
	for _, name := range files {
		if name == dropsFile || name == patternsFile {
			continue
		}
		var f struct {
			Counters map[string]CounterMeaning `yaml:"counters"`
		}
		if err := decodeStrict(fsys, name, &f); err != nil {
			return err
		}
		for id, c := range f.Counters {
			if _, ok := k.counters[id]; ok {
				return fmt.Errorf("%s: counter %s is described twice", name, id)
			}
			if err := c.check(); err != nil {
				return fmt.Errorf("%s: counter %s: %w", name, id, err)
			}
			k.counters[id] = c
		}
	}
	if err := loadPatterns(fsys, k); err != nil {
		return err
	}
	return loadStations(fsys, k)
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
	c, ok := k.counters[name]
	if !ok {
		return k.drivers.find(name)
	}
	return c, ok
}

// Reason returns what is known about a drop reason by its name alone.
func (k *Knowledge) Reason(name string) (Verdict, bool) {
	m, ok := k.reasons[name]
	return verdict(m), ok
}
