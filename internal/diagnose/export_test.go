package diagnose

import (
	"slices"

	"github.com/whydrop/whydrop/record"
)

// RunCase runs a case file and its near misses.
func (k *Knowledge) RunCase(text []byte) error {
	_, err := k.runCase(text)
	return err
}

// Placed says what is known of a counter.
type Placed struct {
	Kind, Unit string
	// Told: it is in counters/drops.yaml, or counts the same as one that is.
	// Alone: at its station a device counts alone.
	Told, Alone bool
}

// Raised are all counters of the catalogue.
func (k *Knowledge) Raised() map[string]Placed {
	out := map[string]Placed{}
	for name, c := range k.counters {
		p := Placed{Kind: c.Kind, Unit: c.Unit, Told: k.raised[name] != nil}
		p.Alone = slices.Contains([]record.Station{record.StationNIC, record.StationRing, record.StationNICTX, record.StationRDMA}, c.Station)
		if kin := k.related[name]; c.Kind == "loss" && kin != nil {
			for other := range kin.same {
				p.Told = p.Told || k.raised[other] != nil
			}
		}
		out[name] = p
	}
	return out
}
