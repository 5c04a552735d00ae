package diagnose_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// changes prints what became of each finding.
func changes(c record.Comparison) string {
	var out []string
	for _, f := range c.Changes {
		out = append(out, fmt.Sprintf("%s:%s:%+.2f", f.Finding.Cause, f.Outcome, f.Change))
	}
	return strings.Join(out, " ")
}

// full is an observation of a socket that lost drops of received datagrams.
func full(drops, received uint64, more ...record.Counter) *record.Observation {
	counts := []record.Count{}
	if drops > 0 {
		counts = append(counts, count("A", "f", drops))
		counts[0].IPProto = 17
	}
	o := watched(counts, append(more, moves("T.a", drops), moves("Udp.InErrors", drops), moves("Udp.InDatagrams", received-drops))...)
	o.Sources = []record.Source{{Name: "skbdrop", State: record.SourceOK}}
	if drops > 0 {
		sampled(o, 1, nil)
	}
	return o
}

func TestCompare(t *testing.T) {
	k := engine(t, cause("one", byReason+counterA), strings.Replace(cause("two", "drops: [{reasons: [B]}]\n"), "class: fault", "class: capacity", 1))
	twos := func(drops, received uint64) *record.Observation {
		o := full(0, received)
		if drops > 0 {
			o.Counts = []record.Count{count("B", "f", drops)}
			o.Counts[0].NetNS = space
			sampled(o, 1, nil)
		}
		return o
	}
	unwatched := full(0, 10_000)
	unwatched.Sources = []record.Source{{Name: "skbdrop", State: record.SourceFailed}, {Name: "counters", State: record.SourceOK}}
	elsewhere := full(0, 10_000)
	for i := range elsewhere.Counters {
		elsewhere.Counters[i].NetNS = record.NetNS{Inode: 1, Name: "other"}
	}
	nothing := full(0, 10_000)
	nothing.Counters = nothing.Counters[:1]
	unplaced := func(n uint64) *record.Observation {
		o := full(0, 9000)
		o.Accounting.MapFull = n
		return o
	}
	alerts := full(0, 9000)
	alerts.Accounting.AlertsLost = 1
	fewer := full(100, 10_000)
	fewer.Counters = fewer.Counters[:1]
	longer := full(200, 20_000)
	longer.Window.Duration *= 2
	for _, c := range []struct {
		name          string
		before, after *record.Observation
		want, why     string
	}{
		{"gone", full(100, 10_000), full(0, 9000), "one:gone:-1.00", "none of 9000 packets (Udp.InDatagrams + Udp.InErrors + Udp.NoPorts of netns lab) was lost; at the former share 90 would have been"},
		{"no traffic", full(100, 10_000), full(0, 0), "one:not-known:+0.00", "no traffic: Udp.InDatagrams"},
		{"little traffic", full(100, 10_000), full(0, 300), "one:not-known:+0.00", "only 3 would have been lost"},
		{"half of the loss", full(1000, 10_000), full(500, 10_000), "one:less:-0.50", "lost 10 %"},
		{"half of the traffic", full(1000, 10_000), full(500, 5000), "one:same:+0.00", ""},
		{"the same share in twice the time", full(100, 10_000), longer, "one:same:+0.00", ""},
		{"chance", full(10, 10_000), full(15, 10_000), "one:same:+0.50", "chance"},
		{"less loss, even less traffic", full(1000, 10_000), full(500, 1000), "one:worse:+4.00", "50 % now"},
		{"worse", full(100, 10_000), full(300, 10_000), "one:worse:+2.00", ""},
		{"new", full(0, 10_000), full(300, 10_000), "one:new:+0.00", ""},
		{"nothing before, nothing now", full(0, 10_000), full(0, 10_000), "", ""},
		{"another cause", full(100, 10_000), twos(100, 10_000), "one:gone:-1.00 two:new:+0.00", ""},
		{"drops not watched", full(100, 10_000), unwatched, "one:not-known:+0.00", "drops were not watched"},
		{"the namespace is gone", full(100, 10_000), elsewhere, "one:not-known:+0.00", "nothing was read of lab"},
		{"no counter of traffic", full(100, 10_000), nothing, "one:not-known:+0.00", "whether traffic flowed"},
		{"a queue under load", twos(100, 10_000), twos(0, 9000), "two:gone:-1.00", "none of 9000"},
		{"a queue under less load", twos(100, 10_000), twos(0, 7000), "two:gone:-1.00", "only 70 %"},
		{"drops without a place", full(1000, 10_000), unplaced(10), "one:not-known:+0.00", "where 10 drops of the second time were"},
		{"less of it, and no counter of traffic", full(1000, 10_000), fewer, "one:not-known:+0.00", "whether as much traffic flowed"},
		{"a few of them", full(1000, 10_000), unplaced(9), "one:gone:-1.00", "none of 9000"},
		{"alerts lost", full(1000, 10_000), alerts, "one:not-known:+0.00", "1 alerts of the drop monitor"},
		{"a queue with little load that lost little", twos(1000, 10_000), twos(1, 1000), "two:not-known:+0.00", "10 %"},
		{"a queue without load", twos(100, 10_000), twos(0, 4000), "two:not-known:+0.00", "40 %"},
	} {
		got := diagnose.Compare(c.before, c.after, k)
		if s := changes(got); s != c.want {
			t.Errorf("%s: %s, want %s", c.name, s, c.want)
		}
		if c.why != "" && (len(got.Changes) == 0 || !strings.Contains(got.Changes[0].Why, c.why)) {
			t.Errorf("%s: why is %+v, want %q", c.name, got.Changes, c.why)
		}
		if len(got.Notes) > 0 != (c.after == unwatched) {
			t.Errorf("%s: notes %q", c.name, got.Notes)
		}
	}
}

