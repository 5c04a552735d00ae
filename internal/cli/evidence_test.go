package cli

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

// quietRecord is a file without a loss, on a host that has had some.
func quietRecord(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quiet.whydrop")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	sources := []record.Source{{Name: "skbdrop", State: record.SourceOK}, {Name: "counters", State: record.SourceOK}}
	w, err := record.NewWriter(f, record.Header{Start: start, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	host, blue := record.NetNS{Inode: 4026531833, Name: "host"}, record.NetNS{Inode: 4026532001, Name: "blue"}
	still := func(name string, ns record.NetNS, n uint64) record.Counter {
		return record.Counter{Name: name, NetNS: ns, Before: n, After: n, Command: "nstat -az"}
	}
	if err := w.Close(record.Trailer{
		End: start.Add(10 * time.Second), Sources: sources, Blind: []record.Blind{},
		Counters: []record.Counter{
			still("Udp.RcvbufErrors", host, 43), still("Udp.RcvbufErrors", blue, 4021), still("Udp.RcvbufErrors", record.NetNS{Inode: 7}, 0),
			still("Ip.InReceives", host, 99), still("X.NotKnown", host, 5),
		},
		Facts: []record.Fact{{Kind: "sysctl", Request: "net/core/rmem_max", Value: "1"}, {Kind: "link", NetNS: blue}},
	}); err != nil {
		t.Fatal(err)
	}
	return path
}

// Without loss, what was lost since boot is shown, and said to be that.
func TestSinceBoot(t *testing.T) {
	path := quietRecord(t)
	r := run(t, "diagnose", "-r", path)
	if r.code != exitOK || !strings.HasPrefix(r.out, "no loss seen in 10 s") {
		t.Fatalf("%+v", r)
	}
	_, block, found := strings.Cut(r.out, "since boot ")
	if !found || !strings.Contains(block, "4021  Udp.RcvbufErrors (netns blue)") || strings.Contains(block, "Ip.InReceives") {
		t.Errorf("%s", r.out)
	}
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(run(t, "diagnose", "-j", "-r", path).out), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Counters) != 2 || d.Counters[0].After != 4021 || d.Counters[0].Station != "socket" || d.Counters[1].Delta != 0 {
		t.Errorf("counters %+v", d.Counters)
	}
	// With a loss they would only distract.
	if r := run(t, "diagnose", "-r", recorded(t, true)); strings.Contains(r.out, "since boot ") {
		t.Errorf("%s", r.out)
	}
}

// A filter of namespaces holds for what was read at the end, too.
func TestFilterOfEvidence(t *testing.T) {
	w := &watching{file: quietRecord(t)}
	for ns, want := range map[string][2]int{"": {5, 2}, "blue": {1, 2}, "host": {3, 1}, "4026532001": {1, 2}} {
		w.filter.NetNS = nil
		if ns != "" {
			w.filter.NetNS = []string{ns}
		}
		o, err := (&app{err: io.Discard}).readObservation(w)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]int{len(o.Counters), len(o.Facts)}; got != want {
			t.Errorf("--netns %q: %d counters and facts, want %d", ns, got, want)
		}
	}
}

// A recording of days remembers what it may need, and no more.
func TestKeeperIsBounded(t *testing.T) {
	k := newKeeper(record.Header{})
	for i := range 3 {
		iv := record.Interval{Accounting: record.Accounting{DropsSeen: 1}}
		for j := range keptKeys / 2 {
			iv.Counts = append(iv.Counts, record.Count{Key: record.Key{Device: record.Device{Index: uint32(i*keptKeys + j)}}, Drops: 1})
			iv.Samples = append(iv.Samples, record.Drop{})
		}
		k.add(iv)
	}
	o := k.collector.Finish(record.Trailer{})
	if len(o.Counts) != keptKeys || len(o.Samples) != keptSamples || o.Accounting.DropsSeen != 3 {
		t.Errorf("%d keys, %d samples, %d drops seen", len(o.Counts), len(o.Samples), o.Accounting.DropsSeen)
	}
}
