package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Topic is what `whydrop explain` says about a name. Kinds that lack a field
// leave it empty.
type Topic struct {
	// Kind is cause, reason, counter, station, class or symbol.
	Kind      string           `json:"kind"`
	Name      string           `json:"name"`
	Class     record.Class     `json:"class,omitempty"`
	Station   record.Station   `json:"station,omitempty"`
	Direction record.Direction `json:"direction,omitempty"`
	// Sentence says what it is; Text is the whole explanation of a cause, in
	// Markdown.
	Sentence string `json:"sentence,omitempty"`
	Text     string `json:"text,omitempty"`
	// Kernel is the file of the kernel behind it; Verified are the kernels on
	// which a cause was reproduced.
	Kernel   string   `json:"kernel,omitempty"`
	Verified []string `json:"verified,omitempty"`
	// Counts is what a counter counts, such as "loss, in packets".
	Counts   string   `json:"counts,omitempty"`
	Overlaps []string `json:"overlaps,omitempty"`
	// Causes are the ids of those that have to do with it.
	Causes []string `json:"causes,omitempty"`
	// Remedy, Verify and Next of a cause are templates: ${...} stands for
	// what a diagnosis computes.
	Remedy []record.Remedy `json:"remedy,omitempty"`
	Verify []string        `json:"verify,omitempty"`
	Next   []string        `json:"next,omitempty"`
}

// Explain prints topics as text.
func Explain(w io.Writer, topics []Topic, s Style) error {
	var b strings.Builder
	for i, t := range topics {
		if i > 0 {
			b.WriteByte('\n')
		}
		writeTopic(&b, t, s)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print explanation: %w", err)
	}
	return nil
}

func writeTopic(b *strings.Builder, t Topic, s Style) {
	head := []string{Clean(t.Name), Clean(t.Kind)}
	if t.Class != "" {
		head = append(head, s.paint(t.Class, strings.ToUpper(Clean(string(t.Class)))))
	}
	if t.Station != "" {
		head = append(head, "at "+Clean(string(t.Station)))
	}
	if t.Direction != "" && t.Direction != record.DirectionUnknown {
		head = append(head, Clean(string(t.Direction)))
	}
	b.WriteString(strings.Join(head, "  ") + "\n")
	if t.Text == "" && t.Sentence != "" {
		wrap(b, "", Clean(t.Sentence), s.width())
	}
	if t.Text != "" {
		b.WriteByte('\n')
		for line := range strings.Lines(t.Text) {
			writeLine(b, "", strings.TrimRight(line, "\r\n"))
		}
		b.WriteByte('\n')
	}
	writeFacts(b, t, s)
	for _, r := range t.Remedy {
		writeRemedy(b, "", r, s)
	}
	writeCommands(b, "", "verify", t.Verify)
	writeCommands(b, "", "next", t.Next)
}

// writeFacts prints the short fields of a topic.
func writeFacts(b *strings.Builder, t Topic, s Style) {
	for _, f := range []struct{ name, text string }{
		{"counts", t.Counts},
		{"kernel", t.Kernel},
		{"verified", strings.Join(t.Verified, ", ")},
		{"overlaps", strings.Join(t.Overlaps, ", ")},
		{"causes", strings.Join(t.Causes, ", ")},
	} {
		if f.text != "" {
			wrap(b, field(f.name), Clean(f.text), s.width())
		}
	}
}
