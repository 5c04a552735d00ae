package report_test

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

func inMarkdown(t *testing.T, d record.Diagnosis) string {
	t.Helper()
	var b bytes.Buffer
	if err := report.Markdown(&b, d, report.Style{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestMarkdown(t *testing.T) {
	whole := rooted()
	whole.Host = record.Host{Hostname: "db1", Program: "0.1.0"}
	whole.Kernel = record.Kernel{Release: "6.18.44"}
	whole.Counters = counted().Counters
	whole.Ledger.Entries = []record.LedgerEntry{{Counter: "Udp.RcvbufErrors", Delta: 93, Drops: 93, Relation: record.RelationEqual, Closed: true}}
	for name, d := range map[string]record.Diagnosis{
		"root-cause": whole, "conclusion": concluding(), "incomplete": lossy(), "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			got := inMarkdown(t, d)
			golden(t, name+"-markdown", got)
			checkMarkdown(t, got)
		})
	}
}

// withoutSpans leaves out spans of code as CommonMark reads them: a row of backticks,
// and the next one of the same length.
func withoutSpans(line string) string {
	var out strings.Builder
	for line != "" {
		i := strings.IndexByte(line, '`')
		if i < 0 || i > 0 && line[i-1] == '\\' {
			cut := len(line)
			if i >= 0 {
				cut = i + 1
			}
			out.WriteString(line[:cut])
			line = line[cut:]
			continue
		}
		out.WriteString(line[:i])
		line = line[i:]
		n := len(line) - len(strings.TrimLeft(line, "`"))
		rest := line[n:]
		if closing[n] == nil {
			closing[n] = regexp.MustCompile(fmt.Sprintf("(^|[^`])`{%d}([^`]|$)", n))
		}
		end := closing[n].FindStringIndex(rest)
		if end == nil {
			out.WriteString("UNCLOSED")
			break
		}
		tail := rest[end[0]:]
		tail = tail[strings.IndexByte(tail, '`'):]
		line = tail[n:]
	}
	return out.String()
}

// closing are what end a span, by the number of backticks.
var closing = map[int]*regexp.Regexp{}

// marked begins a heading, or is a bold word of our own.
var marked = regexp.MustCompile(`^(#{1,3} |\*\*[A-Z][a-z ]+:\*\*)`)

// bare are signs that would mean something to Markdown where no backslash is
// before them.
var bare = regexp.MustCompile("(^|[^\\\\])((\\\\\\\\)*)([`*_<>\\[\\]{}&!$@#~]|://|www\\.)")

// checkMarkdown holds every line to what it must be: a heading, an item, a row of
// as many cells as its head, or text without any Markdown but spans and our own
// bold words.
func checkMarkdown(t *testing.T, text string) {
	t.Helper()
	cells, fence := 0, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if fence != "" {
			if line == fence {
				fence = ""
			}
			continue
		}
		if code, ok := strings.CutSuffix(line, "sh"); ok && strings.HasPrefix(code, "```") && strings.Trim(code, "`") == "" {
			fence = code
			continue
		}
		if !strings.HasPrefix(line, "|") {
			cells = 0
		} else {
			n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
			if cells == 0 {
				cells = n
			}
			if n != cells {
				t.Errorf("%d cells, want %d: %s", n, cells, line)
			}
		}
		own := marked.ReplaceAllString(withoutSpans(line), "")
		if found := bare.FindString(own); found != "" || strings.Contains(own, "UNCLOSED") {
			t.Errorf("%q means something to Markdown in %q", found, line)
		}
	}
	if fence != "" {
		t.Errorf("a block of code does not end:\n%s", text)
	}
}

// Whoever may name a device or a process must not write into an engineer's ticket.
func TestHostileNamesInMarkdown(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	for _, evil := range []string{
		"`", "``", "```\n# pwned", "`|`", "\\|", "\\`|", "\\\\|x", "|x|", "](http://evil.example)", "![x](http://evil.example/y.png)",
		"<script>", "<!-- ", "@team", "#12", "&amp;", "**x**", "~~~", "www.evil.example", "https://evil.example",
		"\x1b]0;x\x07", "\u202e", "\xff", "\n\n## 9. udp-noport", "\r", "$(reboot)", "- x", "1. x",
	} {
		d := rooted()
		d.Counters = counted().Counters
		d.Ledger.Entries = []record.LedgerEntry{{Counter: "Udp.RcvbufErrors", Delta: 93, Why: "why"}}
		spoil(&d, "pwned"+evil)
		c := compared()
		spoil(&c, "pwned"+evil)
		for name, print := range map[string]func(io.Writer) error{
			"diagnosis":  func(w io.Writer) error { return report.Markdown(w, d, report.Style{}) },
			"comparison": func(w io.Writer) error { return report.ComparisonMarkdown(w, c, false) },
		} {
			var b bytes.Buffer
			if err := print(&b); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), "pwned") {
				t.Errorf("%s: the names are not in it", name)
			}
			checkMarkdown(t, b.String())
			for line := range strings.Lines(b.String()) {
				if h := hostile(strings.TrimSuffix(line, "\n")); h != "" {
					t.Errorf("%s: %s in %q", name, h, line)
				}
			}
			if t.Failed() {
				t.Fatalf("with %q", evil)
			}
		}
	}
	d := record.Diagnosis{Window: window(1), Sources: []record.Source{{Name: "- x", State: record.SourceOK}}}
	d.Findings = []record.Finding{{Title: "1. not a list"}, {Title: "- nor this"}, {Title: "=== nor this"}}
	got := inMarkdown(t, d)
	for _, want := range []string{"\n1\\. not", "\n\\- nor", "\n\\=== nor"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestMarkdownErrorsComeBack(t *testing.T) {
	if err := report.Markdown(full{}, lossy(), report.Style{}); err == nil {
		t.Error("a full disk is no error")
	}
	if err := report.ComparisonMarkdown(full{}, compared(), true); err == nil {
		t.Error("a full disk is no error")
	}
	if err := report.Comparison(full{}, compared(), true, report.Style{}); err == nil {
		t.Error("a full disk is no error")
	}
}
