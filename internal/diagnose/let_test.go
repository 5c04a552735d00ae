package diagnose_test

import (
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// named is a cause whose expressions use names.
const named = byReason + `let:
  - {name: twice, is: 2 * drops}
  - {name: grown, is: 'counter("T.a") + twice'}
  - {name: first_name, is: 'facts("links")[0].name'}
facts: [links]
evidence:
  - {counter: T.a, expect: delta + twice == grown, role: confirms}
  - {name: sum, value: grown, expect: 'value == 3 * drops', says: "${twice} more"}
remedy:
  - {when: twice > 2, command: "fix ${first_name} ${twice}", why: "${first_name} lost ${grown}"}
`

func TestLet(t *testing.T) {
	k := engine(t, cause("one", named))
	o := watched(a(9), moves("T.a", 9))
	o.Facts = []record.Fact{fact("links", "", "up")}
	o.Facts[0].Name = "eth0"
	f := diagnose.Run(o, k, diagnose.Options{}).Findings[0]
	if f.Confidence != record.ConfidenceCertain {
		t.Errorf("confidence %s: %+v", f.Confidence, f.Evidence)
	}
	if r := f.Remedy; len(r) != 1 || r[0].Command != "fix eth0 18" || r[0].Why != "eth0 lost 27" {
		t.Errorf("remedy %+v, %q", r, f.Unchecked)
	}
	last := f.Evidence[len(f.Evidence)-1]
	if last.Value != "27" || last.Says != "18 more" {
		t.Errorf("evidence %+v", last)
	}
	o.Facts[0].Name = "x;reboot"
	if f = diagnose.Run(o, k, diagnose.Options{}).Findings[0]; len(f.Remedy) != 0 {
		t.Errorf("a name of the host got into a command: %+v", f.Remedy)
	}
	o.Counters = nil
	f = diagnose.Run(o, k, diagnose.Options{}).Findings[0]
	if len(f.Unchecked) == 0 || f.Confidence != record.ConfidenceLikely {
		t.Errorf("a name that is not known: %s, %q", f.Confidence, f.Unchecked)
	}
}

// TestLetNamesCounters: what a name stands for counts as said where it is used.
func TestLetNamesCounters(t *testing.T) {
	k := engine(t, cause("one", "let: [{name: gone, is: 'counter(\"T.a\")'}]\nlost: gone\n"))
	if got := found(diagnose.Run(watched(nil, moves("T.a", 4)), k, diagnose.Options{})); got != "one:4:likely" {
		t.Errorf("found %s", got)
	}
}

func TestLetRefuses(t *testing.T) {
	for _, c := range []struct{ lets, use, want string }{
		{"{name: x, is: ''}", "x > 0", "stands for nothing"},
		{"{name: X, is: '1'}", "X > 0", "is no name"},
		{"{name: drops, is: '1'}", "drops > 0", "means something else"},
		{"{name: filter, is: '1'}", "true", "means something else"},
		{"{name: x, is: '1'}, {name: x, is: '2'}", "x > 0", "is there twice"},
		{"{name: x, is: '1'}", "true", "is not used"},
		{"{name: x, is: 'y'}, {name: y, is: '1'}", "x + y > 0", "unknown name y"},
		{"{name: x, is: 'x'}", "x > 0", "unknown name x"},
		{"{name: x, is: delta}", "x > 0", "of an item of evidence alone"},
		{"{name: x, is: '1'}", "let x = 2; x > 0", "has the name of a let"},
		{"{name: x, is: 'fact(\"links\")'}", "x > 0", "not among the facts"},
		{"{name: x, is: '\"a\"'}", "x", "expected bool"},
	} {
		_, err := diagnose.Load(causesFS(cause("one", byReason+"let: ["+c.lets+"]\nevidence: [{counter: T.a, expect: '"+c.use+"'}]\n")))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %s: %v, want %q", c.lets, c.use, err, c.want)
		}
	}
}
