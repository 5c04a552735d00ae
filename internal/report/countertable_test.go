package report_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// stationsWith are all stations, of which these have something.
func stationsWith(some ...record.StationCounters) []record.StationCounters {
	var out []record.StationCounters
	for _, s := range record.Stations() {
		c := record.StationCounters{Station: s}
		if i := slices.IndexFunc(some, func(c record.StationCounters) bool { return c.Station == s }); i >= 0 {
			c = some[i]
		}
		out = append(out, c)
	}
	return out
}

// counterReports are reports of a host that loses packets in several places.
func counterReports() (boot, interval, still record.CounterReport) {
	blue := record.NetNS{Inode: 4026532001, Name: "blue"}
	container := record.NetNS{Inode: 4026532002, Name: "docker/4f1d0c5a9b3e"}
	host := record.NetNS{Inode: 4026531833, Name: "host"}
	eth0 := record.Device{Index: 2, Name: "eth0"}
	stations := []record.StationCounters{
		{Station: record.StationRing, Lost: 12, Counters: []record.StationCounter{{
			Name: "link.rx_missed_errors", Kind: "loss", Unit: "packets", NetNS: host, Device: eth0, Before: 3, After: 12, Delta: 9, Rate: 9,
			Parts: []record.CounterPart{{Object: "queue rx-0", Before: 3, After: 11, Delta: 8, Rate: 8}, {Object: "queue rx-1", After: 1, Delta: 1, Rate: 1}},
		}}},
		{Station: record.StationXDP, Blind: true},
		{Station: record.StationTransport, LossEvents: 3, Counters: []record.StationCounter{
			{Name: "TcpExt.ListenOverflows", Kind: "loss", Unit: "events", NetNS: container, Before: 1, After: 3, Delta: 2, Rate: 2},
			{Name: "TcpExt.PruneCalled", Kind: "pressure", Unit: "events", NetNS: container, After: 70, Delta: 70, Rate: 70},
			{Name: "sockstat.TCP.mem", Kind: "pressure", Unit: "bytes", Level: true, NetNS: host, Before: 4096, After: 8192},
		}},
		{Station: record.StationSocket, Lost: 174, Counters: []record.StationCounter{
			{Name: "Udp.InErrors", Kind: "loss", Unit: "packets", NetNS: blue, Before: 0, After: 174, Delta: 174, Rate: 174},
			{Name: "Udp.RcvbufErrors", Kind: "loss", Unit: "packets", NetNS: blue, Before: 0, After: 174, Delta: 174, Rate: 174},
		}},
		{
			Station: record.StationSocketTX, Lost: 300, Shared: 300, AlsoAt: []record.Station{record.StationTransportTX, record.StationQdisc},
			Counters: []record.StationCounter{{Name: "Udp.SndbufErrors", Kind: "loss", Unit: "packets", NetNS: host, After: 300, Delta: 300, Rate: 300}},
		},
		{
			Station: record.StationTransportTX, Lost: 310, Shared: 300, AlsoAt: []record.Station{record.StationQdisc},
			Counters: []record.StationCounter{{Name: "Ip.OutDiscards", Kind: "loss", Unit: "packets", NetNS: host, After: 310, Delta: 310, Rate: 310}},
		},
		{Station: record.StationNeigh, Blind: true},
		{Station: record.StationQdisc, Lost: 123456789012, LossEvents: 1, Counters: []record.StationCounter{
			{Name: "qdisc.drops", Kind: "loss", Unit: "packets", NetNS: host, Device: eth0, After: 123456789012, Delta: 300, Rate: 300},
			{Name: "fq.flows_plimit", Kind: "loss", Unit: "packets", NetNS: host, Device: eth0, Object: "qdisc 10:", After: 300, Delta: 300, Rate: 300},
		}},
		{Station: record.StationTunnel, Lost: 4},
		{Station: record.StationRemote, Counters: []record.StationCounter{
			{Name: "Tcp.RetransSegs", Kind: "retransmission", Unit: "segments", NetNS: host, Before: 40, After: 57, Delta: 17, Rate: 17},
		}},
		{Station: record.StationUnknown, Counters: []record.StationCounter{
			{Name: "TcpExt.New\x1b[2JThing", Kind: record.KindUnknown, NetNS: host, After: 5, Delta: 5, Rate: 5},
		}},
	}
	stations[0].Counters = append(stations[0].Counters,
		record.StationCounter{
			Name: "softnet.dropped", Kind: "loss", Unit: "packets", After: 2, Delta: 1, Rate: 1,
			Parts: []record.CounterPart{{Object: "cpu 1", After: 2, Delta: 1, Rate: 1}},
		})
	boot = record.CounterReport{
		SinceBoot: true, Window: window(0), Stations: stationsWith(stations...), Hidden: 1204,
		Blind: []record.Blind{
			{What: "counters in network namespaces red, green", Why: "operation not permitted: it needs CAP_SYS_ADMIN", Fix: "run as root"},
		},
	}
	interval = boot
	interval.SinceBoot, interval.Window = false, window(time.Second)
	still = interval
	still.Stations = stationsWith()
	return boot, interval, still
}

