package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// labResult is what `whydrop lab run -j` prints.
type labResult struct {
	SchemaVersion int    `json:"schema_version"`
	Scenario      string `json:"scenario"`
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
}

func (a *app) labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Reproduce a packet loss and diagnose it",
		Long: `lab makes two network namespaces joined by a veth pair, loses packets between
them on purpose, and diagnoses the loss. How many were lost is known from the
generator and from the kernel's own counters, so the result can be checked.
Everything is removed afterwards; the host's own network is not touched.`,
		Example: `  whydrop lab list
  whydrop lab run udp-rcvbuf`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	list := &cobra.Command{
		Use: "list", Short: "List the losses that can be reproduced", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.labList() },
	}
	packets := 100
	run := &cobra.Command{
		Use: "run NAME|all", Short: "Reproduce a loss, or all of them, and diagnose it",
		Long: `run reproduces the loss NAME, diagnoses it, and compares what was counted with
what is known to have been lost, and the cause with the one that was provoked.
Exit status 1 means that they differ. With all it does so for each scenario, and
prints a line for each, or with -j a JSON object a line; one that cannot work on
the running kernel is skipped.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(errors.New("lab run: name one scenario; `whydrop lab list` names them all"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if packets < 1 || packets > 1_000_000 {
				return usage(fmt.Errorf("--packets %d: want 1 to 1000000", packets))
			}
			if args[0] == "all" {
				return a.labRunAll(c.Context(), packets)
			}
			s, err := lab.Find(args[0])
			if err != nil {
				return usage(err)
			}
			k, err := loadKnowledge()
			if err != nil {
				return err
			}
			return a.labRun(c.Context(), s, packets, k)
		},
	}
	run.Flags().IntVar(&packets, "packets", packets, "how many packets to lose")
	c.AddCommand(list, run)
	return c
}

func (a *app) labList() error {
	if a.json {
		type entry struct {
			Name  string `json:"name"`
			Title string `json:"title"`
		}
		entries := []entry{}
		for _, s := range lab.List() {
			entries = append(entries, entry{s.Name, s.Title})
		}
		return report.JSON(a.out, map[string]any{"schema_version": record.SchemaVersion, "scenarios": entries})
	}
	for _, s := range lab.List() {
		if _, err := fmt.Fprintf(a.out, "%-16s %s\n", s.Name, s.Title); err != nil {
			return err
		}
	}
	return nil
}

// labRun runs one scenario and prints what came of it.
func (a *app) labRun(ctx context.Context, s lab.Scenario, packets int, k *diagnose.Knowledge) error {
	r, err := labResultOf(ctx, s, packets, k)
	if err != nil {
		return err
	}
	if a.json {
		err = report.JSON(a.out, r)
	} else {
		err = a.printLab(s, r)
	}
	if err == nil && len(r.Mismatch) > 0 {
		err = &exitError{exitFinding, fmt.Errorf("lab %s: not as expected: %s", s.Name, report.Clean(strings.Join(r.Mismatch, "; ")))}
	}
	return err
}

// labRunAll runs every scenario. One that cannot be run counts as not as
// expected, and one that this kernel does not have as skipped; the others run
// all the same.
func (a *app) labRunAll(ctx context.Context, packets int) error {
	k, err := loadKnowledge()
	if err != nil {
		return err
	}
	return a.labRunEach(ctx, lab.List(), func(s lab.Scenario) labResult {
		r, err := labResultOf(ctx, s, packets, k)
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
		if err := a.labLine(r); err != nil {
			return err
		}
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
		SchemaVersion: record.SchemaVersion, Scenario: s.Name, Evidence: []record.Evidence{}, Mismatch: []string{err.Error()},
		Diagnosis: diagnose.Run(&record.Observation{SchemaVersion: record.SchemaVersion}, k, diagnose.Options{}),
	}
	var absent *notOnKernelError
	if errors.As(err, &absent) {
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
	said := fmt.Sprintf("lost %d, counted %d: as expected", r.Truth, r.Counted)
	switch {
	case r.Skipped != "":
		said = "skipped: " + r.Skipped
	case len(r.Mismatch) > 0:
		said = fmt.Sprintf("lost %d, counted %d: %s", r.Truth, r.Counted, strings.Join(r.Mismatch, "; "))
	}
	_, err := fmt.Fprintf(a.out, "%-24s %s\n", report.Clean(r.Scenario), report.Clean(said))
	return err
}

func labResultOf(ctx context.Context, s lab.Scenario, packets int, k *diagnose.Knowledge) (r labResult, err error) {
	want, err := lab.Expected(s.Name)
	if err != nil {
		return r, err
	}
	var host kernel.Host
	if _, running, err := host.Identity(); err == nil && !want.WorksOn(running.Release) {
		return r, &exitError{exitUnavailable, &notOnKernelError{s.Name, running.Release, want.Why}}
	}
	setup, err := s.Prepare(ctx)
	if err != nil {
		return r, &exitError{exitUnavailable, fmt.Errorf("%w (the lab needs root)", err)}
	}
	defer func() { err = errors.Join(err, setup.Close()) }()
	o, truth, err := observeLab(ctx, setup, packets)
	if err != nil {
		return r, err
	}
	ask(ctx, &o, k)
	if err := ctx.Err(); err != nil { // with facts missing the cause would be a worse one
		return r, fmt.Errorf("lab %s: interrupted: %w", s.Name, err)
	}
	r = labResult{
		SchemaVersion: record.SchemaVersion, Scenario: s.Name,
		Truth: truth.Drops, Counted: o.Accounting.DropsAggregated, Evidence: append([]record.Evidence{}, truth.Evidence...),
		Diagnosis: diagnose.Run(&o, k, diagnose.Options{All: true}),
	}
	if want.Silent() {
		r.Counted = byCounters(r.Diagnosis)
	}
	r.Mismatch = mismatch(r, o.Counts, want)
	return r, nil
}

// observeLab watches the scenario's namespace while it loses packets.
func observeLab(ctx context.Context, setup *lab.Setup, packets int) (record.Observation, lab.Truth, error) {
	s, err := observe.Start(observe.Options{
		Filter:   observe.Filter{NetNS: []string{strconv.FormatUint(uint64(setup.NetNS), 10)}},
		Counters: true, Program: release, Source: observe.ChooseBPF,
	})
	if err != nil {
		return record.Observation{}, lab.Truth{}, err
	}
	defer s.Close()
	watch, enough := context.WithCancel(ctx)
	defer enough()
	var truth lab.Truth
	lost := make(chan error, 1)
	go func() {
		var err error
		truth, err = setup.Provoke(ctx, packets)
		lost <- err
		enough()
	}()
	c := record.NewCollector(s.Header())
	err = s.Run(watch, func(iv record.Interval) error { c.Add(iv); return nil })
	enough()
	err = errors.Join(err, <-lost)
	return c.Finish(s.Trailer()), truth, err
}

// mismatch lists what of a result is not as expected.
func mismatch(r labResult, counts []record.Count, want lab.Expectation) []string {
	list := []string{}
	if r.Counted != r.Truth {
		list = append(list, fmt.Sprintf("counted %d, lost %d", r.Counted, r.Truth))
	}
	for _, c := range counts {
		if name := c.Reason.Name; name != "" && !slices.Contains(want.Reasons, name) {
			list = append(list, fmt.Sprintf("reason %s, want %s", name, strings.Join(want.Reasons, " or ")))
		}
		if sym := kernel.Base(c.Location.Symbol); sym != "" && !slices.Contains(want.Symbols, sym) {
			list = append(list, fmt.Sprintf("location %s, want %s", sym, strings.Join(want.Symbols, " or ")))
		}
	}
	for _, f := range r.Diagnosis.Findings {
		if f.Class != want.Class || f.Station != want.Station {
			list = append(list, fmt.Sprintf("%s at %s, want %s at %s", f.Class, f.Station, want.Class, want.Station))
		}
		if slices.Contains(want.Forbidden, f.Cause) {
			list = append(list, "found "+f.Cause+", which only looks like it")
		}
	}
	if want.Cause != "" {
		list = append(list, mismatchedCause(r, want)...)
	}
	return append(list, openLedger(r.Diagnosis.Ledger)...)
}

// openLedger lists what a ledger leaves open: counters that moved by another
// number than the drops that raise them, without a reason, and loss without a
// cause.
func openLedger(l record.Ledger) (list []string) {
	for _, e := range l.Entries {
		if !e.Closed {
			list = append(list, fmt.Sprintf("ledger: %s +%d, %d drops", e.Counter, e.Delta, e.Drops))
		}
	}
	for _, s := range l.Stations {
		if s.Unexplained > 0 {
			list = append(list, fmt.Sprintf("%d lost at %s without a cause", s.Unexplained, s.Station))
		}
	}
	return list
}

// mismatchedCause compares the first finding with the truth.
func mismatchedCause(r labResult, want lab.Expectation) []string {
	if len(r.Diagnosis.Findings) == 0 {
		return []string{"found nothing, want " + want.Cause}
	}
	var list []string
	f := r.Diagnosis.Findings[0]
	if f.Cause != want.Cause {
		list = append(list, fmt.Sprintf("cause %s, want %s", f.Cause, want.Cause))
	}
	if f.Drops != r.Truth {
		list = append(list, fmt.Sprintf("%s has %d, lost %d", f.Cause, f.Drops, r.Truth))
	}
	if by := lostBy(want); f.LostBy != by {
		list = append(list, fmt.Sprintf("%s found by %s, want %s", f.Cause, f.LostBy, by))
	}
	return list
}

// lostBy says what a scenario is to be found by.
func lostBy(want lab.Expectation) string {
	if want.Silent() {
		return "counters"
	}
	return "drops"
}

// byCounters is what was lost without a drop event.
func byCounters(d record.Diagnosis) (n uint64) {
	for _, f := range d.Findings {
		if f.LostBy == "counters" {
			n += f.Drops
		}
	}
	return n
}

func (a *app) printLab(s lab.Scenario, r labResult) error {
	if err := report.Diagnosis(a.out, r.Diagnosis, a.style(true)); err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nlab %s: %s\n", report.Clean(s.Name), report.Clean(s.Title))
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "  %-32s %s", report.Clean(e.Name), report.Clean(e.Value))
		if e.Before != "" {
			fmt.Fprintf(&b, "  (%s → %s)", report.Clean(e.Before), report.Clean(e.After))
		}
		b.WriteByte('\n')
	}
	verdict := "equal"
	if r.Counted != r.Truth {
		verdict = "NOT equal"
	}
	fmt.Fprintf(&b, "  lost %d, counted %d: %s\n", r.Truth, r.Counted, verdict)
	_, err := a.out.Write([]byte(b.String()))
	return err
}
