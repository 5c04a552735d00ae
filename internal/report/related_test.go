package report_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// rooted is a diagnosis with all that can stand around a finding.
func rooted() record.Diagnosis {
	d := caused()
	symptom := record.Finding{
		Cause: "cpu-backlog", Class: record.ClassCapacity, Station: record.StationBacklog, Direction: record.DirectionRX,
		Title: "40 packets found the backlog of a CPU full.", Drops: 40, LostBy: "drops", Rate: 4, Confidence: record.ConfidenceLikely,
		Devices:  []string{"veth0 (netns lab)"},
		Evidence: []record.Evidence{{Kind: "counter", Name: "softnet.dropped", Value: "40", Before: "1", After: "41", Supports: true}},
		Remedy:   []record.Remedy{{Command: "sysctl -w net.core.netdev_max_backlog=2000"}},
	}
	f := &d.Findings[0]
	f.Symptoms = []record.Finding{symptom}
	f.Contributors = []record.Finding{{
		Cause: "softirq-budget", Class: record.ClassCapacity, Title: "The softirq ended 12 times before its work was done.",
		Remedy: []record.Remedy{{Command: "sysctl -w net.core.netdev_budget=600"}},
	}}
	f.Concerns = &record.Concern{Samples: 7, Of: 9}
	whole := symptom
	whole.Concerns = &record.Concern{Of: 3, WholeHost: true}
	d.Findings = append(d.Findings, whole)
	d.Conclusions = concluding().Conclusions
	d.Elsewhere = &record.Elsewhere{Findings: 2, Drops: 12, Causes: []string{"udp-noport", "ip-rpfilter"}}
	d.Checked = []string{"not printed where something was found"}
	return d
}

// concluding is a diagnosis without loss on this host.
func concluding() record.Diagnosis {
	d := quiet()
	d.Conclusions = []record.Finding{{
		Cause: "h-remote-loss", Class: record.ClassFault, Station: record.StationRemote, Confidence: record.ConfidenceLikely, Events: 25,
		Title:    "25 segments were sent again, and this host dropped none of them.",
		NetNS:    []string{"lab"},
		Evidence: []record.Evidence{{Kind: "counter", Name: "Tcp.RetransSegs", Value: "25", Before: "0", After: "25", Supports: true}},
		Next:     []string{"mtr -T -P 443 192.0.2.7"},
	}}
	d.Checked = []string{"drop events of the kernel: 12 seen, all expected", "118 counters of loss in 2 network namespaces: none moved"}
	return d
}

func TestRelated(t *testing.T) {
	noLoss := concluding()
	noLoss.Conclusions = nil
	two := concluding()
	two.Conclusions = append(two.Conclusions, two.Conclusions[0])
	elsewhere := noLoss
	elsewhere.Elsewhere = rooted().Elsewhere
	byCounters := noLoss
	byCounters.Sources = []record.Source{{Name: "counters", State: record.SourceOK}}
	policy := lossy()
	policy.Findings = policy.Findings[1:]
	for _, c := range []struct {
		name  string
		d     record.Diagnosis
		first string
	}{
		{"root-cause", rooted(), "act: 173 packets dropped (of all traffic; 7 of 12 samples are of the one that was asked for) in 10 s: 133 at socket (udp-rcvbuf), 40 at backlog (cpu-backlog)."},
		{"conclusion", concluding(), "not on this host: h-remote-loss, 25 segments were sent again, and this host dropped none of them; no loss within 10 s, watched 1 source (skbdrop); 12 expected frees hidden (--all shows them)."},
		{"conclusions", two, "not on this host: h-remote-loss, 25 segments were sent again, and this host dropped none of them (and 1 more conclusion); no loss within 10 s, watched 1 source (skbdrop); 12 expected frees hidden (--all shows them)."},
		{"checked", noLoss, "nothing to do: no loss within 10 s, watched 1 source (skbdrop); 12 expected frees hidden (--all shows them)."},
		{"elsewhere", elsewhere, "nothing to do: no loss of this traffic within 10 s, watched 1 source (skbdrop); 12 packets of other traffic lost; 12 expected frees hidden (--all shows them)."},
		{"by-counters-alone", byCounters, "nothing to do as far as counters tell: no loss within 10 s, watched 1 source (counters); 12 expected frees hidden (--all shows them); drops were not watched."},
		{"policy", policy, "act if that is not wanted: 1 packet dropped in 10 s at netfilter: NETFILTER_DROP."},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := diagnosis(t, c.d, report.Style{})
			golden(t, c.name, got)
			checkLines(t, got)
			if first, _, _ := strings.Cut(got, "\n"); first != c.first {
				t.Errorf("first line %q\nwant %q", first, c.first)
			}
		})
	}
}

