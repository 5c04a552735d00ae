package diagnose

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// maxListed bounds the flows and owners of a finding: what comes from
// packets has no bound of its own.
const maxListed = 5

// groupKey is what a finding is made by.
type groupKey struct {
	reason, subsystem, symbol string
	Verdict
}

// group collects the counts and samples of one finding.
type group struct {
	key       groupKey
	reason    record.Reason
	space     record.NetNS // of the first count
	counts    []int        // their places in matcher.counts
	drops     uint64
	direction record.Direction
	locations map[codePlace]uint64
	devices   map[deviceIn]uint64
	inodes    tally
	stacks    tally
	flows     map[record.Flow]uint64
	samples   uint64
	dropped   []*record.Drop // the samples
}

// codePlace is where in the kernel, or that it was in hardware.
type codePlace struct {
	location record.Location
	hardware bool
}

func (p codePlace) String() string {
	if p.hardware {
		return hardwarePlace
	}
	return p.location.String()
}

// deviceIn is a device with its namespace.
type deviceIn struct {
	device record.Device
	netns  record.NetNS
}

func newGroup() *group {
	return &group{
		locations: map[codePlace]uint64{}, devices: map[deviceIn]uint64{}, inodes: tally{}, stacks: tally{},
		flows: map[record.Flow]uint64{},
	}
}

// groups sorts what no cause took into findings-to-be, the greatest first.
func (m *matcher) groups() []*group {
	// Nearly all drops of a kind that were not sampled are in one.
	type bareKey struct {
		*kind
		*Verdict
	}
	bare, byKey := map[bareKey]*group{}, map[groupKey]*group{}
	var out []*group
	for _, p := range m.portions {
		if p.left == 0 {
			continue
		}
		c := &m.counts[p.count]
		at := bareKey{m.kinds[p.count], m.gravest(p)}
		var g *group
		if len(p.samples) == 0 {
			g = bare[at]
		}
		if g == nil {
			key := groupKeyOf(c, *at.Verdict)
			if g = byKey[key]; g == nil {
				g = newGroup()
				g.key, g.reason, g.space = key, c.Reason, c.NetNS
				byKey[key] = g
				out = append(out, g)
			}
			if len(p.samples) == 0 {
				bare[at] = g
			}
		}
		g.counts = append(g.counts, p.count)
		g.add(c, p.left)
		for _, d := range p.samples {
			g.addSample(d)
		}
	}
	slices.SortFunc(out, compareGroups)
	return out
}

func groupKeyOf(c *record.Count, v Verdict) groupKey {
	key := groupKey{
		reason: c.Reason.Name, subsystem: c.Reason.Subsystem,
		symbol: symbolOrAddress(c.Location), Verdict: v,
	}
	if c.Hardware() {
		key.symbol = hardwarePlace
	}
	return key
}

// deviceNames are the names that any part of an observation gives to a
// device: its first counts may come before its name is known. A device with
// two names has none here. Namespaces are not named this way: the kernel
// gives the inode of one that is gone to the next.
type deviceNames map[nameKey]string

type nameKey struct{ netns, index uint32 }

func learnNames(o *record.Observation) deviceNames {
	n := deviceNames{}
	for i := range o.Counts {
		// The next one is mostly of the same device.
		if k := &o.Counts[i].Key; i == 0 || k.Device != o.Counts[i-1].Device || k.NetNS.Inode != o.Counts[i-1].NetNS.Inode {
			n.learn(k)
		}
	}
	for i := range o.Samples {
		n.learn(&o.Samples[i].Key)
	}
	return n
}

func (n deviceNames) learn(k *record.Key) {
	d := nameKey{k.NetNS.Inode, k.Device.Index}
	switch old, ok := n[d]; {
	case k.Device.Name == "":
	case ok && old != k.Device.Name:
		n[d] = ""
	default:
		n[d] = k.Device.Name
	}
}

// fill gives k the device name that it lacks, and says whether it did.
func (n deviceNames) fill(k *record.Key) bool {
	if k.Device.Name == "" {
		k.Device.Name = n[nameKey{k.NetNS.Inode, k.Device.Index}]
		return k.Device.Name != ""
	}
	return false
}

// hardwarePlace is the place of drops that are in no code of the kernel.
const hardwarePlace = "hardware"

func symbolOrAddress(l record.Location) string {
	if s := baseSymbol(l.Symbol); s != "" {
		return s
	}
	return l.String()
}

// compareGroups orders the greatest first; the rest makes the order total.
func compareGroups(a, b *group) int {
	return cmp.Or(
		cmp.Compare(b.drops, a.drops),
		compareVerdicts(a.key.Verdict, b.key.Verdict),
		strings.Compare(a.key.reason, b.key.reason),
		strings.Compare(a.key.subsystem, b.key.subsystem),
		strings.Compare(a.key.symbol, b.key.symbol),
	)
}

// add takes drops of a count.
func (g *group) add(c *record.Count, drops uint64) {
	g.drops += drops
	g.direction = mergeDirections(g.direction, c.Direction)
	g.locations[codePlace{c.Location, c.Hardware()}] += drops
	g.devices[deviceIn{c.Device, c.NetNS}] += drops
}

// where fills in where the drops were.
func (g *group) where(f *record.Finding) {
	f.Locations = labelled(g.locations, codePlace.String).ranked()
	f.Devices = labelled(g.devices, func(d deviceIn) string { return deviceLabel(d.device, d.netns) }).ranked()
	f.NetNS = labelled(g.devices, func(d deviceIn) string { return netnsLabel(d.netns) }).ranked()
}

