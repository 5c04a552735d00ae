package diagnose

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Verdict is what the knowledge base says about a drop.
type Verdict struct {
	Class   record.Class
	Station record.Station
	// Sentence is one plain sentence for engineers.
	Sentence string
	// Known is false for a drop that no entry and no rule describes. Such a
	// drop is a fault at an unknown station and always shown.
	Known bool
}

// Classify judges a drop by its key and, where one was sampled, its stack
// (the location's callers; the innermost first). Rules that need more than
// that do not hold.
func (k *Knowledge) Classify(key record.Key, stack []record.Location) Verdict {
	return k.classify(key, stack, nil)
}

// ClassifyDrop judges a sampled drop by all that is known about it.
func (k *Knowledge) ClassifyDrop(d *record.Drop) Verdict {
	return k.classify(d.Key, d.Stack, d.Packet)
}

// ClassifyCounts judges every count; the result is in the order of counts. A
// count takes the verdict of the samples with its key. Where these disagree
// the gravest wins, so that one harmless sample hides no loss; without
// samples the key alone decides.
func (k *Knowledge) ClassifyCounts(counts []record.Count, samples []record.Drop) []Verdict {
	sampled := map[record.Key]Verdict{}
	for i := range samples {
		s := site(samples[i].Key)
		v := k.ClassifyDrop(&samples[i])
		if old, ok := sampled[s]; !ok || compareVerdicts(v, old) < 0 {
			sampled[s] = v
		}
	}
	out := make([]Verdict, len(counts))
	for i, c := range counts {
		v, ok := sampled[site(c.Key)]
		if !ok {
			v = k.Classify(c.Key, nil)
		}
		out[i] = v
	}
	return out
}

// site is a key without the names that user space adds, which may be found
// out between a sample and its count.
func site(k record.Key) record.Key {
	k.NetNS.Name, k.Device.Name = "", ""
	return k
}

// compareVerdicts orders the gravest first: by class, then the unknown ones,
// then by station and sentence so that the order is total.
func compareVerdicts(a, b Verdict) int {
	return cmp.Or(
		compareClasses(a.Class, b.Class),
		cmp.Compare(btoi(a.Known), btoi(b.Known)),
		cmp.Compare(stationIndex(a.Station), stationIndex(b.Station)),
		strings.Compare(a.Sentence, b.Sentence),
	)
}

// compareClasses orders the gravest first; expected is graver than benign.
func compareClasses(a, b record.Class) int {
	return cmp.Or(
		cmp.Compare(b.Severity(), a.Severity()),
		cmp.Compare(btoi(a == record.ClassBenign), btoi(b == record.ClassBenign)),
	)
}

func stationIndex(s record.Station) int { return slices.Index(record.Stations(), s) }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (k *Knowledge) classify(key record.Key, stack []record.Location, p *record.Packet) Verdict {
	return k.verdictOn(describe(&key, stack, p))
}

func (k *Knowledge) verdictOn(d drop) Verdict {
	first := len(k.rules)
	for _, site := range d.sites() {
		for _, i := range k.rulesOf[site] {
			if i >= first {
				break
			}
			if k.rules[i].holds(d) {
				first = i
			}
		}
	}
	if first < len(k.rules) {
		return verdict(k.rules[first].meaning)
	}
	if m, ok := k.reasons[d.reason]; ok {
		return verdict(m)
	}
	return unknown(d)
}

// describe reduces a drop to what conditions speak of.
func describe(key *record.Key, stack []record.Location, p *record.Packet) drop {
	return drop{
		reason: reasonName(key.Reason),
		symbol: baseSymbol(key.Location.Symbol),
		stack:  callers(stack),
		group:  multicast(p),
		otherL: otherL(key),
		trap:   key.Hardware(), trapGroup: key.Reason.Group,
	}
}

// otherL says whether it is neither IP nor ARP, as far as that is known.
func otherL(key *record.Key) bool {
	return key.EtherType != 0 && !slices.Contains(handled, key.EtherType)
}

func verdict(m meaning) Verdict {
	return Verdict{Class: m.Class, Station: m.Station, Sentence: m.Sentence, Known: true}
}

