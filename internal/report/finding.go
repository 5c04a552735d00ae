package report

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/whydrop/whydrop/record"
)

// maxItems bounds the lines of one kind in a finding; -j has all of them.
const maxItems = 5

// writeFinding prints behind head what happened, where and whose it was, what
// speaks for and against it, and what to do.
func writeFinding(b *strings.Builder, head string, f record.Finding, s Style) {
	indent := strings.Repeat(" ", len(head))
	b.WriteString(head + headline(f, s) + "\n")
	wrap(b, indent, Clean(f.Title), s.width())

	if f.Concerns != nil {
		wrap(b, indent+field("concerns"), concern(*f.Concerns), s.width())
	}
	writeWhose(b, indent, f, s)
	writeEvidence(b, indent, f.Evidence, s)
	for _, r := range f.Remedy {
		writeRemedy(b, indent, r, s)
	}
	writeCommands(b, indent, "verify", f.Verify)
	writeItems(b, indent, "unchecked", f.Unchecked, s)
	writeCommands(b, indent, "next", f.Next)
	writeRelated(b, indent, f, s)
}

// writeWhose prints where it was and whose.
func writeWhose(b *strings.Builder, indent string, f record.Finding, s Style) {
	if known(f) {
		writeItems(b, indent, "reason", f.Reasons, s)
	}
	writeItems(b, indent, "device", f.Devices, s)
	writeItems(b, indent, "netns", f.NetNS, s)
	writeItems(b, indent, "owner", f.Owners, s)
	var flows []string
	for _, fl := range f.Flows {
		flows = append(flows, flowShare(fl))
	}
	writeItems(b, indent, "flow", flows, s)
	writeItems(b, indent, "location", f.Locations, s)
}

// headline is a finding in one line.
func headline(f record.Finding, s Style) string {
	parts := []string{subject(f), s.paint(f.Class, strings.ToUpper(Clean(string(f.Class))))}
	if known(f) {
		parts = append(parts, Clean(string(f.Confidence)))
	} else {
		parts = append(parts, "cause not known")
	}
	lost := plural(f.Drops, "drop")
	switch {
	case f.Drops == 0 && f.Events > 0:
		lost = lossEvents(f.Events) + " (by counters)"
	case byCounters(f):
		lost = fmt.Sprintf("%d lost (by counters)", f.Drops)
	}
	parts = append(parts, lost+" at "+Clean(string(f.Station)))
	if f.Rate > 0 || f.Events == 0 {
		parts = append(parts, rate(f.Rate))
	}
	if f.Direction != record.DirectionUnknown && f.Direction != "" {
		parts = append(parts, Clean(string(f.Direction)))
	}
	return strings.Join(parts, "  ")
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

// writeCommands prints commands, a line each however long it is, so that they
// can be copied.
func writeCommands(b *strings.Builder, indent, kind string, commands []string) {
	for _, c := range commands {
		writeLine(b, indent+field(kind), c)
		kind = ""
	}
}

func writeLine(b *strings.Builder, first, text string) {
	b.WriteString(strings.TrimRight(first+Clean(text), " ") + "\n")
}

// writeRemedy prints a change and all that has to be known before it is made.
func writeRemedy(b *strings.Builder, indent string, r record.Remedy, s Style) {
	writeLine(b, indent+field("remedy"), r.Command)
	for _, part := range []struct{ name, text string }{{"persist", r.Persist}, {"undo", r.Undo}} {
		if part.text != "" {
			writeLine(b, indent+field("  "+part.name), part.text)
		}
	}
	for _, part := range []struct{ name, text string }{{"risk", r.Risk}, {"why", r.Why}} {
		if part.text != "" {
			wrap(b, indent+field("  "+part.name), Clean(part.text), s.width())
		}
	}
}

// The widths of the columns of evidence: what is longer pushes the rest into
// a line of its own.
const (
	maxName   = 36
	maxNumber = 24
)

// writeEvidence prints a table: for or against, what was read, the number
// with its growth, what it says; below each the command that shows it.
func writeEvidence(b *strings.Builder, indent string, es []record.Evidence, s Style) {
	name, number := 0, 0
	for _, e := range es {
		if n := utf8.RuneCountInString(Clean(e.Name)); n <= maxName {
			name = max(name, n)
		}
		if n := utf8.RuneCountInString(quantity(e)); n <= maxNumber {
			number = max(number, n)
		}
	}
	for i, e := range es {
		kind := ""
		if i == 0 {
			kind = "evidence"
		}
		side := "for      "
		if !e.Supports {
			side = "against  "
		}
		row := indent + field(kind) + side
		below := strings.Repeat(" ", utf8.RuneCountInString(row))
		says := Clean(e.Says)
		q := quantity(e)
		if utf8.RuneCountInString(q) > maxNumber { // a stack, a list
			wrap(b, row+Clean(e.Name)+"  ", q, s.width())
			row = below
		} else {
			row += pad(Clean(e.Name), name) + "  " + pad(q, number)
			if n := utf8.RuneCountInString(row + e.Source); says == "" && n+2 <= s.width() {
				says = Clean(e.Source)
			}
		}
		writeSays(b, row, below, says, s)
		if e.Command != "" {
			writeLine(b, below+"$ ", e.Command)
		}
	}
}

// writeSays ends a row of evidence with what it says, beside it where there
// is room.
func writeSays(b *strings.Builder, row, below, says string, s Style) {
	const room = 20
	used := utf8.RuneCountInString(row) + 2
	fits := used+utf8.RuneCountInString(says) <= s.width()
	switch {
	case strings.TrimSpace(row) == "" && says == "":
		return
	case strings.TrimSpace(row) == "":
		wrap(b, below, says, s.width())
	case says == "":
		b.WriteString(strings.TrimRight(row, " ") + "\n")
	case fits || used+room <= s.width():
		wrap(b, row+"  ", says, s.width())
	default:
		b.WriteString(strings.TrimRight(row, " ") + "\n")
		wrap(b, below, says, s.width())
	}
}

// quantity is a number that was read, with its growth where it is a counter.
func quantity(e record.Evidence) string {
	if e.Before == "" && e.After == "" {
		return Clean(e.Value)
	}
	return fmt.Sprintf("+%s (%s -> %s)", Clean(e.Value), Clean(e.Before), Clean(e.After))
}
