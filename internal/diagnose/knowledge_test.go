package diagnose_test

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"go.yaml.in/yaml/v3"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

func load(t testing.TB) *diagnose.Knowledge {
	t.Helper()
	k, err := diagnose.BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// triage is the knowledge base without its causes.
func triage(t testing.TB) *diagnose.Knowledge {
	t.Helper()
	causeless.Do(func() {
		fsys := without(t, func(name string) bool { return strings.HasPrefix(name, "causes/") })
		causeless.k, causeless.err = diagnose.Load(fsys)
	})
	if causeless.err != nil {
		t.Fatal(causeless.err)
	}
	return causeless.k
}

var causeless struct {
	sync.Once
	k   *diagnose.Knowledge
	err error
}

// without copies the knowledge base, but for the files that leaveOut names.
func without(t testing.TB, leaveOut func(name string) bool) fstest.MapFS {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(knowledge.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || leaveOut(name) {
			return err
		}
		b, err := fs.ReadFile(knowledge.FS, name)
		files[name] = &fstest.MapFile{Data: b}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A base that is good, for tests that spoil one thing in it.
const (
	goodReasons = `reasons:
  NO_SOCKET: {class: fault, station: transport, sentence: Nobody listens.}
`
	goodRules = `rules:
  - id: one
    reasons: [NOT_SPECIFIED]
    symbols: [udp_rcv]
    class: expected
    station: transport
    sentence: Nobody joined.
`
)

func base(reasons, rules string) fstest.MapFS {
	return fstest.MapFS{
		"reasons/a.yaml":   {Data: []byte(reasons)},
		"locations/a.yaml": {Data: []byte(rules)},
	}
}

func TestLoadAcceptsAGoodBase(t *testing.T) {
	k, err := diagnose.Load(base(goodReasons, goodRules))
	if err != nil {
		t.Fatal(err)
	}
	if v := k.Classify(key("NO_SOCKET", "x"), nil); v.Sentence != "Nobody listens." {
		t.Errorf("verdict %+v", v)
	}
}

func TestLoadRefuses(t *testing.T) {
	rule := func(old, repl string) string { return strings.Replace(goodRules, old, repl, 1) }
	entry := func(old, repl string) string { return strings.Replace(goodReasons, old, repl, 1) }
	for _, c := range []struct {
		name, reasons, rules, want string
	}{
		{"unknown field", entry("class:", "severity: high, class:"), goodRules, "severity"},
		{"unknown class", entry("fault", "bad"), goodRules, `unknown class "bad"`},
		{"no class", entry("class: fault, ", ""), goodRules, `unknown class ""`},
		{"unknown station", entry("transport", "moon"), goodRules, `unknown station "moon"`},
		{"no sentence", entry("Nobody listens.", `""`), goodRules, "sentence"},
		{"sentence of two lines", entry("Nobody listens.", `"a\nb"`), goodRules, "one line"},
		{"a number for a reason", entry("NO_SOCKET", "3"), goodRules, "not a reason's name"},
		{"entry for NOT_SPECIFIED", entry("NO_SOCKET", "NOT_SPECIFIED"), goodRules, "NOT_SPECIFIED"},
		{"entry for ANY", entry("NO_SOCKET", "ANY"), goodRules, "ANY"},
		{"reason twice in a file", goodReasons + strings.SplitAfterN(goodReasons, "\n", 2)[1], goodRules, "NO_SOCKET"},
		{"two documents", goodReasons + "---\n" + goodReasons, goodRules, "more than one document"},
		{"no YAML", "\t{", goodRules, "decode reasons/a.yaml"},
		{"empty file", "", goodRules, "decode reasons/a.yaml"},
		{"rule without id", goodReasons, rule("id: one", "id: ''"), "rule 1 has no id"},
		{"rule twice", goodReasons, goodRules + strings.SplitAfterN(goodRules, "\n", 2)[1], "rule one is there twice"},
		{"rule without reasons", goodReasons, rule("[NOT_SPECIFIED]", "[]"), "rule one: no reasons"},
		{"rule with a number", goodReasons, rule("NOT_SPECIFIED", "'2'"), `"2"`},
		{"ANY beside others", goodReasons, rule("NOT_SPECIFIED", "ANY, NO_SOCKET"), "ANY beside others"},
		{"rule without place", goodReasons, rule("symbols: [udp_rcv]", "symbols: []"), "neither symbols nor stack"},
		{"symbol with offset", goodReasons, rule("udp_rcv", "udp_rcv+0x5"), "udp_rcv+0x5"},
		{"symbol with suffix", goodReasons, rule("udp_rcv", "udp_rcv.isra.0"), "udp_rcv.isra.0"},
		{"symbol of a star alone", goodReasons, rule("udp_rcv", `"*"`), `"*"`},
		{"star in the middle", goodReasons, rule("udp_rcv", `"u*p"`), `"u*p"`},
		{"unknown destination", goodReasons, rule("class:", "destination: moon\n    class:"), `destination "moon"`},
		{"unknown ethertype", goodReasons, rule("class:", "ethertype: moon\n    class:"), `ethertype "moon"`},
		{"unknown class of a rule", goodReasons, rule("expected", "bad"), `rule one: unknown class "bad"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := diagnose.Load(base(c.reasons, c.rules))
			if err == nil || k != nil {
				t.Fatalf("loaded, error %v", err)
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "a.yaml") {
				t.Errorf("error %q does not say %q and the file", err, c.want)
			}
		})
	}
}

func TestLoadRefusesAReasonInTwoFiles(t *testing.T) {
	fsys := base(goodReasons, goodRules)
	fsys["reasons/b.yaml"] = &fstest.MapFile{Data: []byte(goodReasons)}
	if _, err := diagnose.Load(fsys); err == nil || !strings.Contains(err.Error(), "reasons/b.yaml: reason NO_SOCKET is described twice") {
		t.Errorf("error %v", err)
	}
}

func TestLoadRefusesADirectoryThatIsNoBase(t *testing.T) {
	for _, missing := range []string{"reasons/a.yaml", "locations/a.yaml"} {
		fsys := base(goodReasons, goodRules)
		delete(fsys, missing)
		if _, err := diagnose.Load(fsys); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: error %v", missing, err)
		}
	}
}

// TestEveryReasonOfOtherKernelsIsKnown holds the names that kernels from 5.18
// to 7.2 have and 6.18 does not, and those of other subsystems, which are in
// the BTF of modules.
func TestEveryReasonOfOtherKernelsIsKnown(t *testing.T) {
	names := strings.Fields(`
		PTYPE_ABSENT
		QDISC_BURST_DROP MACVLAN_BROADCAST_BACKLOG IPVLAN_MULTICAST_BACKLOG SKB_BAD_GSO IPV6_TOO_MANY_EXTHDRS
		QDISC_DROP_GENERIC QDISC_DROP_OVERLIMIT QDISC_DROP_CONGESTED QDISC_DROP_MAXFLOWS
		QDISC_DROP_FLOOD_PROTECTION QDISC_DROP_BAND_LIMIT QDISC_DROP_HORIZON_LIMIT QDISC_DROP_FLOW_LIMIT
		QDISC_DROP_L4S_STEP_NON_ECN
		OVS_DROP_LAST_ACTION OVS_DROP_ACTION_ERROR OVS_DROP_EXPLICIT OVS_DROP_EXPLICIT_WITH_ERROR OVS_DROP_METER
		OVS_DROP_RECURSION_LIMIT OVS_DROP_DEFERRED_LIMIT OVS_DROP_FRAG_L2_TOO_LONG OVS_DROP_FRAG_INVALID_PROTO
		OVS_DROP_CONNTRACK OVS_DROP_IP_TTL
		RX_DROP_M_UNEXPECTED_4ADDR_FRAME RX_DROP_M_BAD_BCN_KEYIDX RX_DROP_M_BAD_MGMT_KEYIDX
		RX_DROP_U_MIC_FAIL RX_DROP_U_REPLAY RX_DROP_U_BAD_MMIE RX_DROP_U_DUP RX_DROP_U_SPURIOUS RX_DROP_U_DECRYPT_FAIL
		RX_DROP_U_NO_KEY_ID RX_DROP_U_BAD_CIPHER RX_DROP_U_OOM RX_DROP_U_NONSEQ_PN RX_DROP_U_BAD_KEY_COLOR
		RX_DROP_U_BAD_4ADDR RX_DROP_U_BAD_AMSDU RX_DROP_U_BAD_AMSDU_CIPHER RX_DROP_U_INVALID_8023 RX_DROP_U_RUNT_ACTION
		RX_DROP_U_UNPROT_ACTION RX_DROP_U_UNPROT_DUAL RX_DROP_U_UNPROT_UCAST_MGMT RX_DROP_U_UNPROT_MCAST_MGMT
		RX_DROP_U_UNPROT_BEACON RX_DROP_U_UNPROT_UNICAST_PUB_ACTION RX_DROP_U_UNPROT_ROBUST_ACTION
		RX_DROP_U_ACTION_UNKNOWN_SRC RX_DROP_U_REJECTED_ACTION_RESPONSE RX_DROP_U_EXPECT_DEFRAG_PROT
		RX_DROP_U_WEP_DEC_FAIL RX_DROP_U_NO_IV RX_DROP_U_NO_ICV RX_DROP_U_AP_RX_GROUPCAST RX_DROP_U_SHORT_MMIC
		RX_DROP_U_MMIC_FAIL RX_DROP_U_SHORT_TKIP RX_DROP_U_TKIP_FAIL RX_DROP_U_SHORT_CCMP RX_DROP_U_SHORT_CCMP_MIC
		RX_DROP_U_SHORT_GCMP RX_DROP_U_SHORT_GCMP_MIC RX_DROP_U_SHORT_CMAC RX_DROP_U_SHORT_CMAC256 RX_DROP_U_SHORT_GMAC
		RX_DROP_U_UNEXPECTED_VLAN_4ADDR RX_DROP_U_UNEXPECTED_STA_4ADDR RX_DROP_U_UNEXPECTED_VLAN_MCAST
		RX_DROP_U_NOT_PORT_CONTROL RX_DROP_U_UNEXPECTED_4ADDR_FRAME RX_DROP_U_BAD_BCN_KEYIDX RX_DROP_U_BAD_MGMT_KEYIDX
		RX_DROP_U_UNKNOWN_ACTION_REJECTED
		___RX_DROP_U_REPLAY
	`)
	k := load(t)
	for _, name := range names {
		if v := k.Classify(key(name, "no_such_function"), nil); !v.Known {
			t.Errorf("reason %s is not in knowledge/reasons", name)
		}
	}
}

// TestSentences holds the form that readers are used to.
func TestSentences(t *testing.T) {
	diagnose.Alone(t)
	err := fs.WalkDir(knowledge.FS, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".yaml") {
			return err
		}
		b, err := fs.ReadFile(knowledge.FS, path)
		if err != nil {
			return err
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(b, &doc); err != nil {
			return err
		}
		for _, s := range sentences(&doc) {
			counter := strings.HasPrefix(path, "counters/")
			switch {
			case !strings.HasSuffix(s.Value, "."):
				t.Errorf("%s:%d: does not end in a full stop: %s", path, s.Line, s.Value)
			case strings.Contains(s.Value, ". ") && !counter:
				t.Errorf("%s:%d: more than one sentence: %s", path, s.Line, s.Value)
			case (s.Value[0] < 'A' || s.Value[0] > 'Z') && !counter:
				t.Errorf("%s:%d: does not begin with a capital: %s", path, s.Line, s.Value)
			case len(s.Value) > 200:
				t.Errorf("%s:%d: %d bytes long: %s", path, s.Line, len(s.Value), s.Value)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sentences finds the values of every key sentence below n.
func sentences(n *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == "sentence" {
			out = append(out, c)
		}
		out = append(out, sentences(c)...)
	}
	return out
}

func FuzzLoad(f *testing.F) {
	f.Add(goodReasons, goodRules)
	f.Add("reasons: {}", "rules: []")
	f.Add("reasons: {A: &a {class: fault, station: ip, sentence: x}, B: *a}", "rules: [{id: a, reasons: [ANY], stack: [b*], class: benign, station: xdp, sentence: y}]")
	f.Add("reasons: 7", "- - -")
	f.Fuzz(func(t *testing.T, reasons, rules string) {
		k, err := diagnose.Load(base(reasons, rules))
		if err != nil {
			return
		}
		// Whatever loads gives verdicts that can be shown.
		for _, name := range []string{"", "A", "NO_SOCKET", "NOT_SPECIFIED"} {
			v := k.Classify(key(name, "udp_rcv"), []record.Location{{Symbol: "bar"}})
			if v.Sentence == "" || !slices.Contains(record.Stations(), v.Station) || v.Class == "" {
				t.Errorf("verdict %+v", v)
			}
		}
	})
}
