package diagnose

import (
	"maps"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// SoundsLikeLoss says whether the name of a counter sounds like one of a loss.
func SoundsLikeLoss(name string) bool { return soundsLikeLoss(name) }

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

// Unrelated are the pairs of counters of which each drop of a reason raises the
// first and may raise the second, and that are not known to count the same.
func (k *Knowledge) Unrelated() []string {
	seen := map[string]bool{}
	for a, ra := range k.raised {
		for b, rb := range k.raised {
			if a != b && !(k.related[a] != nil && k.related[a].same[b]) && ra.meetsToo(rb) {
				seen[a+" "+b] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (r *raised) meetsToo(o *raised) bool {
	if r.Family != 0 && o.Family != 0 && r.Family != o.Family || !bothHold(r.protocols, o.protocols) {
		return false
	}
	for _, x := range r.By {
		for _, y := range o.By {
			if x.Relation == relationExactly && y.Relation == relationAtMost && bothHold(x.Reasons, y.Reasons) && bothHold(x.Symbols, y.Symbols) {
				return true
			}
		}
	}
	return false
}

// bothHold says whether two conditions can hold at once; none holds for all.
func bothHold[T comparable](a, b []T) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(x T) bool { return slices.Contains(b, x) })
}