// Symptoms are compared one by one, and devices with themselves.
func TestCompareEach(t *testing.T) {
	k := engine(t,
		strings.Replace(cause("ring", "per: device\nscope: host\nlost: counter(\"l.missed\")\n"), "station: transport", "station: ring", 1),
		cause("socket", "drops: [{reasons: [A]}]\ndepends_on: [ring]\n"))
	with := func(one, two, socket uint64) *record.Observation {
		o := full(socket, 10_000)
		for i, n := range []uint64{one, two} {
			dev := record.Device{Index: uint32(i + 1), Name: fmt.Sprint("eth", i+1)}
			o.Counters = append(o.Counters, counted("l.missed", space, dev, "", 0, n), counted("link.rx_packets", space, dev, "", 0, 1000))
		}
		return o
	}
	got := diagnose.Compare(with(100, 50, 500), with(0, 50, 0), k)
	if s := changes(got); s != "socket:gone:-1.00 ring:gone:-1.00 ring:same:+0.00" {
		t.Error(s)
	}
	if tr := got.Changes[1].Traffic; tr != "link.rx_packets of eth1 (netns lab)" {
		t.Errorf("traffic is %q", tr)
	}
	if c := got.Changes[1]; c.Before != (record.LossShare{Lost: 100, Traffic: 1100, Share: 100.0 / 1100}) {
		t.Errorf("before: %+v", c.Before)
	}
}

