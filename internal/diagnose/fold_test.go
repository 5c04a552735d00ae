package diagnose_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// chain are causes of which each depends on the one before: ring, backlog,
// socket.
func chain(root, backlog, socket string) []string {
	return []string{
		cause("ring", "lost: counter(\"l.missed\")\n"+root),
		cause("backlog", "drops: [{reasons: [A]}]\ndepends_on: [ring]\n"+backlog),
		cause("socket", "drops: [{reasons: [B]}]\ndepends_on: [backlog]\n"+socket),
	}
}

func TestFold(t *testing.T) {
	plain := chain("", "", "")
	host := chain("scope: host\n", "", "")
	needs := chain("", "", "depends_when: counter(\"T.busy\") > 0\n")
	elsewhere := record.NetNS{Inode: 4026532999, Name: "other"}
	three := func(missed uint64, more ...record.Counter) *record.Observation {
		return watched([]record.Count{count("A", "f", 20), count("B", "f", 30)}, append(more, moves("l.missed", missed))...)
	}
	ringElsewhere := three(0)
	c := moves("l.missed", 5)
	c.NetNS = elsewhere
	ringElsewhere.Counters = append(ringElsewhere.Counters, c)
	doubtful := strings.Replace(plain[0], "lost:", "evidence: [{counter: T.no, expect: moves, role: confirms}]\nlost:", 1)
	hidden := strings.Replace(plain[0], "class: fault", "class: expected", 1)
	for _, c := range []struct {
		name   string
		causes []string
		o      *record.Observation
		want   string
	}{
		{"three in a chain", plain, three(5), "ring:5<socket:30 backlog:20>"},
		{"the middle is not there", plain, watched([]record.Count{count("B", "f", 30)}, moves("l.missed", 5)), "ring:5<socket:30>"},
		{"no root", plain, three(0), "backlog:20<socket:30>"},
		{"the root in another namespace", plain, ringElsewhere, "backlog:20<socket:30> ring:5"},
		{"a root of the whole host", host, ringElsewhere, "ring:5<socket:30 backlog:20>"},
		{"the root is contradicted", append([]string{doubtful}, plain[1:]...), three(5, moves("T.no", 0)), "backlog:20<socket:30> ring:5"},
		{"the root is hidden", append([]string{hidden}, plain[1:]...), three(5), "backlog:20<socket:30>"},
		{"a condition holds", needs, three(5, moves("T.busy", 1)), "ring:5<socket:30 backlog:20>"},
		{"a condition does not hold", needs, three(5, moves("T.busy", 0)), "socket:30 ring:5<backlog:20>"},
		{"a condition is not known", needs, three(5), "socket:30 ring:5<backlog:20>"},
		{"what is not known stays", plain, watched([]record.Count{count("A", "f", 20), count("C", "f", 90)}, moves("l.missed", 5)), "not-known:90 ring:5<backlog:20>"},
	} {
		d := diagnose.Run(c.o, engine(t, c.causes...), diagnose.Options{})
		if got := hung(d.Findings); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		var drops uint64
		for _, n := range c.o.Counts {
			drops += n.Drops
		}
		if a := d.Accounting; a.DropsExplained+a.DropsUnexplained != drops {
			t.Errorf("%s: %d explained and %d not, of %d", c.name, a.DropsExplained, a.DropsUnexplained, drops)
		}
	}
}

// A finding of one device is no reason for what another lost, and what begins
// when the other is over none either.
func TestFoldOnDevicesAndInTime(t *testing.T) {
	k := engine(t,
		cause("queue", "per: device\ndrops: [{reasons: [A]}]\n"),
		cause("socket", "drops: [{reasons: [B]}]\ndepends_on: [queue]\n"))
	with := func(dev uint32, first, last uint64) *record.Observation {
		o := watched([]record.Count{count("A", "f", 5), count("B", "f", 9)})
		o.Counts[0].Device, o.Counts[1].Device = record.Device{Index: 1, Name: "eth1"}, record.Device{Index: dev, Name: fmt.Sprint("eth", dev)}
		for i, at := range []uint64{first, last} {
			o.Samples = append(o.Samples, record.Drop{Key: o.Counts[i].Key, KernelTime: at})
		}
		return o
	}
	for _, c := range []struct {
		name, want string
		o          *record.Observation
	}{
		{"the same device", "queue:5<socket:9>", with(1, 10, 20)},
		{"another device", "socket:9 queue:5", with(2, 10, 20)},
		{"it came later", "socket:9 queue:5", with(1, 30, 20)},
	} {
		if got := hung(diagnose.Run(c.o, k, diagnose.Options{}).Findings); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// The order is that of the packets that are explained, then of classes, then of
// confidence.
func TestRanking(t *testing.T) {
	of := func(id, class, more string) string {
		return strings.Replace(cause(id, more), "class: fault", "class: "+class, 1)
	}
	k := engine(t,
		of("small-root", "policy", "drops: [{reasons: [A]}]\n"),
		of("symptom", "capacity", "drops: [{reasons: [B]}]\ndepends_on: [small-root]\n"),
		of("big", "capacity", "drops: [{reasons: [C]}]\n"),
		of("fault", "fault", "drops: [{reasons: [D]}]\n"),
		of("sure", "capacity", "drops: [{reasons: [E]}]\n"+counterA),
		of("a-doubtful", "capacity", "drops: [{reasons: [F]}]\nevidence: [{counter: T.b, expect: equal, role: confirms}]\n"),
	)
	o := watched([]record.Count{
		count("A", "f", 1), count("B", "f", 70), count("C", "f", 70), count("D", "f", 9), count("E", "f", 9), count("F", "f", 9),
	}, moves("T.a", 9), moves("T.b", 0))
	d := diagnose.Run(o, k, diagnose.Options{})
	if got, want := hung(d.Findings), "small-root:1<symptom:70> big:70 fault:9 sure:9 a-doubtful:9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := d.Findings[0].Explains(); n != 71 {
		t.Errorf("explains %d", n)
	}
	if !diagnose.ExceedsFailOn(record.Diagnosis{Findings: d.Findings[:1]}, record.ClassCapacity) {
		t.Error("a symptom that is graver than its root does not count")
	}
}
