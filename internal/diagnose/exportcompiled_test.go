package diagnose

import (
	"encoding/json"
	"slices"
)

// Text is all that was read from files, for comparisons.
func (k *Knowledge) Text() (string, error) {
	text, err := json.Marshal([]any{
		k.reasons, k.rules, k.causes, k.counters, k.noLoss, k.raised, k.kinded, k.next, k.layers, k.drivers.plain, k.drivers.patterns,
	})
	return string(text), err
}

// HasRule says whether there is a rule of locations with that id.
func (k *Knowledge) HasRule(id string) bool {
	return slices.ContainsFunc(k.rules, func(r rule) bool { return r.ID == id })
}
