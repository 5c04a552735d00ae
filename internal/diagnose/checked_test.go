package diagnose_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// A host where nothing is lost is told what that rests on.
func TestChecked(t *testing.T) {
	quiet := func(name string) record.Counter { return moves(name, 0) }
	o := watched(nil, quiet("Udp.RcvbufErrors"), quiet("Udp.InDatagrams"), counted("link.rx_missed_errors", space, record.Device{Index: 2, Name: "eth0"}, "", 4, 0),
		counted("link.rx_dropped", space, record.Device{Index: 2, Name: "eth0"}, "", 4, 2))
	o.Sources = []record.Source{{Name: "skbdrop", State: record.SourceOK}, {Name: "counters", State: record.SourceOK}}
	o.Accounting.DropsSeen = 7
	d := diagnose.Run(o, load(t), diagnose.Options{})
	want := []string{
		"drops: each packet that the kernel freed as lost, for 10 s: 7 were, seen by skbdrop",
		"counters: 4, of the host, of 1 network namespace and of 1 device",
		"counters of a loss that did not move: ring (1), socket (1)",
		"counters of a loss that moved: backlog (1 of 1)",
	}
	if len(d.Checked) < len(want) || !slices.Equal(d.Checked[:len(want)], want) {
		t.Errorf("%q, want %q", d.Checked, want)
	}
	// Where drops were not watched it must not be said that they were.
	o.Sources[0].State = record.SourceFailed
	if d := diagnose.Run(o, load(t), diagnose.Options{}); strings.HasPrefix(d.Checked[0], "drops") {
		t.Errorf("%q", d.Checked)
	}
}

func TestCheckedConclusions(t *testing.T) {
	k := engine(t,
		conclusion("h-known", "holds: counter(\"T.a\") > 0\n"),
		conclusion("h-quiet", "when: counter(\"T.b\") > 0\nholds: fact(\"x\") == 1\nfacts: [x]\n"),
		conclusion("h-unread", "holds: counter(\"T.c\") > 0\n"),
	)
	d := diagnose.Run(watched(nil, moves("T.a", 0), moves("T.b", 0)), k, diagnose.Options{})
	want := []string{
		"troubles that are no loss here, tested: h-known, h-quiet",
		"troubles that are no loss here, not tested because numbers were not read: h-unread",
	}
	if n := len(d.Checked); n < 2 || !slices.Equal(d.Checked[n-2:], want) {
		t.Errorf("%q, want %q", d.Checked, want)
	}
}

// TestQuietHostIsAskedForNothing: with the whole knowledge base, an observation
// in which no loss counter moved asks for no facts, but those that go with a
// namespace that has no name.
func TestQuietHostIsAskedForNothing(t *testing.T) {
	o := large(1)
	k := load(t)
	o.Counts, o.Samples = nil, nil
	for i := range o.Counters {
		c := &o.Counters[i]
		if m, ok := k.Counter(c.Name); !ok || m.Kind != "activity" {
			c.Before, c.Delta = c.After, 0
		}
	}
	for _, r := range diagnose.Wants(o, k) {
		t.Errorf("asks for %s %s", r.Kind, r.Arg)
	}
}
