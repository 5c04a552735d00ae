package kernelnet

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// recorded are messages of a kernel, one in a line, or parts of one.
func recorded(t testing.TB, path string) (list [][]byte) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		if b, err := hex.DecodeString(word); err == nil {
			list = append(list, b)
		}
	}
	return list
}

func big32(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

func TestParseNftChain(t *testing.T) {
	counter := Message{}.Attr(unix.NFTA_COUNTER_PACKETS, []byte{7: 3}).Attr(unix.NFTA_COUNTER_BYTES, []byte{7: 100})
	names := Message{}.U8(unix.NFPROTO_NETDEV, 0, 0, 0).Text(unix.NFTA_CHAIN_TABLE, "t").Text(unix.NFTA_CHAIN_NAME, "in")
	hook := func(devices Message) Message {
		return append(Message{}.Attr(unix.NFTA_HOOK_HOOKNUM, big32(1)).Attr(unix.NFTA_HOOK_PRIORITY, big32(0xffffff6a)), devices...)
	}
	base := func(devices Message) Message {
		return names.Attr(unix.NFTA_CHAIN_POLICY, big32(NfDrop)).Text(unix.NFTA_CHAIN_TYPE, "filter").
			Nest(unix.NFTA_CHAIN_HOOK, hook(devices)).Nest(unix.NFTA_CHAIN_COUNTERS, counter)
	}
	want := NftChain{ID: NftID{unix.NFPROTO_NETDEV, "t", "in"}}
	if got, err := ParseNftChain(names); err != nil || !cmp.Equal(want, got) {
		t.Errorf("no hook: %+v, %v", got, err)
	}
	want.Base, want.Hook, want.Priority, want.Kind, want.Policy = true, 1, -150, "filter", "drop"
	want.Counted, want.Counter = true, NftCounter{3, 100}
	for _, tt := range []struct {
		devices Message
		want    []string
	}{
		{nil, nil},
		{Message{}.Text(unix.NFTA_HOOK_DEV, "a0"), []string{"a0"}},
		{Message{}.Nest(hookDevices, Message{}.Text(1, "a0").Text(1, "b0")), []string{"a0", "b0"}},
	} {
		want.Devices = tt.want
		if got, err := ParseNftChain(base(tt.devices)); err != nil || !cmp.Equal(want, got) {
			t.Errorf("%v: %+v, %v", tt.want, got, err)
		}
	}
	for name, m := range map[string]Message{
		"half a hook": names.Nest(unix.NFTA_CHAIN_HOOK, hook(nil)[:10]), "half a counter": names.Nest(unix.NFTA_CHAIN_COUNTERS, counter[:12]),
		"half a message": names[:len(names)-3], "half a header": names[:3],
	} {
		if got, err := ParseNftChain(m); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestParseNftRule(t *testing.T) {
	verdict := func(code int32, chain string) Message {
		return Message{}.Nest(unix.NFTA_DATA_VERDICT, Message{}.Attr(unix.NFTA_VERDICT_CODE, big32(uint32(code))).Text(unix.NFTA_VERDICT_CHAIN, chain))
	}
	expr := func(name string, data Message) Message {
		return Message{}.Nest(unix.NFTA_LIST_ELEM, Message{}.Text(unix.NFTA_EXPR_NAME, name).Nest(unix.NFTA_EXPR_DATA, data))
	}
	immediate := func(data Message) Message { return expr("immediate", Message{}.Nest(unix.NFTA_IMMEDIATE_DATA, data)) }
	target := func(name string) Message { return expr("target", Message{}.Text(unix.NFTA_TARGET_NAME, name)) }
	rule := func(exprs Message) Message {
		return Message{}.U8(unix.NFPROTO_INET, 0, 0, 0).Text(unix.NFTA_RULE_TABLE, "my table").Text(unix.NFTA_RULE_CHAIN, "in").
			Attr(unix.NFTA_RULE_HANDLE, []byte{7: 7}).Nest(unix.NFTA_RULE_EXPRESSIONS, exprs).Attr(unix.NFTA_RULE_USERDATA, []byte{1})
	}
	var r NftRule // used again for each
	for _, tt := range []struct {
		name  string
		expr  Message
		drops bool
	}{
		{"reject", expr("reject", nil), true},
		{"counter", expr("counter", nil), false},
		{"target", target("REJECT"), true},
		{"target", target("LOG"), false},
		{"immediate", immediate(verdict(NfDrop, "")), true},
		{"immediate", immediate(verdict(1, "")), false},
		{"immediate", immediate(verdict(unix.NFT_JUMP, "x")), false},
		{"immediate", immediate(Message{}.Attr(unix.NFTA_DATA_VALUE, big32(0))), false},
	} {
		err := r.Parse(rule(tt.expr))
		if err != nil || string(r.Table) != "my table" || string(r.Chain) != "in" || r.Family != unix.NFPROTO_INET || r.Handle != 7 || len(r.UserData) != 1 ||
			len(r.Exprs) != 1 || string(r.Exprs[0].Name) != tt.name || r.Exprs[0].Drops() != tt.drops {
			t.Errorf("%s: %+v, %v", tt.name, r, err)
		}
	}
	for name, exprs := range map[string]Message{
		"no name": Message{}.Nest(unix.NFTA_LIST_ELEM, nil), "half data": expr("cmp", Message{}.Attr32(1, 2)[:6]), "half an expression": {12, 0, 1, 0},
	} {
		if err := r.Parse(rule(exprs)); !errors.Is(err, ErrShort) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if v, err := ParseNftVerdict(verdict(unix.NFT_GOTO, "x")); err != nil || !v.Is || v.Code != unix.NFT_GOTO || string(v.Chain) != "x" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := ParseNftVerdict(verdict(unix.NFT_GOTO, "x")[:14]); err == nil {
		t.Errorf("half a verdict: %+v", v)
	}
}

func FuzzNft(f *testing.F) {
	for _, name := range []string{"nft_rules-6.18", "nft_chains-6.18", "nft_objects-6.18"} {
		for _, m := range recorded(f, "counter/testdata/netfilter/"+name+".hex") {
			f.Add(m)
		}
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		if c, err := ParseNftChain(m); err != nil && !cmp.Equal(NftChain{}, c) {
			t.Errorf("%+v beside the error %v", c, err)
		}
		var r NftRule
		if err := r.Parse(m); err != nil {
			return
		}
		for _, e := range r.Exprs {
			if e.Name == nil || len(e.Name)+len(e.Attrs) > len(m) {
				t.Errorf("%+v", e)
			}
			_ = e.Drops()
			_, _ = ParseNftVerdict(e.Attrs)
		}
	})
}
