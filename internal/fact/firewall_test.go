package fact

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// sample reads lines of words and hexadecimal digits of testdata/firewall.
func sample(t testing.TB, name string) (lines [][][]byte, words []string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "firewall", name))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var parts [][]byte
		word := ""
		for _, f := range bytes.Fields(line) {
			part, err := hex.DecodeString(string(f))
			if err != nil {
				word = string(f)
				continue
			}
			parts = append(parts, part)
		}
		lines, words = append(lines, parts), append(words, word)
	}
	return lines, words
}

// sampleSets are the sets of a recorded ruleset, with their elements.
func sampleSets(t testing.TB) map[kernelnet.NftID]*nftSet {
	t.Helper()
	lines, words := sample(t, "nft-6.18.hex")
	sets := map[kernelnet.NftID]*nftSet{}
	for i, word := range words {
		if word == "set" {
			id, set, err := parseSet(lines[i][0])
			if err != nil {
				t.Fatal(err)
			}
			sets[id] = set
		}
	}
	for i, word := range words {
		if word != "elements" {
			continue
		}
		b := lines[i][0]
		a := kernelnet.Attrs(b[kernelnet.SizeofNfgen:])
		set := sets[kernelnet.NftID{Family: b[0], Table: a.Text(unix.NFTA_SET_ELEM_LIST_TABLE), Name: a.Text(unix.NFTA_SET_ELEM_LIST_SET)}]
		if err := set.addElements(b); err != nil {
			t.Fatal(err)
		}
	}
	return sets
}

// ruleText writes a rule of a message, with the sets of a sample.
func ruleText(b []byte, sets map[kernelnet.NftID]*nftSet) (string, *nftText, error) {
	r, err := parseWholeRule(b)
	if err != nil {
		return "", nil, err
	}
	d := newNftText(r.Family)
	d.set = func(name string) *nftSet {
		return sets[kernelnet.NftID{Family: r.Family, Table: string(r.Table), Name: name}]
	}
	return d.rule(r.Exprs), d, nil
}

// TestNftText writes the rules of a recorded ruleset.
func TestNftText(t *testing.T) {
	sets := sampleSets(t)
	lines, words := sample(t, "nft-6.18.hex")
	var out bytes.Buffer
	count := 0
	for i, word := range words {
		if word != "rule" {
			continue
		}
		s, d, err := ruleText(lines[i][0], sets)
		if err != nil {
			t.Error(err)
			continue
		}
		count++
		fmt.Fprintf(&out, "%s | %s\n", s, d.verdict)
	}
	if count < 100 {
		t.Errorf("only %d rules", count)
	}
	testkit.Golden(t, "testdata/firewall/nft-6.18.golden", out.Bytes())
}

// exprOf is an expression of a rule.
func exprOf(name string, attrs message) kernelnet.NftExpr {
	return kernelnet.NftExpr{Name: []byte(name), Attrs: kernelnet.Attrs(attrs)}
}