func compared() record.Comparison {
	d := rooted()
	now := d.Findings[0]
	now.Next = []string{"ss -uanm"}
	change := func(o record.Outcome, change float64, before, after record.LossShare) record.FindingChange {
		return record.FindingChange{
			Outcome: o, Finding: d.Findings[0], Now: &now, Before: before, After: after, Change: change,
			Traffic: "Udp.InDatagrams of netns lab", Why: "as many datagrams as before",
		}
	}
	return record.Comparison{
		Type: record.TypeComparison, Host: record.Host{Hostname: "db1"}, Kernel: record.Kernel{Release: "6.18.44"},
		Before: d.Window, After: d.Window,
		Changes: []record.FindingChange{
			change(record.OutcomeGone, -1, record.LossShare{Lost: 93, Traffic: 1000, Share: 0.093}, record.LossShare{Traffic: 900}),
			change(record.OutcomeLess, -0.83, record.LossShare{Lost: 93, Traffic: 1000, Share: 0.093}, record.LossShare{Lost: 15, Traffic: 950, Share: 0.0158}),
			change(record.OutcomeSame, 0, record.LossShare{Lost: 9, Share: 0.9}, record.LossShare{Lost: 9, Share: 0.9}),
			change(record.OutcomeWorse, 1.5, record.LossShare{Lost: 9, Share: 0.9}, record.LossShare{Lost: 22, Share: 2.25}),
			change(record.OutcomeNew, 0, record.LossShare{}, record.LossShare{Lost: 9, Share: 0.9}),
			change(record.OutcomeNotKnown, 0, record.LossShare{Lost: 9, Share: 0.9}, record.LossShare{}),
		},
		Notes: []string{"the host was started anew between the two"},
	}
}

func TestComparison(t *testing.T) {
	gone := compared()
	gone.Changes, gone.Notes = gone.Changes[:1], nil
	none := gone
	none.Changes = nil
	others := none
	others.LeftOut = 2
	for _, c := range []struct {
		name   string
		c      record.Comparison
		better bool
		first  string
	}{
		{"compared", compared(), false, "act: worse: udp-rcvbuf (2.5 times as much); new: udp-rcvbuf; same: udp-rcvbuf; not known: udp-rcvbuf; less: udp-rcvbuf (-83 %); gone: udp-rcvbuf."},
		{"compared-gone", gone, true, "nothing to do: gone: udp-rcvbuf."},
		{"compared-nothing", none, true, "nothing to do: there was no loss before and there is none now."},
		{"compared-others", others, true, "nothing to do: there was no loss of this traffic before and there is none now."},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := report.Comparison(&b, c.c, c.better, report.Style{}); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, b.String())
			checkLines(t, b.String())
			if first, _, _ := strings.Cut(b.String(), "\n"); first != c.first {
				t.Errorf("first line %q\nwant %q", first, c.first)
			}
			b.Reset()
			if err := report.ComparisonMarkdown(&b, c.c, c.better); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name+"-markdown", b.String())
		})
	}
}

// Without samples nothing says whose packets they were.
func TestConcernWithoutSamples(t *testing.T) {
	d := rooted()
	for c, want := range map[record.Concern]string{
		{}:                       "nothing was sampled that says whether it is of the traffic",
		{WholeHost: true}:        "it meets all traffic of the host, the one that was asked for too\n",
		{Of: 3}:                  "none of its 3 samples is of the traffic",
		{Of: 3, WholeHost: true}: "(none of its 3 samples is of it)",
		{Of: 3, Samples: 1}:      "1 of its 3 samples is of the traffic",
	} {
		d.Findings[0].Concerns = &c
		var b bytes.Buffer
		if err := report.Diagnosis(&b, d, report.Style{Width: 400}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), want) || strings.Contains(b.String(), " 0 samples") {
			t.Errorf("%+v: want %q in\n%s", c, want, b.String())
		}
	}
}

