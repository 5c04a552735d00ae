package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/whydrop/whydrop/record"
)

const (
	reasonPrefix    = "SKB_DROP_REASON_"
	subsystemPrefix = "SKB_DROP_REASON_SUBSYS_"
	// subsystemShift is SKB_DROP_REASON_SUBSYS_SHIFT of
	// include/net/dropreason.h: the high half of a reason is its subsystem
	// (6.4). It is a macro, so BTF does not carry it.
	subsystemShift = 16
	coreSubsystem  = "core"
	// maxUnnamed bounds how many values without a name are remembered.
	maxUnnamed = 1024
)

// The sources of names.
const (
	FromBTF     = "btf"
	FromTracefs = "tracefs"
	FromNone    = "none"
)

// Reasons names the running kernel's drop reasons. It may be used by several
// goroutines at once.
type Reasons struct {
	host Host
	from string
	why  error
	// given is false where the kernel is known to have no reasons.
	given bool
	// subsystems is never written after loading.
	subsystems map[uint16]string

	mu    sync.RWMutex
	named map[uint32]record.Reason
	// unnamed remembers the text of values that have no name.
	unnamed map[uint32]record.Reason
	// sought are the subsystems whose names were looked for outside of core.
	sought map[uint16]bool
}

// LoadReasons reads the names of drop reasons from the kernel's BTF or, where
// b is nil or does not have them, from the format of the tracepoint in a
// mounted tracefs. It always returns a table; without any source every name is
// the number, and Why says so.
//
// The names of other subsystems than core lie in the BTF of vmlinux and of
// modules under names that only their end gives away. They are read when the
// first such value is seen.
func (h Host) LoadReasons(b *BTF) *Reasons {
	r := &Reasons{
		host: h, from: FromNone, given: true,
		subsystems: map[uint16]string{0: coreSubsystem},
		named:      map[uint32]record.Reason{},
		unnamed:    map[uint32]record.Reason{},
		sought:     map[uint16]bool{0: true},
	}
	var errBTF error
	if b == nil {
		errBTF = errors.New("no BTF")
	} else if errBTF = r.loadBTF(b); errBTF == nil {
		return r
	}
	format, err := h.kfreeSkbFormat()
	if err == nil {
		err = r.loadFormat(format)
	}
	if err != nil {
		r.why = fmt.Errorf("names of drop reasons: from BTF: %w; from tracefs: %w", errBTF, err)
	}
	return r
}

func (r *Reasons) loadBTF(b *BTF) error {
	core, err := enumValues(b.Spec, "skb_drop_reason")
	if err != nil {
		return err
	}
	if core == nil {
		r.given = false
		r.why = errors.New("the kernel has no drop reasons: Linux 5.17 brings them")
		return nil
	}
	subsystems, err := enumValues(b.Spec, "skb_drop_reason_subsys")
	if err != nil {
		return err
	}
	r.from = FromBTF
	maps.Copy(r.subsystems, subsystemNames(subsystems))
	r.add(coreReasons(core))
	return nil
}

func (r *Reasons) loadFormat(format []byte) error {
	values, given, err := parseKfreeSkbFormat(format)
	if err != nil {
		return err
	}
	r.given = given
	if !given {
		r.why = errors.New("the kernel has no drop reasons: Linux 5.17 brings them")
		return nil
	}
	if len(values) == 0 {
		return errors.New("the format of skb:kfree_skb lists no reasons")
	}
	r.from = FromTracefs
	r.add(coreReasons(values))
	return nil
}

// add keeps the first name of a value.
func (r *Reasons) add(reasons []record.Reason) {
	for _, reason := range reasons {
		if _, ok := r.named[reason.Value]; !ok {
			r.named[reason.Value] = reason
			delete(r.unnamed, reason.Value)
		}
	}
}

// coreReasons turns the values of enum skb_drop_reason, or of the tracepoint's
// list, into reasons. The end marker SKB_DROP_REASON_MAX and the mask
// SKB_DROP_REASON_SUBSYS_MASK are no reasons.
func coreReasons(values []enumValue) []record.Reason {
	reasons := make([]record.Reason, 0, len(values))
	last := lastValue(values, 0)
	for _, v := range values {
		name := strings.TrimPrefix(v.Name, reasonPrefix)
		if name == "" || v.Value>>subsystemShift != 0 || name == "MAX" && v.Value == last {
			continue
		}
		reasons = append(reasons, record.Reason{Name: name, Subsystem: coreSubsystem, Value: v.Value})
	}
	return reasons
}