func (g *group) addSample(d *record.Drop) {
	g.samples++
	g.dropped = append(g.dropped, d)
	if d.Packet != nil && d.Packet.Flow.IsValid() {
		g.flows[d.Packet.Flow]++
	}
	// An inode of 0 is a socket without a file, which no process owns.
	if d.Socket != nil && d.Socket.Inode != 0 {
		g.inodes.add(strconv.FormatUint(d.Socket.Inode, 10), 1)
	}
	if path := callers(d.Stack); len(path) > 0 {
		g.stacks.add(strings.Join(path, " ← "), 1)
	}
}

// mergeDirections keeps a direction that all hints agree on; a is empty at
// first.
func mergeDirections(a, b record.Direction) record.Direction {
	if b == "" {
		b = record.DirectionUnknown
	}
	if a == "" || a == b {
		return b
	}
	return record.DirectionUnknown
}

// deviceLabel names a device, with its namespace where that is not the
// host's; an index without a name is unique only there.
func deviceLabel(d record.Device, ns record.NetNS) string {
	label := d.Name
	if label == "" {
		if d.Index == 0 {
			return ""
		}
		label = fmt.Sprintf("#%d", d.Index)
	}
	if n := netnsLabel(ns); n != "" && n != hostNetNS {
		label += " (netns " + n + ")"
	}
	return label
}

// hostNetNS is the name that record gives to the namespace of PID 1.
const hostNetNS = "host"

// netnsLabel names a namespace as /proc/PID/ns/net does where it has no name;
// it is empty where the packet did not tell.
func netnsLabel(ns record.NetNS) string {
	switch {
	case ns.Name != "":
		return ns.Name
	case ns.Inode != 0:
		return fmt.Sprintf("net:[%d]", ns.Inode)
	}
	return ""
}

// notKnown is the finding of drops that no cause explains.
func (g *group) notKnown(w record.Window, monitored bool) record.Finding {
	f := record.Finding{
		Cause:      record.CauseNotKnown,
		Class:      g.key.Class,
		Station:    g.key.Station,
		Direction:  g.direction,
		Title:      g.key.Sentence,
		Drops:      g.drops,
		LostBy:     "drops",
		Confidence: record.ConfidencePossible,
		Reasons:    []string{},
		Owners:     []string{},
		Flows:      g.topFlows(),
		Evidence:   []record.Evidence{dropEvidence(g.reason, g.key.symbol, g.drops, monitored)},
		Remedy:     []record.Remedy{},
		Verify:     []string{},
		Unchecked:  []string{},
		Next:       []string{},
	}
	g.where(&f)
	if g.key.reason != "" {
		f.Reasons = append(f.Reasons, g.key.reason)
	}
	if s := w.Duration.Seconds(); s > 0 {
		f.Rate = float64(g.drops) / s
	}
	if stacks := g.stacks.ranked(); len(stacks) > 0 {
		f.Evidence = append(f.Evidence, record.Evidence{
			Kind: "drop", Name: "stack", Value: stacks[0], Source: "skb:kfree_skb", Supports: true,
		})
	}
	return f
}

// dropEvidence quotes an exact count and a command of another program that
// counts the same. monitored says that the drop monitor saw them.
func dropEvidence(r record.Reason, symbol string, drops uint64, monitored bool) record.Evidence {
	if r.Subsystem == record.SubsystemDevlink {
		return record.Evidence{
			Kind: "drop", Name: r.Name, Value: strconv.FormatUint(drops, 10),
			Source: "devlink trap", Command: "devlink -s trap show", Supports: true,
		}
	}
	name, filter := symbol, ""
	if r.Name != "" {
		name = r.Name + "@" + name
		if r.Value != 0 {
			filter = fmt.Sprintf("/args->reason == %d/ ", r.Value)
		}
	}
	if monitored {
		return record.Evidence{
			Kind: "drop", Name: name, Value: strconv.FormatUint(drops, 10),
			Source: "NET_DM", Command: "dropwatch -l kas   # then: start", Supports: true,
		}
	}
	return record.Evidence{
		Kind:     "drop",
		Name:     name,
		Value:    strconv.FormatUint(drops, 10),
		Source:   "skb:kfree_skb",
		Command:  "bpftrace -e 'tracepoint:skb:kfree_skb " + filter + "{ @[ksym(args->location)] = count(); }'",
		Supports: true,
	}
}

func (g *group) topFlows() []record.FlowShare {
	out := make([]record.FlowShare, 0, len(g.flows))
	for f, n := range g.flows {
		out = append(out, record.FlowShare{Flow: f, Samples: n, Of: g.samples})
	}
	slices.SortFunc(out, func(a, b record.FlowShare) int {
		return cmp.Or(cmp.Compare(b.Samples, a.Samples), compareFlows(a.Flow, b.Flow))
	})
	return out[:min(len(out), maxListed)]
}

func compareFlows(a, b record.Flow) int {
	return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst))
}

// tally counts labels.
type tally map[string]uint64

// add counts n for label; what has no label is not counted.
func (t tally) add(label string, n uint64) {
	if label != "" {
		t[label] += n
	}
}

// labelled counts what is counted in counts by its label.
func labelled[K comparable](counts map[K]uint64, label func(K) string) tally {
	t := tally{}
	for k, n := range counts {
		t.add(label(k), n)
	}
	return t
}

// ranked returns the labels, the most frequent first. It is never nil.
func (t tally) ranked() []string {
	out := make([]string, 0, len(t))
	for l := range t {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(t[b], t[a]), strings.Compare(a, b))
	})
	return out
}
