package diagnose_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// stationCatalogue is a small one: name, station, unit, kind, overlaps.
func stationCatalogue(t *testing.T, entries ...[5]string) *diagnose.Knowledge {
	t.Helper()
	var b strings.Builder
	b.WriteString("counters:\n")
	for _, e := range entries {
		fmt.Fprintf(&b, "  %s:\n    station: %s\n    direction: rx\n    unit: %s\n    kind: %s\n    sentence: Something.\n    kernel: net/x.c (x); 6.18\n    overlaps: [%s]\n",
			e[0], e[1], e[2], e[3], e[4])
	}
	k, err := diagnose.LoadCounters(fstest.MapFS{"counters/a.yaml": {Data: []byte(b.String())}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func stationUDP(t *testing.T) *diagnose.Knowledge {
	return stationCatalogue(t,
		[5]string{"Udp.InErrors", "socket", "packets", "loss", "Udp.RcvbufErrors, Udp.InCsumErrors"},
		[5]string{"Udp.RcvbufErrors", "socket", "packets", "loss", "Udp.InErrors"},
		[5]string{"Udp.InCsumErrors", "socket", "packets", "loss", "Udp.InErrors"},
		[5]string{"Udp.InDatagrams", "socket", "packets", "activity", ""},
		[5]string{"Udp.Mem", "socket", "bytes", "pressure", ""},
		[5]string{"Udp.SndbufErrors", "socket-tx", "packets", "loss", "Ip.OutDiscards, qdisc.drops"},
		[5]string{"Ip.OutDiscards", "transport-tx", "packets", "loss", "Udp.SndbufErrors, qdisc.drops"},
		[5]string{"qdisc.drops", "qdisc", "packets", "loss", "Udp.SndbufErrors, Ip.OutDiscards"},
		[5]string{"link.rx_dropped", "backlog", "packets", "loss", "softnet.dropped, link.tx_dropped"},
		[5]string{"link.tx_dropped", "driver-tx", "packets", "loss", "link.rx_dropped"},
		[5]string{"softnet.dropped", "backlog", "packets", "loss", "link.rx_dropped"},
		[5]string{"Tcp.RetransSegs", "remote", "segments", "retransmission", ""},
		[5]string{"Tcp.Overflows", "transport", "events", "loss", ""},
	)
}

var (
	blue = record.NetNS{Inode: 7, Name: "blue"}
	eth0 = record.Device{Index: 2, Name: "eth0"}
	eth1 = record.Device{Index: 3, Name: "eth1"}
)

func counted(name string, ns record.NetNS, dev record.Device, object string, before, delta uint64) record.Counter {
	return record.Counter{Name: name, NetNS: ns, Device: dev, Object: object, Before: before, After: before + delta, Delta: delta}
}

// atStation is what CountersByStation says of a station.
func atStation(stations []record.StationCounters, s record.Station) record.StationCounters {
	return stations[slices.IndexFunc(stations, func(c record.StationCounters) bool { return c.Station == s })]
}

// namesAt are the counters that are shown, with their parts.
func namesAt(stations []record.StationCounters) (list []string) {
	for _, s := range stations {
		for _, c := range s.Counters {
			list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s %d", s.Station, c.Name, c.Object, c.Delta)))
			for _, p := range c.Parts {
				list = append(list, fmt.Sprintf("%s %s > %s %d", s.Station, c.Name, p.Object, p.Delta))
			}
		}
	}
	return list
}

// chosen are devices that counters are of.
func chosen(t *testing.T, cs []record.Counter, names ...string) *diagnose.Devices {
	t.Helper()
	d := diagnose.NewDevices(names)
	if missing := d.Find(cs); missing != nil {
		t.Fatalf("no %v", missing)
	}
	return d
}

var second = diagnose.CounterOptions{Interval: time.Second}

// Every station is there, in the order of the way, however little is known.
func TestAllStations(t *testing.T) {
	stations, hidden := diagnose.CountersByStation(nil, stationUDP(t), diagnose.CounterOptions{})
	var order []record.Station
	for _, s := range stations {
		order = append(order, s.Station)
		beside := slices.Contains([]record.Station{"remote", "app", "unknown"}, s.Station)
		if s.Blind == beside || s.Lost != 0 || s.Counters == nil || s.AlsoAt == nil {
			t.Errorf("%+v", s)
		}
	}
	if !slices.Equal(order, record.Stations()) || hidden != 0 {
		t.Errorf("%v, %d hidden", order, hidden)
	}
}

// Of counters that count the same packet only one is added up: RcvbufErrors and
// InCsumErrors are both in InErrors, but not in one another.
func TestLossIsNotCountedTwice(t *testing.T) {
	k := stationUDP(t)
	for _, c := range []struct {
		in, rcvbuf, csum, want uint64
	}{
		{180, 174, 6, 180},
		{0, 174, 6, 180}, // a kernel that does not add them up
		{174, 174, 0, 174},
		{math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 - 2, math.MaxUint64},
		{0, math.MaxUint64 - 1, math.MaxUint64 - 2, math.MaxUint64},
	} {
		cs := []record.Counter{
			counted("Udp.InErrors", blue, record.Device{}, "", 0, c.in),
			counted("Udp.RcvbufErrors", blue, record.Device{}, "", 0, c.rcvbuf),
			counted("Udp.InCsumErrors", blue, record.Device{}, "", 0, c.csum),
		}
		stations, _ := diagnose.CountersByStation(cs, k, second)
		if got := atStation(stations, "socket"); got.Lost != c.want || got.Blind {
			t.Errorf("%+v: lost %d", c, got.Lost)
		}
	}
	// The same counters in two namespaces are of different packets.
	cs := []record.Counter{
		counted("Udp.InErrors", blue, record.Device{}, "", 0, 10),
		counted("Udp.RcvbufErrors", record.NetNS{Inode: 8}, record.Device{}, "", 0, 5),
	}
	stations, _ := diagnose.CountersByStation(cs, k, second)
	if got := atStation(stations, "socket").Lost; got != 15 {
		t.Errorf("two namespaces: lost %d", got)
	}
}

// A counter of the host and those of devices may count the same packets; those
// of two devices do not.
func TestScopesOfLoss(t *testing.T) {
	cs := []record.Counter{
		counted("softnet.dropped", record.NetNS{}, record.Device{}, "", 0, 9),
		counted("link.rx_dropped", blue, eth0, "", 0, 5),
		counted("link.rx_dropped", blue, eth1, "", 0, 3),
	}
	lost := func(cs []record.Counter) uint64 {
		stations, _ := diagnose.CountersByStation(cs, stationUDP(t), second)
		return atStation(stations, "backlog").Lost
	}
	if got := lost(cs); got != 9 {
		t.Errorf("the host and two devices: %d", got)
	}
	if got := lost(cs[1:]); got != 8 {
		t.Errorf("two devices: %d", got)
	}
	cs[0].Delta = 1
	if got := lost(cs); got != 8 {
		t.Errorf("two devices, and less of the host: %d", got)
	}
}

// A loss that is reported upwards is in the counters of several stations: each
// says so but the one that lies furthest along.
func TestChainOfEqualDeltas(t *testing.T) {
	cs := []record.Counter{
		counted("Udp.SndbufErrors", blue, record.Device{}, "", 1, 300),
		counted("Ip.OutDiscards", blue, record.Device{}, "", 2, 300),
		counted("qdisc.drops", blue, eth0, "", 3, 250),
		counted("qdisc.drops", record.NetNS{Inode: 8}, eth0, "", 3, 999),
		// The way in is another way.
		counted("link.rx_dropped", blue, eth0, "", 0, 4), counted("link.tx_dropped", blue, eth0, "", 0, 4),
	}
	stations, _ := diagnose.CountersByStation(cs, stationUDP(t), second)
	type shares struct {
		Lost, Shared uint64
		AlsoAt       []record.Station
	}
	for s, want := range map[record.Station]shares{
		"socket-tx":    {300, 300, []record.Station{"transport-tx", "qdisc"}},
		"transport-tx": {300, 250, []record.Station{"qdisc"}},
		"qdisc":        {1249, 0, []record.Station{}},
		"backlog":      {4, 0, []record.Station{}},
		"driver-tx":    {4, 0, []record.Station{}},
	} {
		got := atStation(stations, s)
		if d := cmp.Diff(want, shares{got.Lost, got.Shared, got.AlsoAt}); d != "" {
			t.Errorf("%s: %s", s, d)
		}
	}
}

func TestWhatIsShown(t *testing.T) {
	level := counted("Udp.Mem", blue, record.Device{}, "", 30, 0)
	level.Level = true
	grown := level
	grown.NetNS.Inode, grown.After = 9, 20 // it fell
	unknownLevel := counted("New.InUse", blue, record.Device{}, "", 5, 0)
	unknownLevel.Level = true
	cs := []record.Counter{
		counted("Udp.InErrors", blue, record.Device{}, "", 5, 0),
		counted("Udp.RcvbufErrors", blue, record.Device{}, "", 0, 0),
		counted("Udp.InDatagrams", blue, record.Device{}, "", 100, 50),
		counted("Tcp.Overflows", blue, record.Device{}, "", 0, 2),
		counted("Tcp.RetransSegs", blue, record.Device{}, "", 1, 3),
		counted("New.Thing", blue, record.Device{}, "", 0, 1),
		counted("New.Old", blue, record.Device{}, "", 4, 0),
		counted("qdisc.drops", blue, eth0, "", 1, 7),
		counted("qdisc.drops", blue, eth0, "class 1:1", 0, 0),
		counted("qdisc.drops", blue, eth0, "class 1:3", 1, 2),
		counted("qdisc.drops", blue, eth0, "class 1:2", 0, 5),
		counted("link.tx_dropped", blue, eth1, "queue tx-1", 0, 1),
		counted("link.tx_dropped", blue, eth1, "queue tx-0", 9, 0),
		level, grown, unknownLevel,
	}
	for _, c := range []struct {
		name   string
		opt    diagnose.CounterOptions
		want   []string
		hidden int
	}{
		{"interval", second, []string{
			"transport Tcp.Overflows  2", "socket Udp.Mem  0",
			"qdisc qdisc.drops  7", "qdisc qdisc.drops > class 1:2 5", "qdisc qdisc.drops > class 1:3 2",
			"driver-tx link.tx_dropped queue tx-1 1", "remote Tcp.RetransSegs  3", "unknown New.Thing  1",
		}, 8},
		{"since boot", diagnose.CounterOptions{}, []string{
			"transport Tcp.Overflows  2", "socket Udp.InErrors  0", "socket Udp.Mem  0", "socket Udp.Mem  0",
			"qdisc qdisc.drops  7", "qdisc qdisc.drops > class 1:2 5", "qdisc qdisc.drops > class 1:3 2",
			"driver-tx link.tx_dropped queue tx-1 1", "driver-tx link.tx_dropped queue tx-0 0",
			"remote Tcp.RetransSegs  3", "unknown New.Thing  1", "unknown New.Old  0",
		}, 4},
		{"of a device", diagnose.CounterOptions{Interval: time.Second, Devices: chosen(t, cs, "eth1")}, []string{
			"driver-tx link.tx_dropped queue tx-1 1",
		}, 15},
	} {
		stations, hidden := diagnose.CountersByStation(cs, stationUDP(t), c.opt)
		if d := cmp.Diff(c.want, namesAt(stations)); d != "" || hidden != c.hidden {
			t.Errorf("%s: %d hidden, want %d\n%s", c.name, hidden, c.hidden, d)
		}
	}
	stations, hidden := diagnose.CountersByStation(cs, stationUDP(t), diagnose.CounterOptions{Interval: 2 * time.Second, All: true})
	if got := namesAt(stations); len(got) != len(cs) || hidden != 0 {
		t.Errorf("%d of %d shown with all, %d hidden", len(got), len(cs), hidden)
	}
	q := atStation(stations, "qdisc")
	if c := q.Counters[0]; c.Rate != 3.5 || c.Parts[0].Rate != 2.5 || c.Kind != "loss" || q.Lost != 7 {
		t.Errorf("rates, and the parts not added: %+v", q)
	}
	if tr := atStation(stations, "transport"); tr.Lost != 0 || tr.LossEvents != 2 {
		t.Errorf("events are no packets: %+v", tr)
	}
	if d := atStation(stations, "driver-tx"); d.Lost != 1 {
		t.Errorf("parts without a total are the loss: %+v", d)
	}
	if s := atStation(stations, "socket").Counters; !s[len(s)-1].Level || s[0].Kind != "loss" {
		t.Errorf("losses first, levels last: %+v", s)
	}
	// A part that moved brings along a total that did not: it has 32 bits.
	cs = []record.Counter{counted("qdisc.drops", blue, eth0, "", 0, 0), counted("qdisc.drops", blue, eth0, "class 1:1", 0, 1)}
	stations, _ = diagnose.CountersByStation(cs, stationUDP(t), second)
	if d := cmp.Diff([]string{"qdisc qdisc.drops  0", "qdisc qdisc.drops > class 1:1 1"}, namesAt(stations)); d != "" {
		t.Error(d)
	}
}

func TestSinceBoot(t *testing.T) {
	level := counted("Udp.RcvbufErrors", blue, eth1, "", 5, 0)
	level.Level = true
	cs := []record.Counter{
		counted("Udp.InErrors", blue, record.Device{}, "", 5, 0), counted("Udp.RcvbufErrors", blue, record.Device{}, "", 0, 0),
		counted("Udp.InCsumErrors", blue, record.Device{}, "", 5, 1), counted("Udp.InDatagrams", blue, record.Device{}, "", 100, 0),
		counted("qdisc.drops", blue, eth0, "", 7, 0), counted("qdisc.drops", blue, eth0, "class 1:1", 7, 0),
		counted("link.tx_dropped", blue, eth1, "queue tx-1", 3, 0), counted("New.Thing", blue, record.Device{}, "", 9, 0), level,
	}
	var got []string
	for _, c := range diagnose.SinceBoot(cs, stationUDP(t)) {
		got = append(got, strings.TrimSpace(fmt.Sprint(c.Station, " ", c.Name, " ", c.After, " ", c.Object)))
	}
	want := []string{"qdisc qdisc.drops 7", "socket Udp.InErrors 5", "driver-tx link.tx_dropped 3 queue tx-1"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Each counter of the built-in catalogue finds its station, and counters that
// overlap everywhere do not make a loss of more than the greatest.
func TestBuiltInCatalogue(t *testing.T) {
	k, err := diagnose.LoadCounters(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	m, ok := k.Counter("Udp.RcvbufErrors")
	if !ok || m.Station != record.StationSocket {
		t.Fatalf("%+v", m)
	}
	cs := []record.Counter{
		counted("Udp.RcvbufErrors", blue, record.Device{}, "", 0, 174),
		counted("Udp.InErrors", blue, record.Device{}, "", 0, 174),
	}
	stations, _ := diagnose.CountersByStation(cs, k, second)
	if s := atStation(stations, "socket"); s.Lost != 174 || len(s.Counters) != 2 {
		t.Errorf("%+v", s)
	}
	// A driver's string names what it overlaps, and is not named by it.
	eth0 := record.Device{Index: 2, Name: "eth0"}
	for _, driver := range []uint64{120, 130} {
		cs = []record.Counter{
			counted("link.rx_missed_errors", blue, eth0, "", 0, 125),
			counted("ethtool.rx_missed_errors", blue, eth0, "", 0, driver),
		}
		stations, _ = diagnose.CountersByStation(cs, k, second)
		if s := atStation(stations, "ring"); s.Lost != max(125, driver) {
			t.Errorf("driver %d: lost %d", driver, s.Lost)
		}
	}
}

func BenchmarkCountersByStation(b *testing.B) {
	k, err := diagnose.LoadCounters(knowledge.FS)
	if err != nil {
		b.Fatal(err)
	}
	var cs []record.Counter
	for i := range 2000 { // interfaces
		dev := record.Device{Index: uint32(i + 1), Name: fmt.Sprint("eth", i)}
		for _, name := range []string{"link.rx_dropped", "link.tx_dropped", "link.rx_errors", "link.rx_packets", "qdisc.drops"} {
			cs = append(cs, counted(name, blue, dev, "", uint64(i), uint64(i%3)))
		}
	}
	for i := range 100_000 {
		cs = append(cs, counted("udp_socket.drops", blue, record.Device{}, fmt.Sprint("socket ", i), 0, uint64(i%50/49)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if stations, _ := diagnose.CountersByStation(cs, k, second); len(stations) == 0 {
			b.Fatal("nothing")
		}
	}
}

// A device stays chosen under another name, and one that is gone is missing.
func TestDevices(t *testing.T) {
	of := func(ns uint32, index uint32, name string) record.Counter {
		return counted("link.rx_dropped", record.NetNS{Inode: ns}, record.Device{Index: index, Name: name}, "", 0, 1)
	}
	shown := func(d *diagnose.Devices, cs []record.Counter) string {
		stations, _ := diagnose.CountersByStation(cs, stationUDP(t), diagnose.CounterOptions{Interval: time.Second, Devices: d})
		var names []string
		for _, c := range atStation(stations, "backlog").Counters {
			names = append(names, fmt.Sprint(c.NetNS.Inode, ":", c.Device.Name))
		}
		return strings.Join(names, " ")
	}
	d := diagnose.NewDevices([]string{"eth0", "eth1"})
	for _, c := range []struct {
		name    string
		cs      []record.Counter
		missing []string
		shown   string
	}{
		{"first", []record.Counter{of(7, 2, "eth0"), of(7, 3, "eth2"), of(8, 2, "eth2")}, []string{"eth1"}, "7:eth0"},
		{"another name", []record.Counter{of(7, 2, "new"), of(7, 3, "eth2"), of(8, 2, "eth2")}, []string{"eth1"}, "7:new"},
		{"others with these names", []record.Counter{of(7, 2, "new"), of(7, 3, "eth0"), of(8, 2, "eth1")}, nil, "7:eth0 7:new 8:eth1"},
		{"gone", []record.Counter{of(7, 4, "eth2"), counted("Udp.InErrors", blue, record.Device{}, "", 0, 1)}, []string{"eth0", "eth1"}, ""},
	} {
		if got := d.Find(c.cs); !slices.Equal(got, c.missing) {
			t.Errorf("%s: missing %v", c.name, got)
		}
		if got := shown(d, c.cs); got != c.shown {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

// A station whose counters are of other devices was not looked at.
func TestStationsOfOtherDevices(t *testing.T) {
	cs := []record.Counter{
		counted("link.rx_dropped", blue, eth0, "", 0, 0), counted("qdisc.drops", blue, eth1, "", 0, 5), counted("Udp.InErrors", blue, record.Device{}, "", 0, 5),
	}
	opt := diagnose.CounterOptions{Devices: chosen(t, cs, "eth0")}
	stations, _ := diagnose.CountersByStation(cs, stationUDP(t), opt)
	for s, blind := range map[record.Station]bool{"backlog": false, "qdisc": true, "socket": true} {
		if got := atStation(stations, s); got.Blind != blind || got.Lost != 0 {
			t.Errorf("%+v", got)
		}
	}
}

// What a counter grew by that was reset is known at least: it is shown, it is
// none of those that did not move, and it is said.
func TestReset(t *testing.T) {
	k := stationUDP(t)
	reset := func(c record.Counter) record.Counter {
		c.Reset = true
		return c
	}
	back := reset(record.Counter{Name: "qdisc.drops", NetNS: blue, Device: eth0, Before: 9000, After: 4000})
	cs := []record.Counter{
		back, counted("qdisc.drops", blue, eth0, "class 1:1", 0, 2000), counted("qdisc.drops", blue, eth0, "class 1:2", 0, 1500),
		reset(counted("Udp.InErrors", blue, record.Device{}, "", 4, 0)), reset(counted("Udp.RcvbufErrors", blue, record.Device{}, "", 4, 3)),
		reset(counted("Udp.InDatagrams", blue, record.Device{}, "", 4, 0)), reset(counted("New.Thing", blue, record.Device{}, "", 4, 0)),
		counted("Udp.InCsumErrors", blue, record.Device{}, "", 4, 0),
	}
	stations, _ := diagnose.CountersByStation(cs, k, second)
	want := []string{
		"socket Udp.RcvbufErrors  3", "socket Udp.InErrors  0",
		"qdisc qdisc.drops  0", "qdisc qdisc.drops > class 1:1 2000", "qdisc qdisc.drops > class 1:2 1500",
	}
	if d := cmp.Diff(want, namesAt(stations)); d != "" {
		t.Error(d)
	}
	if q := atStation(stations, "qdisc"); q.Lost != 2000 || !q.Counters[0].Reset {
		t.Errorf("at least what a part of it is: %+v", q)
	}
	if got := diagnose.SinceBoot(cs, k); len(got) != 1 || got[0].Name != "Udp.InCsumErrors" {
		t.Errorf("did not move: %+v", got)
	}
	blind := diagnose.WentBack(cs, k)
	if len(blind) != 1 || !strings.Contains(blind[0].What, "(3: qdisc.drops, Udp.InErrors, Udp.RcvbufErrors)") {
		t.Errorf("%+v", blind)
	}
	if got := diagnose.WentBack(cs[7:], k); got != nil {
		t.Errorf("%+v", got)
	}
	o := record.Observation{Counters: cs, Blind: []record.Blind{{What: "x", Why: "y"}}}
	d := diagnose.Run(&o, k, diagnose.Options{})
	if len(d.Blind) != 2 || d.Blind[1] != blind[0] || len(o.Blind) != 1 {
		t.Errorf("a diagnosis: %+v", d.Blind)
	}
	// The parts are the loss that is known of a total which went back.
	var entries []string
	for _, e := range d.Ledger.Entries {
		if e.Counter == "qdisc.drops" {
			entries = append(entries, fmt.Sprint(e.Object, " ", e.Delta))
		}
	}
	if d := cmp.Diff([]string{"class 1:1 2000", "class 1:2 1500"}, entries); d != "" {
		t.Error(d)
	}
}

// An entry whose name ends in N is for every number.
func TestNumberedCounters(t *testing.T) {
	k, err := diagnose.LoadCounters(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]record.Station{
		"IcmpMsg.InType3": "transport", "IcmpMsg.OutType255": "transport-tx", "Icmp6.InType135": "transport", "Icmp6.OutType133": "transport-tx",
		"dev_snmp6.Icmp6InType1": "transport", "dev_snmp6.Icmp6OutType143": "transport-tx",
	} {
		if m, ok := k.Counter(name); !ok || m.Station != want || m.Kind != "activity" {
			t.Errorf("%s: %+v", name, m)
		}
	}
	for _, name := range []string{"IcmpMsg.InType", "IcmpMsg.InTypes3", "Icmp6.InMsgs3", "3", ""} {
		if m, ok := k.Counter(name); ok {
			t.Errorf("%s: %+v", name, m)
		}
	}
}
