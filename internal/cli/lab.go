package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// labResult is what `whydrop lab run -j` prints.
type labResult struct {
	// Type is typeLab.
	Type          string `json:"type"`
	SchemaVersion int    `json:"schema_version"`
	Scenario      string `json:"scenario"`
	Title         string `json:"title"`
	// Built is what was made for it, Steps how the loss comes about.
	Built []string `json:"built"`
	Steps []string `json:"steps"`
	// Truth is what was lost by the generator's and the kernel's own count,
	// Counted what was observed, Mismatch what of it is not as expected.
	Truth    uint64            `json:"truth"`
	Counted  uint64            `json:"counted"`
	Evidence []record.Evidence `json:"evidence"`
	Mismatch []string          `json:"mismatch"`
	// Skipped is why the running kernel cannot lose packets that way. Mismatch
	// has the same sentence: nothing was as expected, as nothing was tried.
	Skipped   string           `json:"skipped,omitempty"`
	Diagnosis record.Diagnosis `json:"diagnosis"`
	// Remedy is what came of the cure; nil with --no-remedy, and where nothing
	// was found.
	Remedy *labCure `json:"remedy,omitempty"`
}

// typeLab is the type of a labResult in JSON.
const typeLab = "lab"

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Reproduce a packet loss and diagnose it",
		Long: `lab makes two network namespaces joined by a veth pair, loses packets between
them on purpose, and diagnoses the loss. How many were lost is known from the
generator and from the kernel's own counters, so the result can be checked.
Everything is removed afterwards; the host's own network is not touched. Modules
that the kernel loads for it stay loaded, with the devices that they make (ifb0).`,
		Example: `  whydrop lab list
  whydrop lab run udp-rcvbuf`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the losses that can be reproduced", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.labList() },
	}
	c.AddCommand(list, a.labRunCommand())
	return c
}

