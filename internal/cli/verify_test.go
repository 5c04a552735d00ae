package cli

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// rcvbufFile writes what was seen of datagrams, some of which found the buffer full.
func rcvbufFile(t *testing.T, name string, lost, received uint64, at time.Time) string {
	t.Helper()
	a := &app{}
	w := watching{file: recorded(t, true)}
	o, err := a.readObservation(&w)
	if err != nil {
		t.Fatal(err)
	}
	o.Window = record.Window{Start: at, End: at.Add(10 * time.Second), Duration: 10 * time.Second}
	o.CountersWindow = o.Window
	o.Counts, o.Samples = o.Counts[:1], nil
	o.Counts[0].Drops, o.Counts[0].Bytes = lost, lost*1000
	o.Accounting = record.Accounting{DropsSeen: lost, DropsAggregated: lost}
	if lost == 0 {
		o.Counts = nil
	}
	o.Sources = append(o.Sources, record.Source{Name: "counters", State: record.SourceOK})
	ns := record.NetNS{Inode: 4026531833, Name: "host"}
	for name, n := range map[string]uint64{"Udp.RcvbufErrors": lost, "Udp.InErrors": lost, "Udp.InDatagrams": received} {
		o.Counters = append(o.Counters, record.Counter{Name: name, NetNS: ns, Before: 100, After: 100 + n, Delta: n})
	}
	path := filepath.Join(t.TempDir(), name)
	if w.saved, err = a.openOutput(path); err != nil {
		t.Fatal(err)
	}
	if err := w.keep(o); err != nil {
		t.Fatal(err)
	}
	if err := w.saved.close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVerifyFiles(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	before := rcvbufFile(t, "before", 2000, 20_000, start)
	for name, c := range map[string]struct {
		lost, received uint64
		outcome        record.Outcome
		code           int
	}{
		"gone":       {0, 21_000, record.OutcomeGone, exitOK},
		"traces":     {10, 21_000, record.OutcomeLess, exitOK},
		"less":       {400, 20_000, record.OutcomeLess, exitFinding},
		"half":       {1000, 10_000, record.OutcomeSame, exitFinding},
		"worse":      {8000, 20_000, record.OutcomeWorse, exitFinding},
		"no traffic": {0, 0, record.OutcomeNotKnown, exitFinding},
	} {
		after := rcvbufFile(t, "after", c.lost, c.received, start.Add(time.Hour))
		r := here(t, "verify", before, "-r", after, "-j")
		var cmp record.Comparison
		if err := json.Unmarshal([]byte(r.out), &cmp); err != nil {
			t.Fatalf("%s: %v\n%s%s", name, err, r.out, r.err)
		}
		if len(cmp.Changes) != 1 || cmp.Changes[0].Outcome != c.outcome || r.code != c.code {
			t.Errorf("%s: exit status %d, %+v", name, r.code, cmp.Changes)
		}
		text := here(t, "verify", before, "-r", after)
		act := strings.HasPrefix(text.out, "act: ")
		if text.code != c.code || act != (c.code == exitFinding) || !act && !strings.HasPrefix(text.out, "nothing to do: ") {
			t.Errorf("%s: exit status %d\n%s", name, text.code, text.out)
		}
		if m := here(t, "verify", before, "-r", after, "--markdown"); m.code != c.code || !strings.HasPrefix(m.out, "# whydrop verify: ") {
			t.Errorf("%s: exit status %d\n%s", name, m.code, m.out)
		}
		// The loss is one of capacity: for who asks for faults it does not count.
		if r := here(t, "verify", before, "-r", after, "--fail-on", "fault"); r.code != exitOK {
			t.Errorf("%s: exit status %d with --fail-on fault", name, r.code)
		}
	}
	appeared := here(t, "verify", rcvbufFile(t, "after", 0, 20_000, start), "-r", rcvbufFile(t, "before", 2000, 20_000, start.Add(time.Hour)), "-j")
	if appeared.code != exitFinding || !strings.Contains(appeared.out, `"outcome":"new"`) {
		t.Errorf("a new loss: %+v", appeared)
	}
	if none := here(t, "verify", rcvbufFile(t, "a", 0, 20_000, start), "-r", rcvbufFile(t, "b", 0, 20_000, start.Add(time.Hour))); none.code != exitOK {
		t.Errorf("no loss: %+v", none)
	}
	if r := here(t, "verify", recorded(t, false), "-r", before); r.code != exitUsage || !strings.Contains(r.err, "ends early") {
		t.Errorf("a file without its end: %+v", r)
	}
}

// What verify watches again is what the file was made with.
func TestVerifyAsksAgain(t *testing.T) {
	o := &record.Observation{Window: record.Window{Duration: 7 * time.Second}}
	f := verifyFlags{before: "x"}
	asked := &record.Asked{Interfaces: []string{"eth0"}, Reasons: []string{"NO_SOCKET"}, NetNS: []string{"host"}, Filter: "udp port 53"}
	if err := f.again(asked, o); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.asked(), asked) || f.duration != 7*time.Second {
		t.Errorf("asks for %+v for %s", f.asked(), f.duration)
	}
	f = verifyFlags{before: "x", watching: watching{duration: time.Second}}
	if err := f.again(nil, o); err != nil || f.asked() != nil || f.duration != time.Second {
		t.Errorf("%v, asks for %+v for %s", err, f.asked(), f.duration)
	}
	if err := (&verifyFlags{}).again(&record.Asked{Filter: "len > 5"}, o); err == nil {
		t.Error("a filter that is none is taken from a file")
	}
	gone := verifyFlags{before: "x"}
	if err := gone.again(&record.Asked{PID: 4194305}, o); err == nil || !strings.Contains(err.Error(), "--pid says which") {
		t.Errorf("a process that is gone: %v", err)
	}
}

