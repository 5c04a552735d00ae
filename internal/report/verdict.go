package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// What the first line begins with: whether there is something to do.
const (
	toAct     = "act: "
	ifWanted  = "act if that is not wanted: "
	notHere   = "not on this host: "
	nothing   = "nothing to do: "
	counted   = "nothing to do as far as counters tell: "
	notKnown  = "not known: "
	maxListed = 3
)

// verdict is the whole answer in one sentence, which begins with whether to act.
func verdict(d record.Diagnosis) string {
	during := seconds(d.Window.Duration)
	var shown []record.Finding
	for _, f := range d.Findings {
		if f.Class.Shown() {
			shown = append(shown, f)
		}
	}
	unplaced := d.Accounting.MapFull + d.Accounting.DropsUnattributed + d.Accounting.DropsLost
	switch {
	case len(shown) == 1:
		return fmt.Sprintf("%s%s%s in %s at %s: %s.", urgency(shown), loss(shown), ofThem(shown), during, Clean(string(shown[0].Station)), sentence(shown[0]))
	case len(shown) > 1:
		return fmt.Sprintf("%s%s%s in %s: %s.", urgency(shown), loss(shown), ofThem(shown), during, places(shown))
	case unplaced > 0:
		return fmt.Sprintf("%s%s dropped in %s, and where is not known.", toAct, plural(unplaced, "packet"), during)
	case len(watched(d)) == 0:
		return fmt.Sprintf("%snothing was watched for %s: no source works.", notKnown, during)
	case len(d.Conclusions) > 0:
		return notHere + concluded(d.Conclusions) + "; " + noLoss(d, during)
	}
	if !dropsWatched(d) {
		return counted + noLoss(d, during)
	}
	return nothing + noLoss(d, during)
}

// dropsWatched says whether another source worked than the counters.
func dropsWatched(d record.Diagnosis) bool {
	return slices.ContainsFunc(watched(d), func(n string) bool { return n != counters })
}

// urgency says whether to act: what somebody asked for is perhaps as it should be.
func urgency(shown []record.Finding) string {
	if slices.ContainsFunc(shown, func(f record.Finding) bool { return f.Class != record.ClassPolicy }) {
		return toAct
	}
	return ifWanted
}

// loss is how much the findings come to, with their symptoms.
func loss(shown []record.Finding) string {
	var lost, events uint64
	what := "dropped"
	for _, f := range shown {
		lost, events = lost+f.Explains(), events+f.Events
		if byCounters(f) || slices.ContainsFunc(f.Symptoms, byCounters) {
			what = "lost" // not each of them was a drop event
		}
	}
	if lost == 0 && events > 0 {
		return lossEvents(events)
	}
	return plural(lost, "packet") + " " + what
}

// ofThem says, where a part of the traffic was asked for, how much of the loss may be
// of it: the number before it is of all packets of the findings, as counts have no
// addresses.
func ofThem(shown []record.Finding) string {
	var matching, of uint64
	asked := false
	for _, root := range shown {
		for _, f := range append([]record.Finding{root}, root.Symptoms...) {
			if f.Concerns != nil {
				asked = true
				matching, of = matching+f.Concerns.Samples, of+f.Concerns.Of
			}
		}
	}
	samples := plural(of, "sample")
	switch {
	case !asked:
		return ""
	case of == 0:
		return " (of all traffic; none was sampled)"
	case matching == 0:
		return fmt.Sprintf(" (of all traffic; none of %s is of the one that was asked for)", samples)
	case matching == of:
		return fmt.Sprintf(" (%d of %s %s of the traffic that was asked for)", matching, samples, isAre(int(min(matching, 2))))
	}
	return fmt.Sprintf(" (of all traffic; %d of %s %s of the one that was asked for)", matching, samples, isAre(int(min(matching, 2))))
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

// watched are the sources that worked.
func watched(d record.Diagnosis) []string {
	var names []string
	for _, src := range d.Sources {
		if src.State == record.SourceOK || src.State == record.SourceDegraded {
			names = append(names, Clean(src.Name))
		}
	}
	return names
}

// noLoss never says "no loss" alone: it says what was watched.
func noLoss(d record.Diagnosis, during string) string {
	names := watched(d)
	text := fmt.Sprintf("no loss within %s, watched %s (%s)",
		during, plural(uint64(len(names)), "source"), strings.Join(names, ", "))
	if d.Elsewhere != nil {
		text = fmt.Sprintf("no loss of this traffic within %s, watched %s (%s)",
			during, plural(uint64(len(names)), "source"), strings.Join(names, ", "))
		if n := d.Elsewhere.Drops; n > 0 {
			text += fmt.Sprintf("; %s of other traffic lost", plural(n, "packet"))
		}
	}
	a := d.Accounting
	if n := a.DropsHiddenExpected + a.DropsHiddenBenign; n > 0 {
		text += fmt.Sprintf("; %s hidden (--all shows them)", plural(n, "expected free"))
	}
	if n := expectedByCounters(d); n > 0 {
		text += fmt.Sprintf("; %s of loss moved as expected (--all shows why)", plural(n, "counter"))
	}
	if !dropsWatched(d) {
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

// expectedByCounters is how many counters tell of a loss without drops that causes
// which are not shown account for: of what several counters count, one.
func expectedByCounters(d record.Diagnosis) (n uint64) {
	var above []string
	for _, f := range d.Findings {
		above = append(above, f.Cause)
		for _, s := range f.Symptoms {
			above = append(above, s.Cause)
		}
	}
	chains := map[int]bool{}
	for _, e := range d.Ledger.Entries {
		shown := func(id string) bool { return slices.Contains(above, id) }
		if e.Relation != record.RelationNoDrops || len(e.ExplainedBy) == 0 || slices.ContainsFunc(e.ExplainedBy, shown) || e.Chain > 0 && chains[e.Chain] {
			continue
		}
		chains[e.Chain] = true
		n++
	}
	return n
}

// concluded names the conclusions, the first with its title.
func concluded(cs []record.Finding) string {
	text := sentence(cs[0])
	if n := len(cs) - 1; n > 0 {
		text += fmt.Sprintf(" (and %s)", plural(uint64(n), "more conclusion"))
	}
	return text
}

// places lists the greatest findings and sums up the rest.
func places(fs []record.Finding) string {
	var parts []string
	var rest uint64
	for i, f := range fs {
		switch {
		case i >= maxListed:
			rest += f.Explains()
		case f.Explains() == 0 && f.Events > 0:
			parts = append(parts, fmt.Sprintf("%s at %s (%s)", lossEvents(f.Events), Clean(string(f.Station)), subject(f)))
		default:
			parts = append(parts, fmt.Sprintf("%d at %s (%s)", f.Explains(), Clean(string(f.Station)), subject(f)))
		}
	}
	switch n := len(fs) - maxListed; {
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
