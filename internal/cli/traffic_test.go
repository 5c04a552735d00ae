package cli

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

// What is asked for comes first; of other traffic one line is left. recorded has
// 174 drops of udp 10.0.0.1:4242 > 10.0.0.2:5000.
func TestFilterOfDiagnosis(t *testing.T) {
	path := recorded(t, true)
	for _, c := range []struct {
		filter []string
		found  bool
	}{
		{[]string{"udp", "port", "5000"}, true},
		{[]string{"udp port 5000 and (src host 10.0.0.1 or net 192.168.0.0/16)"}, true},
		{[]string{"not", "tcp"}, true},
		{[]string{"tcp"}, false},
		{[]string{"dst", "port", "4242"}, false},
		{[]string{"host", "10.0.0.3"}, false},
	} {
		for _, args := range [][]string{{"diagnose", "-r", path}, {"report", "-r", path}, {"report", path}} {
			r := here(t, append(append(args, "-j"), c.filter...)...)
			var d record.Diagnosis
			if err := json.Unmarshal([]byte(r.out), &d); err != nil {
				t.Fatalf("%q %q: %v\n%s%s", args, c.filter, err, r.out, r.err)
			}
			if (len(d.Findings) == 1) != c.found || len(d.Findings) > 1 || d.Elsewhere == nil || (d.Elsewhere.Drops == 174) == c.found {
				t.Errorf("%q %q: findings %+v, elsewhere %+v", args, c.filter, d.Findings, d.Elsewhere)
			}
			if c.found && len(d.Findings) == 1 && (d.Findings[0].Concerns == nil || d.Findings[0].Concerns.Samples != 2) {
				t.Errorf("%q %q: concerns %+v", args, c.filter, d.Findings[0].Concerns)
			}
		}
	}
	r := here(t, "diagnose", "-r", path, "tcp")
	if first, _, _ := strings.Cut(r.out, "\n"); !strings.HasPrefix(first, "nothing to do: no loss of this traffic within 2 s") || !strings.Contains(first, "174 packets of other traffic") {
		t.Errorf("%q", first)
	}
}

// A count has no address: a line is shown where a sample of it matches.
func TestFilterOfWatch(t *testing.T) {
	path := recorded(t, true)
	for _, c := range []struct {
		args  []string
		lines int
		says  string
	}{
		{[]string{"udp", "port", "5000"}, 2, "174 shown + 6 filtered out"},
		{[]string{"udp", "port", "5001"}, 0, "0 shown + 180 filtered out"},
		{[]string{"--each", "src", "host", "10.0.0.1"}, 2, "174 shown + 6 filtered out"},
		{[]string{"--each", "tcp or port 53"}, 0, "0 shown + 180 filtered out"},
	} {
		r := here(t, append([]string{"watch", "-r", path}, c.args...)...)
		said := strings.Join(strings.Fields(r.err), " ")
		if strings.Count(r.out, "\n") != c.lines || !strings.Contains(said, c.says) || r.code != exitOK {
			t.Errorf("%q: exit status %d\n%s%s", c.args, r.code, r.out, r.err)
		}
		// The benign drops of the file have no sample.
		if !strings.Contains(said, "whether 6 drops are of the traffic that was asked for") {
			t.Errorf("%q: %s", c.args, r.err)
		}
	}
}

func TestUsageOfTraffic(t *testing.T) {
	file := recorded(t, true)
	for want, args := range map[string][]string{
		`"broadcast": pcap-filter has it`:     {"diagnose", "broadcast"},
		`"example.org": want an address`:      {"watch", "--each", "host", "example.org"},
		"ends too early":                      {"report", "-r", file, "udp", "and"},
		"a FILTER goes behind one":            {"udp", "port", "53"},
		`no command "udpp"`:                   {"udpp"},
		"means nothing in a file":             {"watch", "-r", file, "--pid", "1"},
		"want one of them, a process":         {"watch", "--pid", "1", "--netns", "host"},
		"--pid: want the number":              {"diagnose", "--pid", "-1"},
		"process 4194305":                     {"diagnose", "--pid", "4194305"},
		"--json and --markdown":               {"diagnose", "-r", file, "-j", "--markdown"},
		"--timeout: says how long":            {"diagnose", "--timeout", "1s"},
		"--until-loss and --duration":         {"diagnose", "--until-loss", "--duration", "1s"},
		"--timeout 0s":                        {"diagnose", "--until-loss", "--timeout", "0s"},
		"--until-loss says how to watch":      {"diagnose", "-r", file, "--until-loss"},
		"--save says how to watch":            {"diagnose", "-r", file, "--save", "x"},
		"--save: name a file":                 {"diagnose", "--save", ""},
		"no such file":                        {"diagnose", "--save", "/nonexistent/x"},
		"verify: name one file":               {"verify"},
		"got [":                               {"verify", "a", "b"},
		"nonexistent":                         {"verify", "/nonexistent"},
		"--duration says how to watch":        {"verify", file, "-r", file, "--duration", "1s"},
		"is not of the traffic of a process":  {"verify", file, "--pid", "1"},
		"--pid: want the number of a process": {"watch", "--pid", "0"},
		"standard input can be one":           {"verify", "-", "-r", "-"},
		`--fail-on "loud"`:                    {"verify", file, "-r", file, "--fail-on", "loud"},
	} {
		r := here(t, args...)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, want) {
			t.Errorf("%q: exit status %d, want %q\n%s%s", args, r.code, want, r.out, r.err)
		}
	}
}

