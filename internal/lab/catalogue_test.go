package lab

import (
	_ "embed"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// catalogue is every cause of packet loss that is known, and where it can be
// reproduced: host (in namespaces of any host), vm (in a machine that is thrown
// away, with Debian's kernel) or hw (on hardware only).
//
//go:embed testdata/catalogue.txt
var catalogue string

// unreproduced is a line of docs/limitations.md that says why the lab lacks a
// scenario.
var unreproduced = regexp.MustCompile("(?m)^- `([a-z0-9-]+)`: \\S")

const (
	missingHeading = "\n## Losses that the lab does not reproduce\n"
	mostMissing    = 10
)

// Each loss that can be reproduced is, or docs/limitations.md says why not.
func TestCatalogueIsCovered(t *testing.T) {
	text, err := os.ReadFile("../../docs/limitations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), missingHeading)
	if !ok {
		t.Fatalf("docs/limitations.md has no heading %q", strings.TrimSpace(missingHeading))
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var excused []string
	for _, m := range unreproduced.FindAllStringSubmatch(section, -1) {
		excused = append(excused, m[1])
	}
	reproduced := map[string]bool{}
	for _, s := range List() {
		want, err := Expected(s.Name)
		if err != nil {
			t.Error(err)
		}
		reproduced[want.Cause] = true
	}
	missing := 0
	for line := range strings.Lines(catalogue) {
		id, where, _ := strings.Cut(strings.TrimSpace(line), " ")
		excuse := slices.Contains(excused, id)
		switch can := where == "host" || where == "vm"; {
		case excuse && (reproduced[id] || !can):
			t.Errorf("docs/limitations.md says that %s is not reproduced; it is, or is known of hardware only", id)
		case can && !reproduced[id]:
			missing++
			if !excuse {
				t.Errorf("%s (%s) has no scenario, and no line in docs/limitations.md that says why", id, where)
			}
		}
		excused = slices.DeleteFunc(excused, func(e string) bool { return e == id })
	}
	if len(excused) > 0 {
		t.Errorf("docs/limitations.md: no such causes: %q", excused)
	}
	if missing > mostMissing {
		t.Errorf("%d losses have no scenario, at most %d may", missing, mostMissing)
	}
}
