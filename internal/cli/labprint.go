package cli

import (
	"fmt"
	"strings"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// printLab tells a person what was done, step by step.
func (a *app) printLab(r labResult) error {
	p := &labPrinter{}
	fmt.Fprintf(&p.b, "lab %s: %s\n", report.Clean(r.Scenario), report.Clean(r.Title))
	p.step("What is built, and removed in the end")
	p.items(r.Built)
	if len(r.Steps) > 0 {
		p.step("How the loss comes about")
		p.items(r.Steps)
	}
	p.step("What was lost, by what was sent and by the kernel's own count")
	for _, e := range r.Evidence {
		p.evidence(e)
	}
	p.step("What whydrop found")
	p.b.WriteByte('\n')
	if _, err := a.out.Write([]byte(p.b.String())); err != nil {
		return err
	}
	if err := report.Diagnosis(a.out, r.Diagnosis, a.style(true)); err != nil {
		return err
	}
	p.b.Reset()
	verdict := "equal"
	if r.Counted != r.Truth {
		verdict = "NOT equal"
	}
	fmt.Fprintf(&p.b, "\n   lost %d, counted %d: %s\n", r.Truth, r.Counted, verdict)
	if r.Remedy != nil {
		p.cure(r.Remedy)
	}
	_, err := a.out.Write([]byte(p.b.String()))
	return err
}

// labPrinter writes numbered steps. All that it is given is made harmless.
type labPrinter struct {
	b strings.Builder
	n int
}

func (p *labPrinter) step(title string) {
	p.n++
	fmt.Fprintf(&p.b, "\n%d. %s\n", p.n, title)
}

func (p *labPrinter) items(list []string) {
	for _, s := range list {
		fmt.Fprintf(&p.b, "   - %s\n", report.Clean(s))
	}
}

func (p *labPrinter) evidence(e record.Evidence) {
	fmt.Fprintf(&p.b, "   %-32s %s", report.Clean(e.Name), report.Clean(e.Value))
	if e.Before != "" {
		fmt.Fprintf(&p.b, "  (%s → %s)", report.Clean(e.Before), report.Clean(e.After))
	}
	if e.Command != "" {
		fmt.Fprintf(&p.b, "  %s", report.Clean(e.Command))
	}
	p.b.WriteByte('\n')
}

// command prints a command with what it printed.
func (p *labPrinter) command(c labCommand) {
	fmt.Fprintf(&p.b, "   # %s\n", report.Clean(c.Command))
	if c.Refused != "" {
		fmt.Fprintf(&p.b, "     not run: %s\n", report.Clean(c.Refused))
		return
	}
	for line := range strings.Lines(c.Output) {
		fmt.Fprintf(&p.b, "     %s\n", report.Clean(strings.TrimRight(line, "\n")))
	}
	if c.Code != 0 {
		fmt.Fprintf(&p.b, "     exit status %d\n", c.Code)
	}
}

func (p *labPrinter) cure(c *labCure) {
	p.step("The remedy")
	switch {
	case c.Kind == lab.RemedyNone:
		fmt.Fprintf(&p.b, "   none: %s\n", report.Clean(c.Why))
		return
	case c.Kind == lab.RemedyRepair:
		why := c.Why
		if why == "" {
			why = "no setting of this host cures it"
		}
		fmt.Fprintf(&p.b, "   %s; the lab did itself what the remedy above asks a person for\n", report.Clean(why))
	case c.Command != nil:
		p.command(*c.Command)
	}
	if !c.Tried {
		return
	}
	p.step("Its effect")
	fmt.Fprintf(&p.b, "   sent again %d, lost %d by the kernel's own count\n", c.Sent, c.Lost)
	if c.Outcome != "" {
		fmt.Fprintf(&p.b, "   whydrop, having watched again: %s\n", report.Clean(string(c.Outcome)))
	}
	for _, v := range c.Verify {
		p.command(v)
	}
	if c.Undo != nil {
		p.b.WriteString("   The remedy is taken back:\n")
		p.command(*c.Undo)
	}
}

// short is what came of the cure in a few words, behind a comma.
func (c *labCure) short() string {
	switch {
	case c == nil || c.Kind == lab.RemedyNone:
		return ""
	case c.Command != nil && c.Command.Refused != "":
		return "; its remedy is for the whole host and was not run"
	case !c.Tried:
		return ""
	}
	return fmt.Sprintf("; after its remedy lost %d of %d", c.Lost, c.Sent)
}
