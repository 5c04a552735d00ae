package diagnose_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// TestLedgerCases runs the records of losses that have no folder of a cause.
func TestLedgerCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := load(t).RunCase(text); err != nil {
				t.Error(err)
			}
		})
	}
}

// open are the entries of cases that are left open, and why.
var open = map[string]string{
	"cpu-backlog/basic.txtar link.rx_dropped":       "the device lost others too, before there was an skb",
	"cpu-backlog/host.txtar link.rx_dropped":        "the device lost others too, before there was an skb",
	"cpu-backlog/kernel-5.10.txtar link.rx_dropped": "the device lost others too, before there was an skb",
}

// TestCasesClose diagnoses every recorded case: no counter is left beside a
// number of drops that it does not fit, and what the lab recorded leaves no
// loss without a cause.
func TestCasesClose(t *testing.T) {
	diagnose.Alone(t)
	k := load(t)
	files, err := fs.Glob(knowledge.FS, "causes/*/cases/*.txtar")
	if err != nil || len(files) < 100 {
		t.Fatal(len(files), err)
	}
	entries, left := 0, map[string]bool{}
	for _, name := range files {
		o := observationOf(t, knowledge.FS, name)
		d := diagnose.Run(&o, k, diagnose.Options{All: true})
		id := path.Base(path.Dir(path.Dir(name))) + "/" + path.Base(name)
		for _, e := range d.Ledger.Entries {
			entries++
			at := id + " " + e.Counter
			switch why := open[at]; {
			case !e.Closed && why == "":
				t.Errorf("%s: %s +%d, %d drops (%s): %q", id, e.Counter, e.Delta, e.Drops, e.Relation, e.Why)
			case !e.Closed:
				left[at] = true
			case e.Relation != record.RelationEqual && e.Why == "":
				t.Errorf("%s: %s +%d, %d drops: closed without a reason", id, e.Counter, e.Delta, e.Drops)
			}
		}
		for _, s := range d.Ledger.Stations {
			if strings.Contains(name, "/lab-") && s.Unexplained > 0 {
				t.Errorf("%s: %d lost at %s without a cause", id, s.Unexplained, s.Station)
			}
		}
	}
	if entries < 200 || len(left) != len(open) {
		t.Errorf("%d entries, %d left open, want %d", entries, len(left), len(open))
	}
}

