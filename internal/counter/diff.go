package counter

import (
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// key is what a counter of two snapshots is joined by.
type key struct {
	name   string
	device uint32
	object string
	id     uint64
}

func (v *Value) key() key {
	if v.ID != 0 {
		return key{name: v.Name, device: v.Device.Index, id: v.ID}
	}
	return key{name: v.Name, device: v.Device.Index, object: v.Object}
}

// earlier finds the values of a first read for those of a second. Nearly always
// the two have the same counters in the same order; the map is made when they
// do not.
type earlier struct {
	values []Value
	next   int // behind the last one found
	at     map[key]int
	// there are those that were found as what they are now; how many.
	there []bool
	hits  int
}

func (e *earlier) find(k key) (i int, ok bool) {
	if e.next == len(e.values) || e.values[e.next].key() != k {
		if e.at == nil {
			e.at = make(map[key]int, len(e.values))
			for i := range e.values {
				e.at[e.values[i].key()] = i
			}
		}
		i, ok := e.at[k]
		if !ok {
			return 0, false
		}
		e.next = i
	}
	e.next++
	return e.next - 1, true
}

// take is find for a counter that is still the same.
func (e *earlier) take(k key) (v uint64, ok bool) {
	i, ok := e.find(k)
	if !ok {
		return 0, false
	}
	if !e.there[i] {
		e.there[i] = true
		e.hits++
	}
	return e.values[i].Value, true
}

// Diff is AppendDiff for what no device has come to from elsewhere: the
// counters of the whole host, for one.
func Diff(before, after Snapshot, ns record.NetNS) []record.Counter {
	return AppendDiff(nil, before, after, ns, &Moves{})
}

// AppendDiff adds what the counters of after did since before to counters, in
// the order of after. Both must be of the namespace ns, which is the zero value
// for those of the whole host. A counter that is in before alone is left out:
// its device is gone, or its source could not be read.
//
// Where before does not have a counter it began at 0 if the kernel made it
// since: with a new device, with a part that has an ID, or because it shows the
// counter only once it is not 0. Otherwise nothing is known of the time before,
// and Before is After: so it is with a device that, by moves, may have been in
// another namespace, but for what the kernel makes anew there.
//
// A total of which a part came, went or went back grew by what its parts did;
// Before is then what those had that are still there.
//
// Delta is 0 where a counter went back: a driver or a qdisc was set up anew, or
// a counter of 32 bits (softnet, qdisc, nf_conntrack, rt_cache) overflowed. It is
// Reset then; and so is a total that has such a part, or of which one is gone
// that was not 0, unless that is a socket. For a level Delta is 0, too.
func AppendDiff(counters []record.Counter, before, after Snapshot, ns record.NetNS, moves *Moves) []record.Counter {
	d := newDiff(&before, &after, moves)
	counters = slices.Grow(counters, len(after.Values))
	begin := len(counters)
	for i := range after.Values {
		v := &after.Values[i]
		c := record.Counter{
			Name: v.Name, NetNS: ns, Device: v.Device, Object: v.Object, Level: v.Level, After: v.Value,
			Source: v.Source, Command: v.Command,
		}
		var same bool
		c.Before, same = d.begin(v)
		if !c.Level {
			c.Delta, c.Reset = max(c.After, c.Before)-c.Before, c.After < c.Before
		}
		if !c.Level && (c.Reset || !same && c.Object != "" && !before.Time.IsZero()) {
			s := d.disturb(v)
			s.unknown = s.unknown || !same && c.Before == c.After && c.After > 0
		}
		counters = append(counters, c)
	}
	d.totals(counters[begin:])
	return counters
}

// diff compares two snapshots.
type diff struct {
	before, after *Snapshot
	moves         *Moves
	old           earlier
	devices       map[uint32]deviceState
	// last is the device that was asked for last: its counters come together.
	last      uint32
	lastState deviceState
	// disturbed are the counters with a part that came, went or went back.
	disturbed map[group]*shares
	// queues are the qdiscs of after by their device, once that is asked.
	queues map[uint32][]qdiscPlace
}

// deviceState is what became of a device between two snapshots.
type deviceState uint8

const (
	deviceStayed  deviceState = iota
	deviceMade                // it did not exist before
	deviceArrived             // it may have existed elsewhere
	deviceUnknown             // it was not looked for before
)

func newDiff(before, after *Snapshot, moves *Moves) *diff {
	d := &diff{before: before, after: after, moves: moves, devices: map[uint32]deviceState{0: deviceStayed}}
	d.old = earlier{values: before.Values, there: make([]bool, len(before.Values))}
	for i := range before.Values {
		d.devices[before.Values[i].Device.Index] = deviceStayed
	}
	for _, now := range after.links {
		if was, ok := before.device(now.index); ok && !was.same(now) {
			d.devices[now.index] = d.arrived()
		}
	}
	return d
}

func (d *diff) arrived() deviceState {
	d.moves.came++
	return deviceArrived
}

// state is what became of a device.
func (d *diff) state(index uint32) deviceState {
	if index != d.last {
		d.last, d.lastState = index, d.lookUp(index)
	}
	return d.lastState
}

func (d *diff) lookUp(index uint32) deviceState {
	s, known := d.devices[index]
	if known {
		return s
	}
	now, ok := d.after.device(index)
	if !ok {
		now = identity{index: index}
	}
	switch {
	case !d.before.whole(linkSource): // without the list of devices none can be called new
		s = deviceUnknown
	case d.moves.mayHave(now):
		s = d.arrived()
	default:
		s = deviceMade
	}
	d.devices[index] = s
	return s
}

// begin is the value that a counter had before, or began with; same says that
// it was there before.
func (d *diff) begin(v *Value) (before uint64, same bool) {
	state := d.state(v.Device.Index)
	if state != deviceArrived {
		if value, ok := d.old.take(v.key()); ok {
			return value, true
		}
	}
	switch {
	case state == deviceMade:
		return 0, false
	case hiddenAtZero(v.Name) && d.before.whole(v.Source):
		return 0, false
	case v.ID != 0 && d.before.whole(v.Source):
		k := v.key()
		k.name = otherUse(v.Name)
		if i, ok := d.old.find(k); ok && state == deviceStayed {
			return min(v.Value, d.old.values[i].Value), false
		}
		return 0, false
	case isSocket(v) && d.before.sawSockets(v, &d.old):
		return 0, false
	}
	return v.Value, false
}

// hiddenAtZero says whether a counter is there only once it is not 0: the
// kernel shows the numbers of ICMP messages by type so (net/ipv4/proc.c,
// icmpmsg_put; net/ipv6/proc.c, snmp6_seq_show_icmpv6msg), and of what is many
// for each device the zeros are left out.
func hiddenAtZero(name string) bool {
	return strings.HasPrefix(name, "IcmpMsg.") ||
		strings.HasPrefix(name, "Icmp6.InType") || strings.HasPrefix(name, "Icmp6.OutType") ||
		strings.HasPrefix(name, "dev_snmp6.") || strings.HasPrefix(name, "interrupts.")
}
