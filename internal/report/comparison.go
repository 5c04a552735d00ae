package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// outcomes are the words for what became of findings, in the order in which they
// matter to somebody who has changed something.
var outcomes = []struct {
	outcome record.Outcome
	word    string
}{
	{record.OutcomeWorse, "worse"},
	{record.OutcomeNew, "new"},
	{record.OutcomeSame, "same"},
	{record.OutcomeNotKnown, "not known"},
	{record.OutcomeLess, "less"},
	{record.OutcomeGone, "gone"},
}

func outcomeWord(o record.Outcome) string {
	for _, w := range outcomes {
		if w.outcome == o {
			return w.word
		}
	}
	return Clean(string(o))
}

// Comparison prints what became of findings as text: in the first line whether
// that is enough, then each finding with the numbers before and after. better
// says whether all are gone, as the exit status does.
func Comparison(w io.Writer, c record.Comparison, better bool, s Style) error {
	var b strings.Builder
	b.WriteString(compared(c, better) + "\n")
	if !s.Quiet {
		for i := range c.Changes {
			b.WriteByte('\n')
			writeChange(&b, i+1, &c.Changes[i], s)
		}
		b.WriteByte('\n')
		wrap(&b, field("before"), windowText(c.Before), s.width())
		wrap(&b, field("after"), windowText(c.After), s.width())
	}
	for _, n := range comparisonNotes(c) {
		wrap(&b, field("note"), Clean(n), s.width())
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print comparison: %w", err)
	}
	return nil
}

// comparisonNotes are what has to be known beside the changes.
func comparisonNotes(c record.Comparison) []string {
	notes := slices.Clone(c.Notes)
	if c.LeftOut > 0 {
		notes = append(notes, plural(uint64(c.LeftOut), "finding")+" of other traffic left out")
	}
	return notes
}

// compared is the comparison in one sentence, which begins with whether to act.
func compared(c record.Comparison, better bool) string {
	head := toAct
	if better {
		head = nothing
	}
	switch {
	case len(c.Changes) == 0 && c.LeftOut > 0:
		return head + "there was no loss of this traffic before and there is none now."
	case len(c.Changes) == 0:
		return head + "there was no loss before and there is none now."
	}
	var parts []string
	for _, o := range outcomes {
		n := 0
		first := ""
		for i := range c.Changes {
			if c.Changes[i].Outcome == o.outcome {
				if n++; n == 1 {
					first = subject(c.Changes[i].Finding) + changeText(&c.Changes[i])
				}
			}
		}
		switch {
		case n == 1:
			parts = append(parts, o.word+": "+first)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%s: %d findings", o.word, n))
		}
	}
	return head + strings.Join(parts, "; ") + "."
}

// changeText is by how much a share changed; empty where the word says all.
func changeText(c *record.FindingChange) string {
	switch {
	case c.Outcome == record.OutcomeGone || c.Outcome == record.OutcomeNew || c.Outcome == record.OutcomeNotKnown:
		return ""
	case math.Abs(c.Change) < 0.0005:
		return ""
	case c.Change >= 1:
		return fmt.Sprintf(" (%.3g times as much)", 1+c.Change)
	}
	return fmt.Sprintf(" (%+.3g %%)", 100*c.Change)
}

func writeChange(b *strings.Builder, n int, c *record.FindingChange, s Style) {
	head := fmt.Sprintf("%d. ", n)
	indent := strings.Repeat(" ", len(head))
	b.WriteString(head + changeLine(c, s) + "\n")
	wrap(b, indent, Clean(c.Finding.Title), s.width())
	for _, p := range shares(c) {
		wrap(b, indent+field(p[0]), p[1], s.width())
	}
	if c.Why != "" {
		wrap(b, indent+field("why"), Clean(c.Why), s.width())
	}
	if (c.Outcome == record.OutcomeSame || c.Outcome == record.OutcomeWorse) && c.Now != nil {
		writeCommands(b, indent, "next", c.Now.Next)
	}
}

// changeLine is a change in one line.
func changeLine(c *record.FindingChange, s Style) string {
	return strings.Join([]string{
		strings.ToUpper(outcomeWord(c.Outcome)) + changeText(c), subject(c.Finding),
		s.paint(c.Finding.Class, strings.ToUpper(Clean(string(c.Finding.Class)))),
		"at " + Clean(string(c.Finding.Station)),
	}, "  ")
}

// shares are the numbers before and after, with their names.
func shares(c *record.FindingChange) [][2]string {
	return [][2]string{
		{"before", shareText(c.Before, c.Traffic)},
		{"after", shareText(c.After, c.Traffic)},
	}
}

// shareText is a loss beside the traffic that it is a part of.
func shareText(l record.LossShare, traffic string) string {
	if l.Traffic > 0 {
		return fmt.Sprintf("%d lost of %d (%.3g %%; %s)", l.Lost, l.Traffic, 100*l.Share, Clean(traffic))
	}
	return fmt.Sprintf("%d lost, %s (the traffic is not known)", l.Lost, rate(l.Share))
}

func windowText(w record.Window) string {
	return fmt.Sprintf("%s for %s", w.Start.UTC().Format("2006-01-02 15:04:05 UTC"), seconds(w.Duration))
}

// ComparisonMarkdown prints what Comparison prints as Markdown, as Markdown does.
func ComparisonMarkdown(w io.Writer, c record.Comparison, better bool) error {
	var m markdown
	m.line("# whydrop verify: " + prose(compared(c, better)))
	m.identity(c.Host, c.Kernel, c.After)
	m.line("Compared with " + prose(windowText(c.Before)))
	var rows [][]string
	for i := range c.Changes {
		ch := &c.Changes[i]
		rows = append(rows, []string{
			prose(outcomeWord(ch.Outcome) + changeText(ch)), cell(subject(ch.Finding)), prose(ch.Finding.Title),
			prose(shareText(ch.Before, ch.Traffic)), prose(shareText(ch.After, ch.Traffic)), prose(ch.Why),
		})
	}
	if rows != nil {
		m.table([]string{"outcome", "finding", "what", "before", "after", "why"}, rows)
	}
	m.list("Notes", comparisonNotes(c))
	return m.write(w)
}
