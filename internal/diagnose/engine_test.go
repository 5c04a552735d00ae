package diagnose_test

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// cause makes a cause.yaml: what every cause has, and more.
func cause(id, more string) string {
	return fmt.Sprintf("id: %s\ntitle: \"%s of ${drops}\"\nclass: fault\nstation: transport\ndirection: rx\nverified: [\"6.18\"]\n%s", id, id, more)
}

// engine loads a base with these causes.
func engine(t testing.TB, causes ...string) *diagnose.Knowledge {
	t.Helper()
	k, err := diagnose.Load(causesFS(causes...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func causesFS(causes ...string) fstest.MapFS {
	files := base(goodReasons, goodRules)
	for _, c := range causes {
		id, _, _ := strings.Cut(strings.TrimPrefix(c, "id: "), "\n")
		files["causes/"+id+"/cause.yaml"] = &fstest.MapFile{Data: []byte(c)}
	}
	return files
}

// Pieces of causes.
const (
	byReason = "drops: [{reasons: [A]}]\n"
	counterA = "evidence: [{counter: T.a, expect: equal, role: confirms}]\n"
)

var space = record.NetNS{Inode: 4026532281, Name: "lab"}

// watched is an observation of 10 s of these drops and counters.
func watched(counts []record.Count, counters ...record.Counter) *record.Observation {
	for i := range counts {
		counts[i].NetNS = space
	}
	return &record.Observation{Window: record.Window{Duration: 10 * time.Second}, Counts: counts, Counters: counters}
}

func moves(name string, delta uint64) record.Counter {
	return record.Counter{Name: name, NetNS: space, Before: 5, After: 5 + delta, Delta: delta}
}

func fact(kind, request, value string) record.Fact {
	return record.Fact{Kind: kind, Request: request, Name: request, Value: value, NetNS: space}
}

// found prints findings as cause:drops:confidence.
func found(d record.Diagnosis) string {
	var out []string
	for _, f := range d.Findings {
		out = append(out, fmt.Sprintf("%s:%d:%s", f.Cause, f.Drops, f.Confidence))
	}
	return strings.Join(out, " ")
}

func sampled(o *record.Observation, n int, change func(i int, d *record.Drop)) *record.Observation {
	for i := range n {
		d := record.Drop{Key: o.Counts[0].Key, Packet: udp("10.0.0.1:1000", "10.0.0.2:53"), Length: 100}
		if change != nil {
			change(i, &d)
		}
		o.Samples = append(o.Samples, d)
	}
	return o
}

func a(n uint64) []record.Count { return []record.Count{count("A", "f", n)} }

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestEngine(t *testing.T) {
	plain := cause("one", byReason+counterA)
	shared := func(id, counter string) string {
		return cause(id, "drops: [{reasons: [A], share: 'counter(\""+counter+"\")'}]\n")
	}
	needs := cause("one", byReason+"facts: [sysctl net/x]\nevidence: [{fact: sysctl net/x, expect: value == 1, role: needs}, {counter: T.a, expect: moves, role: confirms}]\n")
	withFact := func(o *record.Observation, fs ...record.Fact) *record.Observation { o.Facts = fs; return o }
	missing := fact("sysctl", "net/x", "")
	missing.Missing = "no permission"
	syn := cause("syn", "drops: [{reasons: [A], where: syn}]\n"+counterA)
	scan := cause("scan", "drops: [{reasons: [A], where: syn, share: 'counter(\"T.a\")'}]\n")
	late := watched(a(100), moves("T.a", 91))
	late.CountersWindow.Duration = 9 * time.Second
	skewed := watched(a(1000), moves("T.a", 850), moves("T.b", 150))
	skewed.CountersWindow.Duration = 8 * time.Second
	behind := watched(a(466), moves("T.a", 442)) // 450 a second, of which the counters saw 50 ms less
	behind.Window.Duration, behind.CountersWindow.Duration = 1036*time.Millisecond, 986*time.Millisecond
	exact := watched(a(53), moves("T.a", 50), moves("T.b", 3))
	exact.CountersWindow.Duration = exact.Window.Duration - time.Millisecond
	ahead := watched(a(100), moves("T.a", 130))
	ahead.CountersWindow.Duration = 7500 * time.Millisecond
	manyFiltered := watched(a(1), moves("T.a", 1000000))
	manyFiltered.Accounting.DropsFiltered = 1
	filtered := watched(a(5), moves("T.a", 9))
	filtered.Accounting.DropsFiltered = 4
	for _, c := range []struct {
		name   string
		causes []string
		o      *record.Observation
		want   string
	}{
		{"confirmed", []string{plain}, watched(a(9), moves("T.a", 9)), "one:9:certain"},
		{"nearly equal", []string{plain}, watched(a(1000), moves("T.a", 1019)), "one:1000:certain"},
		{"contradicted", []string{plain}, watched(a(9), moves("T.a", 0)), "one:9:possible"},
		{"not checked", []string{plain}, watched(a(9)), "one:9:likely"},
		{"with a filter the counter has more", []string{plain}, filtered, "one:5:certain"},
		{"with a filter a sum has more", []string{cause("one", byReason+"evidence: [{name: sum, value: 'counter(\"T.a\")', expect: matches_drops(value), role: confirms}]\n")}, filtered, "one:5:certain"},
		{"counters saw nine tenths of it", []string{shared("one", "T.a"), cause("two", "drops: [{reasons: [A], share: 'drops - counter(\"T.a\")'}]\n")}, late, "one:100:likely"},
		{"counters saw 50 ms less", []string{plain}, behind, "one:466:certain"},
		{"few of another cause, or skew", []string{cause("one", "drops: [{reasons: [A], share: 'counter(\"T.a\")'}]\n"+counterA), shared("two", "T.b")}, skewed, "one:1000:likely"},
		{"few of another cause, and no skew", []string{shared("one", "T.a"), shared("two", "T.b")}, exact, "one:50:likely two:3:likely"},
		{"counters saw nine tenths of one cause", []string{shared("one", "T.a")}, late, "one:100:likely"},
		{"counters saw all of it", []string{shared("one", "T.a")}, watched(a(100), moves("T.a", 91)), "one:91:likely not-known:9:possible"},
		{"a counter that is far ahead, with a filter", []string{plain}, manyFiltered, "one:1:possible"},
		{"a counter that is ahead, and had less time", []string{plain}, ahead, "one:100:possible"},
		{"never verified", []string{strings.Replace(plain, `["6.18"]`, "[]", 1)}, watched(a(9), moves("T.a", 9)), "one:9:likely"},
		{"no cause", nil, watched(a(9)), "not-known:9:possible"},
		{"another reason", []string{plain}, watched([]record.Count{count("B", "f", 9)}), "not-known:9:possible"},
		{"two alike", []string{plain, cause("two", byReason)}, watched(a(9), moves("T.a", 9)), "not-known:9:possible"},
		{"the more specific", []string{plain, cause("two", "drops: [{reasons: [A], symbols: [f]}]\n")}, watched(a(9)), "two:9:likely"},
		{
			"shares",
			[]string{shared("one", "T.a"), shared("two", "T.b")},
			watched(a(9), moves("T.a", 4), moves("T.b", 5)), "two:5:likely one:4:likely",
		},
		{
			"shares leave some",
			[]string{shared("one", "T.a"), shared("two", "T.b")},
			watched(a(9), moves("T.a", 4), moves("T.b", 2)), "one:4:likely not-known:3:possible two:2:likely",
		},
		{
			"share, and who takes the rest",
			[]string{shared("one", "T.a"), cause("two", byReason)},
			watched(a(9), moves("T.a", 4)), "two:5:likely one:4:likely",
		},
		{"a share that is not known, alone", []string{shared("one", "T.a")}, watched(a(9)), "not-known:9:possible"},
		{"shares that are not known", []string{shared("one", "T.a"), shared("two", "T.b")}, watched(a(9)), "not-known:9:possible"},
		{"a share over two places", []string{shared("one", "T.a")}, watched([]record.Count{count("A", "f", 5), count("A", "g", 3)}, moves("T.a", 6)), "one:6:likely not-known:2:possible"},
		{"needed and there", []string{needs}, withFact(watched(a(9), moves("T.a", 9)), fact("sysctl", "net/x", "1")), "one:9:certain"},
		{"needed and not so", []string{needs}, withFact(watched(a(9), moves("T.a", 9)), fact("sysctl", "net/x", "0")), "not-known:9:possible"},
		{"needed and not read", []string{needs}, watched(a(9), moves("T.a", 9)), "one:9:likely"},
		{"needed and missing", []string{needs}, withFact(watched(a(9), moves("T.a", 9)), missing), "one:9:likely"},
		{"one excluded, the other takes", []string{needs, cause("two", byReason)}, withFact(watched(a(9)), fact("sysctl", "net/x", "0")), "two:9:likely"},
		{"by sample", []string{syn}, sampled(watched(a(9), moves("T.a", 9)), 3, func(_ int, d *record.Drop) { d.Packet.TCPFlags = 2 }), "syn:9:certain"},
		{"no sample", []string{syn}, watched(a(9), moves("T.a", 9)), "not-known:9:possible"},
		{
			"samples differ",
			[]string{syn},
			sampled(watched(a(9), moves("T.a", 6)), 3, func(i int, d *record.Drop) { d.Packet.TCPFlags = uint16(2 * min(i, 1)) }),
			"syn:6:likely not-known:3:possible",
		},
		{ // of 100 drops 48 of 80 samples, 60, are of the cause; its counter says 57
			"samples are near the counter",
			[]string{scan},
			sampled(watched(a(100), moves("T.a", 57), moves("T.zero", 0)), 80, func(i int, d *record.Drop) { d.Packet.TCPFlags = uint16(2 * btoi(i < 48)) }),
			"scan:57:likely not-known:43:possible",
		},
		{ // 60 and 20 cannot be chance
			"samples are far from the counter",
			[]string{scan},
			sampled(watched(a(100), moves("T.a", 20)), 80, func(i int, d *record.Drop) { d.Packet.TCPFlags = uint16(2 * btoi(i < 48)) }),
			"not-known:80:possible scan:20:likely",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := found(diagnose.Run(c.o, engine(t, c.causes...), diagnose.Options{})); got != c.want {
				t.Errorf("found %s, want %s", got, c.want)
			}
		})
	}
}

func TestEngineLostWithoutDrops(t *testing.T) {
	k := engine(t, cause("silent", "lost: counter(\"T.s\")\nevidence: [{counter: T.s, expect: moves, role: confirms}]\n"),
		cause("both", "drops: [{reasons: [A]}]\nlost: counter(\"T.b\")\n"),
		cause("wide", "lost: counter(\"H.w\")\n"))
	other := record.NetNS{Inode: 4026539999}
	wide := record.Counter{Name: "H.w", Delta: 7}
	far := moves("T.s", 2)
	far.NetNS = other
	d := diagnose.Run(watched(a(3), moves("T.s", 4), moves("T.b", 8), far, wide), k, diagnose.Options{})
	if got, want := found(d), "both:8:likely wide:7:likely silent:4:certain silent:2:certain"; got != want {
		t.Fatalf("found %s, want %s", got, want)
	}
	for _, f := range d.Findings {
		if f.LostBy != "counters" {
			t.Errorf("%s: lost by %s", f.Cause, f.LostBy)
		}
	}
	if a := d.Accounting; a.DropsExplained != 3 || a.DropsUnexplained != 0 {
		t.Errorf("%d explained, %d not: only drops are accounted for, not counters", a.DropsExplained, a.DropsUnexplained)
	}
	if got := found(diagnose.Run(watched(nil, moves("T.s", 0), wide), engine(t), diagnose.Options{})); got != "" {
		t.Errorf("found %s where no cause is", got)
	}
}

func TestEnginePerDevice(t *testing.T) {
	k := engine(t, cause("dev", "per: device\ndrops: [{reasons: [A]}]\nevidence: [{counter: link.d, expect: equal, role: confirms}]\n"))
	eth0, eth1 := record.Device{Index: 2, Name: "eth0"}, record.Device{Index: 3, Name: "eth1"}
	c0, c1 := count("A", "f", 4), count("A", "f", 9)
	c0.Device, c1.Device = eth0, eth1
	n0, n1 := moves("link.d", 4), moves("link.d", 0)
	n0.Device, n1.Device = eth0, eth1
	d := diagnose.Run(watched([]record.Count{c0, c1}, n0, n1), k, diagnose.Options{})
	if got, want := found(d), "dev:9:possible dev:4:certain"; got != want {
		t.Fatalf("found %s, want %s", got, want)
	}
}

// What a shell could take for a command never stands in one.
func TestEngineHostileNames(t *testing.T) {
	k := engine(t, cause("one", byReason+`facts: ["link ${device}"]
remedy:
  - {command: "${ns}ip link set dev ${device} up", persist: p, undo: u, risk: r, why: "for ${device}"}
  - {command: "tc ${field(\"link \" + device, \"kind\")}", persist: p, undo: u, risk: r, why: w}
  - {command: "ss ${facts(\"link \" + device)[0].kind}", persist: p, undo: u, risk: r, why: w}
  - {command: "port ${dport}", persist: p, undo: u, risk: r, why: w}
verify: ["ip link show ${device}"]
`))
	for _, c := range []struct {
		device, kind string
		remedies     int
	}{{"eth0", "veth", 3}, {"eth0", "$(reboot)", 1}, {"x;reboot;#", "veth", 2}, {"", "veth", 0}} {
		o := watched(a(9))
		o.Counts[0].Device = record.Device{Index: 4, Name: c.device}
		link := fact("link", c.device, "up")
		link.Fields = map[string]string{"kind": c.kind}
		o.Facts = []record.Fact{link}
		f := diagnose.Run(o, k, diagnose.Options{}).Findings[0]
		if c.device == "" {
			f.Remedy = slices.DeleteFunc(f.Remedy, func(r record.Remedy) bool { return !strings.Contains(r.Command, "dev") })
		}
		if len(f.Remedy) != c.remedies && c.device != "x;reboot;#" {
			t.Errorf("%q, %q: remedies %+v, want %d", c.device, c.kind, f.Remedy, c.remedies)
		}
		for _, text := range append(f.Verify, fmt.Sprint(f.Remedy)) {
			if strings.Contains(text, "up reboot") || strings.ContainsAny(strings.ReplaceAll(text, "for x;reboot;#", ""), ";$#") {
				t.Errorf("%q, %q: %s", c.device, c.kind, text)
			}
		}
	}
}

// A finding speaks of the packets that it has, not of those that another cause
// took.
func TestEngineSettles(t *testing.T) {
	k := engine(t, cause("web", "drops: [{reasons: [A], where: 'dport == 53'}]\n"),
		cause("rest", byReason+"remedy: [{command: 'block ${dst} ${dport}', persist: p, undo: u, risk: r, why: w}]\n"))
	o := sampled(watched(a(100)), 10, func(i int, d *record.Drop) {
		if i >= 8 {
			d.Packet = udp("10.0.0.1:1000", "10.9.9.9:80")
		}
	})
	d := diagnose.Run(o, k, diagnose.Options{})
	if found(d) != "web:80:likely rest:20:likely" {
		t.Fatal(found(d))
	}
	f := d.Findings[1]
	if len(f.Flows) != 1 || f.Flows[0].Flow.Dst.Port() != 80 || f.Remedy[0].Command != "block 10.9.9.9 80" {
		t.Errorf("flows %+v, remedy %+v", f.Flows, f.Remedy)
	}
}

// Without is what a base without the folder loads as.
func TestWithout(t *testing.T) {
	both := engine(t, cause("one", byReason), cause("two", byReason+counterA))
	o := watched(a(9), moves("T.a", 9))
	got := found(diagnose.Run(o, both.Without("one"), diagnose.Options{}))
	want := found(diagnose.Run(o, engine(t, cause("two", byReason+counterA)), diagnose.Options{}))
	if got != want || len(both.Causes()) != 2 {
		t.Errorf("found %s, want %s; %d causes are left in the whole", got, want, len(both.Causes()))
	}
}

func TestEngineWords(t *testing.T) {
	more := byReason + `facts: ["sysctl net/x", "link ${device}", "owner ${inode}", tcp-listeners]
evidence:
  - {counter: T.a, expect: equal, role: confirms, says: "as many, ${delta} of ${after}"}
  - {counter: T.gone, expect: moves}
  - {name: "twice", value: "drops * 2", expect: "value > 1000"}
  - {fact: "link ${device}", expect: "field(\"link \" + device, \"mtu\") == 1500", when: "device != \"\""}
remedy:
  - {command: "sysctl -w net.x=${sysctl(\"net/x\") * 2}", persist: p, undo: "sysctl -w net.x=${sysctl(\"net/x\")}", risk: r, why: w}
  - {command: "never", when: "sysctl(\"net/x\") > 99"}
  - {command: "tc ${counter(\"T.gone\")}"}
verify: ["${ns}nstat -az Ta", "x ${counter(\"T.gone\")}"]
next: ["look"]
`
	k := engine(t, strings.Replace(cause("one", more), "of ${drops}", "${proto} ${dst}:${dport} by ${owner} ${counter('T.gone')}", 1))
	o := watched(a(9), moves("T.a", 9))
	o.Counts[0].Device = record.Device{Index: 4, Name: "eth0"}
	link := fact("link", "eth0", "up")
	link.Fields = map[string]string{"mtu": "1500"}
	o.Facts = []record.Fact{fact("sysctl", "net/x", "21"), link, fact("owner", "77", "srv[9]")}
	sampled(o, 2, func(_ int, d *record.Drop) { d.Socket = &record.Socket{Inode: 77} })
	f := diagnose.Run(o, k, diagnose.Options{}).Findings[0]
	if want := "one udp 10.0.0.2:53 by srv[9] ?"; f.Title != want {
		t.Errorf("title %q, want %q", f.Title, want)
	}
	if len(f.Remedy) != 1 || f.Remedy[0].Command != "sysctl -w net.x=42" || f.Remedy[0].Undo != "sysctl -w net.x=21" {
		t.Errorf("remedy %+v", f.Remedy)
	}
	if !slices.Equal(f.Verify, []string{"ip netns exec lab nstat -az Ta"}) || !slices.Equal(f.Owners, []string{"srv[9] (socket inode 77)"}) {
		t.Errorf("verify %q, owners %q", f.Verify, f.Owners)
	}
	var ev []string
	for _, e := range f.Evidence {
		ev = append(ev, fmt.Sprintf("%s=%s:%v:%s", e.Name, e.Value, e.Supports, e.Says))
	}
	want := []string{"A@f=9:true:", "T.a=9:true:as many, 9 of 14", "twice=18:false:", "link eth0=up:true:"}
	if !slices.Equal(ev, want) {
		t.Errorf("evidence %q, want %q", ev, want)
	}
	if len(f.Unchecked) != 2 || f.Confidence != record.ConfidenceCertain || len(f.Next) != 0 {
		t.Errorf("unchecked %q, %s, next %q", f.Unchecked, f.Confidence, f.Next)
	}
	var asked []string
	for _, r := range diagnose.Wants(o, k) {
		asked = append(asked, strings.TrimSpace(r.Kind+" "+r.Arg))
	}
	if want := []string{"sysctl net/x", "link eth0", "owner 77", "tcp-listeners", "netns"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

func TestLoadCauseRefuses(t *testing.T) {
	good := cause("one", byReason+counterA)
	for _, c := range []struct{ name, text, want string }{
		{"unknown field", good + "colour: red\n", "colour"},
		{"other id", strings.Replace(good, "id: one", "id: two", 1), "not the folder's name"},
		{"unknown name", good + "lost: nonsense\n", "unknown name nonsense"},
		{"wrong type", good + "lost: 'counter(3)'\n", "cannot use int"},
		{"no condition", cause("one", counterA), "neither drops nor lost"},
		{"no bool", cause("one", byReason+"evidence: [{counter: T.a, expect: 'delta + 1'}]\n"), "expected bool"},
		{"shorthand of a fact", cause("one", byReason+"facts: [conntrack]\nevidence: [{fact: conntrack, expect: moves}]\n"), "needs a counter"},
		{"unknown role", cause("one", byReason+"evidence: [{counter: T.a, expect: moves, role: x}]\n"), "unknown role"},
		{"fact not asked for", cause("one", byReason+"evidence: [{counter: T.a, expect: 'sysctl(\"net/x\") > 1'}]\n"), "not among the facts"},
		{"open template", strings.Replace(good, "${drops}", "${drops", 1), "without }"},
		{"sample's name in a finding", cause("one", "drops: [{reasons: [A], where: drops > 1}]\n"), "unknown name drops"},
		{"depends on itself", good + "depends_on: [one]\n", "no other cause"},
		{"class", strings.Replace(good, "fault", "bad", 1), "unknown class"},
		{"reason", strings.Replace(good, "[A]", "[6]", 1), "not a reason's name"},
	} {
		files := causesFS(good)
		files["causes/one/cause.yaml"] = &fstest.MapFile{Data: []byte(c.text)}
		_, err := diagnose.Load(files)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "causes/one/cause.yaml") {
			t.Errorf("%s: %v, want an error that says %q and names the file", c.name, err, c.want)
		}
	}
}

// A base that is taken as accepted is not looked into: what a wrong expression
// asks for is not known, and all else holds. Several may use it at once.
func TestLoadAccepted(t *testing.T) {
	files := causesFS(cause("one", byReason+counterA+"next: ['x ${nonsense}', 'y ${drops}']\nlost: nonsense\n"))
	if _, err := diagnose.Load(files); err == nil || !strings.Contains(err.Error(), "unknown name nonsense") {
		t.Errorf("Load: %v", err)
	}
	k, err := diagnose.LoadAccepted(files)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			o := watched(a(9), moves("T.a", 4))
			found := diagnose.Run(o, k, diagnose.Options{}).Findings
			if len(found) != 1 || found[0].Title != "one of 9" || found[0].Drops != 9 || !slices.Equal(found[0].Next, []string{"y 9"}) {
				t.Errorf("%+v", found)
			}
		})
	}
	wg.Wait()
	if k, err = diagnose.LoadAccepted(knowledge.FS); err != nil {
		t.Fatal(err)
	}
	o := large(3)
	want := diagnose.Run(o, load(t), diagnose.Options{All: true})
	if got := diagnose.Run(o, k, diagnose.Options{All: true}); !reflect.DeepEqual(got, want) {
		t.Errorf("not the same as with Load: %d findings, want %d", len(got.Findings), len(want.Findings))
	}
}

