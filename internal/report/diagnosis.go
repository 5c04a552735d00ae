package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Diagnosis prints d as text: the verdict in the first line, then the
// findings with what, where, why and what to do, then the way with the loss at
// each station, the counters that nothing explains, the accounting and what
// could not be seen.
func Diagnosis(w io.Writer, d record.Diagnosis, s Style) error {
	var b strings.Builder
	// The verdict is one line however long it is: scripts read it.
	b.WriteString(verdict(d) + "\n")
	if !s.Quiet {
		for i, f := range d.Findings {
			b.WriteByte('\n')
			writeFinding(&b, i+1, f, s)
		}
		b.WriteByte('\n')
		writeLedger(&b, d.Ledger, s)
		writeCounters(&b, d, s)
	}
	writeBooks(&b, d.Accounting, d.Sources, d.Blind, s)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print diagnosis: %w", err)
	}
	return nil
}

// verdict is the whole answer in one sentence.
func verdict(d record.Diagnosis) string {
	during := seconds(d.Window.Duration)
	var loss, events uint64
	var shown []record.Finding
	what := "dropped"
	for _, f := range d.Findings {
		if f.Class.Shown() {
			loss, events = loss+f.Drops, events+f.Events
			shown = append(shown, f)
			if byCounters(f) {
				what = "lost" // not each of them was a drop event
			}
		}
	}
	unplaced := d.Accounting.MapFull + d.Accounting.DropsUnattributed + d.Accounting.DropsLost
	total := plural(loss, "packet") + " " + what
	if loss == 0 && events > 0 {
		total = lossEvents(events)
	}
	switch {
	case len(shown) == 1:
		return fmt.Sprintf("%s in %s at %s: %s.", total, during, Clean(string(shown[0].Station)), sentence(shown[0]))
	case len(shown) > 1:
		return fmt.Sprintf("%s in %s: %s.", total, during, places(shown))
	case unplaced > 0:
		return fmt.Sprintf("%s dropped in %s, and where is not known.", plural(unplaced, "packet"), during)
	}
	return noLoss(d, during)
}

func byCounters(f record.Finding) bool { return f.LostBy == "counters" }

// lossEvents is how much was lost where nobody counts the packets.
func lossEvents(n uint64) string { return plural(n, "event") + " of loss" }

// known says whether a finding has a cause.
func known(f record.Finding) bool { return f.Cause != record.CauseNotKnown && f.Cause != "" }

// sentence says what a finding is about: the cause with its title, or what is
// known without one.
func sentence(f record.Finding) string {
	if !known(f) || f.Title == "" {
		return subject(f)
	}
	return subject(f) + ", " + strings.TrimSuffix(Clean(f.Title), ".")
}

// counters is the source that sees no drops.
const counters = "counters"

// noLoss never says "no loss" alone: it says what was watched.
func noLoss(d record.Diagnosis, during string) string {
	var names []string
	for _, src := range d.Sources {
		if src.State == record.SourceOK || src.State == record.SourceDegraded {
			names = append(names, Clean(src.Name))
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("nothing was watched for %s: no source works.", during)
	}
	text := fmt.Sprintf("no loss seen in %s: watched %s (%s)",
		during, plural(uint64(len(names)), "source"), strings.Join(names, ", "))
	a := d.Accounting
	if n := a.DropsHiddenExpected + a.DropsHiddenBenign; n > 0 {
		text += fmt.Sprintf("; %s hidden (--all shows them)", plural(n, "expected free"))
	}
	if len(names) > 0 && !slices.ContainsFunc(names, func(n string) bool { return n != counters }) {
		text += "; drops were not watched"
	}
	if a.DropsFiltered > 0 {
		text += fmt.Sprintf("; %s filtered out", plural(a.DropsFiltered, "drop"))
	}
	if n := len(moved(d)); n > 0 {
		text += fmt.Sprintf("; but %s of loss or pressure moved", plural(uint64(n), "counter"))
	}
	return text + "."
}

// places lists the greatest findings and sums up the rest.
func places(fs []record.Finding) string {
	const listed = 3
	var parts []string
	var rest uint64
	for i, f := range fs {
		switch {
		case i >= listed:
			rest += f.Drops
		case f.Drops == 0 && f.Events > 0:
			parts = append(parts, fmt.Sprintf("%s at %s (%s)", lossEvents(f.Events), Clean(string(f.Station)), subject(f)))
		default:
			parts = append(parts, fmt.Sprintf("%d at %s (%s)", f.Drops, Clean(string(f.Station)), subject(f)))
		}
	}
	switch n := len(fs) - listed; {
	case n > 0 && rest == 0:
		parts = append(parts, plural(uint64(n), "more finding"))
	case n > 0:
		parts = append(parts, fmt.Sprintf("%d in %s", rest, plural(uint64(n), "more finding")))
	}
	return strings.Join(parts, ", ")
}

// subject names a finding: by its cause, its reasons, else by its location.
func subject(f record.Finding) string {
	switch {
	case known(f):
		return Clean(f.Cause)
	case len(f.Reasons) > 0:
		return Clean(strings.Join(f.Reasons, ", "))
	case len(f.Locations) > 0:
		return Clean(f.Locations[0])
	}
	return "not known"
}
