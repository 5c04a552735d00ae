package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// maxItems bounds the lines of one kind in a finding; -j has all of them.
const maxItems = 5

// Diagnosis prints d as text: the verdict in the first line, then the
// findings with what, where and why, then the accounting and what could not
// be seen.
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
	var loss uint64
	var shown []record.Finding
	for _, f := range d.Findings {
		if f.Class.Shown() {
			loss += f.Drops
			shown = append(shown, f)
		}
	}
	unplaced := d.Accounting.MapFull + d.Accounting.DropsUnattributed
	switch {
	case len(shown) == 1:
		return fmt.Sprintf("%s dropped in %s at %s: %s.",
			plural(loss, "packet"), during, Clean(string(shown[0].Station)), subject(shown[0]))
	case len(shown) > 1:
		return fmt.Sprintf("%s dropped in %s: %s.", plural(loss, "packet"), during, places(shown))
	case unplaced > 0:
		return fmt.Sprintf("%s dropped in %s, and where is not known.", plural(unplaced, "packet"), during)
	}
	return noLoss(d, during)
}

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
	if a.DropsFiltered > 0 {
		text += fmt.Sprintf("; %s filtered out", plural(a.DropsFiltered, "drop"))
	}
	return text + "."
}

// places lists the greatest findings and sums up the rest.
func places(fs []record.Finding) string {
	const listed = 3
	var parts []string
	var rest uint64
	for i, f := range fs {
		if i < listed {
			parts = append(parts, fmt.Sprintf("%d at %s (%s)", f.Drops, Clean(string(f.Station)), subject(f)))
		} else {
			rest += f.Drops
		}
	}
	if n := len(fs) - listed; n > 0 {
		parts = append(parts, fmt.Sprintf("%d in %s", rest, plural(uint64(n), "more finding")))
	}
	return strings.Join(parts, ", ")
}

// subject names a finding: by its reasons, else by its location.
func subject(f record.Finding) string {
	switch {
	case len(f.Reasons) > 0:
		return Clean(strings.Join(f.Reasons, ", "))
	case len(f.Locations) > 0:
		return Clean(f.Locations[0])
	}
	return "not known"
}

func writeFinding(b *strings.Builder, n int, f record.Finding, s Style) {
	head := fmt.Sprintf("%d. ", n)
	indent := strings.Repeat(" ", len(head))
	class := s.paint(f.Class, strings.ToUpper(Clean(string(f.Class))))
	fmt.Fprintf(b, "%s%s at %s: %s  %s  %s", head, plural(f.Drops, "drop"), Clean(string(f.Station)), subject(f), class, rate(f.Rate))
	if f.Direction != record.DirectionUnknown && f.Direction != "" {
		b.WriteString("  " + Clean(string(f.Direction)))
	}
	b.WriteByte('\n')
	wrap(b, indent, Clean(f.Title), s.width())

	writeItems(b, indent, "device", f.Devices, s)
	writeItems(b, indent, "netns", f.NetNS, s)
	writeItems(b, indent, "owner", f.Owners, s)
	var flows []string
	for _, fl := range f.Flows {
		flows = append(flows, flowShare(fl))
	}
	writeItems(b, indent, "flow", flows, s)
	writeItems(b, indent, "location", f.Locations, s)
	for _, e := range f.Evidence {
		if e.Command != "" {
			fmt.Fprintf(b, "%s%s%s\n", indent, field("count it"), Clean(e.Command))
		}
	}
}

func flowShare(f record.FlowShare) string {
	return fmt.Sprintf("%s (%d of %s)", flowText(f.Flow), f.Samples, plural(f.Of, "sample"))
}

// writeItems prints one item a line, the kind in front of the first.
func writeItems(b *strings.Builder, indent, kind string, items []string, s Style) {
	for i, item := range items {
		if i == maxItems {
			fmt.Fprintf(b, "%s%sand %d more (-j lists them)\n", indent, field(""), len(items)-maxItems)
			return
		}
		if i > 0 {
			kind = ""
		}
		wrap(b, indent+field(kind), Clean(item), s.width())
	}
}
