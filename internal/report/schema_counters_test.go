package report_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

func TestCountersSchema(t *testing.T) {
	root := readSchema(t, "counters.schema.json")
	c := newChecker(root, false)
	c.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, filled[record.CounterReport]()) }))
	c.report(t)
	if u := c.unseen(); len(u) > 0 {
		t.Errorf("in the schema, not in Go: %v", u)
	}
	if root.Properties["schema_version"].Const != float64(record.SchemaVersion) || root.Properties["type"].Const != record.TypeCounters {
		t.Errorf("schema_version is %v in the schema", root.Properties["schema_version"].Const)
	}
	checkEnums(t, root)

	k, err := diagnose.LoadCounters(knowledge.FS)
	if err != nil {
		t.Fatal(err)
	}
	cs := []record.Counter{
		{Name: "Udp.RcvbufErrors", After: 5, Delta: 5},
		{Name: "Udp.InDatagrams", After: 5, Delta: 5},
		{Name: "Tcp.RetransSegs", After: 1, Delta: 1},
		{Name: "New.Thing", After: 1, Delta: 1},
		{Name: "qdisc.drops", Device: record.Device{Index: 1, Name: "lo"}, After: 2, Delta: 2},
		{Name: "qdisc.drops", Device: record.Device{Index: 1, Name: "lo"}, Object: "class 1:1", After: 2, Delta: 2},
	}
	real := newChecker(root, true)
	for _, opt := range []diagnose.CounterOptions{{}, {All: true}, {Interval: time.Second}} {
		r := record.CounterReport{
			Type: record.TypeCounters, SchemaVersion: record.SchemaVersion,
			Source: record.Source{Name: "counters", State: record.SourceOK}, Blind: []record.Blind{},
		}
		r.Stations, r.Hidden = diagnose.CountersByStation(cs, k, opt)
		real.checkJSON(t, jsonOf(t, func(b *bytes.Buffer) error { return report.JSON(b, r) }))
	}
	real.report(t)
}
