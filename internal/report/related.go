package report

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// writeRelated prints what belongs to a finding: what makes it worse, in a line
// each, and its symptoms, indented.
func writeRelated(b *strings.Builder, indent string, f record.Finding, s Style) {
	for i, c := range f.Contributors {
		kind := ""
		if i == 0 {
			kind = "worse by"
		}
		wrap(b, indent+field(kind), contributor(c), s.width())
	}
	for _, sym := range f.Symptoms {
		writeSymptom(b, indent, sym, s)
	}
}

// writeSymptom prints what is only the consequence of the finding above: what is
// done about that one helps against it, so that its own remedies (-j has them)
// are left out.
func writeSymptom(b *strings.Builder, indent string, f record.Finding, s Style) {
	b.WriteString(indent + "symptom: " + headline(f, s) + "\n")
	indent += "  "
	wrap(b, indent, Clean(f.Title), s.width())
	writeWhose(b, indent, f, s)
	writeEvidence(b, indent, f.Evidence, s)
	writeRelated(b, indent, f, s)
}

// contributor is in one line what makes a loss worse, with what to do about it.
func contributor(c record.Finding) string {
	text := sentence(c)
	if len(c.Remedy) > 0 && c.Remedy[0].Command != "" {
		text += ": " + Clean(c.Remedy[0].Command)
	}
	return text
}

// concern says how much of a finding is of the traffic that was asked for.
func concern(c record.Concern) string {
	switch {
	case c.Of == 0 && c.WholeHost:
		return "it meets all traffic of the host, the one that was asked for too"
	case c.Of == 0:
		return "nothing was sampled that says whether it is of the traffic that was asked for"
	case c.Samples == 0 && c.WholeHost:
		return fmt.Sprintf("it meets all traffic of the host, the one that was asked for too (none of its %s is of it)", plural(c.Of, "sample"))
	case c.Samples == 0:
		return fmt.Sprintf("none of its %s is of the traffic that was asked for", plural(c.Of, "sample"))
	}
	return fmt.Sprintf("%d of its %s %s of the traffic that was asked for", c.Samples, plural(c.Of, "sample"), isAre(int(min(c.Samples, 2))))
}

// writeConclusions prints the troubles that are no loss on this host in a list of
// their own.
func writeConclusions(b *strings.Builder, cs []record.Finding, s Style) {
	if len(cs) == 0 {
		return
	}
	b.WriteString("\nNot on this host:\n")
	for _, c := range cs {
		writeConclusion(b, c, s)
	}
}

func writeConclusion(b *strings.Builder, c record.Finding, s Style) {
	const first, indent = " - ", "   "
	b.WriteString(first + conclusionLine(c) + "\n")
	wrap(b, indent, Clean(c.Title), s.width())
	writeWhose(b, indent, c, s)
	writeEvidence(b, indent, c.Evidence, s)
	for _, r := range c.Remedy {
		writeRemedy(b, indent, r, s)
	}
	writeCommands(b, indent, "verify", c.Verify)
	writeItems(b, indent, "unchecked", c.Unchecked, s)
	writeCommands(b, indent, "next", c.Next)
}

// conclusionLine is a conclusion in one line.
func conclusionLine(c record.Finding) string {
	parts := []string{subject(c), Clean(string(c.Confidence))}
	if c.Events > 0 {
		parts = append(parts, fmt.Sprintf("%d times", c.Events))
	}
	if c.Station != "" && c.Station != record.StationUnknown {
		parts = append(parts, "at "+Clean(string(c.Station)))
	}
	return strings.Join(parts, "  ")
}

// writeElsewhere says what was left out because it is of other traffic.
func writeElsewhere(b *strings.Builder, e *record.Elsewhere, s Style) {
	if text := elsewhereText(e); text != "" {
		wrap(b, field("elsewhere"), text, s.width())
	}
}

func elsewhereText(e *record.Elsewhere) string {
	if e == nil || e.Findings == 0 {
		return ""
	}
	names := make([]string, 0, maxItems)
	for i, c := range e.Causes {
		if i == maxItems {
			names = append(names, "...")
			break
		}
		names = append(names, Clean(c))
	}
	text := fmt.Sprintf("%s of other traffic with %s left out", plural(e.Findings, "finding"), plural(e.Drops, "packet"))
	if len(names) > 0 {
		text += ": " + strings.Join(names, ", ")
	}
	return text + " (without FILTER and --pid they are shown)"
}

// hasElsewhere says whether findings of other traffic were left out.
func hasElsewhere(d record.Diagnosis) bool {
	return d.Elsewhere != nil && (d.Elsewhere.Findings > 0 || d.Elsewhere.Drops > 0)
}

// writeChecked prints what "no loss" rests on.
func writeChecked(b *strings.Builder, d record.Diagnosis, s Style) {
	for i, text := range checked(d) {
		kind := ""
		if i == 0 {
			kind = "checked"
		}
		wrap(b, field(kind), Clean(text), s.width())
	}
}

// checked is what was looked at, where nothing was found.
func checked(d record.Diagnosis) []string {
	for _, f := range d.Findings {
		if f.Class.Shown() {
			return nil
		}
	}
	return d.Checked
}