func unknown(d drop) Verdict {
	if d.trap {
		return d.hardware()
	}
	at := d.symbol
	if at == "" {
		at = "an address that has no symbol"
	}
	s := fmt.Sprintf("Not known: reason %s at %s is in no knowledge base yet; look at the stack and the flows.", d.reason, at)
	switch d.reason {
	case noReason:
		s = fmt.Sprintf("Not known: no reason was told, and nothing is known about drops at %s; look at the stack and the flows.", at)
	case notSpecified:
		s = fmt.Sprintf("Not known: the kernel gave no reason, and nothing is known about drops at %s; look at the stack and the flows.", at)
	}
	return Verdict{Class: record.ClassFault, Station: record.StationUnknown, Sentence: s}
}

// drop is what rules are matched against.
type drop struct {
	reason, symbol string
	stack          []string
	// group: the packet goes to a group or to everybody.
	group bool
	// otherL: neither IP nor ARP.
	otherL bool
	// trap: a device dropped it, which reason names, of trapGroup.
	trap      bool
	trapGroup string
}

// hardware is the verdict on a trap that is in no knowledge base: those of
// drivers have names of their own.
func (d drop) hardware() Verdict {
	s := fmt.Sprintf("A network card dropped the packet itself and told of it by the devlink trap %s", d.reason)
	if d.trapGroup != "" {
		s += fmt.Sprintf(" of the group %s", d.trapGroup)
	}
	return Verdict{
		Class: record.ClassFault, Station: record.StationNIC,
		Sentence: s + "; look at devlink trap show and at the driver's documentation.",
	}
}

// holds says whether all conditions are met.
func (c conditions) holds(d drop) bool {
	return c.holdsKey(d) && c.holdsSample(d)
}

// holdsKey says it of what the key of a drop tells.
func (c conditions) holdsKey(d drop) bool {
	return (c.Reasons[0] == anyReason || slices.Contains(c.Reasons, d.reason)) &&
		(len(c.Symbols) == 0 || matchesAny(c.Symbols, d.symbol)) &&
		(c.EtherType != otherEthertype || d.otherL)
}

// holdsSample says it of what only a sample tells.
func (c conditions) holdsSample(d drop) bool {
	if c.Destination == toMulticast && !d.group {
		return false
	}
	return len(c.Stack) == 0 || slices.ContainsFunc(d.stack, func(s string) bool {
		return matchesAny(c.Stack, s)
	})
}

func matchesAny(patterns []string, symbol string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if prefix, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(symbol, prefix)
		}
		return p == symbol
	})
}

// reasonName is the name that the knowledge base uses. mac80211's enumerators
// exist twice in BTF, once with leading underscores (net/mac80211/drop.h).
func reasonName(r record.Reason) string {
	if r.Name == "" {
		return noReason
	}
	return strings.TrimLeft(r.Name, "_")
}

// baseSymbol strips what compilers append to a function's name: .constprop.0,
// .isra.0, .part.0, .cold, .llvm.123. A C identifier has no dot.
func baseSymbol(s string) string {
	if i := strings.IndexByte(s, '.'); i > 0 {
		return s[:i]
	}
	return s
}

// softirqEntries begin the receive path on top of whatever was interrupted.
// The frames below them belong to another packet or to none: a datagram sent
// through veth has its sender's output path there.
var softirqEntries = []string{
	"net_rx_action", "__napi_poll", "napi_poll", "process_backlog",
	"handle_softirqs", "__do_softirq", "do_softirq", "do_softirq_own_stack",
}

// callers names the frames of the drop's own path.
func callers(stack []record.Location) []string {
	var out []string
	for _, f := range stack {
		s := baseSymbol(f.Symbol)
		if slices.Contains(softirqEntries, s) {
			break
		}
		out = append(out, s)
	}
	return out
}

// handled are the EtherTypes that every Linux host handles: IPv4, ARP, IPv6.
// These numbers are the wire's, not a kernel's.
var handled = []uint16{0x0800, 0x0806, 0x86dd}

// multicast says whether the packet goes to a group or to everybody, by its
// IP or its MAC destination.
func multicast(p *record.Packet) bool {
	if p == nil {
		return false
	}
	if p.Flow.IsValid() {
		a := p.Flow.Dst.Addr().Unmap()
		if a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return true
		}
	}
	first, _, _ := strings.Cut(p.DstMAC, ":")
	octet, err := strconv.ParseUint(first, 16, 8)
	return err == nil && octet&1 == 1
}