// Findings of other traffic are no matter of who asked for some.
func TestVerifyLeavesOutOtherTraffic(t *testing.T) {
	path := recorded(t, true)
	for filter, want := range map[string]int{"udp port 5000": 1, "tcp": 0} {
		a := &app{}
		w := watching{file: path}
		o, err := a.readObservation(&w)
		if err != nil {
			t.Fatal(err)
		}
		saved := filepath.Join(t.TempDir(), "saved")
		if w.saved, err = a.openOutput(saved); err != nil {
			t.Fatal(err)
		}
		if err := w.traffic.filterArgs([]string{filter}); err != nil {
			t.Fatal(err)
		}
		if err := w.keep(o); err != nil {
			t.Fatal(err)
		}
		if err := w.saved.close(); err != nil {
			t.Fatal(err)
		}
		r := here(t, "verify", saved, "-r", path, "-j")
		var cmp record.Comparison
		if err := json.Unmarshal([]byte(r.out), &cmp); err != nil {
			t.Fatalf("%v\n%s%s", err, r.out, r.err)
		}
		if len(cmp.Changes) != want {
			t.Errorf("%s: %+v", filter, cmp.Changes)
		}
	}
}

// savedAs keeps the record of rcvbufFile as one that was made with what prepare
// says.
func savedAs(t *testing.T, prepare func(*watching, *record.Observation)) string {
	t.Helper()
	a := &app{}
	w := watching{file: recorded(t, true)}
	o, err := a.readObservation(&w)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "saved")
	if w.saved, err = a.openOutput(path); err != nil {
		t.Fatal(err)
	}
	prepare(&w, o)
	if err := errors.Join(w.keep(o), w.saved.close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// The losses of a process are marked when they are saved: the sockets that it has
// when they are read again are others.
func TestVerifyOfProcess(t *testing.T) {
	after := rcvbufFile(t, "after", 0, 21_000, time.Date(2026, 1, 2, 4, 4, 5, 0, time.UTC))
	for _, marked := range []bool{true, false} {
		before := savedAs(t, func(w *watching, o *record.Observation) {
			w.traffic.pid = 7
			for i := range o.Samples {
				o.Samples[i].OfProcess = marked
			}
		})
		r := here(t, "verify", before, "-r", after, "-j")
		var cmp record.Comparison
		if err := json.Unmarshal([]byte(r.out), &cmp); err != nil {
			t.Fatalf("%v\n%s%s", err, r.out, r.err)
		}
		if got := len(cmp.Changes) == 1 && cmp.LeftOut == 0; got != marked || !got && (len(cmp.Changes) > 0 || cmp.LeftOut != 1) {
			t.Errorf("marked %v: %d left out, %+v", marked, cmp.LeftOut, cmp.Changes)
		}
	}
}

func TestSamplesOfProcessAreMarked(t *testing.T) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p, err := observe.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	samples := []record.Drop{{Packet: &record.Packet{Flow: flow("127.0.0.1:4242", c.LocalAddr().String())}}, {}}
	got := (&traffic{process: p}).marked(samples)
	if !got[0].OfProcess || got[1].OfProcess || samples[0].OfProcess {
		t.Errorf("%+v of %+v", got, samples)
	}
	if got := (&traffic{}).marked(samples); got[0].OfProcess {
		t.Error("marked without a process")
	}
}

