package report_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// TestCounterVerdict: what was not read is not said to be none, and what was
// reset may be more.
func TestCounterVerdict(t *testing.T) {
	blind := func() []record.StationCounters {
		all := stationsWith()
		for i := range all {
			all[i].Blind = true
		}
		return all
	}
	reset := record.StationCounter{Name: "qdisc.drops", Kind: "loss", Unit: "packets", NetNS: record.NetNS{Inode: 1, Name: "host"}, Before: 9, After: 4, Reset: true}
	least := reset
	least.Before, least.Delta, least.Rate = 1, 3, 3
	activity := reset
	activity.Name, activity.Kind = "qdisc.packets", "activity"
	qdisc := func(lost uint64, cs ...record.StationCounter) []record.StationCounters {
		return stationsWith(record.StationCounters{Station: record.StationQdisc, Lost: lost, Counters: cs})
	}
	for _, c := range []struct {
		name string
		r    record.CounterReport
		want string
	}{
		{"nothing moved", record.CounterReport{Stations: stationsWith()}, "packets lost in 1 s: none by the counters that were read."},
		{"nothing read", record.CounterReport{Stations: blind()}, "packets lost in 1 s: not known, for nothing could be read."},
		{
			"gone",
			record.CounterReport{Stations: blind(), Unread: []string{"network namespace a", "device b"}},
			"packets lost in 1 s: not known, for nothing could be read of network namespace a, device b.",
		},
		{
			"one of two",
			record.CounterReport{Stations: stationsWith(), Unread: []string{"network namespace \x1b[2J"}},
			`packets lost in 1 s: none by the counters that were read; nothing could be read of network namespace \x1b[2J.`,
		},
		{"of devices", record.CounterReport{Stations: stationsWith(), Interfaces: []string{"a", "b"}}, "packets lost on a, b in 1 s: none by the counters that were read."},
		{
			"reset",
			record.CounterReport{Stations: qdisc(0, reset, activity)},
			"packets lost in 1 s: none by the counters that were read; one counter of loss was reset meanwhile, and may have more.",
		},
		{
			"reset and grown",
			record.CounterReport{Stations: qdisc(3, least, reset)},
			"packets lost in 1 s: qdisc 3; 2 counters of loss were reset meanwhile, and may have more.",
		},
	} {
		c.r.Window = window(time.Second)
		got := counters(t, c.r, report.CounterView{}, report.Style{Width: 400})
		if _, got, _ = strings.Cut(strings.TrimSuffix(got, "\n"), " "); got != c.want { // behind the time
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	r := record.CounterReport{Window: window(time.Second), Stations: qdisc(3, least, reset)}
	text := strings.Join(strings.Fields(counters(t, r, report.CounterView{List: true}, report.Style{Width: 400})), " ")
	for _, want := range []string{"+3 3/s 4 qdisc.drops [reset meanwhile, may have more]", "? 4 qdisc.drops [reset meanwhile, may have more]"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
}

// TestUnknownStation: a counter of which only the station is not known is not
// listed as one of which nothing is.
func TestUnknownStation(t *testing.T) {
	log := record.StationCounter{Name: "kmsg.overwritten", Kind: "pressure", Unit: "events", After: 1, Delta: 1}
	other := record.StationCounter{Name: "New.Thing", Kind: record.KindUnknown, After: 2, Delta: 2}
	for _, c := range []struct {
		name     string
		counters []record.StationCounter
		want     string
	}{
		{"both", []record.StationCounter{log, other}, "\nunknown\n  +1  0/s  1  kmsg.overwritten  whole host  [pressure, events]\n\nunknown  not in the catalogue of counters: nothing is known about them\n  +2  0/s  2  New.Thing         whole host\n"},
		{"known", []record.StationCounter{log}, "\nunknown\n  +1  0/s  1  kmsg.overwritten  whole host  [pressure, events]\n"},
		{"unknown", []record.StationCounter{other}, "\nunknown  not in the catalogue of counters: nothing is known about them\n  +2  0/s  2  New.Thing  whole host\n"},
	} {
		r := record.CounterReport{Window: window(time.Second), Stations: stationsWith(record.StationCounters{Station: record.StationUnknown, Counters: c.counters})}
		if _, got, _ := strings.Cut(counters(t, r, report.CounterView{List: true}, report.Style{}), "\n"); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// TestManyDevices: what every device has, and is no loss, leaves room for the
// rest.
func TestManyDevices(t *testing.T) {
	nic := record.StationCounters{Station: record.StationNIC}
	for i := range 4000 {
		nic.Counters = append(nic.Counters, record.StationCounter{
			Name: "link.carrier_changes", Kind: "pressure", Unit: "events", After: 1, Device: record.Device{Index: uint32(i + 1), Name: fmt.Sprint("a", i)},
		})
	}
	nic.Counters = append(nic.Counters, record.StationCounter{Name: "link.carrier_down_count", Kind: "pressure", Unit: "events", After: 1})
	r := record.CounterReport{SinceBoot: true, Stations: stationsWith(nic)}
	got := counters(t, r, report.CounterView{List: true}, report.Style{})
	if n := strings.Count(got, "link.carrier_changes"); n != 3 || !strings.Contains(got, "link.carrier_down_count") || !strings.Contains(got, "and 3997 more") {
		t.Error(got)
	}
	if got := counters(t, r, report.CounterView{List: true}, report.Style{All: true}); strings.Count(got, "link.carrier_changes") != 4000 {
		t.Error("not all, with all")
	}
}

// TestMapAlone: who asks for nothing but the map gets it, quiet or not.
func TestMapAlone(t *testing.T) {
	r, _, _ := counterReports()
	got := counters(t, r, report.CounterView{Map: true}, report.Style{Quiet: true})
	if !strings.Contains(got, "to the program") || strings.Contains(got, "not seen") {
		t.Error(got)
	}
	r.Interfaces = []string{"eth0"}
	if got := counters(t, r, report.CounterView{Map: true}, report.Style{}); !strings.Contains(got, "?    no counter of a loss at this station is of what -i asks for") {
		t.Error(got)
	}
}