// An observation that is saved is the same when it is read again, with what it was
// narrowed to.
func TestSave(t *testing.T) {
	a := &app{}
	w := watching{file: recorded(t, true)}
	o, err := a.readObservation(&w)
	if err != nil {
		t.Fatal(err)
	}
	o.Counters = []record.Counter{{Name: "Udp.RcvbufErrors", Before: 1, After: 175, Delta: 174, ExplainedBy: []string{}}}
	o.CountersWindow = o.Window
	o.Facts = []record.Fact{{Kind: "sysctl", Name: "net/core/rmem_default", Value: "212992"}}
	path := filepath.Join(t.TempDir(), "saved.wd")
	if w.saved, err = a.openOutput(path); err != nil {
		t.Fatal(err)
	}
	w.filter.NetNS, w.filter.Interfaces, w.traffic.pid = []string{"host"}, []string{"eth0"}, 7
	if err := w.traffic.filterArgs([]string{"udp", "port 5000"}); err != nil {
		t.Fatal(err)
	}
	if err := w.keep(o); err != nil {
		t.Fatal(err)
	}
	if err := w.saved.close(); err != nil {
		t.Fatal(err)
	}
	again := watching{file: path}
	got, err := a.readObservation(&again)
	if err != nil {
		t.Fatal(err)
	}
	if g, want := jsonText(t, got), jsonText(t, o); g != want {
		t.Errorf("read again:\n%s\nsaved:\n%s", g, want)
	}
	want := &record.Asked{Interfaces: []string{"eth0"}, NetNS: []string{"host"}, Filter: "udp port 5000", PID: 7}
	if !reflect.DeepEqual(again.header.Asked, want) {
		t.Errorf("asked %+v, want %+v", again.header.Asked, want)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: addresses are for the owner alone", st, err)
	}
}

