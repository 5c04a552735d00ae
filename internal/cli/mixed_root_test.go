//go:build root

package cli

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// lossOf is a scenario of a mixture and how many packets it loses.
type lossOf struct {
	scenario string
	packets  int
}

// mixtures are losses that happen at once: those of a list in one host, the
// lists in hosts of their own that are watched together.
var mixtures = []struct {
	name  string
	hosts [][]lossOf
}{
	{"a full buffer and a source filter over refused connections", [][]lossOf{
		{{"udp-rcvbuf", 120}, {"ip-rpfilter", 60}, {"tcp-no-listener", 200}},
	}},
	{"a rate limit and a closed port", [][]lossOf{
		{{"qdisc-shaper", 150}}, {{"udp-noport", 90}},
	}},
	// Both are NETFILTER_DROP in nf_hook_slow.
	{"two that look the same", [][]lossOf{
		{{"ct-table-full", 130}}, {{"nf-rule-drop", 70}},
	}},
	{"a ring, a queue, a filter, and pings that are not answered", [][]lossOf{
		{{"tun-full-ring", 140}, {"neigh-queue-full", 110}, {"udp-sockfilter", 80}, {"icmp-echo-ignored", 30}},
	}},
	{"the same cause in two hosts, another in a third", [][]lossOf{
		{{"udp-rcvbuf", 100}}, {{"udp-rcvbuf", 60}}, {{"veth-peer-mtu", 80}, {"icmp-bad", 40}},
	}},
}

// TestMixed: where packets get lost for several reasons at once, each is found
// with its exact number, the one with most packets first, and nothing else.
func TestMixed(t *testing.T) {
	testkit.NeedRoot(t)
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	all := mixtures
	if testing.Short() {
		all = all[:1]
	}
	for _, m := range all {
		t.Run(m.name, func(t *testing.T) {
			o, want := mixture(t, m.hosts)
			for tries := 0; testkit.HidesPID1() && tries < 2 && o.Accounting.DropsAggregated < eventsOf(want); tries++ {
				t.Log("again: this kernel hides what interrupts PID 1")
				o, want = mixture(t, m.hosts)
			}
			ask(t.Context(), &o, k)
			d := diagnose.Run(&o, k, diagnose.Options{All: true})
			checkMixed(t, d, want)
			if t.Failed() {
				t.Log(evidenceOf(o, d))
			}
		})
	}
}

// mixedLoss is a loss that was provoked.
type mixedLoss struct {
	netns  uint32
	lost   uint64
	expect lab.Expectation
}

func eventsOf(losses []mixedLoss) (n uint64) {
	for _, l := range losses {
		if !l.expect.Silent() {
			n += l.lost
		}
	}
	return n
}

// mixture watches while all losses come about, a part of each in turn.
func mixture(t *testing.T, hosts [][]lossOf) (record.Observation, []mixedLoss) {
	t.Helper()
	type running struct {
		setup *lab.Setup
		left  int
		at    int
	}
	var runs []*running
	var want []mixedLoss
	var spaces []uint32
	for _, losses := range hosts {
		var scenarios []lab.Scenario
		for _, l := range losses {
			s, err := lab.Find(l.scenario)
			if err != nil {
				t.Fatal(err)
			}
			scenarios = append(scenarios, s)
		}
		setups, err := lab.PrepareTogether(t.Context(), scenarios...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := setups[0].Close(); err != nil {
				t.Error(err)
			}
		})
		spaces = append(spaces, setups[0].NetNS)
		for i, l := range losses {
			e, err := lab.Expected(l.scenario)
			if err != nil {
				t.Fatal(err)
			}
			runs = append(runs, &running{setups[i], l.packets, len(want)})
			want = append(want, mixedLoss{netns: setups[i].NetNS, expect: e})
		}
	}
	o, err := observeLab(t.Context(), spaces, func() error {
		for left := true; left; {
			left = false
			for _, r := range runs {
				some := min(r.left, 25)
				if some == 0 {
					continue
				}
				truth, err := r.setup.Provoke(t.Context(), some)
				want[r.at].lost += truth.Drops
				if err != nil {
					return fmt.Errorf("%s: %w", want[r.at].expect.Cause, err)
				}
				r.left -= some
				left = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return o, want
}

// checkMixed compares the findings with what was lost: all of them and no other,
// those that are shown first, each group with most packets first.
func checkMixed(t *testing.T, d record.Diagnosis, want []mixedLoss) {
	t.Helper()
	var shown []uint64
	used := make([]bool, len(d.Findings))
	for _, w := range want {
		i := slices.IndexFunc(d.Findings, func(f record.Finding) bool {
			return f.Cause == w.expect.Cause && slices.Contains(f.NetNS, fmt.Sprintf("net:[%d]", w.netns))
		})
		if i < 0 {
			t.Errorf("%s in namespace %d: not found", w.expect.Cause, w.netns)
			continue
		}
		used[i] = true
		f := d.Findings[i]
		if f.Drops != w.lost || f.Class != w.expect.Class || f.Station != w.expect.Station {
			t.Errorf("%s: %d, %s at %s; lost were %d, %s at %s", f.Cause, f.Drops, f.Class, f.Station, w.lost, w.expect.Class, w.expect.Station)
		}
	}
	for i, f := range d.Findings {
		if !used[i] {
			t.Errorf("found %s with %d, which was not provoked", f.Cause, f.Drops)
		}
		if f.Class.Shown() {
			shown = append(shown, f.Drops)
		}
		if f.Class.Shown() && i >= len(shown) {
			t.Errorf("%s is shown behind what is not", f.Cause)
		}
	}
	if !slices.IsSortedFunc(shown, func(a, b uint64) int { return int(int64(b) - int64(a)) }) {
		t.Errorf("not the one with most packets first: %d", shown)
	}
	if open := openLedger(d.Ledger); len(open) > 0 {
		t.Error(errors.New("the ledger is open"), open)
	}
}
