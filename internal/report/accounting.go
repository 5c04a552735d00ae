package report

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// accountingText says what became of every drop: one sum that must come out,
// and what is worth knowing about the samples. It leaves out what is zero. others
// says that findings of other traffic are not shown.
func accountingText(a record.Accounting, others bool) string {
	shown := a.DropsAggregated - min(a.DropsAggregated, a.DropsHiddenExpected+a.DropsHiddenBenign)
	what := "shown"
	if others {
		what = "shown or of other traffic"
	}
	terms, sum := []string{fmt.Sprintf("%d %s", shown, what)}, shown
	for _, t := range []struct {
		n    uint64
		what string
	}{
		{a.DropsHiddenExpected, "expected (hidden)"},
		{a.DropsHiddenBenign, "benign (hidden)"},
		{a.DropsFiltered, "filtered out"},
		{a.MapFull, "without a key"},
		{a.DropsUnattributed, "not attributed"},
		{a.DropsLost, "lost on the way"},
	} {
		if t.n > 0 {
			terms = append(terms, fmt.Sprintf("%d %s", t.n, t.what))
			sum += t.n
		}
	}
	text := fmt.Sprintf("%s seen = %s", plural(a.DropsSeen, "drop"), strings.Join(terms, " + "))
	if sum != a.DropsSeen {
		text += fmt.Sprintf(" (which is %d: the sources disagree)", sum)
	}
	if a.DropsSeen == 0 && sum == 0 {
		text = "0 drops seen"
	}
	text += "; " + plural(a.Samples, "sample") + "."
	return text
}

// warnings is what must not go unsaid: whatever makes the picture incomplete.
func warnings(a record.Accounting) []string {
	var out []string
	for _, w := range []struct {
		n    uint64
		noun string
		what string
	}{
		{a.DropsUnattributed, "drop", "not attributed: the kernel did not run the probe for them, because it was running on that CPU already (recursion_misses)."},
		{a.MapFull, "drop", "counted in total only: the table of keys was full."},
		{a.DropsLost, "drop", "known by their number alone: the drop monitor's queue (1000 packets a CPU), or the socket to it, was full."},
		{a.AlertsLost, "alert", "of the drop monitor lost: the socket to it was full; how many drops they told of is not known."},
		{a.SamplesLost, "sample", "lost: the ring buffer was full; the counts are exact all the same."},
		{a.DecodeErrors, "record", "from the kernel not understood."},
		{a.DropsUnexplained, "drop", "not explained: no cause was found for them."},
	} {
		if w.n > 0 {
			out = append(out, plural(w.n, w.noun)+" "+w.what)
		}
	}
	return out
}

// label is the width of the words in front of a block of lines.
const label = 11

func field(name string) string { return fmt.Sprintf("%-*s", label, name) }

// writeBooks prints the accounting, what must not go unsaid, the sources that
// did not work as they should and what could not be seen.
func writeBooks(b *strings.Builder, a record.Accounting, others bool, sources []record.Source, blind []record.Blind, s Style) {
	if !s.Quiet {
		wrap(b, field("accounting"), accountingText(a, others), s.width())
	}
	for _, w := range warnings(a) {
		wrap(b, field("incomplete"), w, s.width())
	}
	for _, src := range sources {
		if src.State == record.SourceOK && (src.Why == "" || s.Quiet) || s.Quiet && src.State == record.SourceOff {
			continue
		}
		wrap(b, field("source"), fmt.Sprintf("%s %s: %s", Clean(src.Name), Clean(string(src.State)), Clean(src.Why)), s.width())
	}
	if s.Quiet {
		return
	}
	writeBlind(b, blind, s)
}

// writeBlind prints what could not be seen.
func writeBlind(b *strings.Builder, blind []record.Blind, s Style) {
	for _, bl := range blind {
		text := Clean(bl.What) + ": " + Clean(bl.Why)
		if bl.Fix != "" {
			text += " (" + Clean(bl.Fix) + ")"
		}
		wrap(b, field("not seen"), text, s.width())
	}
}
