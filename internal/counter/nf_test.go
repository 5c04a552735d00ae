package counter

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/testkit"
)

// nfListing is a line for each value.
func nfListing(values []Value) []byte {
	var b bytes.Buffer
	for _, v := range values {
		fmt.Fprintf(&b, "%s [%s] %d %v\n  %s\n  %s\n", v.Name, v.Object, v.Value, v.Level, v.Source, v.Command)
	}
	return b.Bytes()
}

// nftAll parses the messages of a ruleset.
func nftAll(rules, chains, objects [][]byte) ([]Value, *nftTables, error) {
	t := newNftTables()
	var bad error
	for _, m := range rules {
		if more, err := t.addRule(m); err != nil {
			bad = err
		} else if !more {
			break
		}
	}
	for _, m := range chains {
		if err := t.addChain(m); err != nil {
			bad = err
		}
	}
	for _, m := range objects {
		if err := t.addObject(m); err != nil {
			bad = err
		}
	}
	return t.values(), t, bad
}

// nfSamples are messages and entries of a kernel, with what makes values of
// them. Those of nftables were recorded in the namespace of TestMatchesNft,
// with the chains that iptables-nft makes besides.
var nfSamples = []struct {
	name  string
	parse func(messages [][]byte) ([]Value, error)
}{
	{"nft_rules-6.18", func(m [][]byte) ([]Value, error) { v, _, err := nftAll(m, nil, nil); return v, err }},
	{"nft_chains-6.18", func(m [][]byte) ([]Value, error) { v, _, err := nftAll(nil, m, nil); return v, err }},
	{"nft_objects-6.18", func(m [][]byte) ([]Value, error) { v, _, err := nftAll(nil, nil, m); return v, err }},
	{"conntrack_cpus-6.18", func(m [][]byte) (values []Value, err error) {
		for _, m := range m {
			v, e := parseCtStats(m, "x", ctStats())
			if values = append(values, v...); e != nil {
				err = e
			}
		}
		return values, err
	}},
	{"iptables_filter-6.18", func(m [][]byte) ([]Value, error) { return xtAll(kernelnet.XtFamilies()[0], m) }},
	{"ip6tables_filter-6.18", func(m [][]byte) ([]Value, error) { return xtAll(kernelnet.XtFamilies()[1], m) }},
}

func xtAll(f kernelnet.XtFamily, m [][]byte) ([]Value, error) {
	if len(m) < 2 {
		return nil, nil
	}
	rules, chains, err := f.Rules(kernelnet.XtTable{Info: m[0], Entries: m[1]})
	all := xtValues{whole: true}
	all.add(f, "filter", rules, chains)
	return all.values(), err
}

func nfSample(t testing.TB, name string) [][]byte {
	t.Helper()
	return loadMessages(t, filepath.Join("netfilter", name+".hex"))
}

func TestNetfilterGolden(t *testing.T) {
	for _, s := range nfSamples {
		values, err := s.parse(nfSample(t, s.name))
		if err != nil || len(values) == 0 {
			t.Errorf("%s: %d values, %v", s.name, len(values), err)
		}
		testkit.Golden(t, filepath.Join("testdata", "netfilter", s.name+".golden"), nfListing(values))
	}
}

// TestNetfilterTruncated cuts each message at every byte: what is still
// reported must be in the whole too, but for the sums.
func TestNetfilterTruncated(t *testing.T) {
	for _, s := range nfSamples {
		messages := nfSample(t, s.name)
		for i := range messages {
			list := slices.Clone(messages)
			whole, _ := s.parse(list)
			if !strings.Contains(s.name, "tables") {
				list = list[i : i+1]
				whole, _ = s.parse(list)
			}
			m := messages[i]
			for n := range len(m) {
				list[min(i, len(list)-1)] = m[:n]
				values, _ := s.parse(list)
				for _, v := range values {
					// A rule that is cut before its verdict does not drop.
					known := slices.ContainsFunc(whole, func(w Value) bool {
						return w.Value == v.Value && strings.HasPrefix(w.Object, strings.TrimRight(v.Object, "0123456789"))
					})
					if v.Object != "" && !known {
						t.Fatalf("%s: message %d, %d of %d bytes: %+v", s.name, i, n, len(m), v)
					}
				}
			}
		}
	}
}

func beBytes(v any) []byte {
	b, _ := binary.Append(nil, binary.BigEndian, v)
	return b
}