// What a device or a protocol counted before it was lost is not counted twice.
func TestCompareTraffic(t *testing.T) {
	eth := record.Device{Index: 1, Name: "eth1"}
	for _, c := range []struct {
		station, direction, protocol, counter string
		want                                  uint64
	}{
		{"ring", "rx", "", "link.rx_packets", 1100},
		{"xdp", "rx", "", "link.rx_packets", 1100},
		{"tc-ingress", "rx", "", "link.rx_packets", 1000},
		{"bridge", "rx", "", "link.rx_packets", 1000},
		{"netfilter", "rx", "", "link.rx_packets", 1000},
		{"socket", "rx", "", "link.rx_packets", 1000},
		{"socket", "rx", "", "Ip.InReceives", 1000},
		{"ip", "fwd", "", "Ip.ForwDatagrams", 1100},
		{"qdisc", "tx", "", "qdisc.packets", 1100},
		{"driver-tx", "tx", "", "link.tx_packets", 1100},
		{"routing-tx", "tx", "", "Ip.OutRequests", 1100},
		{"netfilter-tx", "tx", "", "Ip.OutRequests", 1000},
		{"neigh", "tx", "", "Ip.OutRequests", 1000},
		{"routing-tx", "tx", "Udp.x", "Udp.OutDatagrams", 1100},
		{"netfilter-tx", "tx", "Udp.x", "Udp.OutDatagrams", 1100},
		{"neigh", "tx", "Udp.x", "Udp.OutDatagrams", 1000},
		{"transport-tx", "tx", "Tcp.x", "Tcp.OutSegs", 1100},
		{"routing-tx", "tx", "Tcp.x", "Tcp.OutSegs", 1000},
	} {
		evidence := ""
		if c.protocol != "" {
			evidence = "evidence: [{counter: " + c.protocol + ", expect: equal, role: confirms}]\n"
		}
		text := strings.NewReplacer("station: transport", "station: "+c.station, "direction: rx", "direction: "+c.direction).Replace(
			cause("one", "drops: [{reasons: [A]}]\n"+evidence))
		with := func(lost uint64) *record.Observation {
			o := watched([]record.Count{}, counted(c.counter, space, eth, "", 0, 1000))
			if !strings.HasPrefix(c.counter, "link") && !strings.HasPrefix(c.counter, "qdisc") {
				o.Counters[0].Device = record.Device{}
			}
			if c.protocol != "" {
				o.Counters = append(o.Counters, moves(c.protocol, lost))
			}
			if lost > 0 {
				o.Counts = append(o.Counts, count("A", "f", lost))
				o.Counts[0].Device, o.Counts[0].NetNS = eth, space
				sampled(o, 1, nil)
			}
			return o
		}
		got := diagnose.Compare(with(100), with(100), engine(t, text))
		if len(got.Changes) != 1 || got.Changes[0].Before.Traffic != c.want {
			t.Errorf("%+v: %+v", c, got.Changes)
		}
	}
}

// A loss that nothing explains is the same by its reason and function.
func TestCompareNotKnown(t *testing.T) {
	k := engine(t)
	a, b := full(100, 10_000), full(100, 10_000)
	b.Counts[0].Location.Offset += 8
	if s := changes(diagnose.Compare(a, b, k)); s != "not-known:same:+0.00" {
		t.Error(s)
	}
	b.Counts[0].Location.Symbol = "g"
	b.Samples = nil
	if s := changes(diagnose.Compare(a, b, k)); s != "not-known:gone:-1.00 not-known:new:+0.00" {
		t.Error(s)
	}
}

func TestCompareNotes(t *testing.T) {
	k := engine(t)
	at := func(host, boot, release string, start time.Time, source record.SourceState) *record.Observation {
		return &record.Observation{
			Host: record.Host{Hostname: host, BootID: boot}, Kernel: record.Kernel{Release: release},
			Window:  record.Window{Start: start, End: start.Add(time.Second), Duration: time.Second},
			Sources: []record.Source{{Name: "skbdrop", State: source}},
		}
	}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	first := at("a", "1", "6.18", noon, record.SourceOK)
	for _, c := range []struct {
		second *record.Observation
		want   string
	}{
		{at("a", "1", "6.18", noon.Add(time.Minute), record.SourceOK), ""},
		{at("b", "2", "6.18", noon.Add(time.Minute), record.SourceOK), "the first is of host a, the second of b"},
		{at("a", "2", "6.18", noon.Add(time.Minute), record.SourceOK), "the host was started anew between the two"},
		{at("a", "1", "7.2", noon.Add(time.Minute), record.SourceOK), "the kernel was 6.18, now it is 7.2"},
		{at("a", "1", "6.18", noon, record.SourceOK), "the second was not observed after the first"},
		{at("a", "1", "6.18", noon.Add(time.Minute), record.SourceFailed), "skbdrop worked in the first alone"},
	} {
		if got := strings.Join(diagnose.Compare(first, c.second, k).Notes, "|"); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
