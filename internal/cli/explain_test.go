package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

func explained(t *testing.T, name string) []report.Topic {
	t.Helper()
	r := here(t, "explain", "-j", name)
	var v struct {
		Schema int            `json:"schema_version"`
		Topics []report.Topic `json:"topics"`
	}
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != exitOK || v.Schema != record.SchemaVersion {
		t.Fatalf("explain -j %s: exit status %d, schema %d, %v\n%s%s", name, r.code, v.Schema, err, r.out, r.err)
	}
	return v.Topics
}

func TestExplain(t *testing.T) {
	for _, c := range []struct{ name, kind, finds string }{
		{"SOCKET_RCVBUFF", "reason", "SOCKET_RCVBUFF"},
		{"socket_rcvbuff", "reason", "SOCKET_RCVBUFF"},
		{"SKB_DROP_REASON_SOCKET_RCVBUFF", "reason", "SOCKET_RCVBUFF"},
		{"Udp.RcvbufErrors", "counter", "Udp.RcvbufErrors"},
		{"UdpRcvbufErrors", "counter", "Udp.RcvbufErrors"},
		{"udprcvbuferrors", "counter", "Udp.RcvbufErrors"},
		{"ethtool.rx_missed_errors", "counter", "ethtool.rx_missed_errors"},
		{"tc-ingress", "station", "tc-ingress"},
		{"capacity", "class", "capacity"},
		{"udp_queue_rcv_one_skb", "symbol", "udp_queue_rcv_one_skb"},
	} {
		topics := explained(t, c.name)
		if len(topics) != 1 || topics[0].Kind != c.kind || topics[0].Name != c.finds {
			t.Errorf("explain %s = %+v, want the %s %s", c.name, topics, c.kind, c.finds)
			continue
		}
		if topics[0].Sentence == "" {
			t.Errorf("explain %s says nothing", c.name)
		}
		r := here(t, "explain", c.name)
		if r.code != exitOK || !strings.HasPrefix(r.out, c.finds+"  "+c.kind) {
			t.Errorf("explain %s: %+v", c.name, r)
		}
	}
}

// A counter without its table is that of each table.
func TestExplainField(t *testing.T) {
	var names []string
	for _, topic := range explained(t, "RcvbufErrors") {
		names = append(names, topic.Kind+" "+topic.Name)
	}
	want := []string{"counter Udp.RcvbufErrors", "counter Udp6.RcvbufErrors", "counter UdpLite.RcvbufErrors", "counter UdpLite6.RcvbufErrors"}
	if !slices.Equal(names, want) {
		t.Errorf("%q", names)
	}
}

// Every cause is explained, with its remedies as templates.
func TestExplainEveryCause(t *testing.T) {
	b, err := (&app{}).loadBook()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range b.knowledge.Causes() {
		topics := b.find(c.ID)
		i := slices.IndexFunc(topics, func(t report.Topic) bool { return t.Kind == kindCause })
		if i < 0 {
			t.Errorf("%s is not found by its id: %+v", c.ID, topics)
			continue
		}
		if topics[i].Text != c.Explanation || len(topics[i].Remedy) != len(c.Remedies) {
			t.Errorf("%s: %d of %d remedies, text %q", c.ID, len(topics[i].Remedy), len(c.Remedies), topics[i].Text)
		}
	}
}

func TestExplainUnknown(t *testing.T) {
	for name, near := range map[string]string{
		"SOCKET_RCVBUF": "SOCKET_RCVBUFF", "UdpRcvbufError": "Udp.RcvbufErrors", "netfiltr": "netfilter", "rcvbuff": "SOCKET_RCVBUFF",
	} {
		r := here(t, "explain", name)
		if r.code != exitUsage || r.out != "" || !strings.Contains(r.err, near) {
			t.Errorf("explain %s does not lead to %s: %+v", name, near, r)
		}
	}
	if r := here(t, "explain", "qqqqqqqq"); r.code != exitUsage || strings.Contains(r.err, "is it") {
		t.Errorf("what is like nothing: %+v", r)
	}
	if r := here(t, "explain", "a", "b"); r.code != exitUsage {
		t.Errorf("two names: %+v", r)
	}
}

func TestExplainLists(t *testing.T) {
	r := here(t, "explain")
	for _, want := range []string{"reason (", "\n  SOCKET_RCVBUFF\n", "counter (", "\n  Udp.RcvbufErrors\n", "\n  netfilter\n", "\n  policy\n"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in the list", want)
		}
	}
	var names map[string]any
	if err := json.Unmarshal([]byte(here(t, "explain", "-j").out), &names); err != nil || names["reason"] == nil {
		t.Errorf("explain -j: %v, %v", names, err)
	}
}

// TestLint: a good base has no problems, and what is wrong in a directory is
// said with its file.
func TestLint(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the race detector sees the base read in TestOwnKnowledgeOverrides and in internal/diagnose")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, knowledge.FS); err != nil {
		t.Fatal(err)
	}
	builtIn, copied := here(t, "knowledge", "lint"), here(t, "knowledge", "lint", dir)
	if builtIn.code != copied.code || builtIn.code == exitUsage {
		t.Errorf("built in: %+v; the same in a directory: %+v", builtIn, copied)
	}
	// What is wrong in one cause does not depend on the others.
	if err := os.RemoveAll(filepath.Join(dir, "causes")); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "causes", "bad-cause")
	if err := os.MkdirAll(bad, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(bad, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const good = "id: bad-cause\ntitle: t\nclass: fault\nstation: ip\ndirection: rx\ndrops:\n  - reasons: [NOT_A_REASON_OF_ANY]\n"
	write("cause.yaml", good+"facts: [no-such-kind]\n")
	write("explain.md", "no title\n")
	r := here(t, "knowledge", "lint", dir)
	for _, want := range []string{
		"causes/bad-cause/explain.md: does not begin with a title", "explain.md: headings", "cases: none finds bad-cause",
	} {
		if r.code != exitFinding || !strings.Contains(r.out, want) {
			t.Errorf("no %q: %+v", want, r)
		}
	}
	var v struct {
		Problems []string `json:"problems"`
	}
	if err := json.Unmarshal([]byte(here(t, "knowledge", "lint", "-j", dir).out), &v); err != nil || len(v.Problems) < 3 {
		t.Errorf("-j: %+v, %v", v, err)
	}
	write("cause.yaml", good+"colour: red\n")
	if r := here(t, "knowledge", "lint", dir); r.code != exitFinding || !strings.Contains(r.out, "colour") {
		t.Errorf("an unknown field: %+v", r)
	}
	for _, args := range [][]string{{"lint", filepath.Join(dir, "none")}, {"lint", filepath.Join(bad, "cause.yaml")}, {"lint", dir, dir}, {"no-such"}} {
		if r := here(t, append([]string{"knowledge"}, args...)...); r.code != exitUsage {
			t.Errorf("knowledge %s: exit status %d, want %d", strings.Join(args, " "), r.code, exitUsage)
		}
	}
}