// expression makes one of a rule.
func expression(name string, attrs ...[]byte) []byte {
	return attr(unix.NFTA_LIST_ELEM, join(attr(unix.NFTA_EXPR_NAME, []byte(name+"\x00")), attr(unix.NFTA_EXPR_DATA, join(attrs...))))
}

func counterOf(packets, count uint64) []byte {
	return expression("counter", attr(unix.NFTA_COUNTER_BYTES, beBytes(count)), attr(unix.NFTA_COUNTER_PACKETS, beBytes(packets)))
}

func verdictOf(code int32) []byte {
	return expression("immediate", attr(unix.NFTA_IMMEDIATE_DREG, beBytes(uint32(0))),
		attr(unix.NFTA_IMMEDIATE_DATA, attr(unix.NFTA_DATA_VERDICT, attr(unix.NFTA_VERDICT_CODE, beBytes(code)))))
}

func nftRuleOf(handle uint64, exprs ...[]byte) []byte {
	return join([]byte{unix.NFPROTO_INET, 0, 0, 0}, attr(unix.NFTA_RULE_TABLE, []byte("my table\x00")), attr(unix.NFTA_RULE_CHAIN, []byte("in\x00")),
		attr(unix.NFTA_RULE_HANDLE, beBytes(handle)), attr(unix.NFTA_RULE_EXPRESSIONS, join(exprs...)))
}

// TestNftDrops: what stands between a counter and the drop decides whether all
// that it counts is dropped.
func TestNftDrops(t *testing.T) {
	drop, accept := verdictOf(0), verdictOf(1)
	immediate := expression("immediate", attr(unix.NFTA_IMMEDIATE_DREG, beBytes(uint32(unix.NFT_REG_1))))
	set := func(name string, sreg int) []byte { return expression(name, attr(sreg, beBytes(uint32(1)))) }
	object := func(kind uint32) []byte {
		return expression("objref", attr(unix.NFTA_OBJREF_IMM_TYPE, beBytes(kind)), attr(unix.NFTA_OBJREF_IMM_NAME, []byte("x\x00")))
	}
	target := func(name string) []byte { return expression("target", attr(1, []byte(name+"\x00"))) }
	c := counterOf(3, 100)
	for _, tt := range []struct {
		name  string
		exprs [][]byte
		drops bool
	}{
		{"drop", [][]byte{expression("cmp"), c, drop}, true},
		{"reject", [][]byte{c, expression("reject")}, true},
		{"REJECT", [][]byte{c, target("REJECT")}, true},
		{"LOG", [][]byte{c, target("LOG")}, false},
		{"accept", [][]byte{c, accept}, false},
		{"no verdict", [][]byte{c}, false},
		{"a condition between", [][]byte{c, expression("cmp"), drop}, false},
		{"a limit between", [][]byte{c, expression("limit"), drop}, false},
		{"what is not known between", [][]byte{c, expression("newer"), drop}, false},
		{"a log between", [][]byte{c, expression("log"), expression("notrack"), expression("last"), drop}, true},
		{"a mark between", [][]byte{c, immediate, set("meta", unix.NFTA_META_SREG), set("ct", unix.NFTA_CT_SREG), drop}, true},
		{"a mark is read between", [][]byte{c, set("meta", unix.NFTA_META_DREG), drop}, false},
		{"a named counter between", [][]byte{c, object(unix.NFT_OBJECT_COUNTER), drop}, true},
		{"a named quota between", [][]byte{c, object(unix.NFT_OBJECT_QUOTA), drop}, false},
		{"an accept between", [][]byte{c, accept, drop}, false},
		{"after the drop", [][]byte{drop, c}, false},
	} {
		values, _, err := nftAll([][]byte{nftRuleOf(7, tt.exprs...)}, nil, nil)
		prefix := "nft."
		if tt.drops {
			prefix = "nft.drop_"
		}
		l := label{"rule inet my table in 7", "nft -a list chain inet 'my table' in", nftRuleSource}
		want := counterValues(kernelnet.NftCounter{Packets: 3, Bytes: 100}, prefix, l)
		if tt.drops {
			sum := counterValues(kernelnet.NftCounter{Packets: 3, Bytes: 100}, prefix, label{"", "nft list ruleset", nftRuleSource})
			want = append(sum, want...)
		}
		if d := cmp.Diff(want, values); d != "" || err != nil {
			t.Errorf("%s: %v %s", tt.name, err, d)
		}
	}
}

