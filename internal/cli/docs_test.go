package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
)

// example is a file of docs/add-a-cause.md: its name, and its text in a fence.
var example = regexp.MustCompile("(?ms)^`knowledge/(causes/[^`]+)`:\n\n```[a-z]+\n(.*?)^```$")

// The cause in docs/add-a-cause.md is one that the linter takes.
func TestAddACauseExample(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "add-a-cause.md"))
	if err != nil {
		t.Fatal(err)
	}
	const id = "pfmemalloc"
	base := without(t, id).(fstest.MapFS)
	found := example.FindAllStringSubmatch(string(text), -1)
	if len(found) != 3 {
		t.Fatalf("%d files in the example, want 3", len(found))
	}
	for _, f := range found {
		if !fs.ValidPath(f[1]) || !strings.HasPrefix(f[1], "causes/"+id+"/") {
			t.Fatalf("file %q", f[1])
		}
		base[f[1]] = &fstest.MapFile{Data: []byte(f[2])}
	}
	k, problems := diagnose.Lint(base, observe.CheckFact)
	if k == nil {
		t.Fatal(problems)
	}
	for _, p := range problems {
		if strings.HasPrefix(p, "causes/"+id+"/") {
			t.Error(p)
		}
	}
}
