package kernelnet

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func xtRecorded(t testing.TB, f XtFamily) XtTable {
	m := recorded(t, "counter/testdata/netfilter/"+map[bool]string{false: "iptables", true: "ip6tables"}[f.Six]+"_filter-6.18.hex")
	return XtTable{m[0], m[1]}
}

// TestXtRules: what is in the recorded tables the counters and facts hold
// against golden files; here is how the rules lie in them.
func TestXtRules(t *testing.T) {
	for _, f := range XtFamilies() {
		table := xtRecorded(t, f)
		rules, chains, err := f.Rules(table)
		if err != nil {
			t.Fatal(err)
		}
		number := map[string]int{}
		var policies []string
		for _, r := range rules {
			if r.Number == 0 {
				policies = append(policies, r.Chain)
			} else if number[r.Chain]++; r.Number != number[r.Chain] {
				t.Errorf("%s: rule %d comes after %d", r.Chain, r.Number, number[r.Chain]-1)
			}
			if !r.Builtin && !slices.Contains(slices.Collect(maps.Values(chains)), r.Chain) {
				t.Errorf("%s of %v", r.Chain, chains)
			}
			if size := len(r.Header) + len(r.Matches) + SizeofXtHead + len(r.Data); size > r.Next || len(r.Header) != f.size {
				t.Errorf("%s %d: %d bytes before %d", r.Chain, r.Number, size, r.Next)
			}
		}
		if d := cmp.Diff([]string{"INPUT", "FORWARD", "OUTPUT"}, policies); d != "" {
			t.Error(d)
		}
		for n := range table.Entries {
			if rules, _, err := f.Rules(XtTable{table.Info, table.Entries[:n]}); !errors.Is(err, ErrShort) {
				t.Fatalf("%d of %d bytes: %d rules, %v", n, len(table.Entries), len(rules), err)
			}
		}
		if _, _, err := f.Rules(XtTable{table.Info[:10], table.Entries}); !errors.Is(err, ErrShort) {
			t.Error(err)
		}
	}
}

// TestXtSays: what a rule says stays the same while packets pass and rules come
// and go before it, and differs from what the others of its chain say.
func TestXtSays(t *testing.T) {
	for _, f := range XtFamilies() {
		table := xtRecorded(t, f)
		rules, chains, err := f.Rules(table)
		if err != nil {
			t.Fatal(err)
		}
		const moved = 4096
		elsewhere := map[int]string{}
		for at, name := range chains {
			elsewhere[at+moved] = name
		}
		said, jumps, further := map[string]bool{}, 0, 0
		for _, r := range rules {
			if r.Number == 0 {
				continue
			}
			text := f.Says(r, chains)
			if said[r.Chain+text] {
				t.Errorf("%s %d says what another one does: %s", r.Chain, r.Number, text)
			}
			said[r.Chain+text] = true
			later := r
			later.Header = slices.Clone(r.Header)
			for i := range 16 {
				later.Header[f.counters+i] ^= 0xff
			}
			if v := r.Verdict(); r.Target == "" && v >= 0 {
				later.Data = native.AppendUint32(nil, uint32(v+moved))
				later.Data = append(later.Data, r.Data[4:]...)
				if chains[int(v)] == "" {
					further++
				} else {
					jumps++
				}
			}
			if got := f.Says(later, elsewhere); got != text {
				t.Errorf("%s %d: %s, then %s", r.Chain, r.Number, text, got)
			}
			later.Header[0] ^= 0xff
			if f.Says(later, elsewhere) == text {
				t.Errorf("%s %d: another address, and it says the same", r.Chain, r.Number)
			}
		}
		if jumps == 0 || further == 0 {
			t.Errorf("%d rules go to a chain, %d to the next rule", jumps, further)
		}
	}
}

func FuzzXtRules(f *testing.F) {
	for _, family := range XtFamilies() {
		t := xtRecorded(f, family)
		f.Add(t.Info, t.Entries, family.Six)
	}
	f.Fuzz(func(t *testing.T, info, entries []byte, six bool) {
		family := XtFamilies()[0]
		if six {
			family = XtFamilies()[1]
		}
		rules, chains, err := family.Rules(XtTable{info, entries})
		if err != nil && (rules != nil || chains != nil) {
			t.Errorf("%d rules beside the error %v", len(rules), err)
		}
		if len(rules)*family.size > len(entries) {
			t.Errorf("%d rules of %d bytes", len(rules), len(entries))
		}
		for _, r := range rules {
			_ = r.Drops()
			_ = family.Says(r, chains)
		}
	})
}
