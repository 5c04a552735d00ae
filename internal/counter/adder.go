package counter

import (
	"fmt"

	"github.com/whydrop/whydrop/record"
)

// adder collects the counters of one device, or of what they have in common.
type adder struct {
	values          []Value
	device          record.Device
	source, command string
	// id is that of the parts that follow.
	id uint64
}

func (a *adder) count(name, object string, v uint64) {
	a.values = append(a.values, Value{
		Name: name, Device: a.device, Object: object, ID: a.id, Value: v, Source: a.source, Command: a.command,
	})
}

func (a *adder) level(name, object string, v uint64) {
	a.count(name, object, v)
	a.values[len(a.values)-1].Level = true
}

func (a *adder) add(object string, x xvalue) {
	if x.level {
		a.level(x.name, object, x.value)
	} else {
		a.count(x.name, object, x.value)
	}
}

// bound limits how many parts of devices one source gives counters of: qdiscs,
// classes, actions, VLANs. Totals are not bounded.
type bound struct {
	what       string
	kept, over int
}

// another says whether there is room for one more part.
func (b *bound) another() bool {
	if b.kept == maxParts {
		b.over++
		return false
	}
	b.kept++
	return true
}

// err says what was left out, or is nil.
func (b *bound) err() error {
	if b.over == 0 {
		return nil
	}
	return fmt.Errorf("counters of %d %s are left out, those of %d are there", b.over, b.what, b.kept)
}
