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
}

func (v *Value) key() key { return key{v.Name, v.Device.Index, v.Object} }

// earlier finds the values of a first read for those of a second. Nearly always
// the two have the same counters in the same order; the map is made when they
// do not.
type earlier struct {
	values []Value
	next   int // behind the last one found
	at     map[key]int
}

func (e *earlier) find(k key) (v uint64, ok bool) {
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
	v = e.values[e.next].Value
	e.next++
	return v, true
}

// Diff is what the counters of after did since before, in the order of after.
// Both must be of the namespace ns, which is the zero value for those of the
// whole host. A counter that is in before alone is left out: its device is
// gone, or its source could not be read.
//
// Where before does not have a counter it began at 0 if the kernel made it
// since: with a new device, or because it shows the counter only once it is
// not 0. Otherwise nothing is known of the time before, and Before is After.
//
// The total of a kind of sockets (udp.drops) begins with what those lost that
// are still there: a socket takes its number along when it is closed.
//
// Delta is 0 where a counter went back: a driver or a qdisc was set up anew,
// or a counter of 32 bits (softnet, qdisc, nf_conntrack, rt_cache) overflowed;
// and for a level.
func Diff(before, after Snapshot, ns record.NetNS) []record.Counter {
	return AppendDiff(nil, before, after, ns)
}

// AppendDiff adds what Diff gives to counters.
func AppendDiff(counters []record.Counter, before, after Snapshot, ns record.NetNS) []record.Counter {
	old := earlier{values: before.Values}
	known := make(map[uint32]bool)
	for i := range before.Values {
		known[before.Values[i].Device.Index] = true
	}
	// Without the list of devices none can be called new.
	devicesKnown := before.whole(linkSource)
	closed := closedSockets(before, after)
	counters = slices.Grow(counters, len(after.Values))
	for i := range after.Values {
		v := &after.Values[i]
		c := record.Counter{
			Name: v.Name, NetNS: ns, Device: v.Device, Object: v.Object, Level: v.Level, After: v.Value,
			Source: v.Source, Command: v.Command,
		}
		value, ok := old.find(v.key())
		switch {
		case ok:
			c.Before = value
			if v.Object == "" {
				c.Before -= min(value, closed[v.Name])
			}
		case v.Device.Index != 0 && devicesKnown && !known[v.Device.Index]:
		case hiddenAtZero(v.Name) && before.whole(v.Source):
		case isSocket(v) && before.sawSockets(v, &old):
		default:
			c.Before = v.Value
		}
		if c.After > c.Before && !c.Level {
			c.Delta = c.After - c.Before
		}
		counters = append(counters, c)
	}
	return counters
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