// TestNftTextUnknown: an expression that is not known stands with its name, and
// what it may have put into a register is not taken for something else.
func TestNftTextUnknown(t *testing.T) {
	cmp := exprOf("cmp", message{}.Attr(unix.NFTA_CMP_SREG, bnum(1)).Attr(unix.NFTA_CMP_OP, bnum(0)).Attr(unix.NFTA_CMP_DATA, message{}.Attr(1, []byte{0, 0, 0, 5})))
	load := exprOf("meta", message{}.Attr(unix.NFTA_META_DREG, bnum(1)).Attr(unix.NFTA_META_KEY, bnum(unix.NFT_META_MARK)))
	d := newNftText(unix.NFPROTO_INET)
	if got, want := d.rule([]kernelnet.NftExpr{load, exprOf("brandnew", nil), cmp}), "[brandnew] reg 1 0x5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	d = newNftText(unix.NFPROTO_INET)
	if got, want := d.rule([]kernelnet.NftExpr{exprOf("meta", message{}.Attr(unix.NFTA_META_DREG, bnum(1)).Attr(unix.NFTA_META_KEY, bnum(99))), cmp}), "meta 99 0x5"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Without sets, a look-up still says where it looks.
	lookup := exprOf("lookup", message{}.Attr(unix.NFTA_LOOKUP_SREG, bnum(1)).Attr(unix.NFTA_LOOKUP_SET, []byte("__set0\x00")))
	d = newNftText(unix.NFPROTO_INET)
	if got, want := d.rule([]kernelnet.NftExpr{load, lookup}), "meta mark @__set0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestQueueText is here because not every kernel of the tests has the
// expression.
func TestQueueText(t *testing.T) {
	queue := func(num, total, flags uint16) message {
		big := func(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }
		return message{}.Attr(unix.NFTA_QUEUE_NUM, big(num)).Attr(unix.NFTA_QUEUE_TOTAL, big(total)).Attr(unix.NFTA_QUEUE_FLAGS, big(flags))
	}
	for want, a := range map[string]message{
		"queue to 5":                        queue(5, 1, 0),
		"queue flags bypass,fanout to 1-5":  queue(1, 5, 3),
		"queue flags bypass to 65534-65535": queue(65534, 2, 1),
	} {
		d := newNftText(unix.NFPROTO_INET)
		if got := d.rule([]kernelnet.NftExpr{exprOf("queue", a)}); got != want || d.verdict != "queue" {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestNftElements: of a large set the first are shown and the rest is counted.
func TestNftElements(t *testing.T) {
	var list message
	for i := range maxElems + 5 {
		list = list.Attr(unix.NFTA_LIST_ELEM, message{}.Attr(unix.NFTA_SET_ELEM_KEY, message{}.Attr(1, []byte{byte(i >> 8), byte(i)})))
	}
	m := append(message{}.U8(1, 0, 0, 0), message{}.Attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list)...)
	s := &nftSet{anonymous: true, keySize: 2}
	if err := s.addElements(m); err != nil || len(s.elems) != maxElems || s.more != 5 {
		t.Fatalf("%d elements, %d more, %v", len(s.elems), s.more, err)
	}
	d := newNftText(unix.NFPROTO_INET)
	got := d.elements(s, []*operand{{kind: typePort, size: 2}})
	if !strings.HasPrefix(got, "{ 0, 1, 2,") || !strings.HasSuffix(got, "63, … 5 more }") {
		t.Errorf("got %s", got)
	}
}

func TestXtText(t *testing.T) {
	for _, family := range kernelnet.XtFamilies() {
		lines, _ := sample(t, family.Program+"-6.18.hex")
		var out bytes.Buffer
		for _, l := range lines {
			rules, err := xtRules(family, kernelnet.XtTable{Info: l[0], Entries: l[1]})
			if err != nil {
				t.Fatal(err)
			}
			hooks := legacyHooks(rules)
			for _, r := range rules {
				fmt.Fprintf(&out, "%s %d [%d:%d] %s | %s | %s\n", r.Chain, r.Number, r.Packets, r.Bytes, r.spec, r.verdict, strings.Join(hooks[r.Chain], " "))
			}
		}
		testkit.Golden(t, "testdata/firewall/"+family.Program+"-6.18.golden", out.Bytes())
	}
}

// TestXtTruncated cuts each extension.
func TestXtTruncated(t *testing.T) {
	for _, six := range []bool{false, true} {
		for _, names := range [][]string{slices.Collect(maps.Keys(matchers)), slices.Collect(maps.Keys(targets)), {"nonesuch"}} {
			for _, name := range names {
				for rev := range uint8(4) {
					for n := range 40 { // no panic, and never nothing for something
						data := bytes.Repeat([]byte{0xff}, n*8)
						_ = matchText(six, name, rev, data)
						_ = targetText(six, name, rev, data)
					}
				}
			}
		}
	}
	if got := matchText(false, "u32", 0, make([]byte, 48)); got != "[48 bytes]" {
		t.Errorf("got %q", got)
	}
	if got := matchText(false, "tcp", 0, make([]byte, 4)); got != "[4 bytes]" {
		t.Errorf("got %q", got)
	}
}

func TestCtEntries(t *testing.T) {
	lines, _ := sample(t, "conntrack-6.18.hex")
	var out bytes.Buffer
	for _, l := range lines {
		e, err := parseCtEntry(l[0])
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s | %s\n", e.name(), e.value())
		f := e.fields()
		for _, name := range slices.Sorted(maps.Keys(f)) {
			fmt.Fprintf(&out, "  %s=%s\n", name, f[name])
		}
		for n := range len(l[0]) {
			if cut, err := parseCtEntry(l[0][:n]); err == nil {
				_ = cut.fields()
			}
		}
	}
	testkit.Golden(t, "testdata/firewall/conntrack-6.18.golden", out.Bytes())
}

func TestCtFilter(t *testing.T) {
	for _, good := range []string{"", "tcp", "UDP 192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80", "2001:db8::1 :80", ":80 :443", "udp 192.0.2.1 198.51.100.2 :53"} {
		if err := Check("conntrack-entries", good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{" ", "tcp ", "tcp udp", "http", "80", ":0", ":65536", ":", "192.0.2.1:", "fe80::1%lo", "[fe80::1%lo]:5", "192.0.2.0/24", "tcp  :80", "x:80"} {
		if err := Check("conntrack-entries", bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := Check("firewall", "x"); err == nil {
		t.Error("firewall took an argument")
	}
}

// TestFirewallNowhere: without nf_tables and without tables there are no rules,
// and a host of which that is not known says so.
func TestFirewallNowhere(t *testing.T) {
	read := func(files map[string]string, kind string) record.Fact {
		t.Helper()
		got := tree(t, files).Read(record.FactRequest{Kind: kind}, ns)
		if len(got) != 1 {
			t.Fatalf("got %+v", got)
		}
		return got[0]
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	builtins := "lib/modules/" + unix.ByteSliceToString(uts.Release[:]) + "/modules.builtin"
	nothing := map[string]string{"proc/modules": "", builtins: "", "proc/thread-self/net/ip_tables_names": ""}
	for _, kind := range []string{"firewall", "conntrack-entries"} {
		if f := read(nothing, kind); f.Value != None || f.Missing != "" || f.Name != kind {
			t.Errorf("%s: %+v", kind, f)
		}
		delete(nothing, builtins)
		if f := read(nothing, kind); !strings.Contains(f.Missing, "modules.builtin") {
			t.Errorf("%s: %+v", kind, f)
		}
		nothing[builtins] = ""
	}
}

// TestConntrackOfUser: the namespace of a user shows no max on older kernels;
// the host's holds.
func TestConntrackOfUser(t *testing.T) {
	const dir = "proc/sys/net/netfilter/nf_conntrack_"
	child := tree(t, map[string]string{dir + "count": "12\n", dir + "buckets": "64\n"})
	host := tree(t, map[string]string{dir + "count": "99\n", dir + "max": "262144\n", dir + "expect_max": "1024\n", dir + "buckets": "64\n"})
	root := child.root
	child.Host = func(fn func() error) error {
		defer func() { child.root = root }()
		child.root = host.root
		return fn()
	}
	got := child.Read(record.FactRequest{Kind: "conntrack"}, ns)
	want := fields{"count": "12", "max": "262144", "buckets": "64", "expect_max": "1024"}
	if d := gocmp.Diff(want, got[0].Fields); d != "" || got[0].Value != "12" {
		t.Errorf("%+v: %s", got, d)
	}
}

func FuzzNftText(f *testing.F) {
	lines, words := sample(f, "nft-6.18.hex")
	for i, word := range words {
		if word == "rule" && i%5 == 0 {
			f.Add(lines[i][0])
		}
	}
	sets := sampleSets(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, d, err := ruleText(b, sets)
		if err != nil {
			return
		}
		r, _ := parseWholeRule(b)
		if len(r.Exprs) > 0 && s == "" && d.verdict != "" {
			t.Errorf("a verdict %q without text", d.verdict)
		}
	})
}

func FuzzNftSet(f *testing.F) {
	lines, words := sample(f, "nft-6.18.hex")
	for i, word := range words {
		if word == "elements" || word == "set" {
			f.Add(lines[i][0], uint8(typeIPv4), uint8(4))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, kind, size uint8) {
		_, set, err := parseSet(b)
		if err != nil {
			set = &nftSet{interval: kind&1 != 0}
		}
		if set.addElements(b) != nil || len(set.elems) > maxElems {
			return
		}
		d := newNftText(unix.NFPROTO_INET)
		_ = d.elements(set, []*operand{{kind: nftType(kind), size: int(size)}, {kind: typePort, size: 2}})
	})
}

func FuzzXtText(f *testing.F) {
	for _, family := range kernelnet.XtFamilies() {
		lines, _ := sample(f, family.Program+"-6.18.hex")
		for _, l := range lines {
			f.Add(l[0], l[1], family.Six)
		}
	}
	f.Fuzz(func(t *testing.T, info, entries []byte, six bool) {
		family := kernelnet.XtFamilies()[0]
		if six {
			family = kernelnet.XtFamilies()[1]
		}
		rules, err := xtRules(family, kernelnet.XtTable{Info: info, Entries: entries})
		if err == nil {
			_ = legacyHooks(rules)
		}
	})
}

func FuzzCtEntry(f *testing.F) {
	lines, _ := sample(f, "conntrack-6.18.hex")
	for _, l := range lines {
		f.Add(l[0])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseCtEntry(b)
		if err != nil {
			return
		}
		if e.name() == "" || e.value() == "" || e.fields()["src"] == "" {
			t.Errorf("%+v", e)
		}
	})
}