// subsystemNames turns the values of enum skb_drop_reason_subsys into numbers
// and lower-case names. SKB_DROP_REASON_SUBSYS_NUM counts them.
func subsystemNames(values []enumValue) map[uint16]string {
	names := make(map[uint16]string, len(values))
	for _, v := range values {
		name, ok := strings.CutPrefix(v.Name, subsystemPrefix)
		if !ok || name == "" || name == "NUM" || v.Value > 0xffff {
			continue
		}
		names[uint16(v.Value)] = strings.ToLower(name)
	}
	return names
}

// subsystemReasons turns the values of another subsystem's enum into reasons.
// Values that belong to no known subsystem are not reasons (mac80211 repeats
// SKB_CONSUMED as RX_CONTINUE).
//
// Of two names for a value the one without leading underscores wins: mac80211
// has enum ___mac80211_drop_reason of ___RX_… beside the real one, and
// registers the names without them (net/mac80211/drop.h). A name that only
// begins with underscores and names the subsystem's first value is its base
// (__OVS_DROP_REASON), and a …_MAX with the greatest value an end marker.
func subsystemReasons(values []enumValue, subsystems map[uint16]string) []record.Reason {
	var reasons []record.Reason
	for _, v := range values {
		number := uint16(v.Value >> subsystemShift)
		subsystem, ok := subsystems[number]
		name := strings.TrimLeft(v.Name, "_")
		hidden := name != v.Name
		switch {
		case !ok || number == 0 || name == "",
			hidden && v.Value<<subsystemShift == 0,
			strings.HasSuffix(name, "_MAX") && v.Value == lastValue(values, number):
			continue
		}
		reasons = append(reasons, record.Reason{Name: name, Subsystem: subsystem, Value: v.Value})
	}
	return reasons
}

// lastValue is the greatest value of one subsystem.
func lastValue(values []enumValue, number uint16) uint32 {
	var last uint32
	for _, v := range values {
		if uint16(v.Value>>subsystemShift) == number {
			last = max(last, v.Value)
		}
	}
	return last
}

// From says where the names came from: FromBTF, FromTracefs or FromNone.
func (r *Reasons) From() string { return r.from }

// Why says why there are no names; nil if there are.
func (r *Reasons) Why() error { return r.why }

// Subsystems returns the names of the subsystems that have reasons, by their
// numbers.
func (r *Reasons) Subsystems() []string {
	var names []string
	for _, number := range slices.Sorted(maps.Keys(r.subsystems)) {
		names = append(names, r.subsystems[number])
	}
	return names
}

// Lookup names a reason. A value without a name gets its number as its name. A
// kernel that has no reasons gives the zero Reason for every value.
//
// It does not allocate, except for the first sight of a subsystem or of a
// value without a name.
func (r *Reasons) Lookup(value uint32) record.Reason {
	if !r.given {
		return record.Reason{}
	}
	r.mu.RLock()
	reason, ok := r.named[value]
	if !ok {
		reason, ok = r.unnamed[value]
	}
	r.mu.RUnlock()
	if ok {
		return reason
	}
	return r.lookupSlow(value)
}

func (r *Reasons) lookupSlow(value uint32) record.Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	number := uint16(value >> subsystemShift)
	subsystem, known := r.subsystems[number]
	if known && !r.sought[number] {
		r.seek()
		r.sought[number] = true
	}
	if reason, ok := r.named[value]; ok {
		return reason
	}
	if !known {
		subsystem = strconv.FormatUint(uint64(number), 10)
	}
	reason := record.Reason{Name: strconv.FormatUint(uint64(value), 10), Subsystem: subsystem, Value: value}
	if len(r.unnamed) < maxUnnamed {
		r.unnamed[value] = reason
	}
	return reason
}

// seek reads the names of the subsystems other than core. r.mu is held.
func (r *Reasons) seek() {
	if r.from != FromBTF || len(r.subsystems) == 1 {
		return
	}
	// What cannot be read stays without a name, which is what Lookup's caller
	// sees and what there is to say about it.
	enums, _ := r.host.scanDropReasons()
	// Plain names first, so that they win over those with underscores.
	slices.SortStableFunc(enums, func(a, b []enumValue) int { return cmp.Compare(underscores(a), underscores(b)) })
	for _, values := range enums {
		r.add(subsystemReasons(values, r.subsystems))
	}
}

// underscores counts the names that begin with an underscore.
func underscores(values []enumValue) int {
	n := 0
	for _, v := range values {
		if strings.HasPrefix(v.Name, "_") {
			n++
		}
	}
	return n
}

// Names returns every reason that has a name, by value. It reads the names of
// all subsystems that are loaded.
func (r *Reasons) Names() []record.Reason {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seek()
	return slices.SortedFunc(maps.Values(r.named), func(a, b record.Reason) int {
		return cmp.Compare(a.Value, b.Value)
	})
}