func (a *app) labRunCommand() *cobra.Command {
	opt := labOptions{packets: 100}
	var noRemedy bool
	run := &cobra.Command{
		Use: "run NAME[,NAME...]|all", Short: "Reproduce a loss, or all of them, diagnose and cure it",
		Long: `run reproduces the loss NAME and diagnoses it. It compares what was counted with
what is known to have been lost, and the cause with the one that was provoked.
Then it does what the diagnosis says: it runs the first command of the remedies
as it is printed, in the lab's own namespace, sends the packets again and looks
whether they still get lost. A command that would change more than that
namespace is printed and not run. --no-remedy leaves this out.
Exit status 1 means that something is not as expected. With all, or several names
by commas, it does so for each of them and prints a line for each, or with -j a
JSON object a line; one that cannot work on the running kernel is skipped. The
last that it prints then is what was found for what was provoked: with -j an
object of the type matrix.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(errors.New("lab run: name one scenario; `whydrop lab list` names them all"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if opt.packets < 1 || opt.packets > 1_000_000 {
				return usage(fmt.Errorf("--packets %d: want 1 to 1000000", opt.packets))
			}
			opt.remedy = !noRemedy
			if args[0] == "all" {
				return a.labRunAll(c.Context(), opt)
			}
			if strings.Contains(args[0], ",") {
				return a.labRunSome(c.Context(), strings.Split(args[0], ","), opt)
			}
			s, err := lab.Find(args[0])
			if err != nil {
				return usage(err)
			}
			k, err := loadKnowledge()
			if err != nil {
				return err
			}
			return a.labRun(c.Context(), s, opt, k)
		},
	}
	run.Flags().IntVar(&opt.packets, "packets", opt.packets, "how many packets to lose; more where so few cannot be told from something else")
	run.Flags().BoolVar(&noRemedy, "no-remedy", false, "only lose and diagnose: run no remedy")
	run.Flags().BoolVar(&opt.wholeHost, "whole-host", false, "allow what changes the whole machine: in a virtual machine that is thrown away")
	return run
}

func (a *app) labList() error {
	type entry struct {
		Name  string `json:"name"`
		Title string `json:"title"`
		// MachineOnly is why it needs --whole-host, and NotOn the kernels on which
		// it cannot work.
		MachineOnly string   `json:"machine_only,omitempty"`
		NotOn       []string `json:"not_on,omitempty"`
	}
	entries := []entry{}
	for _, s := range lab.List() {
		want, err := lab.Expected(s.Name)
		if err != nil {
			return err
		}
		entries = append(entries, entry{s.Name, s.Title, want.MachineOnly, want.NotOn})
	}
	if a.json {
		return report.JSON(a.out, map[string]any{"schema_version": record.SchemaVersion, "scenarios": entries})
	}
	var b strings.Builder
	machines := 0
	for _, e := range entries {
		mark := " "
		if e.MachineOnly != "" {
			mark, machines = "*", machines+1
		}
		fmt.Fprintf(&b, "%-24s%s %s\n", e.Name, mark, e.Title)
	}
	if machines > 0 {
		fmt.Fprintf(&b, "\n* only in a virtual machine that is thrown away, with --whole-host\n")
	}
	_, err := a.out.Write([]byte(b.String()))
	return err
}

// labRun runs one scenario and prints what came of it.
func (a *app) labRun(ctx context.Context, s lab.Scenario, opt labOptions, k *diagnose.Knowledge) error {
	r, err := labResultOf(ctx, s, opt, k)
	if err != nil {
		return err
	}
	if a.json {
		err = report.JSON(a.out, r)
	} else {
		err = a.printLab(r)
	}
	if err == nil && len(r.Mismatch) > 0 {
		err = &exitError{exitFinding, fmt.Errorf("lab %s: not as expected: %s", s.Name, report.Clean(strings.Join(r.Mismatch, "; ")))}
	}
	return err
}

// labRunSome runs scenarios by their names, as labRunAll does all.
func (a *app) labRunSome(ctx context.Context, names []string, opt labOptions) error {
	var some []lab.Scenario
	for _, name := range names {
		s, err := lab.Find(name)
		if err != nil {
			return usage(err)
		}
		some = append(some, s)
	}
	return a.labRunList(ctx, some, opt)
}

// labRunAll runs every scenario. One that cannot be run counts as not as
// expected, and one that this kernel does not have as skipped; the others run
// all the same.
func (a *app) labRunAll(ctx context.Context, opt labOptions) error {
	return a.labRunList(ctx, lab.List(), opt)
}

func (a *app) labRunList(ctx context.Context, scenarios []lab.Scenario, opt labOptions) error {
	k, err := loadKnowledge()
	if err != nil {
		return err
	}
	return a.labRunEach(ctx, scenarios, func(s lab.Scenario) labResult {
		r, err := labResultOf(ctx, s, opt, k)
		if err != nil {
			r = notRun(s, k, err)
		}
		return r
	})
}

// labRunEach prints what run says of each scenario. An interruption ends it;
// the scenario that it hits is not counted.
func (a *app) labRunEach(ctx context.Context, scenarios []lab.Scenario, run func(lab.Scenario) labResult) error {
	var ran, skipped, wrong int
	hit := "" // what became of the scenario that was interrupted
	m := newLabMatrix()
	for _, s := range scenarios {
		if ctx.Err() != nil {
			break
		}
		r := run(s)
		if ctx.Err() != nil {
			hit = " (" + s.Name + ": " + report.Clean(strings.Join(r.Mismatch, "; ")) + ")"
			break
		}
		ran++
		switch {
		case r.Skipped != "":
			skipped++
		case len(r.Mismatch) > 0:
			wrong++
		}
		m.add(r)
		if err := a.labLine(r); err != nil {
			return err
		}
	}
	if err := a.labMatrix(m); err != nil {
		return err
	}
	switch {
	case ran < len(scenarios):
		return fmt.Errorf("lab: interrupted after %d of %d scenarios, %d not as expected: %w%s", ran, len(scenarios), wrong, ctx.Err(), hit)
	case wrong > 0:
		return &exitError{exitFinding, fmt.Errorf("lab: %d of %d scenarios not as expected, %d skipped", wrong, ran, skipped)}
	}
	return nil
}

// notRun is the result of a scenario of which err is all there is to say.
func notRun(s lab.Scenario, k *diagnose.Knowledge, err error) labResult {
	r := labResult{
		Type: typeLab, SchemaVersion: record.SchemaVersion, Scenario: s.Name, Title: s.Title, Built: []string{}, Steps: []string{},
		Evidence: []record.Evidence{}, Mismatch: []string{err.Error()},
		Diagnosis: diagnose.Run(&record.Observation{SchemaVersion: record.SchemaVersion}, k, diagnose.Options{}),
	}
	var absent *notOnKernelError
	var elsewhere *notOnHostError
	if errors.As(err, &absent) || errors.As(err, &elsewhere) {
		r.Skipped = err.Error()
	}
	return r
}

// notOnKernelError says that a scenario cannot work on a kernel.
type notOnKernelError struct{ scenario, release, why string }

func (e *notOnKernelError) Error() string {
	return fmt.Sprintf("lab %s: not on Linux %s: %s", e.scenario, e.release, e.why)
}

// labLine prints a scenario's result as one line.
func (a *app) labLine(r labResult) error {
	if a.json {
		return report.JSON(a.out, r)
	}
	said := fmt.Sprintf("lost %d, counted %d: as expected%s", r.Truth, r.Counted, r.Remedy.short())
	switch {
	case r.Skipped != "":
		said = "skipped: " + r.Skipped
	case len(r.Mismatch) > 0:
		said = fmt.Sprintf("lost %d, counted %d: %s", r.Truth, r.Counted, strings.Join(r.Mismatch, "; "))
	}
	_, err := fmt.Fprintf(a.out, "%-24s %s\n", report.Clean(r.Scenario), report.Clean(said))
	return err
}