func jsonText(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMarkdownOfFile(t *testing.T) {
	path := recorded(t, true)
	for _, cmd := range []string{"diagnose", "report"} {
		r := here(t, cmd, "-r", path, "--markdown")
		for _, want := range []string{"# whydrop: act: 174 packets dropped", "## 1. ", "| `SOCKET_RCVBUFF@udp_queue_rcv_one_skb` |", "## Accounting", "## What was not seen"} {
			if !strings.Contains(r.out, want) {
				t.Errorf("%s: no %q in:\n%s", cmd, want, r.out)
			}
		}
		if r.code != exitOK || strings.Contains(r.out, "\x1b") {
			t.Errorf("%s: exit status %d: %s", cmd, r.code, r.out)
		}
	}
}

// waited is a waiter without a session, that has taken intervals.
func waited(t *testing.T, filter string) *waiter {
	t.Helper()
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	w := &waiter{app: &app{}, flags: &watching{}, knowledge: k, every: time.Hour, forgiven: map[string]time.Time{}, ends: func() error { return nil }}
	if filter != "" {
		if err := w.flags.traffic.filterArgs([]string{filter}); err != nil {
			t.Fatal(err)
		}
	}
	w.fresh(record.Header{Start: time.Unix(1000, 0)})
	return w
}

// second is an interval of one second with as many drops for a reason.
func second(at int64, reason, symbol string, drops uint64) record.Interval {
	k := record.Key{Reason: record.Reason{Name: reason, Subsystem: "core"}, Location: record.Location{Symbol: symbol}}
	iv := record.Interval{Window: record.Window{Start: time.Unix(at-1, 0), End: time.Unix(at, 0), Duration: time.Second}}
	if drops > 0 {
		iv.Counts = []record.Count{{Key: k, Drops: drops}}
		iv.Samples = []record.Drop{{Key: k, Packet: &record.Packet{Flow: record.Flow{
			Proto: 17,
			Src:   netip.MustParseAddrPort("10.0.0.1:4242"), Dst: netip.MustParseAddrPort("10.0.0.2:5000"),
		}}}}
		iv.Accounting = record.Accounting{DropsSeen: drops, DropsAggregated: drops, Samples: 1}
	}
	return iv
}

// A loss ends the waiting when three seconds have passed without more of it, or
// when it has gone on for thirty; what is normal does not.
func TestUntilLossWaits(t *testing.T) {
	w := waited(t, "")
	ended := int64(0)
	w.cancel = func() { ended++ }
	step := func(at int64, drops uint64) {
		t.Helper()
		if err := w.interval(second(at, "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", drops)); err != nil {
			t.Fatal(err)
		}
	}
	w.take(second(1001, "QUEUE_PURGE", "sk_stream_kill_queues", 9)) // a connection was closed
	if !w.loss.IsZero() {
		t.Fatal("a benign drop is taken for a loss")
	}
	if w.hidden.DropsHiddenBenign+w.hidden.DropsHiddenExpected != 9 || w.total.DropsSeen != 9 {
		t.Errorf("books: %+v, %+v", w.total, w.hidden)
	}
	step(1010, 5)
	step(1011, 0)
	step(1012, 7) // one more: the burst goes on
	step(1014, 0)
	if ended != 0 {
		t.Fatal("ended within the burst")
	}
	step(1015, 0)
	if ended != 1 {
		t.Fatal("three seconds have passed without loss")
	}
	w.forgive(time.Unix(1016, 0))
	w.fresh(record.Header{Start: time.Unix(1016, 0)})
	step(1020, 5)
	if !w.loss.IsZero() {
		t.Error("what was found to be no loss is suspected again")
	}
	w.fresh(record.Header{Start: time.Unix(1700, 0)})
	ended = 0
	for at := int64(1700); at < 1730; at++ {
		step(at, 1)
	}
	if ended != 0 || w.loss.IsZero() {
		t.Fatalf("ended %d times, loss since %v", ended, w.loss)
	}
	step(1730, 1)
	if ended != 1 {
		t.Error("a loss that goes on is not waited for longer than thirty seconds")
	}
}

// With a FILTER only the loss of that traffic is waited for.
func TestUntilLossOfTraffic(t *testing.T) {
	for filter, want := range map[string]bool{"": true, "udp port 5000": true, "udp port 53": false} {
		w := waited(t, filter)
		w.take(second(1001, "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 5))
		if got := !w.loss.IsZero(); got != want {
			t.Errorf("%q: a loss is seen: %v", filter, got)
		}
	}
}

// However long the wait, no more is kept than a piece.
func TestUntilLossForgets(t *testing.T) {
	w := waited(t, "")
	for at := range int64(3600) {
		w.take(second(1000+at, "QUEUE_PURGE", "sk_stream_kill_queues", 1))
		if at%30 == 29 {
			w.fresh(record.Header{Start: time.Unix(1000+at, 0)})
		}
	}
	o := w.piece.collector.Finish(record.Trailer{})
	if len(o.Samples) > 0 || len(o.Counts) > 0 {
		t.Errorf("%d samples and %d counts are kept of what is long over", len(o.Samples), len(o.Counts))
	}
	d := w.nothing(&o)
	if d.Window.Start != w.begin || d.Accounting.DropsSeen != 3600 || d.Accounting.DropsHiddenBenign+d.Accounting.DropsHiddenExpected != 3600 {
		t.Errorf("the verdict is of %v with %+v", d.Window, d.Accounting)
	}
	if last := d.Checked[len(d.Checked)-1]; !strings.Contains(last, "counters is of the last") {
		t.Errorf("it is not said what the counters are of: %q", d.Checked)
	}
	if d.Elsewhere != nil {
		t.Errorf("other traffic: %+v", d.Elsewhere)
	}
	if len(d.Blind) > 0 {
		t.Errorf("not seen: %+v", d.Blind)
	}
	w.resume(time.Unix(5000, 0)) // the first session
	w.ended = time.Unix(5010, 0)
	w.resume(time.Unix(5012, 0))
	if d := w.nothing(&o); len(d.Blind) != 1 || d.Blind[0].What != "loss in 2s of this time" {
		t.Errorf("what was not watched is not said: %+v", d.Blind)
	}
}

// The loss of other traffic is told, also when it is long over.
func TestUntilLossOfOtherTraffic(t *testing.T) {
	w := waited(t, "udp port 53")
	w.take(second(1001, "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 5))
	w.take(second(1002, "QUEUE_PURGE", "sk_stream_kill_queues", 7))
	w.fresh(record.Header{Start: time.Unix(1030, 0)})
	o := w.piece.collector.Finish(record.Trailer{})
	if d := w.nothing(&o); d.Elsewhere == nil || d.Elsewhere.Drops != 5 {
		t.Errorf("of other traffic: %+v", d.Elsewhere)
	}
}
