package diagnose_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
)

func mapFS(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestOverlay(t *testing.T) {
	below := mapFS(map[string]string{
		"causes/a/cause.yaml": "below", "causes/a/explain.md": "below", "causes/a/cases/x.txtar": "below",
		"causes/b/cause.yaml": "below", "counters/snmp.yaml": "below", "stations.yaml": "below",
	})
	above := mapFS(map[string]string{
		"causes/a/cause.yaml": "above", "causes/c/cause.yaml": "above",
		"counters/snmp.yaml": "above", "counters/own.yaml": "above",
	})
	both := diagnose.Overlay(below, nil, above)
	if err := fstest.TestFS(both, "causes/a/cause.yaml", "causes/b/cause.yaml", "causes/c/cause.yaml", "counters/own.yaml", "stations.yaml"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"causes/a/cause.yaml": "above", "causes/b/cause.yaml": "below", "causes/c/cause.yaml": "above",
		"counters/snmp.yaml": "above", "counters/own.yaml": "above", "stations.yaml": "below",
	} {
		if got, err := fs.ReadFile(both, name); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want that of %s", name, got, err, want)
		}
	}
	// A cause is replaced as a whole: the explanation and the cases of another
	// cause.yaml would be wrong.
	for _, name := range []string{"causes/a/explain.md", "causes/a/cases/x.txtar", "nothing", "../a"} {
		if _, err := fs.Stat(both, name); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	found, err := fs.Glob(both, "causes/*/cause.yaml")
	if err != nil || !slices.Equal(found, []string{"causes/a/cause.yaml", "causes/b/cause.yaml", "causes/c/cause.yaml"}) {
		t.Errorf("causes are %q, %v", found, err)
	}
}

func TestCausesIn(t *testing.T) {
	dir := diagnose.CausesIn(mapFS(map[string]string{
		"a/cause.yaml": "own", "a/cases/x.txtar": "own", "README": "no cause", "b/cause.yaml.dpkg-old": "no cause",
	}))
	if err := fstest.TestFS(dir, "causes/a/cause.yaml", "causes/a/cases/x.txtar"); err != nil {
		t.Error(err)
	}
	list, err := fs.ReadDir(dir, "causes")
	if err != nil || len(list) != 1 || list[0].Name() != "a" {
		t.Errorf("%v, %v", list, err)
	}
	for _, name := range []string{"causes/b", "causes/README", "a/cause.yaml", "reasons"} {
		if _, err := fs.Stat(dir, name); err == nil {
			t.Errorf("%s is there", name)
		}
	}
}

// TestOwnCauseIsLoaded loads the built-in base with a cause of a user that is
// new, and one that replaces udp-rcvbuf.
func TestOwnCauseIsLoaded(t *testing.T) {
	diagnose.Alone(t)
	cause := strings.Join([]string{
		"id: ID", "title: own", "class: fault", "station: socket", "direction: rx", "drops:", "  - reasons: [SOCKET_RCVBUFF]", "",
	}, "\n")
	own := diagnose.CausesIn(mapFS(map[string]string{
		"udp-rcvbuf/cause.yaml": strings.ReplaceAll(cause, "ID", "udp-rcvbuf"),
		"zz-own/cause.yaml":     strings.ReplaceAll(cause, "ID", "zz-own"),
	}))
	k, err := diagnose.Load(diagnose.Overlay(knowledge.FS, own))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(load(t).Causes()) + 1; len(k.Causes()) != n {
		t.Errorf("%d causes, want %d", len(k.Causes()), n)
	}
	for _, id := range []string{"udp-rcvbuf", "zz-own"} {
		if c := k.Cause(id); c == nil || c.Title != "own" || c.Explanation != "" {
			t.Errorf("%s is %+v", id, c)
		}
	}
	broken := diagnose.CausesIn(mapFS(map[string]string{"zz-own/cause.yaml": "id: zz-own\nnonsense: 1\n"}))
	if _, err := diagnose.Load(diagnose.Overlay(knowledge.FS, broken)); err == nil || !strings.Contains(err.Error(), "causes/zz-own/cause.yaml") {
		t.Errorf("error %v, want one that names the file", err)
	}
}
