package results

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestReadLabs(t *testing.T) {
	const object = `{"scenario":"x","truth":5,"counted":5,"mismatch":[],"diagnosis":{"findings":[{"reasons":["NO_SOCKET"],"locations":["udp_rcv+0x4"]}]}}`
	for _, tt := range []struct{ name, text, cell, err, rest string }{
		{"good", object + "\n", "yes: NO_SOCKET at udp_rcv", "", ""},
		{"no reason", strings.ReplaceAll(object, `"NO_SOCKET"`, ""), "yes: no reason at udp_rcv", "", ""},
		{"too few", strings.Replace(object, `"counted":5`, `"counted":4`, 1), "**no**: lost 5, counted 4", "lost 5, counted 4", ""},
		{"another class", strings.Replace(object, `[]`, `["fault, want policy"]`, 1) + "\nwhydrop: not as expected\n", "yes: NO_SOCKET at udp_rcv", "want policy", "whydrop: not as expected"},
		{"nothing lost", `{"scenario":"x"}`, "**no**: lost 0, counted 0", "lost 0", ""},
		{"absent", `{"scenario":"x","mismatch":["lab x: not on Linux 5.10: too old"]}`, "not on this kernel", "", ""},
		{"absent and more", `{"scenario":"x","mismatch":["lab x: not on Linux 5.10: too old","lost"]}`, "**no**: lost 0, counted 0", "too old; lost", ""},
	} {
		labs, rest := ReadLabs(`{"scenario":"other","truth":1,"counted":1}` + "\n" + tt.text)
		l := labs["x"]
		if got := l.cell(); got != tt.cell || rest != tt.rest || len(labs) != 2 {
			t.Errorf("%s: %q, rest %q, want %q, %q", tt.name, got, rest, tt.cell, tt.rest)
		}
		if tt.err == "" && l.Err != nil || tt.err != "" && (l.Err == nil || !strings.Contains(l.Err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.name, l.Err, tt.err)
		}
	}
	if labs, rest := ReadLabs(object + "\n" + `{"type":"matrix","rows":[]}` + "\n"); len(labs) != 1 || rest != "" {
		t.Errorf("with a matrix: %v, %q", labs, rest)
	}
	for _, text := range []string{"", "whydrop: cannot watch\n", "{}\n", "[1]\n"} {
		if labs, rest := ReadLabs(text); len(labs) != 0 || rest != strings.TrimSpace(text) {
			t.Errorf("%q: %v, %q", text, labs, rest)
		}
	}
}

func TestNotRead(t *testing.T) {
	if l := NotRead("x", "whydrop: lab x: not on Linux 5.10: too old", 3); l.Err != nil || l.Absent != "lab x: not on Linux 5.10: too old" {
		t.Errorf("%+v", l)
	}
	for _, said := range []string{"", "whydrop: cannot watch", "whydrop: lab y: not on Linux 5.10: too old"} {
		if l := NotRead("x", said, 3); l.Err == nil || !strings.Contains(l.Err.Error(), "exit status 3") || l.Absent != "" {
			t.Errorf("%q: %+v", said, l)
		}
	}
}

func TestCompatibility(t *testing.T) {
	k := Kernel{Suite: "new", Release: "7.2.0", Labs: []Lab{{Scenario: "x", Truth: 5, Counted: 5, Reasons: []string{"A|B"}, Places: []string{"f"}}}}
	if err := json.Unmarshal([]byte(`{"kernel":{"kfree_skb_args":4,"reasons_from":"btf"},"source":{"state":"ok"},"program_type":"tp_btf",
		"checks":[{"name":"reason","title":"drop reasons","state":"yes"},{"name":"net_dm","title":"drop monitor","state":"no","why":"not loaded","needed_for":"hardware drops"}]}`), &k.Doctor); err != nil {
		t.Fatal(err)
	}
	k.Skipped = []Result{{"new:p TestA/removed", "    a_test.go:3: came later\n"}, {"new:p TestA/removed#01", "    a_test.go:3: came later\n"}}
	k.Failed = []Result{{"new:p TestB", "    b_test.go:9: lost\n    more\n"}}
	k.Passed = 7
	page := Compatibility([]Kernel{k, {Suite: "gone"}})
	for _, want := range []string{
		"|  | new | gone |\n|---|---|---|\n", "| eBPF program | tp_btf |  |", "| drop reasons | yes | ? |", "| arguments of skb:kfree_skb | 4 | 0 |",
		`| lab x counted exactly, its cause found | yes: A\|B at f | **did not run** |`, "| tests passed / failed / skipped | 7 / 1 / 2 | 0 / 0 / 0 |",
		"- drop monitor (needed for hardware drops): no: not loaded.\n", "- **Failed**: p TestB: lost\n", "- came later. Skipped: p TestA/removed.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

// TestDropwatch: the page in docs has the part that no run finds out, too.
func TestDropwatch(t *testing.T) {
	docs, err := os.ReadFile("../../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, page := range map[string]string{"docs/compatibility.md": string(docs), "a new page": Compatibility(nil)} {
		if !strings.HasSuffix(page, "\n"+dropwatch) {
			t.Errorf("%s does not end with dropwatch.md", name)
		}
	}
}
