package report_test

import (
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// booked is a diagnosis with a ledger.
func booked(entries ...record.LedgerEntry) record.Diagnosis {
	d := lossy()
	d.Ledger = record.Ledger{
		Stations: []record.StationLoss{
			{Station: record.StationSocket, Explained: 174},
			{Station: record.StationNetfilterTX},
			{Station: record.StationQdisc, Explained: 200, Unexplained: 100},
			{Station: record.StationNICTX, Unexplained: 1},
			{Station: record.StationTunnel, Explained: 2},
			{Station: record.StationUnknown, Unexplained: 3},
		},
		Entries: entries,
	}
	return d
}

func entry(name string, delta, drops uint64, r record.Relation, closed bool) record.LedgerEntry {
	return record.LedgerEntry{
		Counter: name, Station: record.StationSocket, NetNS: record.NetNS{Inode: 7, Name: "blue"},
		Delta: delta, Drops: drops, Relation: r, Closed: closed,
	}
}

func TestLedger(t *testing.T) {
	closed := booked(entry("Udp.RcvbufErrors", 174, 174, record.RelationEqual, true), entry("Udp.InErrors", 174, 0, record.RelationNoDrops, true))
	// A counter that the ledger explains is not left over for "moved too".
	closed.Counters = []record.Counter{
		{Name: "Udp.InErrors", NetNS: record.NetNS{Inode: 7, Name: "blue"}, After: 174, Delta: 174},
		{Name: "TcpExt.PruneCalled", NetNS: record.NetNS{Inode: 7, Name: "blue"}, After: 1, Delta: 1},
		{Name: "TcpExt.PruneCalled", NetNS: record.NetNS{Inode: 7, Name: "blue"}, Object: "cpu 1", After: 1, Delta: 1},
	}
	closed.Ledger.Entries[0].Chain, closed.Ledger.Entries[1].Chain = 1, 1
	for i := range 6 {
		e := entry("c.d", 9, 9, record.RelationEqual, true)
		e.Chain = 2 + i/2
		closed.Ledger.Entries = append(closed.Ledger.Entries, e)
	}
	greater := entry("qdisc.drops", 300, 200, record.RelationGreater, false)
	greater.Device, greater.Object, greater.Why = record.Device{Index: 2, Name: "eth0"}, "class 1:10", "a GSO packet counts once for each of its segments"
	open := booked(
		greater,
		entry("Udp.RcvbufErrors", 174, 174, record.RelationEqual, true),
		entry("Ip.InDiscards", 2, 5, record.RelationLess, false),
		entry("link.rx_missed_errors", 7, 0, record.RelationNoDrops, false),
		entry("Udp.NoPorts", 1, 1, record.RelationEqual, false),
		entry("a.b", 1, 0, record.RelationNoDrops, false),
		entry("a.c", 1, 0, record.RelationNoDrops, false),
		entry("a.d", 1, 0, record.RelationNoDrops, false),
	)
	open.Counters = []record.Counter{{Name: "a.e", Object: "queue rx-0", Delta: 1}, {Name: "a.b", NetNS: record.NetNS{Inode: 7, Name: "blue"}, After: 1, Delta: 1}}
	for name, c := range map[string]struct {
		d     record.Diagnosis
		style report.Style
	}{
		"ledger-closed": {closed, report.Style{}},
		"ledger-open":   {open, report.Style{}},
		"ledger-ascii":  {closed, report.Style{ASCII: true}},
	} {
		t.Run(name, func(t *testing.T) {
			text := diagnosis(t, c.d, c.style)
			i := strings.Index(text, "\nway ")
			if i < 0 {
				t.Fatalf("no way:\n%s", text)
			}
			golden(t, name, text[i+1:])
		})
	}
	if got := diagnosis(t, open, report.Style{Quiet: true}); strings.Contains(got, "ledger") || strings.Contains(got, "way ") {
		t.Errorf("quiet:\n%s", got)
	}
	// Nothing lost and nothing moved: nothing is said.
	d := quiet()
	d.Ledger.Stations = []record.StationLoss{{Station: record.StationSocket}}
	if got := diagnosis(t, d, report.Style{}); strings.Contains(got, "ledger") || strings.Contains(got, "way ") {
		t.Errorf("nothing lost:\n%s", got)
	}
	// A verdict without loss counts what the ledger leaves open, and only that.
	d.Counters = closed.Counters
	d.Ledger.Entries = closed.Ledger.Entries
	if got := diagnosis(t, d, report.Style{}); !strings.Contains(got, "but 1 counter of loss or pressure moved") {
		t.Errorf("a closed entry:\n%s", got)
	}
}
