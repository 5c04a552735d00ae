package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// doctor is what `whydrop doctor -j` prints.
type doctor struct {
	SchemaVersion int           `json:"schema_version"`
	Host          record.Host   `json:"host"`
	Kernel        record.Kernel `json:"kernel"`
	// Source is the one that --source auto takes. Failed are the better ones.
	Source  record.Source   `json:"source"`
	Failed  []record.Source `json:"failed,omitempty"`
	Program string          `json:"program_type"`
	Checks  []kernel.Check  `json:"checks"`
}

func (a *app) doctorCommand() *cobra.Command {
	var recoverDropMonitor bool
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host lets whydrop see, and what would change it",
		Long: `doctor asks the kernel what it supports and what this process may do, one
function at a time, and says which source will be used. It changes nothing:
it loads eBPF programs that do nothing and closes them at once, and for a
moment attaches the one that watches. Where that does not work and the kernel's
drop monitor is there, it starts that for a moment, if it does not run, and puts
it back. Exit status 3 means that nothing can be
watched.

The kernel's drop monitor (NET_DM) is one for the whole host, and goes on when
a tool that started it is killed. --recover-dropmon stops it if nobody listens
to it, and sets back its configuration if whydrop had changed it; that is all
it does then. While somebody listens it refuses and names the process: exit
status 4. Exit status 3 means that the monitor cannot be asked.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if recoverDropMonitor {
				return a.recoverDropMonitor()
			}
			return a.doctor(c.Context())
		},
	}
	c.Flags().BoolVar(&recoverDropMonitor, "recover-dropmon", false, "stop a drop monitor (NET_DM) that a killed tool left running")
	return c
}

// recovered is what `whydrop doctor --recover-dropmon -j` prints.
type recovered struct {
	SchemaVersion int    `json:"schema_version"`
	Recovered     string `json:"recovered"`
}

func (a *app) recoverDropMonitor() error {
	what, err := observe.RecoverDropMonitor()
	var perr error
	switch {
	case what == "":
	case a.json:
		perr = report.JSON(a.out, recovered{record.SchemaVersion, what})
	default:
		_, perr = fmt.Fprintf(a.out, "%s\n", report.Clean(what))
	}
	if err != nil {
		return err
	}
	if perr != nil {
		return fmt.Errorf("print what was recovered: %w", perr)
	}
	return nil
}

func (a *app) doctor(ctx context.Context) error {
	var host kernel.Host
	d := doctor{SchemaVersion: record.SchemaVersion}
	// What cannot be read about the machine stays empty.
	d.Host, d.Kernel, _ = host.Identity()
	d.Host.Program = release
	d.Checks = host.Checks(ctx)
	// The proof is in the watching.
	s, err := a.open(observe.Options{Program: release})
	if err != nil {
		d.Source = record.Source{Name: observe.SourceSkbDrop, State: record.SourceFailed, Why: err.Error()}
	} else {
		d.Kernel = s.Header().Kernel
		d.Source, d.Failed = s.Source(), s.Failed()
		a.say(s.Notes())
		d.Program = s.ProgramType()
		if cerr := s.Close(); cerr != nil {
			return cerr
		}
	}
	if perr := a.printDoctor(d); perr != nil {
		return fmt.Errorf("print answers: %w", perr)
	}
	if err != nil {
		return &exitError{code: exitUnavailable, err: err}
	}
	return nil
}

func (a *app) printDoctor(d doctor) error {
	if a.json {
		return report.JSON(a.out, d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "source: %s is %s", d.Source.Name, d.Source.State)
	if d.Program != "" {
		fmt.Fprintf(&b, " (eBPF program of type %s on tracepoint skb:kfree_skb)", d.Program)
	}
	if d.Source.Why != "" {
		fmt.Fprintf(&b, ": %s", report.Clean(d.Source.Why))
	}
	if d.Source.State == record.SourceFailed {
		b.WriteString(" (diagnose and record go on with counters alone)")
	}
	for _, f := range d.Failed {
		fmt.Fprintf(&b, "\nbetter: %s is %s: %s", f.Name, f.State, report.Clean(f.Why))
	}
	b.WriteString("\n\n")
	width := 0
	for _, c := range d.Checks {
		width = max(width, len(c.Title))
	}
	for _, c := range d.Checks {
		fmt.Fprintf(&b, "%-7s  %-*s  %s\n", c.State, width, report.Clean(c.Title), report.Clean(c.Detail))
		indent := strings.Repeat(" ", 11)
		if c.Why != "" {
			fmt.Fprintf(&b, "%swhy: %s\n", indent, report.Clean(c.Why))
		}
		if c.State != kernel.StateYes && c.NeededFor != "" {
			fmt.Fprintf(&b, "%sneeded for: %s\n", indent, c.NeededFor)
		}
		if c.Fix != "" {
			fmt.Fprintf(&b, "%sto change it: %s\n", indent, report.Clean(c.Fix))
		}
	}
	_, err := a.out.Write([]byte(b.String()))
	return err
}
