package lab

import (
	"strings"
	"testing"

	"github.com/whydrop/whydrop/record"
)

const goodExpectation = `cause: x
class: fault
station: ip
direction: rx
reasons: [R1, R2]
symbols: [f, g]
events: some
forbidden: [y]
not_on: ["5.10"]
why: it lacks z
remedy: none
remedy_why: nothing is wrong
`

func TestParseExpectation(t *testing.T) {
	if _, err := parseExpectation([]byte(goodExpectation)); err != nil {
		t.Fatalf("good expectation: %v", err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", "cause:", "reason: [R]\ncause:", "field reason not found"},
		{"second document", "lacks z\n", "lacks z\n---\ncause: y\n", "more than one"},
		{"empty", goodExpectation, "", "EOF"},
		{"no cause", "cause: x\n", "", "no cause"},
		{"class", "class: fault", "class: wrong", `class "wrong"`},
		{"no class", "class: fault\n", "", `class ""`},
		{"station", "station: ip", "station: bus", `station "bus"`},
		{"unknown station", "station: ip", "station: unknown", `station "unknown"`},
		{"direction", "direction: rx", "direction: up", `direction "up"`},
		{"no symbols", "[f, g]", "[]", "no symbols"},
		{"empty symbol", "[f, g]", "[f, '']", "empty symbol"},
		{"empty reason", "[R1, R2]", "['']", "empty symbol or reason"},
		{"list expected", "[f, g]", "f", "cannot unmarshal"},
		{"events", "events: some", "events: few", `events "few"`},
		{"symbols of no events", "events: some", "events: none", "there are none of"},
		{"forbids itself", "[y]", "[y, x]", "the cause itself"},
		{"forbids nothing", "[y]", "['']", "empty id"},
		{"no reason to exclude", "why: it lacks z\n", "", "go together"},
		{"reason without kernel", "not_on: [\"5.10\"]\n", "", "go together"},
		{"no remedy", "remedy: none\n", "", `remedy ""`},
		{"remedy", "remedy: none", "remedy: pray", `remedy "pray"`},
		{"no reason for no remedy", "remedy_why: nothing is wrong\n", "", "must say why"},
		{"contributor", "events: some", "contributors: ['']\nevents: some", "an empty id"},
		{"least", "events: some", "least: -1\nevents: some", "below 0"},
		{"empty step", "events: some", "steps: ['']\nevents: some", "an empty one"},
		{"kernel", `"5.10"`, "before 6", `not_on "before 6"`},
	} {
		text := strings.Replace(goodExpectation, c.old, c.new, 1)
		_, err := parseExpectation([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
		}
	}
}

// A loss without events has neither reasons nor symbols.
func TestSilentExpectation(t *testing.T) {
	text := "cause: x\nclass: fault\nstation: ip\ndirection: rx\nremedy: repair\nevents: "
	e, err := parseExpectation([]byte(text + "none\n"))
	if err != nil || !e.Silent() {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := parseExpectation([]byte(text + "some\n")); err == nil || e.Silent() {
		t.Errorf("events without symbols: %+v, %v", e, err)
	}
}

func TestWorksOn(t *testing.T) {
	e := Expectation{NotOn: []string{"5.1", "6.12"}}
	for kernel, want := range map[string]bool{
		"5.1": false, "5.1.3-generic": false, "5.1-rc2": false, "6.12.0": false, "6.12-cloud": false,
		"5.10": true, "5.10.2": true, "5.0": true, "6.1.2": true, "6.120": true, "15.1": true,
	} {
		if got := e.WorksOn(kernel); got != want {
			t.Errorf("%s: %v, want %v", kernel, got, want)
		}
	}
}

func TestAccepts(t *testing.T) {
	e, err := parseExpectation([]byte(goodExpectation))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, reason, symbol string
		want                 bool
	}{
		{"first of both", "R1", "f", true},
		{"second of both", "R2", "g", true},
		{"kernel without reasons", "", "f", true},
		{"compiler's clone", "R1", "f.isra.0", true},
		{"another reason", "R3", "f", false},
		{"another symbol", "R1", "h", false},
		{"no symbol", "R1", "", false},
		{"prefix of a symbol", "R1", "ff", false},
	} {
		k := record.Key{Reason: record.Reason{Name: c.reason}, Location: record.Location{Symbol: c.symbol}}
		if got := e.Accepts(k); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