func observationOf(t *testing.T, fsys fs.FS, name string) (o record.Observation) {
	t.Helper()
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range txtar.Parse(text).Files {
		if f.Name == "observation.json" {
			if err := json.Unmarshal(f.Data, &o); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	return o
}

// TestEveryLossIsPlaced: the ledger knows of each loss counter of the catalogue
// what raises it, or which other counter counts the same.
func TestEveryLossIsPlaced(t *testing.T) {
	known := load(t).Raised()
	for name, c := range known {
		if c.Kind != "loss" || c.Unit == "bytes" || c.Told || c.Alone {
			continue
		}
		t.Errorf("%s is neither in counters/drops.yaml nor overlaps with one that is", name)
	}
	for name, c := range known {
		if c.Told && c.Kind != "loss" {
			t.Errorf("%s is in counters/drops.yaml and counts no loss", name)
		}
	}
}

// books: T.total counts again what T.a and T.b count.
const ledgerCounters = `counters:
  T.a: {station: socket, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x, overlaps: [T.total]}
  T.b: {station: socket, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x}
  T.total: {station: transport, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x}
  T.ring: {station: ring, direction: rx, unit: packets, kind: loss, sentence: No free buffer., kernel: x}
  T.all: {station: ring, direction: rx, unit: packets, kind: loss, sentence: It sums up., kernel: x}
  T.spared: {station: ip, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x}
  T.times: {station: ip, direction: rx, unit: events, kind: loss, sentence: It counts., kernel: x}
  T.many: {station: ip, direction: rx, unit: segments, kind: loss, sentence: It counts., kernel: x}
  T.bytes: {station: ip, direction: rx, unit: bytes, kind: loss, sentence: It counts., kernel: x}
  T.life: {station: ip, direction: rx, unit: packets, kind: activity, sentence: It counts., kernel: x}
  T.queue: {station: ring, direction: rx, unit: packets, kind: loss, sentence: A driver's., kernel: x}
  T.device: {station: ip, direction: rx, unit: packets, kind: loss, sentence: It counts by device., kernel: x, overlaps: [T.spared]}
  T.far: {station: driver-tx, direction: tx, unit: packets, kind: loss, sentence: It counts., kernel: x}
`

const ledgerDrops = `drops:
  T.a:
    raised_by:
      - {reasons: [A]}
      - {reasons: [NO_REASON], symbols: [f], relation: at_most}
    again_in: [T.total]
  T.b:
    family: 6
    protocols: [udp]
    raised_by: [{reasons: [B], symbols: ["g*"], directions: [rx]}]
    again_in: [T.total]
  T.total: {raised_by: [{reasons: [A, B]}, {reasons: [NO_REASON], relation: at_most}]}
  T.ring: {again_in: [T.all], silent: the device counts it alone}
  T.all: {silent: the device counts it alone}
  T.spared: {raised_by: [{reasons: [A], symbols: [f], relation: at_most}], harmless: it counts look-ups too, spare: 'counter("T.life")'}
  T.times: {raised_by: [{reasons: [A]}]}
  T.many: {raised_by: [{reasons: [A], symbols: [seg], relation: at_least, why: a drop can be of many segments}]}
  T.far: {raised_by: [{reasons: [A], scope: host, relation: at_most}]}
`

func ledgerFS(drops string) fstest.MapFS {
	reasons := "reasons:\n"
	for _, r := range []string{"A", "B"} {
		reasons += "  " + r + ": {class: fault, station: socket, sentence: Lost.}\n"
	}
	files := catalogue(ledgerCounters, "next: {ring: [\"ethtool -g DEV\"]}\n")
	files["reasons/r.yaml"] = &fstest.MapFile{Data: []byte(reasons)}
	if drops != "" {
		files["counters/drops.yaml"] = &fstest.MapFile{Data: []byte(drops)}
	}
	return files
}

func books(t *testing.T) *diagnose.Knowledge {
	t.Helper()
	k, err := diagnose.Load(ledgerFS(ledgerDrops))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// on is a counter of a device of the lab's namespace.
func on(name string, delta uint64, index uint32) record.Counter {
	c := moves(name, delta)
	c.Device = record.Device{Index: index, Name: fmt.Sprint("eth", index)}
	c.Source, c.Command = "rtnetlink", "ip -s link"
	return c
}

// at changes a count.
func at(c record.Count, change func(c *record.Count)) record.Count {
	change(&c)
	return c
}

// entries prints a ledger.
func entries(d record.Diagnosis) string {
	var out []string
	for _, e := range d.Ledger.Entries {
		s := fmt.Sprintf("%s:%d/%d:%s", strings.TrimPrefix(e.Counter, "T."), e.Delta, e.Drops, e.Relation)
		if e.Chain > 0 {
			s += fmt.Sprintf(":chain%d", e.Chain)
		}
		if !e.Closed {
			s += ":open"
		}
		if len(e.ExplainedBy) > 0 {
			s += ":" + strings.Join(e.ExplainedBy, "+")
		}
		if e.Why != "" {
			s += ":" + e.Why
		}
		out = append(out, s)
	}
	return strings.Join(out, "\n")
}

func TestLedger(t *testing.T) {
	host := func(c record.Counter) record.Counter { c.NetNS = record.NetNS{}; return c }
	b6 := func(n uint64) record.Count {
		return at(count("B", "gg", n), func(c *record.Count) {
			c.NetNS, c.EtherType, c.IPProto, c.Direction = space, 0x86dd, 17, record.DirectionRX
		})
	}
	elsewhere := func(inode uint32, counter record.Counter) *record.Observation {
		o := watched(a(9), counter)
		o.Counts[0].NetNS = record.NetNS{Inode: inode}
		return o
	}
	two := elsewhere(7, host(moves("T.a", 11)))
	two.Counts = append(two.Counts, at(count("A", "f", 2), func(c *record.Count) { c.NetNS = space }))
	late := watched([]record.Count{count("A", "f", 100)}, moves("T.a", 91))
	late.CountersWindow.Duration = 9 * time.Second
	// 450 a second, of which the counters saw 50 ms less.
	behind, burst := watched([]record.Count{count("A", "f", 466)}, moves("T.a", 442)), watched([]record.Count{count("A", "f", 466)}, moves("T.a", 425))
	for _, o := range []*record.Observation{behind, burst} {
		o.Window.Duration, o.CountersWindow.Duration = 1036*time.Millisecond, 986*time.Millisecond
	}
	filtered := watched([]record.Count{count("A", "f", 5)}, moves("T.a", 9), moves("T.ring", 4))
	filtered.Accounting.DropsFiltered = 4
	lost := watched([]record.Count{count("A", "f", 5)}, moves("T.a", 9))
	lost.Accounting.DropsUnattributed = 4
	part := moves("T.a", 6)
	part.Object = "socket 7"
	level := moves("T.a", 6)
	level.Level = true
	ext := func(c record.Count, dev uint32) record.Count {
		return at(c, func(c *record.Count) { c.NetNS, c.Device.Index = space, dev })
	}
	for _, c := range []struct {
		name string
		o    *record.Observation
		want string
	}{
		{"equal", watched(a(9), moves("T.a", 9)), "a:9/9:equal:one"},
		{"nothing moved", watched(a(9), moves("T.a", 0), moves("T.life", 9), moves("T.bytes", 9)), ""},
		{"more drops", watched(a(9), moves("T.a", 4)), "a:4/9:less:open:one"},
		{"not at the same instant", watched(a(9), moves("T.a", 7)), "a:7/9:less:one:the two are not read at the same instant"},
		{"less time", late, "a:91/100:less:one:9 packets between the two readings: drops were watched 1000 ms longer than counters, and came at 10 a second (10 in that time, by chance up to 19)"},
		{"less time at a high rate", behind, "a:442/466:less:one:24 packets between the two readings: drops were watched 50 ms longer than counters, and came at 450 a second (22 in that time, by chance up to 36)"},
		{"more than came in that time", burst, "a:425/466:less:open:one"},
		{"fewer drops", watched(a(9), moves("T.a", 900)), "a:900/9:greater:open:one+not-known"},
		{"no drops", watched(nil, moves("T.a", 9)), "a:9/0:no-drops:open:not-known"},
		{"drops of another namespace", elsewhere(7, moves("T.a", 9)), "a:9/0:no-drops:open:not-known"},
		{"drops of an unknown namespace", elsewhere(0, moves("T.a", 9)), "a:9/9:equal:one"},
		{"counter of the host", two, "a:11/11:equal:one"},
		{"the same packets", watched([]record.Count{count("A", "f", 9), b6(3)}, moves("T.a", 9), moves("T.b", 3), moves("T.total", 12)), "total:12/12:equal:one+not-known\na:9/9:equal:one\nb:3/3:equal:not-known"},
		{"another family", watched([]record.Count{at(b6(3), func(c *record.Count) { c.EtherType = 0x0800 })}, moves("T.b", 3)), "b:3/0:no-drops:open:not-known"},
		{"another protocol", watched([]record.Count{at(b6(3), func(c *record.Count) { c.IPProto = 6 })}, moves("T.b", 3)), "b:3/0:no-drops:open:not-known"},
		{"another direction", watched([]record.Count{at(b6(3), func(c *record.Count) { c.Direction = record.DirectionTX })}, moves("T.b", 3)), "b:3/0:no-drops:open:not-known"},
		{"what the key does not tell", watched([]record.Count{at(b6(3), func(c *record.Count) { c.EtherType, c.IPProto, c.Direction = 0, 0, "" })}, moves("T.b", 2)), "b:2/2:equal:not-known"},
		{"one chain without drops", watched(nil, moves("T.a", 9), moves("T.total", 9)), "total:9/0:no-drops:chain1:not-known:the same packets are in T.a\na:9/0:no-drops:chain1:open:not-known"},
		{"the total has more", watched(nil, moves("T.a", 9), moves("T.total", 50)), "total:50/0:no-drops:open:not-known\na:9/0:no-drops:open:not-known"},
		{"a kernel without reasons", watched([]record.Count{count("", "f", 12)}, moves("T.a", 9), moves("T.total", 12)), "total:12/12:equal:not-known\na:9/9:equal:not-known"},
		{"a ring", watched(nil, on("T.ring", 120, 2), on("T.all", 120, 2)), "all:120/0:no-drops:chain1:not-known:the same packets are in T.ring\nring:120/0:no-drops:chain1:open:not-known"},
		{"a driver's own name for it", watched(nil, on("T.queue", 120, 2), on("T.ring", 120, 2)), "queue:120/0:no-drops:not-known:the same packets are in T.ring\nring:120/0:no-drops:open:not-known"},
		{"a driver's own number", watched(nil, on("T.queue", 119, 2), on("T.ring", 120, 2)), "queue:119/0:no-drops:open:not-known\nring:120/0:no-drops:open:not-known"},
		{"spared", watched(nil, moves("T.spared", 5), moves("T.life", 5)), "spared:5/0:no-drops:it counts look-ups too"},
		{"spared, by device", watched(nil, moves("T.spared", 5), moves("T.life", 5), on("T.device", 5, 2)), "spared:5/0:no-drops:chain1:it counts look-ups too\ndevice:5/0:no-drops:chain1:the same packets are in T.spared"},
		{"dropped, by device", watched(a(5), moves("T.spared", 5), on("T.device", 5, 2)), "spared:5/5:equal:chain1:one\ndevice:5/0:no-drops:chain1:the same packets are in T.spared"},
		{"not spared", watched(nil, moves("T.spared", 5), moves("T.life", 4)), "spared:5/0:no-drops:open:not-known"},
		{"nobody knows whether it is spared", watched(nil, moves("T.spared", 5)), "spared:5/0:no-drops:open:not-known"},
		{"events", watched(a(9), moves("T.times", 2)), "times:2/9:less:one:it counts events, not packets"},
		{"events alone", watched(nil, moves("T.times", 2)), "times:2/0:no-drops:open:not-known:it counts events, not packets"},
		{"segments", watched([]record.Count{count("A", "seg", 9)}, moves("T.many", 90)), "many:90/9:greater:one:a drop can be of many segments; a packet can be counted more than once"},
		{"filtered, and none for a ring", filtered, "ring:4/0:no-drops:open:not-known\na:9/5:greater:one:4 drops were filtered out"},
		{"not looked at", lost, "a:9/5:greater:one:4 drops could not be looked at"},
		{"a part", watched(a(9), part), "a:6/6:equal:one"},
		{"a part of a total", watched(a(9), moves("T.a", 9), part), "a:9/9:equal:one"},
		{"a level", watched(nil, level), ""},
		{"not the drop's own device", watched([]record.Count{ext(count("A", "f", 9), 2)}, on("T.far", 9, 3)), "far:9/9:equal:one"},
		{"the drop's own device", watched([]record.Count{ext(count("A", "f", 9), 2)}, on("T.far", 9, 2)), "far:9/0:no-drops:open:not-known"},
		{"each drop once", watched([]record.Count{ext(count("A", "f", 9), 2)}, on("T.far", 9, 3), on("T.far", 6, 4)), "far:9/9:equal:one\nfar:6/0:no-drops:open:not-known"},
	} {
		d := diagnose.Run(c.o, books(t), diagnose.Options{})
		if got := entries(d); got != c.want {
			t.Errorf("%s:\n%s\nwant:\n%s", c.name, got, c.want)
		}
	}
}

// A loss that only a counter shows is found, once, and where it happened.
func TestOnlyCounted(t *testing.T) {
	unseen := watched(nil, moves("T.a", 9))
	unseen.Sources = []record.Source{{Name: "skbdrop", State: record.SourceFailed}, {Name: "counters", State: record.SourceOK}}
	hostile := on("T.ring", 5, 2)
	hostile.Device.Name = "x;reboot"
	for _, c := range []struct {
		name  string
		o     *record.Observation
		title string
		class record.Class
		next  string
	}{
		{"ring", watched(nil, on("T.ring", 120, 2), on("T.all", 120, 2)), "lost before the stack: ring of eth2 (netns lab) (T.ring +120); no skb existed, so no drop was seen", record.ClassCapacity, "ethtool -g eth2"},
		{"hostile name", watched(nil, hostile), "lost before the stack: ring of x;reboot (netns lab) (T.ring +5); no skb existed, so no drop was seen", record.ClassCapacity, "ethtool -g DEV"},
		{"driver", watched(nil, on("T.far", 3, 2)), "lost below the stack: driver-tx of eth2 (netns lab) (T.far +3); no drop was seen", record.ClassFault, "whydrop explain T.far"},
		{"socket", watched(nil, moves("T.a", 9), moves("T.total", 9)), "lost at socket (netns lab) (T.a +9); no drop was seen", record.ClassCapacity, "whydrop explain T.a"},
		{"nobody watched", unseen, "lost at socket (netns lab) (T.a +9); drops were not watched", record.ClassCapacity, "whydrop explain T.a"},
		{"some", watched(a(9), moves("T.total", 900)), "lost at transport (netns lab) (T.total +900); 891 of them raised no drop that was seen", record.ClassFault, "whydrop explain T.total"},
	} {
		d := diagnose.Run(c.o, books(t), diagnose.Options{})
		if len(d.Findings) == 0 {
			t.Errorf("%s: nothing found", c.name)
			continue
		}
		f := d.Findings[0]
		if f.Title != c.title || f.Class != c.class || f.Cause != record.CauseNotKnown || f.LostBy != "counters" ||
			!strings.Contains(strings.Join(f.Next, "\n"), c.next) || len(f.Evidence) != 1 || f.Evidence[0].Kind != "counter" || f.Rate == 0 {
			t.Errorf("%s: %+v", c.name, f)
		}
		if n := d.Accounting.DropsExplained + d.Accounting.DropsUnexplained; n != uint64(len(c.o.Counts)*9) {
			t.Errorf("%s: %d drops accounted for", c.name, n)
		}
		var sum uint64
		for _, s := range d.Ledger.Stations {
			sum += s.Explained + s.Unexplained
		}
		var all uint64
		for _, f := range d.Findings {
			all += f.Drops
		}
		if sum != all {
			t.Errorf("%s: %d lost by station, %d by finding", c.name, sum, all)
		}
	}
	d := diagnose.Run(watched(nil, on("T.ring", 120, 2)), books(t), diagnose.Options{})
	if e := d.Findings[0].Evidence[0]; e.Source != "rtnetlink" || e.Command != "ip netns exec lab ip -s link" || e.Value != "120" {
		t.Errorf("evidence %+v", e)
	}
}

// What a driver counts under a name of its own is one loss with what the
// kernel counts.
func TestLedgerOfDrivers(t *testing.T) {
	d := diagnose.Run(watched(nil, on("link.rx_missed_errors", 120, 2), on("ethtool.rx_missed_errors", 120, 2), on("ethtool.rx_no_dma_resources", 120, 2)), load(t), diagnose.Options{})
	if got := found(d); got != "nic-rx-ring-full:120:likely" {
		t.Errorf("found %s", got)
	}
	for _, e := range d.Ledger.Entries {
		if e.Chain != 1 || !e.Closed {
			t.Errorf("%+v", e)
		}
	}
	if len(d.Ledger.Entries) != 3 {
		t.Errorf("%d entries", len(d.Ledger.Entries))
	}
}

// What the catalogue does not know is listed where its name says that it is a
// loss, and makes no finding.
func TestUnknownCountersThatSoundLikeLoss(t *testing.T) {
	d := diagnose.Run(watched(nil, moves("eth.rx_no_buffer_count", 7), moves("eth.rx_csum_good", 7), moves("TcpExt.NewDrop", 1)), books(t), diagnose.Options{})
	if len(d.Findings) != 0 || len(d.Ledger.Entries) != 0 {
		t.Errorf("found %s, entries %v", found(d), d.Ledger.Entries)
	}
	if len(d.Counters) != 2 || d.Counters[0].Station != "unknown" || d.Counters[0].Name != "eth.rx_no_buffer_count" || d.Counters[1].Name != "TcpExt.NewDrop" {
		t.Errorf("counters %+v", d.Counters)
	}
}

func TestLoadDropsRefuses(t *testing.T) {
	change := func(old, repl string) string {
		if !strings.Contains(ledgerDrops, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(ledgerDrops, old, repl, 1)
	}
	for _, c := range []struct{ name, drops, want string }{
		{"counter", change("T.b:", "T.z:"), "counter T.z: it is in no file"},
		{"reason", change("[B]", "[C]"), "reason C is in no file"},
		{"nothing", change("{silent: the device counts it alone}", "{}"), "counter T.all: nothing"},
		{"again", change("again_in: [T.all]", "again_in: [T.z]"), `"T.z" is no other counter`},
		{"itself", change("again_in: [T.all]", "again_in: [T.ring]"), `"T.ring" is no other counter`},
		{"circle", change("T.all: {", "T.all: {again_in: [T.ring], "), "circle"},
		{"relation", change("at_least", "perhaps"), `unknown relation "perhaps"`},
		{"scope", change("scope: host", "scope: moon"), `unknown scope "moon"`},
		{"family", change("family: 6", "family: 5"), "unknown family 5"},
		{"protocol", change("[udp]", "[smoke]"), `unknown protocol "smoke"`},
		{"direction", change("[rx]", "[up]"), `unknown direction "up"`},
		{"stack", change("directions: [rx]", "stack: [x]"), "samples only"},
		{"spare", change(`counter("T.life")`, "counter("), "spare"},
		{"spare alone", change("harmless: it counts look-ups too, ", ""), "spare"},
		{"field", change("silent", "loud"), "loud"},
		{"no symbol", change("[f]", "[f-]"), "symbol"},
		{"kinds", change("{reasons: [A]}\n", "{reasons: [A], kinds: [vxlan]}\n"), "at_most"},
	} {
		if _, err := diagnose.Load(ledgerFS(c.drops)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := diagnose.Load(ledgerFS("")); err != nil {
		t.Errorf("without the file: %v", err)
	}
}