// What a second file leaves out is not gone.
func TestVerifyRefusesNarrowerFile(t *testing.T) {
	ofAll := savedAs(t, func(*watching, *record.Observation) {})
	ofDevice := savedAs(t, func(w *watching, _ *record.Observation) { w.filter.Interfaces = []string{"lo"} })
	ofReasons := savedAs(t, func(w *watching, _ *record.Observation) { w.filter.Reasons = []string{"NO_SOCKET", "SOCKET_RCVBUFF"} })
	ofReason := savedAs(t, func(w *watching, _ *record.Observation) { w.filter.Reasons = []string{"NO_SOCKET"} })
	ofPID := savedAs(t, func(w *watching, _ *record.Observation) { w.traffic.pid = 7 })
	for _, c := range []struct {
		before, after string
		want          string
	}{
		{ofAll, ofDevice, "was made with -i lo, "},
		{ofAll, ofReason, "was made with --reason NO_SOCKET, "},
		{ofReasons, ofReason, "was made with --reason NO_SOCKET, "},
		{ofDevice, ofReason, "was made with --reason NO_SOCKET, "},
		{ofAll, ofPID, "was made with --pid 7, "},
		{ofReason, ofReasons, ""},
		{ofReason, ofAll, ""},
		{ofPID, ofAll, ""},
		{ofDevice, ofDevice, ""},
	} {
		r := here(t, "verify", c.before, "-r", c.after)
		if c.want == "" && (r.code == exitUsage || r.out == "") || c.want != "" && (r.code != exitUsage || r.out != "" || !strings.Contains(r.err, c.want)) {
			t.Errorf("want %q: %+v", c.want, r)
		}
	}
}

// Who sends a file does not write to the terminal of who reads it.
func TestVerifyOfHostileFile(t *testing.T) {
	good := savedAs(t, func(*watching, *record.Observation) {})
	evil := savedAs(t, func(w *watching, _ *record.Observation) { w.filter.Interfaces = []string{"\x1b[31mx\n"} })
	for _, args := range [][]string{{"verify", good, "-r", evil}, {"verify", evil, "-r", good}} {
		r := here(t, args...)
		if strings.ContainsAny(r.out+r.err, "\x1b\u009b") || !strings.Contains(r.err, `\x1b[31mx`) {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// What is wrong with the second file is told also where nothing is better.
func TestVerifyTellsWhatIsWrong(t *testing.T) {
	before := rcvbufFile(t, "before", 2000, 20_000, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	r := here(t, "verify", before, "-r", recorded(t, false))
	if r.code != exitFinding || !strings.Contains(r.err, "ends early") || !strings.HasPrefix(r.out, "act: not known: ") {
		t.Errorf("a second file without its end: %+v", r)
	}
}
