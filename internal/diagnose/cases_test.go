package diagnose_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
)

func anyFact(string, string) error { return nil }

// TestCauses lints every cause of the knowledge base, a subtest each.
func TestCauses(t *testing.T) {
	diagnose.Alone(t)
	k, problems := diagnose.Lint(knowledge.FS, anyFact)
	if k == nil {
		t.Fatal(problems)
	}
	folders, err := fs.Glob(knowledge.FS, "causes/*/cause.yaml")
	if err != nil || len(folders) != len(k.Causes()) {
		t.Fatalf("%d folders, %d causes, %v", len(folders), len(k.Causes()), err)
	}
	for _, c := range k.Causes() {
		t.Run(c.ID, func(t *testing.T) {
			for _, p := range problems {
				if rest, ok := strings.CutPrefix(p, "causes/"+c.ID+"/"); ok {
					t.Error(rest)
				}
			}
		})
	}
}

// goodCase finds the cause one, and two near misses.
const goodCase = `by hand
-- observation.json --
{
 "window": {"duration_ns": 1000000000},
 "counts": [{"reason": {"name": "A"}, "drops": 9}],
 "counters": [
  {"name": "T.a", "delta": 9}
 ]
}
-- want.yaml --
findings:
  - {cause: one, drops: 9, confidence: certain, class: fault, station: transport, lost_by: drops, says: "of 9", remedy: fix}
-- near/counter.diff --
-  {"name": "T.a", "delta": 9}
+  {"name": "T.a", "delta": 0}
-- near/counter.yaml --
findings:
  - {cause: one, confidence: possible}
-- near/reason.diff --
- "counts": [{"reason": {"name": "A"}, "drops": 9}],
+ "counts": [{"reason": {"name": "B"}, "drops": 9}],
-- near/reason.yaml --
never: [one]
`

const goodExplain = "# One\n\n## What happened\n\n## How to recognise it\n\n## What to do\n\n## Not to be confused with\n"

func lintFS(text, caseText, explain string) fstest.MapFS {
	files := causesFS(text)
	files["causes/one/explain.md"] = &fstest.MapFile{Data: []byte(explain)}
	files["causes/one/cases/a.txtar"] = &fstest.MapFile{Data: []byte(caseText)}
	files["counters/t.yaml"] = &fstest.MapFile{Data: []byte(
		"counters:\n  T.a: {station: transport, direction: rx, unit: packets, kind: loss, sentence: It counts., kernel: x}\n")}
	return files
}

func TestLint(t *testing.T) {
	good := cause("one", byReason+counterA+"facts: [conntrack]\nremedy: [{command: fix}]\n")
	change := func(old, repl string) string {
		if !strings.Contains(goodCase, old) {
			t.Fatalf("the case lacks %q", old)
		}
		return strings.Replace(goodCase, old, repl, 1)
	}
	for _, c := range []struct{ name, cause, text, explain, want string }{
		{"good", good, goodCase, goodExplain, ""},
		{"other drops", good, change("drops: 9, conf", "drops: 8, conf"), goodExplain, "want one 8 drops"},
		{"other confidence", good, change("confidence: certain", "confidence: likely"), goodExplain, "finding 1 is one"},
		{"other class", good, change("class: fault", "class: policy"), goodExplain, "finding 1 is one"},
		{"other station", good, change("station: transport", "station: ip"), goodExplain, "finding 1 is one"},
		{"other title", good, change("of 9", "of 8"), goodExplain, "finding 1 is one"},
		{"other remedy", good, change("remedy: fix", "remedy: pray"), goodExplain, "finding 1 is one"},
		{"one more", good, change("findings:\n  - {cause: one, drops", "findings:\n  - {cause: two}\n  - {cause: one, drops"), goodExplain, "want two"},
		{"near miss that is found", good, change(`"B"}, "drops"`, `"A"}, "drops"`), goodExplain, "near/reason.diff: found one"},
		{"near miss of no line", good, change(`-  {"name": "T.a", "delta": 9}`, `-  {"name": "T.a", "delta": 7}`), goodExplain, "is not there"},
		{"near miss of two lines", good, change(`+  {"name": "T.a", "delta": 0}`, `-  {"name": "T.b", "delta": 0}`), goodExplain, "want one line"},
		{"no near miss", good, goodCase[:strings.Index(goodCase, "-- near")], goodExplain, "no near miss"},
		{"no case", good, "", goodExplain, "no observation.json"},
		{"unknown field", good, change(`"drops": 9}],`, `"dropz": 9}],`), goodExplain, "dropz"},
		{"unknown counter", strings.ReplaceAll(good, "T.a", "T.z"), goodCase, goodExplain, "counter T.z is not in"},
		{"unknown fact", strings.Replace(good, "conntrack", "weather in Rome", 1), goodCase, goodExplain, "no such kind"},
		{"headings", good, goodCase, strings.Replace(goodExplain, "What to do", "Do", 1), "headings"},
		{"no explanation", good, goodCase, "", "headings"},
		{"long", good, goodCase, goodExplain + strings.Repeat("x\n", 60), "at most 60"},
	} {
		_, problems := diagnose.Lint(lintFS(c.cause, c.text, c.explain), func(kind, _ string) error {
			if kind == "weather" {
				return errNoKind
			}
			return nil
		})
		got := strings.Join(problems, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %q", c.name, got, c.want)
		}
	}
}

var errNoKind = errors.New("no such kind")
