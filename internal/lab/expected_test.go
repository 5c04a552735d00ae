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
`

func TestParseExpectation(t *testing.T) {
	if _, err := parseExpectation([]byte(goodExpectation)); err != nil {
		t.Fatalf("good expectation: %v", err)
	}
	for _, c := range []struct{ name, old, new, want string }{
		{"unknown field", "cause:", "reason: [R]\ncause:", "field reason not found"},
		{"second document", "symbols: [f, g]\n", "symbols: [f, g]\n---\ncause: y\n", "more than one"},
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
	} {
		text := strings.Replace(goodExpectation, c.old, c.new, 1)
		_, err := parseExpectation([]byte(text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", c.name, err, c.want)
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
