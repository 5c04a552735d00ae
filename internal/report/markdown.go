package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Markdown prints d as Markdown that stands for itself, for a ticket: the same
// as Diagnosis, with evidence in tables and commands in blocks of code. It is
// plain CommonMark with GitHub's tables; no name in d can end a span, a cell or a
// block, or become a link.
func Markdown(w io.Writer, d record.Diagnosis, s Style) error {
	var m markdown
	m.line("# whydrop: " + prose(verdict(d)))
	m.identity(d.Host, d.Kernel, d.Window)
	for i, f := range d.Findings {
		m.finding(fmt.Sprintf("## %d. ", i+1), f, s)
	}
	if len(d.Conclusions) > 0 {
		m.line("## Not on this host")
		for _, c := range d.Conclusions {
			m.line("### " + prose(conclusionLine(c)))
			m.body(c)
		}
	}
	m.list("Checked", checked(d))
	if text := elsewhereText(d.Elsewhere); text != "" {
		m.list("Elsewhere", []string{text})
	}
	m.ledger(d)
	m.books(d)
	return m.write(w)
}

// markdown collects blocks with an empty line between them.
type markdown struct{ b strings.Builder }

func (m *markdown) write(w io.Writer) error {
	if _, err := io.WriteString(w, m.b.String()); err != nil {
		return fmt.Errorf("print markdown: %w", err)
	}
	return nil
}

// line writes a block of one line or several.
func (m *markdown) line(text string) {
	if m.b.Len() > 0 {
		m.b.WriteByte('\n')
	}
	m.b.WriteString(text + "\n")
}

// list writes a heading and what belongs below it, if there is something.
func (m *markdown) list(head string, items []string) {
	if len(items) == 0 {
		return
	}
	m.line("## " + head)
	m.items(items)
}

func (m *markdown) items(items []string) {
	lines := make([]string, len(items))
	for i, text := range items {
		lines[i] = "- " + prose(text)
	}
	m.line(strings.Join(lines, "\n"))
}

// table writes rows of cells that are Markdown already.
func (m *markdown) table(head []string, rows [][]string) {
	lines := []string{"| " + strings.Join(head, " | ") + " |", "|" + strings.Repeat("---|", len(head))}
	for _, r := range rows {
		lines = append(lines, "| "+strings.Join(r, " | ")+" |")
	}
	m.line(strings.Join(lines, "\n"))
}

// code writes a block of commands, with a fence that is longer than any row of
// backticks in it.
func (m *markdown) code(text string) {
	text = cleanLines(text)
	fence := strings.Repeat("`", max(3, longestRun(text, '`')+1))
	m.line(fence + "sh\n" + text + "\n" + fence)
}

// cleanLines is Clean for text of several lines.
func cleanLines(text string) string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		lines = append(lines, Clean(strings.TrimRight(line, "\r")))
	}
	return strings.Join(lines, "\n")
}