// The first line says that its number is of all traffic, and how much of it may be of
// what was asked for.
func TestVerdictOfTraffic(t *testing.T) {
	for _, c := range []struct {
		finding, symptom record.Concern
		want             string
	}{
		{record.Concern{Samples: 3, Of: 40}, record.Concern{Samples: 1, Of: 2}, "dropped (of all traffic; 4 of 42 samples are of the one that was asked for) in 10 s"},
		{record.Concern{Samples: 1, Of: 40}, record.Concern{}, "dropped (of all traffic; 1 of 40 samples is of the one that was asked for) in 10 s"},
		{record.Concern{Samples: 40, Of: 40}, record.Concern{}, "dropped (40 of 40 samples are of the traffic that was asked for) in 10 s"},
		{record.Concern{Of: 40, WholeHost: true}, record.Concern{}, "dropped (of all traffic; none of 40 samples is of the one that was asked for) in 10 s"},
		{record.Concern{WholeHost: true}, record.Concern{}, "dropped (of all traffic; none was sampled) in 10 s"},
	} {
		f := record.Finding{Cause: "one", Class: record.ClassFault, Station: record.StationSocket, Drops: 800, Concerns: &c.finding}
		f.Symptoms = []record.Finding{{Cause: "two", Class: record.ClassFault, Station: record.StationSocket, Drops: 89, Concerns: &c.symptom}}
		d := record.Diagnosis{Window: record.Window{Duration: 10 * time.Second}, Findings: []record.Finding{f}}
		for _, print := range []func(io.Writer, record.Diagnosis, report.Style) error{report.Diagnosis, report.Markdown} {
			var b bytes.Buffer
			if err := print(&b, d, report.Style{Width: 400}); err != nil {
				t.Fatal(err)
			}
			if first, _, _ := strings.Cut(b.String(), "\n"); !strings.Contains(first, "889 packets "+c.want) {
				t.Errorf("%+v: %q, want %q", c.finding, first, c.want)
			}
		}
	}
}

// What is of other traffic is not called shown.
func TestAccountingOfOtherTraffic(t *testing.T) {
	d := record.Diagnosis{Accounting: record.Accounting{DropsSeen: 5, DropsAggregated: 5}, Elsewhere: &record.Elsewhere{Findings: 1, Drops: 5}}
	for _, print := range []func(io.Writer, record.Diagnosis, report.Style) error{report.Diagnosis, report.Markdown} {
		var b bytes.Buffer
		if err := print(&b, d, report.Style{Width: 400}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), "5 shown or of other traffic") {
			t.Error(b.String())
		}
	}
}

// A loss that is expected and that only counters tell of is not passed over in silence.
func TestVerdictOfExpectedCounters(t *testing.T) {
	entry := func(name string, chain int, relation record.Relation, by ...string) record.LedgerEntry {
		return record.LedgerEntry{Counter: name, Delta: 1, Closed: true, Chain: chain, Relation: relation, ExplainedBy: by}
	}
	for want, entries := range map[string][]record.LedgerEntry{
		"skbdrop); 1 counter of loss moved as expected (--all shows why).": {
			entry("link.rx_crc_errors", 1, record.RelationNoDrops, "n-nic-rx-crc"), entry("link.rx_errors", 1, record.RelationNoDrops, "n-nic-rx-crc"),
		},
		"skbdrop); 2 counters of loss moved as expected (--all shows why).": {
			entry("link.rx_crc_errors", 0, record.RelationNoDrops, "n-nic-rx-crc"), entry("link.rx_dropped", 0, record.RelationNoDrops, "nic-rx-filter"),
		},
		"skbdrop).": {entry("T.a", 0, record.RelationEqual, "n-tcp-abort"), entry("T.b", 0, record.RelationNoDrops)},
	} {
		d := record.Diagnosis{Window: record.Window{Duration: 10 * time.Second}, Sources: []record.Source{{Name: "skbdrop", State: record.SourceOK}}}
		d.Ledger.Entries = entries
		var b bytes.Buffer
		if err := report.Diagnosis(&b, d, report.Style{Width: 400}); err != nil {
			t.Fatal(err)
		}
		if first, _, _ := strings.Cut(b.String(), "\n"); !strings.HasSuffix(first, want) {
			t.Errorf("%q, want it to end with %q", first, want)
		}
	}
}
