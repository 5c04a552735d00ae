package results

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestReadLab(t *testing.T) {
	const object = `{"truth":5,"counted":5,"mismatch":[],"diagnosis":{"findings":[{"reasons":["NO_SOCKET"],"locations":["udp_rcv+0x4"]}]}}`
	for _, tt := range []struct {
		name, text string
		code       int
		cell, err  string
	}{
		{"good", object + "\n", 0, "yes: NO_SOCKET at udp_rcv", ""},
		{"no reason", strings.ReplaceAll(object, `"NO_SOCKET"`, ""), 0, "yes: no reason at udp_rcv", ""},
		{"too few", strings.Replace(object, `"counted":5`, `"counted":4`, 1), 0, "**no**: lost 5, counted 4", "lost 5, counted 4"},
		{"another class", strings.Replace(object, `[]`, `["fault, want policy"]`, 1) + "\nwhydrop: not as expected\n", 1, "yes: NO_SOCKET at udp_rcv", "not as expected"},
		{"nothing lost", "{}\n", 0, "**no**: lost 0, counted 0", "lost 0"},
		{"refused", "whydrop: cannot watch\nmore\n", 3, "**no**: lost 0, counted 0", "exit status 3: whydrop: cannot watch"},
		{"nothing said", "", 0, "**no**: lost 0, counted 0", "exit status 0"},
	} {
		l, err := ReadLab("x", tt.text, tt.code)
		if got := l.cell(); got != tt.cell {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.cell)
		}
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
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
		`| lab x counted exactly | yes: A\|B at f | **did not run** |`, "| tests passed / failed / skipped | 7 / 1 / 2 | 0 / 0 / 0 |",
		"- drop monitor (needed for hardware drops): no: not loaded.\n", "- **Failed**: p TestB: lost\n", "- came later. Skipped: p TestA/removed.\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}
