package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// verdictFlags say how a verdict is printed and what the exit status comes from.
type verdictFlags struct {
	markdown bool
	failOn   string
}

func (v *verdictFlags) flags(c *cobra.Command) {
	c.Flags().BoolVar(&v.markdown, "markdown", false, "print Markdown that stands for itself, for a ticket")
	c.Flags().StringVar(&v.failOn, "fail-on", "", "exit with 1 on a finding of this `class` or worse: fault, capacity or policy")
}

// check refuses what does not go together, or means nothing.
func (v *verdictFlags) check(a *app) error {
	if a.json && v.markdown {
		return usage(errors.New("--json and --markdown: want one of them"))
	}
	if v.failOn != "" && record.Class(v.failOn).Severity() == 0 {
		return usage(fmt.Errorf("--fail-on %q: want fault, capacity or policy", v.failOn))
	}
	return nil
}

// judge diagnoses an observation as the flags ask for.
func (w *watching) judge(o *record.Observation, k *diagnose.Knowledge) record.Diagnosis {
	return diagnose.Run(o, k, diagnose.Options{All: w.all, Focus: w.traffic.focus()})
}

// hasLoss says whether a diagnosis has a finding that is shown by default.
func hasLoss(d record.Diagnosis) bool {
	return slices.ContainsFunc(d.Findings, func(f record.Finding) bool { return f.Class.Shown() })
}

// verdict diagnoses and prints.
func (a *app) verdict(o *record.Observation, k *diagnose.Knowledge, w *watching) error {
	d := w.judge(o, k)
	if !hasLoss(d) {
		d.Counters = append(d.Counters, diagnose.SinceBoot(o.Counters, k)...)
	}
	if err := a.printDiagnosis(d, w); err != nil {
		return err
	}
	if w.verdict.failOn != "" && diagnose.ExceedsFailOn(d, record.Class(w.verdict.failOn)) {
		return &exitError{code: exitFinding}
	}
	return partial(d.Accounting)
}

func (a *app) printDiagnosis(d record.Diagnosis, w *watching) error {
	switch {
	case a.json:
		return report.JSON(a.out, d)
	case w.verdict.markdown:
		return report.Markdown(a.out, d, a.style(w.all))
	}
	return report.Diagnosis(a.out, d, a.style(w.all))
}
