package cli

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
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
	r := here(t, "diagnose", "-r", path)
	if r.code != exitOK || !strings.HasPrefix(r.out, "nothing to do: no loss within 10 s") {
		t.Fatalf("%+v", r)
	}
	_, block, found := strings.Cut(r.out, "since boot ")
	if !found || !strings.Contains(block, "4021  Udp.RcvbufErrors (netns blue)") || strings.Contains(block, "Ip.InReceives") {
		t.Errorf("%s", r.out)
	}
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(here(t, "diagnose", "-j", "-r", path).out), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Counters) != 2 || d.Counters[0].After != 4021 || d.Counters[0].Station != "socket" || d.Counters[1].Delta != 0 {
		t.Errorf("counters %+v", d.Counters)
	}
	// With a loss they would only distract.
	if r := here(t, "diagnose", "-r", recorded(t, true)); strings.Contains(r.out, "since boot ") {
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

// A recording of days remembers what it may need, and no more: also where one
// interval alone holds more than there is room for.
func TestKeeperIsBounded(t *testing.T) {
	k := newKeeper(record.Header{})
	const step, steps = keptKeys/2 + 7, 3
	for i := range steps {
		iv := record.Interval{Accounting: record.Accounting{DropsSeen: step + 1, DropsAggregated: step + 1}}
		for j := range step {
			iv.Counts = append(iv.Counts, record.Count{Key: record.Key{Device: record.Device{Index: uint32(i*step + j)}}, Drops: 1})
			iv.Samples = append(iv.Samples, record.Drop{})
		}
		// One that is known keeps counting.
		iv.Counts = append(iv.Counts, record.Count{Key: record.Key{Device: record.Device{Index: 0}}, Drops: 1})
		k.add(iv)
	}
	o := k.collector.Finish(record.Trailer{})
	if len(o.Counts) != keptKeys || len(o.Samples) != keptSamples || o.Counts[0].Drops != 1+steps {
		t.Errorf("%d keys, %d samples, %d of the first", len(o.Counts), len(o.Samples), o.Counts[0].Drops)
	}
	const seen, cut = steps * (step + 1), steps*step - keptKeys
	want := record.Accounting{DropsSeen: seen, DropsAggregated: seen - cut, MapFull: cut}
	if o.Accounting != want {
		t.Errorf("accounting %+v, want %+v", o.Accounting, want)
	}
}

// A recording says for how many drops it did not look further.
func TestKeeperTellsWhatItCut(t *testing.T) {
	for _, cut := range []uint64{0, 5} {
		k := newKeeper(record.Header{})
		k.cut = cut
		tr := k.finish(t.Context(), record.Trailer{}, new(diagnose.Knowledge))
		if told := len(tr.Blind) == 1 && strings.Contains(tr.Blind[0].What, " 5 drops"); told != (cut > 0) {
			t.Errorf("%d cut: %+v", cut, tr.Blind)
		}
	}
}

// The interruption that ends the watching is not one of what comes after it.
func TestAfterwards(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	after, stop := afterwards(ctx)
	defer stop()
	cancel()
	if after.Err() == nil {
		t.Error("an interruption of the reading is not heard")
	}
	after, stop = afterwards(ctx)
	defer stop()
	if after.Err() != nil {
		t.Error("nothing would be read after an interruption")
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-after.Done():
	case <-time.After(10 * time.Second):
		t.Error("a second interruption is not heard")
	}
}
