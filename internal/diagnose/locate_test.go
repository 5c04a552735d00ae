package diagnose

import (
	"encoding/json"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// summarised is o as the drop monitor would have seen it in summary mode.
func summarised(o record.Observation) record.Observation {
	at := map[record.Location]int{}
	counts := o.Counts
	o.Counts, o.Samples = nil, nil
	for _, c := range counts {
		i, ok := at[c.Location]
		if !ok {
			i = len(o.Counts)
			at[c.Location] = i
			o.Counts = append(o.Counts, record.Count{Key: record.Key{Location: c.Location, Direction: record.DirectionUnknown}})
		}
		o.Counts[i].Drops += c.Drops
	}
	o.Sources = []record.Source{{Name: sourceDropmon, State: record.SourceOK}, {Name: sourceCounters, State: record.SourceOK}}
	return o
}

// packeted is o as the drop monitor would have seen it in packet mode.
func packeted(o record.Observation) record.Observation {
	bare := func(k record.Key) record.Key {
		k.NetNS, k.Device, k.Direction = record.NetNS{}, record.Device{Index: k.Device.Index}, record.DirectionUnknown
		return k
	}
	at := map[record.Key]int{}
	counts, samples := o.Counts, o.Samples
	o.Counts, o.Samples = nil, nil
	for _, c := range counts {
		k := bare(c.Key)
		i, ok := at[k]
		if !ok {
			i = len(o.Counts)
			at[k] = i
			o.Counts = append(o.Counts, record.Count{Key: k})
		}
		o.Counts[i].Drops += c.Drops
		o.Counts[i].Bytes += c.Bytes
	}
	for _, s := range samples {
		s.Key, s.Socket, s.Stack, s.TrueSize = bare(s.Key), nil, nil, 0
		o.Samples = append(o.Samples, s)
	}
	o.Sources = []record.Source{{Name: sourceDropmon, State: record.SourceOK}, {Name: sourceCounters, State: record.SourceOK}}
	return o
}

// TestLessIsKnown takes from every recorded case all that the drop monitor does
// not tell: in summary mode everything but places, in packet mode devices,
// namespaces, sockets and stacks. What is found then may be less. It must not be
// wrong for certain, and must hide no loss.
func TestLessIsKnown(t *testing.T) {
	alone(t)
	k := builtIn(t)
	names, err := fs.Glob(knowledge.FS, "causes/*/cases/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for mode, less := range map[string]func(record.Observation) record.Observation{"summary": summarised, "packet": packeted} {
		t.Run(mode, func(t *testing.T) {
			found := 0
			for _, name := range names {
				text, err := fs.ReadFile(knowledge.FS, name)
				if err != nil {
					t.Fatal(err)
				}
				files, err := splitCase(text)
				if err != nil {
					t.Fatal(err)
				}
				var o record.Observation
				if err := json.Unmarshal([]byte(files[caseObservation]), &o); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if lessKnown(t, name, k, o, less(o)) {
					found++
				}
			}
			t.Logf("in %d of %d cases all causes are found", found, len(names))
			if found < len(names)*3/5 {
				t.Errorf("only in %d of %d cases all causes are found", found, len(names))
			}
		})
	}
}

// lessKnown says whether less leads to all causes that o leads to, and fails the
// test where it leads to others.
func lessKnown(t *testing.T, name string, k *Knowledge, o, less record.Observation) bool {
	t.Helper()
	causes := func(o record.Observation) (ids []string, d record.Diagnosis) {
		d = Run(&o, k, Options{All: true})
		d.Findings = everyFinding(d.Findings)
		for _, f := range d.Findings {
			ids = append(ids, f.Cause)
		}
		return ids, d
	}
	want, _ := causes(o)
	got, d := causes(less)
	for _, f := range d.Findings {
		switch {
		case slices.Contains(want, f.Cause), f.Cause == record.CauseNotKnown:
		case slices.ContainsFunc(want, func(id string) bool { return slices.Contains(special[f.Cause], id) }):
		case f.Confidence == record.ConfidenceCertain:
			t.Errorf("%s: %s for certain, want one of %v", name, f.Cause, want)
		case !f.Class.Shown():
			t.Errorf("%s: hidden as %s, want one of %v", name, f.Cause, want)
		}
	}
	return !slices.ContainsFunc(want, func(id string) bool { return id != record.CauseNotKnown && !slices.Contains(got, id) })
}

// counted is a counter that moved.
func counted(name string, ns record.NetNS, dev record.Device, delta uint64) record.Counter {
	return record.Counter{Name: name, NetNS: ns, Device: dev, After: delta, Delta: delta}
}

func TestLocate(t *testing.T) {
	k := builtIn(t)
	red, blue := record.NetNS{Inode: 7, Name: "red"}, record.NetNS{Inode: 8, Name: "blue"}
	eth0, eth1 := record.Device{Index: 2, Name: "eth0"}, record.Device{Index: 3, Name: "eth1"}
	rcvbuf, qdisc := record.Location{Symbol: "udp_queue_rcv_one_skb"}, record.Location{Symbol: "__dev_queue_xmit"}
	type at struct {
		ns, dev string
		drops   uint64
	}
	for name, c := range map[string]struct {
		location record.Location
		drops    uint64
		counters []record.Counter
		want     []at
	}{
		"one namespace": {rcvbuf, 9, []record.Counter{counted("Udp.RcvbufErrors", red, record.Device{}, 9)}, []at{{"red", "", 9}}},
		"two":           {rcvbuf, 9, []record.Counter{counted("Udp.RcvbufErrors", red, record.Device{}, 4), counted("Udp.RcvbufErrors", blue, record.Device{}, 5)}, []at{{"red", "", 4}, {"blue", "", 5}}},
		"a rest":        {rcvbuf, 9, []record.Counter{counted("Udp.RcvbufErrors", red, record.Device{}, 4)}, []at{{"red", "", 4}, {"", "", 5}}},
		"others too":    {rcvbuf, 9, []record.Counter{counted("Udp.InErrors", red, record.Device{}, 30)}, []at{{"red", "", 9}}},
		"ambiguous":     {rcvbuf, 9, []record.Counter{counted("Udp.RcvbufErrors", red, record.Device{}, 8), counted("Udp.RcvbufErrors", blue, record.Device{}, 8)}, []at{{"", "", 9}}},
		"none":          {rcvbuf, 9, []record.Counter{counted("Ip.InReceives", red, record.Device{}, 9)}, []at{{"", "", 9}}},
		"a device":      {qdisc, 9, []record.Counter{counted("qdisc.drops", red, eth0, 9), counted("Ip.OutDiscards", red, record.Device{}, 9)}, []at{{"red", "eth0", 9}}},
		"two devices":   {qdisc, 9, []record.Counter{counted("qdisc.drops", red, eth0, 6), counted("qdisc.drops", red, eth1, 3)}, []at{{"red", "eth0", 6}, {"red", "eth1", 3}}},
		"too many":      {qdisc, 9, []record.Counter{counted("qdisc.drops", red, eth0, 60), counted("qdisc.drops", red, eth1, 30)}, []at{{"red", "", 9}}},
		"of the host":   {rcvbuf, 9, []record.Counter{counted("Udp.RcvbufErrors", record.NetNS{}, record.Device{}, 9)}, []at{{"", "", 9}}},
	} {
		o := summarised(record.Observation{
			Window: record.Window{Duration: time.Second}, Counters: c.counters,
			Counts: []record.Count{{Key: record.Key{Location: c.location}, Drops: c.drops}},
		})
		m := newMatcher(&o, k)
		var got []at
		for _, n := range m.counts {
			got = append(got, at{n.NetNS.Name, n.Device.Name, n.Drops})
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		d := Run(&o, k, Options{All: true})
		if a := d.Accounting; a.DropsExplained+a.DropsUnexplained != c.drops {
			t.Errorf("%s: %d explained and %d not, of %d", name, a.DropsExplained, a.DropsUnexplained, c.drops)
		}
	}
}

// TestPlacedFindingSaysSo: where a place is a conclusion, that is evidence too.
func TestPlacedFindingSaysSo(t *testing.T) {
	k := builtIn(t)
	red := record.NetNS{Inode: 7, Name: "red"}
	o := summarised(record.Observation{
		Window:   record.Window{Duration: time.Second},
		Counts:   []record.Count{{Key: record.Key{Location: record.Location{Symbol: "udp_queue_rcv_one_skb"}}, Drops: 9}},
		Counters: []record.Counter{counted("Udp.RcvbufErrors", red, record.Device{}, 9)},
	})
	d := Run(&o, k, Options{})
	if len(d.Findings) != 1 || d.Findings[0].Cause != "udp-rcvbuf" || !slices.Equal(d.Findings[0].NetNS, []string{"red"}) {
		t.Fatalf("findings %+v", d.Findings)
	}
	var said, dropwatch bool
	for _, e := range d.Findings[0].Evidence {
		said = said || e.Value == "red" && strings.Contains(e.Says, "drop monitor")
		dropwatch = dropwatch || e.Source == "NET_DM" && strings.HasPrefix(e.Command, "dropwatch")
	}
	if !said || !dropwatch {
		t.Errorf("evidence %+v", d.Findings[0].Evidence)
	}
	// eBPF tells the place itself: what has none there stays without.
	o.Sources[0].Name = "skbdrop"
	if d := Run(&o, k, Options{}); slices.ContainsFunc(d.Findings, func(f record.Finding) bool { return f.Cause == "udp-rcvbuf" }) {
		t.Errorf("placed although the source tells places: %+v", d.Findings)
	}
}

// TestHardware: a drop by a device is at the NIC, by the name of its trap.
func TestHardware(t *testing.T) {
	k := builtIn(t)
	trap := func(name, group string) record.Count {
		return record.Count{Key: record.Key{Reason: record.Reason{Name: name, Subsystem: record.SubsystemDevlink, Group: group}}, Drops: 3}
	}
	o := record.Observation{
		Window:  record.Window{Duration: time.Second},
		Counts:  []record.Count{trap("vendor_special", "vendor_drops")},
		Sources: []record.Source{{Name: sourceDropmon, State: record.SourceOK}},
	}
	d := Run(&o, k, Options{})
	if len(d.Findings) != 1 {
		t.Fatalf("findings %+v", d.Findings)
	}
	f := d.Findings[0]
	if f.Station != record.StationNIC || !slices.Equal(f.Reasons, []string{"vendor_special"}) || !slices.Equal(f.Locations, []string{"hardware"}) ||
		!strings.Contains(f.Title, "vendor_special") || !strings.Contains(f.Title, "vendor_drops") || f.Evidence[0].Source != "devlink trap" {
		t.Errorf("finding %+v", f)
	}
	// What hardware only handed over is no loss by itself.
	o.Counts = []record.Count{trap("ttl_value_is_too_small", "l3_exceptions"), trap("tail_drop", "buffer_drops")}
	d = Run(&o, k, Options{})
	if len(d.Findings) != 1 || d.Findings[0].Class != record.ClassCapacity || d.Accounting.DropsHiddenExpected != 3 {
		t.Errorf("findings %+v, accounting %+v", d.Findings, d.Accounting)
	}
}
