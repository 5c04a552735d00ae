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
	return c, ok
}

// Reason returns what is known about a drop reason by its name alone.
func (k *Knowledge) Reason(name string) (Verdict, bool) {
	m, ok := k.reasons[name]
	return verdict(m), ok
}

// moved are the counters of loss that moved, with their stations and the
// findings that quote them. The result is never nil.
func (k *Knowledge) moved(cs []record.Counter, fs []record.Finding) []record.Counter {
	out := []record.Counter{}
	for _, c := range cs {
		m, known := k.counters[c.Name]
		if c.Delta == 0 || !known || m.Kind == "activity" || m.Kind == "nothing" {
			continue
		}
		c.Station = string(m.Station)
		c.ExplainedBy = []string{}
		for _, f := range fs {
			if quotes(f, c) && !slices.Contains(c.ExplainedBy, f.Cause) {
				c.ExplainedBy = append(c.ExplainedBy, f.Cause)
			}
		}
		out = append(out, c)
	}
	return out
}

// quotes says whether a counter is evidence for a finding.
func quotes(f record.Finding, c record.Counter) bool {
	if label := netnsLabel(c.NetNS); label != "" && !slices.Contains(f.NetNS, label) {
		return false
	}
	if label := deviceLabel(c.Device, c.NetNS); label != "" && len(f.Devices) > 0 && !slices.Contains(f.Devices, label) {
		return false
	}
	return slices.ContainsFunc(f.Evidence, func(e record.Evidence) bool {
		return e.Kind == "counter" && e.Name == c.Name && e.Supports
	})
}