// longestRun is the length of the longest row of c.
func longestRun(text string, c byte) (longest int) {
	run := 0
	for i := range len(text) {
		if text[i] != c {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return longest
}

// span is a span of code for a name or a number, which nothing in it ends.
func span(text string) string {
	text = Clean(text)
	if strings.TrimSpace(text) == "" {
		return ""
	}
	fence := strings.Repeat("`", longestRun(text, '`')+1)
	if strings.HasPrefix(text, "`") || strings.HasSuffix(text, "`") {
		text = " " + text + " " // CommonMark takes one space away
	}
	return fence + text + fence
}

// cell is a span within a table, which is cut into cells before its spans are
// looked at; the backslash goes away again (GFM, tables).
func cell(text string) string { return strings.ReplaceAll(span(text), "|", `\|`) }

// prose is text in which nothing is Markdown, also within a table: every sign that
// could mean something is escaped. Words that GitHub takes for a person or an
// issue after that become spans.
func prose(text string) string {
	words := strings.Fields(Clean(text))
	for i, w := range words {
		if strings.ContainsAny(w, "@#") {
			words[i] = cell(w)
			continue
		}
		words[i] = escapeMarkdown(w)
	}
	return startProse(strings.Join(words, " "))
}

var markdownSigns = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "{", `\{`, "}", `\}`, "[", `\[`, "]", `\]`,
	"<", `\<`, ">", `\>`, "|", `\|`, "~", `\~`, "&", `\&`, "!", `\!`, "$", `\$`,
	"://", `\://`, "www.", `www\.`, // which are links by themselves
)

func escapeMarkdown(text string) string { return markdownSigns.Replace(text) }

// startProse keeps the beginning of a line from being that of a list or of a
// heading.
func startProse(text string) string {
	digits := len(text) - len(strings.TrimLeft(text, "0123456789"))
	switch {
	case text == "":
	case strings.ContainsRune("-+=", rune(text[0])):
		return `\` + text
	case digits > 0 && digits < len(text) && (text[digits] == '.' || text[digits] == ')'):
		return text[:digits] + `\` + text[digits:]
	}
	return text
}

// identity says which machine it was, and when.
func (m *markdown) identity(h record.Host, k record.Kernel, w record.Window) {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"host", h.Hostname}, {"kernel", k.Release}, {"whydrop", h.Program},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+span(p.value))
		}
	}
	if !w.Start.IsZero() {
		parts = append(parts, "from "+w.Start.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	m.line(strings.Join(append(parts, "for "+seconds(w.Duration)), ", "))
}

// finding writes a finding under a heading, and its symptoms under it.
func (m *markdown) finding(head string, f record.Finding, s Style) {
	m.line(head + prose(headline(f, Style{All: s.All})))
	m.body(f)
	for _, c := range f.Contributors {
		m.line("Made worse by " + prose(contributor(c)))
	}
	for _, sym := range f.Symptoms {
		m.line("### Symptom: " + prose(headline(sym, Style{})))
		m.line(prose(sym.Title))
		m.where(sym)
		m.evidence(sym.Evidence)
	}
}

// body is what a finding says below its heading.
func (m *markdown) body(f record.Finding) {
	m.line(prose(f.Title))
	if f.Concerns != nil {
		m.line(prose(concern(*f.Concerns)))
	}
	m.where(f)
	m.evidence(f.Evidence)
	for _, r := range f.Remedy {
		m.remedy(r)
	}
	if len(f.Verify) > 0 {
		m.line("**Verify:**")
		m.code(strings.Join(f.Verify, "\n"))
	}
	if len(f.Unchecked) > 0 {
		m.line("**Not checked:**")
		m.items(f.Unchecked)
	}
	if len(f.Next) > 0 {
		m.line("**Next:**")
		m.code(strings.Join(f.Next, "\n"))
	}
}

// where writes where it was and whose, as a list.
func (m *markdown) where(f record.Finding) {
	flows := make([]string, len(f.Flows))
	for i, fl := range f.Flows {
		flows[i] = flowShare(fl)
	}
	var lines []string
	for _, p := range []struct {
		kind  string
		items []string
	}{
		{"reason", f.Reasons},
		{"device", f.Devices},
		{"netns", f.NetNS},
		{"owner", f.Owners},
		{"flow", flows},
		{"location", f.Locations},
	} {
		if len(p.items) == 0 {
			continue
		}
		var spans []string
		for _, item := range p.items[:min(len(p.items), maxItems)] {
			spans = append(spans, span(item))
		}
		if n := len(p.items) - maxItems; n > 0 {
			spans = append(spans, fmt.Sprintf("and %d more", n))
		}
		lines = append(lines, "- "+p.kind+": "+strings.Join(spans, ", "))
	}
	if lines != nil {
		m.line(strings.Join(lines, "\n"))
	}
}

// evidence writes a table of what was read.
func (m *markdown) evidence(es []record.Evidence) {
	if len(es) == 0 {
		return
	}
	rows := make([][]string, len(es))
	for i, e := range es {
		side := "for"
		if !e.Supports {
			side = "against"
		}
		rows[i] = []string{side, cell(e.Name), cell(quantity(e)), prose(e.Says), cell(e.Command)}
	}
	m.table([]string{"evidence", "what", "value", "says", "command"}, rows)
}

// remedy writes a change and all that has to be known before it is made.
func (m *markdown) remedy(r record.Remedy) {
	m.line(strings.TrimRight("**Remedy:** "+prose(r.Why), " "))
	m.code(r.Command)
	for _, part := range []struct{ name, text string }{{"To keep it", r.Persist}, {"To undo it", r.Undo}} {
		if part.text != "" {
			m.line(part.name + ":")
			m.code(part.text)
		}
	}
	if r.Risk != "" {
		m.line("**Risk:** " + prose(r.Risk))
	}
}

// ledger writes the counters of loss that moved.
func (m *markdown) ledger(d record.Diagnosis) {
	var rows [][]string
	for _, e := range d.Ledger.Entries {
		open := "explained"
		if !e.Closed {
			open = "open"
		}
		rows = append(rows, []string{
			cell(e.Counter + whereText(record.Counter{NetNS: e.NetNS, Device: e.Device, Object: e.Object})),
			fmt.Sprintf("+%d", e.Delta), fmt.Sprint(e.Drops), open, prose(e.Why),
		})
	}
	if rows != nil {
		m.line("## Counters of loss that moved")
		m.table([]string{"counter", "growth", "drops seen", "", "why"}, rows)
	}
	var left []string
	for _, c := range unbooked(moved(d), d.Ledger) {
		left = append(left, fmt.Sprintf("%s +%d%s", c.Name, c.Delta, whereText(c)))
	}
	m.list("Further counters of loss or pressure that moved", left)
}

// books writes the accounting and what was not seen.
func (m *markdown) books(d record.Diagnosis) {
	m.list("Accounting", append([]string{accountingText(d.Accounting, hasElsewhere(d))}, warnings(d.Accounting)...))
	var lines []string
	for _, src := range d.Sources {
		if src.State != record.SourceOK {
			lines = append(lines, fmt.Sprintf("source %s %s: %s", src.Name, src.State, src.Why))
		}
	}
	for _, bl := range d.Blind {
		text := bl.What + ": " + bl.Why
		if bl.Fix != "" {
			text += " (" + bl.Fix + ")"
		}
		lines = append(lines, text)
	}
	m.list("What was not seen", lines)
}