// TestNftTwoCounters: of several counters before a drop one is in the sum.
func TestNftTwoCounters(t *testing.T) {
	_, got, err := nftAll([][]byte{nftRuleOf(7, counterOf(3, 100), counterOf(3, 100), verdictOf(0))}, nil, nil)
	names := []string{}
	for _, v := range got.values() {
		names = append(names, strings.TrimSpace(v.Name+" "+v.Object))
	}
	want := []string{
		"nft.drop_packets", "nft.drop_bytes", "nft.drop_packets rule inet my table in 7 counter 2", "nft.drop_bytes rule inet my table in 7 counter 2",
		"nft.packets rule inet my table in 7", "nft.bytes rule inet my table in 7",
	}
	if d := cmp.Diff(want, names); d != "" || err != nil || got.packets != 3 {
		t.Errorf("%v, %d: %s", err, got.packets, d)
	}
}

// TestNftBounds: of a large ruleset the sums stay exact, and what is left out
// is counted; of a larger one there is no sum.
func TestNftBounds(t *testing.T) {
	rule, plain := nftRuleOf(7, counterOf(1, 10), verdictOf(0)), nftRuleOf(8, counterOf(1, 10))
	rules := slices.Repeat([][]byte{rule, plain}, maxNftParts+5)
	values, all, err := nftAll(rules, nil, nil)
	if err != nil || len(values) != 2+4*maxNftParts || values[0].Value != maxNftParts+5 || values[1].Value != 10*(maxNftParts+5) || all.left != 10 || !all.whole {
		t.Errorf("%d values, the first %+v, %d left, %v", len(values), values[0], all.left, err)
	}
	values, all, err = nftAll(slices.Repeat([][]byte{rule}, maxNftRules+1), nil, nil)
	if err != nil || len(values) != 2*maxNftParts || values[0].Object == "" || !all.stopped || all.whole {
		t.Errorf("%d values, the first %+v, %v", len(values), values[0], err)
	}
	// Without one rule the sum is not known either.
	values, all, err = nftAll([][]byte{rule, rule[:30]}, nil, nil)
	if err == nil || len(values) != 2 || all.whole {
		t.Errorf("%+v, %v", values, err)
	}
}

func TestXtBounds(t *testing.T) {
	all := xtValues{whole: true}
	drop, policy := kernelnet.XtRule{Chain: "INPUT", Number: 1, Packets: 2, Bytes: 20, Target: "REJECT"}, kernelnet.XtRule{Chain: "INPUT", Packets: 1, Bytes: 10}
	all.add(kernelnet.XtFamilies()[0], "filter", slices.Repeat([]kernelnet.XtRule{drop, policy}, maxXtParts+3), nil)
	values := all.values()
	if len(values) != 2+4*maxXtParts || values[0].Value != 2*(maxXtParts+3) || all.left != 6 {
		t.Errorf("%d values, the first %+v, %d left", len(values), values[0], all.left)
	}
	all.whole = false
	if v := all.values(); v[0].Object == "" {
		t.Errorf("a sum of a part: %+v", v[0])
	}
}

func TestCtSums(t *testing.T) {
	cpus := []Value{
		{Name: "a.x", Object: "cpu 0", Value: 1},
		{Name: "a.y", Object: "cpu 0", Value: 2},
		{Name: "a.x", Object: "cpu 1", Value: 3},
		{Name: "a.y", Object: "cpu 1", Value: 4},
	}
	want := []Value{{Name: "a.y", Value: 6}}
	if d := cmp.Diff(want, ctSums(append([]Value{{Name: "a.x", Value: 4}}, cpus...), cpus)); d != "" {
		t.Error(d)
	}
}

