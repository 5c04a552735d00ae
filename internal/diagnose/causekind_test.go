package diagnose_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// Causes that are no loss.
func contributor(id, more string) string {
	return cause(id, "kind: contributor\n"+more)
}

func conclusion(id, more string) string {
	return strings.Replace(cause(id, "kind: conclusion\n"+more), "class: fault", "class: expected", 1)
}

// hung prints findings with what hangs on them: cause<symptoms>+contributors.
func hung(fs []record.Finding) string {
	var out []string
	for _, f := range fs {
		s := fmt.Sprintf("%s:%d", f.Cause, max(f.Drops, f.Events))
		if len(f.Symptoms) > 0 {
			s += "<" + hung(f.Symptoms) + ">"
		}
		for _, c := range f.Contributors {
			s += "+" + c.Cause + ":" + string(c.Confidence)
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func wanted(o *record.Observation, k *diagnose.Knowledge) string {
	var out []string
	for _, r := range diagnose.Wants(o, k) {
		if r.Kind != "netns" {
			out = append(out, strings.TrimSpace(r.Kind+" "+r.Arg))
		}
	}
	return strings.Join(out, ", ")
}

func TestContributors(t *testing.T) {
	one := cause("one", byReason+counterA)
	two := cause("two", "drops: [{reasons: [B]}]\n")
	squeeze := contributor("squeeze", `contributes_to: [one]
when: counter("T.squeeze") > 0
holds: counter("T.squeeze") * 2 > drops && sysctl("net/budget") < 600
facts: [sysctl net/budget]
evidence: [{counter: T.squeeze, expect: moves, role: confirms}]
remedy: [{command: 'sysctl -w net.budget=${sysctl("net/budget") * 2}'}]
`)
	k := engine(t, one, two, squeeze)
	with := func(squeezed uint64, budget string) *record.Observation {
		o := watched([]record.Count{count("A", "f", 10), count("B", "f", 4)}, moves("T.a", 10), moves("T.squeeze", squeezed))
		if budget != "" {
			o.Facts = []record.Fact{fact("sysctl", "net/budget", budget)}
		}
		return o
	}
	for _, c := range []struct {
		name string
		o    *record.Observation
		want string
	}{
		{"holds", with(6, "300"), "one:10+squeeze:certain two:4"},
		{"too few", with(4, "300"), "one:10 two:4"},
		{"the fact is against it", with(6, "600"), "one:10 two:4"},
		{"the fact is not known", with(6, ""), "one:10 two:4"},
	} {
		d := diagnose.Run(c.o, k, diagnose.Options{})
		if got := hung(d.Findings); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		for _, f := range d.Findings {
			for _, by := range f.Contributors {
				if by.Drops != 0 || len(by.Remedy) != 1 || by.Remedy[0].Command != "sysctl -w net.budget=600" || by.NetNS[0] != "lab" {
					t.Errorf("%s: %+v", c.name, by)
				}
			}
		}
	}
	for _, c := range []struct {
		name string
		o    *record.Observation
		want string
	}{
		{"worth it", with(1, ""), "sysctl net/budget"},
		{"the counter is quiet", with(0, ""), ""},
		{"nothing to contribute to", watched([]record.Count{count("B", "f", 4)}, moves("T.squeeze", 9)), ""},
	} {
		if got := wanted(c.o, k); got != c.want {
			t.Errorf("%s: asks for %q, want %q", c.name, got, c.want)
		}
	}
}

// A contributor to what a device loses sees that device.
func TestContributorOfADevice(t *testing.T) {
	k := engine(t, cause("ring", "per: device\nscope: host\nlost: counter(\"l.missed\")\n"), contributor("irq", `contributes_to: [ring]
when: counter("l.missed") > 0
holds: field("irqs "+device, "spread") > 3
facts: ['irqs ${device}']
`))
	missed := counted("l.missed", space, record.Device{Index: 7, Name: "eth7"}, "", 0, 50)
	quiet := counted("l.missed", space, record.Device{Index: 8, Name: "eth8"}, "", 0, 0)
	o := watched(nil, missed, quiet)
	if got := wanted(o, k); got != "irqs eth7" {
		t.Errorf("asks for %q", got)
	}
	o.Facts = []record.Fact{fact("irqs", "eth7", "9")}
	o.Facts[0].Fields = map[string]string{"spread": "4"}
	d := diagnose.Run(o, k, diagnose.Options{})
	if got := hung(d.Findings); got != "ring:50+irq:likely" || !slices.Equal(d.Findings[0].Devices, []string{"eth7 (netns lab)"}) {
		t.Errorf("%s %+v", got, d.Findings)
	}
}

func TestConclusions(t *testing.T) {
	loss := cause("one", byReason+"direction: tx\n")
	loss = strings.Replace(loss, "direction: rx\n", "", 1)
	retrans := conclusion("h-remote", `holds: counter("T.retrans") > 0 && lost("tx") == 0 && found("one") == 0
count: counter("T.retrans")
evidence: [{counter: T.retrans, expect: moves, role: confirms}, {counter: T.fail, expect: flat, role: confirms}]
`)
	reader := conclusion("h-reader", `when: counter("T.window") > 0
holds: any(facts("tcp-sockets"), .recv_q > 0)
facts: [tcp-sockets]
evidence: [{counter: T.window, expect: moves, role: confirms}, {name: waits, value: 'facts("tcp-sockets")[0].recv_q', expect: value > 100, role: needs}]
`)
	k := engine(t, loss, retrans, reader)
	socket := func(q string) record.Fact {
		f := fact("tcp-sockets", "", "x")
		f.Fields = map[string]string{"recv_q": q}
		return f
	}
	with := func(fs []record.Fact, cs ...record.Counter) *record.Observation {
		o := watched(nil, cs...)
		o.Facts = fs
		return o
	}
	for _, c := range []struct {
		name, want, asks string
		o                *record.Observation
	}{
		{"a quiet host", "", "", with(nil, moves("T.retrans", 0), moves("T.window", 0))},
		{"retransmissions", "h-remote:9:certain", "", with(nil, moves("T.retrans", 9), moves("T.fail", 0))},
		{"a counter is not known", "h-remote:9:likely", "", with(nil, moves("T.retrans", 9))},
		{"contradicted", "h-remote:9:possible", "", with(nil, moves("T.retrans", 9), moves("T.fail", 2))},
		{"the loss is here", "", "", watched(a(3), moves("T.retrans", 9))},
		{"not read", "", "tcp-sockets", with(nil, moves("T.window", 1))},
		{"it reads", "", "tcp-sockets", with([]record.Fact{socket("0")}, moves("T.window", 1))},
		{"it does not read", "h-reader:0:certain", "tcp-sockets", with([]record.Fact{socket("4000")}, moves("T.window", 1))},
		{"what it needs does not hold", "", "tcp-sockets", with([]record.Fact{socket("100")}, moves("T.window", 1))},
	} {
		d := diagnose.Run(c.o, k, diagnose.Options{})
		var got []string
		for _, f := range d.Conclusions {
			got = append(got, fmt.Sprintf("%s:%d:%s", f.Cause, f.Events, f.Confidence))
			if f.Drops != 0 || !slices.Equal(f.NetNS, []string{"lab"}) {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: concludes %q, want %q", c.name, s, c.want)
		}
		if got := wanted(c.o, k); got != c.asks {
			t.Errorf("%s: asks for %q, want %q", c.name, got, c.asks)
		}
		if diagnose.ExceedsFailOn(d, record.ClassPolicy) != (len(d.Findings) > 0) {
			t.Errorf("%s: a conclusion is taken for a finding", c.name)
		}
	}
}

// Each namespace is concluded about for itself; numbers of the host once.
func TestConclusionsByPlace(t *testing.T) {
	other := record.NetNS{Inode: 4026532999, Name: "other"}
	inOther := moves("T.retrans", 20)
	inOther.NetNS = other
	ofHost := record.Counter{Name: "S.host", After: 7, Delta: 7}
	k := engine(t, cause("one", byReason),
		conclusion("h-space", "holds: counter(\"T.retrans\") > 0 && lost(\"\") == 0\ncount: counter(\"T.retrans\")\n"),
		conclusion("h-host", "holds: counter(\"S.host\") > 0\ncount: counter(\"S.host\")\n"),
		conclusion("h-device", "per: device\nholds: counter(\"l.paused\") > 0\ncount: counter(\"l.paused\")\n"),
	)
	paused := counted("l.paused", space, record.Device{Index: 3, Name: "eth3"}, "", 0, 5)
	idle := counted("l.paused", space, record.Device{Index: 4, Name: "eth4"}, "", 0, 0)
	o := watched(a(3), moves("T.retrans", 9), inOther, ofHost, paused, idle)
	var got []string
	for _, f := range diagnose.Run(o, k, diagnose.Options{}).Conclusions {
		got = append(got, fmt.Sprint(f.Cause, f.Events, f.NetNS, f.Devices))
	}
	want := []string{"h-space20 [other] []", "h-host7 [] []", "h-device5 [lab] [eth3 (netns lab)]"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLoadKindsRefuses(t *testing.T) {
	good := conclusion("h-a", "holds: 'true'\n")
	for name, c := range map[string]struct{ causes, want string }{
		"unknown kind":        {cause("one", "kind: other\n"+byReason), "kind"},
		"unknown scope":       {cause("one", "scope: netns\n"+byReason), "scope"},
		"no prefix":           {strings.Replace(good, "id: h-a", "id: a", 1), "h-"},
		"prefix of a loss":    {cause("h-a", byReason), "h-"},
		"loss that holds":     {cause("one", byReason+"holds: 'true'\n"), "contributors and conclusions"},
		"conclusion of drops": {good + byReason, "of a loss"},
		"no holds":            {conclusion("h-a", ""), "no holds"},
		"facts without when":  {good + "facts: [sysctl a]\n", "without when"},
		"when asks for facts": {good + "facts: [sysctl a]\nwhen: sysctl(\"a\") > 0\n", "when: sysctl"},
		"when asks findings":  {good + "when: lost(\"\") > 0\n", "when: lost"},
		"facts ask findings":  {good + "when: 'true'\nfacts: ['sysctl ${found(\"a\")}']\n", "facts: found"},
		"loss asks findings":  {cause("one", "drops: [{reasons: [A], share: found(\"two\")}]\n"), "found is not known"},
		"to nothing":          {contributor("a", "holds: 'true'\n"), "contributes_to"},
		"loss contributes":    {cause("one", byReason+"contributes_to: [two]\n"), "contributes_to"},
		"to itself":           {contributor("a", "holds: 'true'\ncontributes_to: [a]\n"), "no other cause"},
		"when nothing does":   {cause("one", byReason+"depends_when: 'true'\n"), "without depends_on"},
		"conclusion depends":  {good + "depends_on: [two]\n", "of a loss"},
	} {
		if _, err := diagnose.Load(causesFS(c.causes)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something about %q", name, err, c.want)
		}
	}
	one, two, three := cause("one", byReason+"depends_on: [two]\n"), cause("two", byReason+"depends_on: [three]\n"), cause("three", byReason+"depends_on: [one]\n")
	if _, err := diagnose.Load(causesFS(one, two, three)); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a circle: %v", err)
	}
	k := engine(t, one, two, contributor("c", "holds: 'true'\ncontributes_to: [one, two, four]\n"))
	if got := k.MissingLinks(); !slices.Equal(got, []string{"c: four", "two: three"}) {
		t.Errorf("missing: %q", got)
	}
	_, problems := diagnose.Lint(causesFS(one, two), func(string, string) error { return nil })
	if want := "causes/two/cause.yaml: depends on, or contributes to, three, which is no cause of a loss"; !slices.Contains(problems, want) {
		t.Errorf("the linter says %q", problems)
	}
}