func counters(t *testing.T, r record.CounterReport, v report.CounterView, s report.Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Counters(&b, r, v, s); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCounters(t *testing.T) {
	boot, interval, still := counterReports()
	both, list, alone := report.CounterView{Map: true, List: true}, report.CounterView{List: true}, report.CounterView{Map: true}
	for _, c := range []struct {
		name  string
		r     record.CounterReport
		view  report.CounterView
		style report.Style
	}{
		{"counters-boot", boot, both, report.Style{}},
		{"counters-quiet", boot, both, report.Style{Quiet: true}},
		{"counters-interval", interval, list, report.Style{}},
		{"counters-interval-color", interval, both, report.Style{Color: true}},
		{"counters-still", still, list, report.Style{}},
		{"counters-map", interval, alone, report.Style{}},
		{"counters-map-ascii", boot, alone, report.Style{ASCII: true}},
		{"counters-map-still", still, alone, report.Style{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := counters(t, c.r, c.view, c.style)
			golden(t, c.name, got)
			if !c.style.Color && strings.Contains(got, "\x1b") {
				t.Errorf("an escape:\n%q", got)
			}
			if c.style.ASCII && strings.ContainsFunc(got, func(r rune) bool { return r > 0x7e }) {
				t.Errorf("not plain:\n%s", got)
			}
		})
	}
	// What is the same in every interval is said once, at the end.
	var b bytes.Buffer
	if err := report.CounterInterval(&b, interval, list, report.Style{}); err != nil {
		t.Fatal(err)
	}
	if got := counters(t, interval, list, report.Style{}); !strings.HasPrefix(got, b.String()) || strings.Contains(b.String(), "not seen") {
		t.Errorf("an interval:\n%s", b.String())
	}
	b.Reset()
	if err := report.CounterInterval(&b, still, list, report.Style{}); err != nil || strings.Count(b.String(), "\n") != 1 {
		t.Errorf("an interval in which nothing moved: %v\n%s", err, b.String())
	}
	b.Reset()
	if err := report.CounterBooks(&b, interval, report.Style{}); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); !strings.HasPrefix(got, "\nnot seen   counters in network namespaces red, green: ") || strings.Contains(got, "hidden") {
		t.Errorf("at the end:\n%s", got)
	}
}

// The map fits on one screen, whatever the numbers.
func TestMapFits(t *testing.T) {
	for _, n := range []uint64{0, 1, 99_999_999, 100_000_000, 999_499_999, 999_500_000, math.MaxUint64} {
		for _, shared := range []uint64{0, n} {
			var all []record.StationCounters
			for i, s := range record.Stations() {
				all = append(all, record.StationCounters{Station: s, Lost: n, Shared: shared, LossEvents: n, Blind: i%2 == 0})
			}
			r := record.CounterReport{SinceBoot: true, Stations: all}
			for _, style := range []report.Style{{}, {ASCII: true}} {
				_, text, _ := strings.Cut(counters(t, r, report.CounterView{Map: true}, style), "\n\n")
				// With a blank line and the sentence above it that is a screen.
				lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
				if len(lines) > 20 {
					t.Errorf("%d lines:\n%s", len(lines), text)
				}
				for _, l := range lines {
					if w := utf8.RuneCountInString(l); w > 80 {
						t.Errorf("%d columns: %q", w, l)
					}
				}
			}
		}
	}
}

// All stations of both ways are on the map.
func TestMapIsWhole(t *testing.T) {
	var all []record.StationCounters
	for i, s := range record.Stations() {
		all = append(all, record.StationCounters{Station: s, Lost: uint64(1000 + i)})
	}
	text := counters(t, record.CounterReport{SinceBoot: true, Stations: all}, report.CounterView{Map: true}, report.Style{})
	_, text, _ = strings.Cut(text, "\n\n")
	for _, c := range all {
		if !strings.Contains(text, string(c.Station)+" ") || strings.Count(text, fmt.Sprint(c.Lost)) != 1 {
			t.Errorf("%s %d is not there:\n%s", c.Station, c.Lost, text)
		}
	}
}

// A station with very many counters, and one of very many parts, are cut short
// unless all is asked for.
func TestManyCounters(t *testing.T) {
	c := record.StationCounters{Station: record.StationSocket, Lost: 1}
	for range 40 {
		c.Counters = append(c.Counters, record.StationCounter{Name: "a.b", Kind: "loss", Unit: "packets", NetNS: record.NetNS{Inode: 1, Name: "host"}, After: 1})
	}
	for range 20 {
		c.Counters[0].Parts = append(c.Counters[0].Parts, record.CounterPart{Object: "cpu 1", After: 1})
	}
	r := record.CounterReport{SinceBoot: true, Stations: []record.StationCounters{c}}
	got := counters(t, r, report.CounterView{List: true}, report.Style{})
	if strings.Count(got, "a.b") != 25 || strings.Count(got, "cpu 1") != 8 ||
		!strings.Contains(got, "and 15 more (--all or -j lists them)") || !strings.Contains(got, "and 12 more parts") {
		t.Error(got)
	}
	got = counters(t, r, report.CounterView{List: true}, report.Style{All: true})
	if strings.Count(got, "a.b") != 40 || strings.Count(got, "cpu 1") != 20 || strings.Contains(got, "more") {
		t.Error(got)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestCountersWriteError(t *testing.T) {
	r, _, _ := counterReports()
	for _, err := range []error{
		report.Counters(failing{}, r, report.CounterView{}, report.Style{}),
		report.CounterInterval(failing{}, r, report.CounterView{}, report.Style{}),
		report.CounterBooks(failing{}, r, report.Style{}),
	} {
		if !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	}
}