func TestParseNetfilterFiles(t *testing.T) {
	const queues = "    3 3078187    12 2 65531     3     4       90  1\n65535 4294967295 1024 1     0 4294967295 0 5000 1\n"
	const groups = "    5  12345     7 2 65535    100  1\n"
	const ipvs = "   Total Incoming Outgoing         Incoming         Outgoing\n" +
		"   Conns  Packets  Packets            Bytes            Bytes\n" +
		"      1A       FF        0     FFFFFFFFFF                3\n\n" +
		" Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n       1        0        0                0                0\n"
	for _, tt := range []struct {
		name  string
		parse func([]byte, string) ([]Value, error)
		text  string
		want  string
		fails bool
	}{
		{"queues", parseNfqueue, queues, "nfqueue.queue_dropped=4294967298 nfqueue.user_dropped=4 nfqueue.id_sequence=5090 " +
			"nfqueue.queue_total[queue 3]=12 level nfqueue.queue_dropped[queue 3]=3 nfqueue.user_dropped[queue 3]=4 nfqueue.id_sequence[queue 3]=90 " +
			"nfqueue.queue_total[queue 65535]=1024 level nfqueue.queue_dropped[queue 65535]=4294967295 nfqueue.user_dropped[queue 65535]=0 nfqueue.id_sequence[queue 65535]=5000", false},
		{"no queue", parseNfqueue, "", "", false},
		{"short", parseNfqueue, "1 2 3\n", "", true},
		{"cut", parseNfqueue, queues[:60], "nfqueue.queue_dropped=3 nfqueue.user_dropped=4 nfqueue.id_sequence=90 " +
			"nfqueue.queue_total[queue 3]=12 level nfqueue.queue_dropped[queue 3]=3 nfqueue.user_dropped[queue 3]=4 nfqueue.id_sequence[queue 3]=90", true},
		{"no number", parseNfqueue, "1 2 3 4 5 x 7 8 1\n", "nfqueue.queue_total[queue 1]=3 level", true},
		{"no number of a queue", parseNfqueue, "x 2 3 4 5 6 7 8 1\n", "", true},
		{"groups", parseNflog, groups, "nflog.qlen[group 5]=7 level", false},
		{"ipvs", parseIPVS, ipvs, "ip_vs.conns=26 ip_vs.inpkts=255 ip_vs.outpkts=0 ip_vs.inbytes=1099511627775 ip_vs.outbytes=3", false},
		{"ipvs cut", parseIPVS, ipvs[:130], "", true},
		{"ipvs of another form", parseIPVS, "a\nb\n1 2 3\n", "", true},
		{"ipvs without numbers", parseIPVS, "a\nb\n1 2 3 4 g\n", "", true},
	} {
		values, err := tt.parse([]byte(tt.text), "/proc/net/x")
		var got []string
		for _, v := range values {
			s := v.Name
			if v.Object != "" {
				s += "[" + v.Object + "]"
			}
			s += fmt.Sprintf("=%d", v.Value)
			if v.Level {
				s += " level"
			}
			got = append(got, s)
		}
		if d := cmp.Diff(tt.want, strings.Join(got, " ")); d != "" || (err != nil) != tt.fails {
			t.Errorf("%s: %v %s", tt.name, err, d)
		}
	}
}

func FuzzNft(f *testing.F) {
	for _, name := range []string{"nft_rules-6.18", "nft_chains-6.18", "nft_objects-6.18"} {
		for _, m := range nfSample(f, name) {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		values, all, _ := nftAll([][]byte{m, m}, [][]byte{m}, [][]byte{m})
		var sum uint64
		for _, v := range values {
			if v.Name == "nft.drop_packets" && v.Object != "" {
				sum += v.Value
			}
			if !strings.HasPrefix(v.Name, "nft.") || v.Command == "" || v.Source == "" {
				t.Errorf("%+v", v)
			}
		}
		if sum != all.packets {
			t.Errorf("the parts have %d, the sum is %d", sum, all.packets)
		}
	})
}

func FuzzCtStats(f *testing.F) {
	for _, m := range nfSample(f, "conntrack_cpus-6.18") {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		values, err := parseCtStats(m, "x", ctStats())
		if err != nil && len(values) > 0 {
			t.Errorf("%d values beside the error %v", len(values), err)
		}
		for _, v := range values {
			if !strings.HasPrefix(v.Object, "cpu ") || v.Name == "nf_conntrack." {
				t.Errorf("%+v", v)
			}
		}
	})
}

func FuzzNetfilterFiles(f *testing.F) {
	f.Add([]byte("    3 3078187    12 2 65531     3     4       90  1\n"))
	f.Add([]byte("a\nb\n1 2 3 4 5\n"))
	f.Add([]byte("x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, parse := range []func([]byte, string) ([]Value, error){parseNfqueue, parseNflog, parseIPVS} {
			values, _ := parse(text, "x")
			for _, v := range values {
				if v.Source != "x" || v.Command == "" || strings.HasSuffix(v.Name, ".") {
					t.Errorf("%+v", v)
				}
			}
		}
	})
}
