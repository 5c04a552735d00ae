package diagnose_test

import (
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// beside loads causes that are built in and one of somebody's own.
func beside(t *testing.T, own string, builtIn ...string) *diagnose.Knowledge {
	t.Helper()
	id, _, _ := strings.Cut(strings.TrimPrefix(own, "id: "), "\n")
	k, err := diagnose.Load(diagnose.Overlay(causesFS(builtIn...), diagnose.CausesIn(mapFS(map[string]string{id + "/cause.yaml": own}))))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// A cause of somebody's own comes before one that is built in where it is as sure, and
// the other one is named beside it; where it is less sure, the built-in one stays what
// it was.
func TestOwnCauseFirst(t *testing.T) {
	const (
		narrow   = "drops: [{reasons: [A], symbols: [f]}]\n"
		lost     = "lost: counter(\"T.a\")\n"
		part     = "drops: [{reasons: [A], share: 'counter(\"T.b\")'}]\n"
		noShare  = "drops: [{reasons: [A], share: 'counter(\"T.none\")'}]\n"
		wrong    = "evidence: [{counter: T.b, expect: equal, role: confirms}]\n"
		excluded = "evidence: [{counter: T.b, expect: flat, role: needs}]\n"
		benign   = "drops: [{reasons: [A], where: 'proto == \"tcp\"'}]\n"
	)
	o := watched(a(9), moves("T.a", 9), moves("T.b", 4))
	none := watched(nil, moves("T.a", 9), moves("T.b", 4))
	for _, c := range []struct {
		name, own, builtIn string
		o                  *record.Observation
		want, next         string // of the first finding
	}{
		{"as sure", byReason + counterA, byReason + counterA, o, "mine:9:certain", "theirs"},
		{"as sure, and less specific", byReason + counterA, narrow + counterA, o, "mine:9:certain", "theirs"},
		{"without evidence", byReason, byReason, o, "mine:9:likely", "theirs"},
		{"less sure", byReason, byReason + counterA, o, "theirs:9:certain", "mine"},
		{"the evidence is against it", byReason + wrong, byReason, o, "theirs:9:likely", "mine"},
		{"surer", byReason + counterA, byReason, o, "mine:9:certain", "theirs"},
		{"a part", part, byReason, o, "theirs:5:likely mine:4:likely", "mine"},
		{"beside a part", byReason, part, o, "mine:9:likely", "theirs"},
		{"it cannot be", byReason + excluded, byReason + counterA, o, "theirs:9:certain", ""},
		{"its share is not known", noShare, byReason + counterA, o, "theirs:9:certain", "mine"},
		{"not of this traffic", benign, byReason + counterA, o, "theirs:9:certain", ""},
		{"the built-in one counts them too", byReason + counterA, byReason + lost + counterA, o, "mine:9:certain", "theirs"},
		{"counted alone", lost + counterA, lost + counterA, none, "mine:9:certain", "theirs"},
		{"counted alone, and less sure", lost, lost + counterA, none, "theirs:9:certain", "mine"},
	} {
		d := diagnose.Run(c.o, beside(t, cause("mine", c.own), cause("theirs", c.builtIn)), diagnose.Options{})
		got := found(d)
		if got != c.want {
			t.Errorf("%s: found %s, want %s", c.name, got, c.want)
			continue
		}
		next := strings.Join(d.Findings[0].Next, "\n")
		if named := strings.Contains(next, "whydrop explain "+c.next+" "); c.next != "" && !named || c.next == "" && next != "" {
			t.Errorf("%s: %q does not name %q", c.name, next, c.next)
		}
	}
}

// What somebody has put in the place of a built-in cause is his own, and among causes
// that are all built in, or all somebody's own, nothing comes first.
func TestOwnCauseOverrides(t *testing.T) {
	two := []string{cause("one", byReason+counterA), cause("two", byReason+counterA)}
	o := watched(a(9), moves("T.a", 9))
	if got := found(diagnose.Run(o, engine(t, two...), diagnose.Options{})); got != "not-known:9:possible" {
		t.Errorf("two that are built in: %s", got)
	}
	if got := found(diagnose.Run(o, beside(t, cause("one", byReason+counterA), two...), diagnose.Options{})); got != "one:9:certain" {
		t.Errorf("one of them is somebody's own: %s", got)
	}
}