// TestEngineOnAnything: whatever was counted, each drop is in one finding,
// and what speaks against a cause keeps it from being certain.
func TestEngineOnAnything(t *testing.T) {
	diagnose.Alone(t)
	k := engine(t, cause("one", byReason+counterA), cause("two", "drops: [{reasons: [A], symbols: [g], share: 'counter(\"T.b\")'}, {reasons: [B]}]\n"+
		"evidence: [{counter: T.b, expect: at-least, role: confirms}]\n"),
		cause("three", "per: device\ndrops: [{reasons: [B], where: 'dport == 53'}, {reasons: [C], share: 'drops - counter(\"T.a\")'}]\n"))
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 2000 {
		var counts []record.Count
		var total uint64
		for range r.IntN(8) {
			c := count([]string{"A", "B", "C", "D"}[r.IntN(4)], []string{"f", "g"}[r.IntN(2)], 1+r.Uint64N(1+1<<r.IntN(60)))
			c.Device.Index = uint32(r.IntN(3))
			counts, total = append(counts, c), total+c.Drops
		}
		var counters []record.Counter
		for _, name := range []string{"T.a", "T.b"} {
			if r.IntN(3) > 0 {
				counters = append(counters, moves(name, r.Uint64N(1+1<<r.IntN(60))))
			}
		}
		o := watched(counts, counters...)
		for i := range counts {
			for range r.IntN(3) {
				o.Samples = append(o.Samples, record.Drop{Key: counts[i].Key, Packet: udp("10.0.0.1:1", fmt.Sprintf("10.0.0.2:%d", 52+r.IntN(2)))})
			}
		}
		d := diagnose.Run(o, k, diagnose.Options{All: true})
		var sum uint64
		for _, f := range d.Findings {
			sum += f.Drops
			for _, e := range f.Evidence {
				if !e.Supports && f.Confidence == record.ConfidenceCertain {
					t.Fatalf("%d: certain in spite of %+v", n, e)
				}
			}
		}
		if a := d.Accounting; sum != total || a.DropsExplained+a.DropsUnexplained != total {
			t.Fatalf("%d: findings have %d of %d drops, accounting %+v\n%+v", n, sum, total, a, counts)
		}
	}
}

// BenchmarkLoad reads the whole knowledge base, as lint and as the program
// does, and the parts of it that watch and counters need.
func BenchmarkLoad(b *testing.B) {
	for name, load := range map[string]func(fs.FS) (*diagnose.Knowledge, error){
		"checked": diagnose.Load, "accepted": diagnose.LoadAccepted,
		"triage": diagnose.LoadTriage, "counters": diagnose.LoadCounters,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := cpu(b)
			for b.Loop() {
				if _, err := load(knowledge.FS); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu(b)-before)/1e6/float64(b.N), "cpu-ms/op")
		})
	}
}
