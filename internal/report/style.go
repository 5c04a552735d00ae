// Package report prints records: findings and live drops as text, and both
// as JSON.
//
// It is pure: it writes what it is given to the writer it is given. It must
// NOT judge (internal/diagnose does), look at a host or a terminal, read a
// clock, or keep state: it imports the standard library (without os and net)
// and record alone. Every string that came from a kernel or a user passes
// through Clean.
package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/whydrop/whydrop/record"
)

// Style says how text is printed.
type Style struct {
	// Color adds ANSI colours. A class is always said in a word too.
	Color bool
	// Width is where lines are wrapped, in columns; 0 is 80.
	Width int
	// All shows what is hidden by default (benign and expected drops).
	All bool
	// Quiet leaves out all but the verdict and what must not go unsaid.
	Quiet bool
	// ASCII draws with plain characters instead of lines and arrows.
	ASCII bool
}

// defaultWidth is the width of a terminal that does not say.
const defaultWidth = 80

func (s Style) width() int {
	if s.Width <= 0 {
		return defaultWidth
	}
	return s.Width
}

// The ANSI codes (ECMA-48 SGR) of each class.
var classColors = map[record.Class]string{
	record.ClassFault:    "\x1b[31m",
	record.ClassCapacity: "\x1b[33m",
	record.ClassPolicy:   "\x1b[36m",
	record.ClassExpected: "\x1b[2m",
	record.ClassBenign:   "\x1b[2m",
}

// paint colours text by class. The text must be clean already.
func (s Style) paint(c record.Class, text string) string {
	code, ok := classColors[c]
	if !s.Color || !ok {
		return text
	}
	return code + text + "\x1b[0m"
}

// wrap writes words of text in lines of at most width columns, the first
// after first, the others after as many spaces. A longer word stays whole,
// so that commands and names can be copied.
func wrap(b *strings.Builder, first, text string, width int) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(first))
	b.WriteString(first)
	col := len(indent)
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case col+1+n > width:
			b.WriteString("\n" + indent)
			col = len(indent)
		default:
			b.WriteByte(' ')
			col++
		}
		b.WriteString(word)
		col += n
	}
	b.WriteByte('\n')
}

// plural is "1 packet" or "2 packets".
func plural(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// seconds prints a duration as engineers say it: 10 s, 0.5 s, 1h0m0s.
func seconds(d time.Duration) string {
	if d >= 10*time.Minute {
		return d.Round(time.Second).String()
	}
	if d > 0 && d < time.Second {
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	}
	s := fmt.Sprintf("%.1f", d.Seconds())
	return strings.TrimSuffix(s, ".0") + " s"
}

// rate prints drops per second with three digits that matter.
func rate(r float64) string {
	switch {
	case r >= 100:
		return fmt.Sprintf("%.0f/s", r)
	case r >= 1:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", r), ".0") + "/s"
	}
	return fmt.Sprintf("%.2g/s", r)
}
