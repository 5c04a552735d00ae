package diagnose_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// TestFocus asks for port 53: of the first finding some samples are for it, of
// the second none, the third is of the whole host, the fourth has no sample that
// could tell, and of the fifth a symptom is.
func TestFocus(t *testing.T) {
	k := engine(t,
		cause("mixed", "drops: [{reasons: [A]}]\n"),
		cause("other", "drops: [{reasons: [B]}]\n"),
		cause("ring", "scope: host\ndrops: [{reasons: [C]}]\n"),
		cause("counted", "lost: counter(\"T.a\")\n"),
		cause("root", "drops: [{reasons: [D]}]\n"),
		cause("symptom", "drops: [{reasons: [E]}]\ndepends_on: [root]\n"),
	)
	o := watched([]record.Count{
		count("A", "f", 100), count("B", "f", 500), count("C", "f", 400), count("D", "f", 3), count("E", "f", 30),
	}, moves("T.a", 50))
	for _, s := range []struct{ count, port, n int }{{0, 53, 1}, {0, 99, 9}, {1, 99, 5}, {2, 99, 5}, {3, 99, 2}, {4, 53, 2}} {
		for range s.n {
			d := record.Drop{Key: o.Counts[s.count].Key, Packet: udp("10.0.0.1:1000", "10.0.0.2:53")}
			if s.port != 53 {
				d.Packet = udp("10.0.0.1:1000", "10.0.0.2:99")
			}
			o.Samples = append(o.Samples, d)
		}
	}
	dns := func(d *record.Drop) bool { return d.Packet.Flow.Dst.Port() == 53 }
	all := diagnose.Run(o, k, diagnose.Options{})
	d := diagnose.Run(o, k, diagnose.Options{Focus: dns})
	// 30 packets of the symptom are DNS, a tenth of the 100 are.
	if got, want := hung(d.Findings), "root:3<symptom:30> mixed:100 ring:400 counted:50"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if e := d.Elsewhere; e == nil || e.Findings != 1 || e.Drops != 500 || !slices.Equal(e.Causes, []string{"other"}) {
		t.Errorf("elsewhere is %+v", d.Elsewhere)
	}
	var concerns []record.Concern
	for _, f := range d.Findings {
		concerns = append(concerns, *f.Concerns)
		for _, s := range f.Symptoms {
			concerns = append(concerns, *s.Concerns)
		}
	}
	want := []record.Concern{{Of: 2}, {Samples: 2, Of: 2}, {Samples: 1, Of: 10}, {Of: 5, WholeHost: true}, {}}
	if !slices.Equal(concerns, want) {
		t.Errorf("concerns are %+v, want %+v", concerns, want)
	}
	if d.Accounting != all.Accounting || !reflect.DeepEqual(d.Ledger, all.Ledger) {
		t.Errorf("the accounting or the ledger is another one with a focus: %+v, %+v", d.Accounting, all.Accounting)
	}
	if all.Elsewhere != nil || all.Findings[0].Concerns != nil {
		t.Error("without a focus something is elsewhere")
	}
	var left uint64
	for _, f := range d.Findings {
		left += f.Explains()
	}
	var whole uint64
	for _, f := range all.Findings {
		whole += f.Explains()
	}
	if left+d.Elsewhere.Drops != whole {
		t.Errorf("%d shown and %d elsewhere, of %d", left, d.Elsewhere.Drops, whole)
	}
}
