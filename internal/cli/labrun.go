package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/lab/cure"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// labOptions is what a person asked the lab for.
type labOptions struct {
	packets int
	// remedy is whether the loss is cured in the end.
	remedy bool
	// wholeHost is whether the machine may be changed: it is thrown away.
	wholeHost bool
}

// labResultOf runs a scenario: it loses packets, diagnoses the loss, and cures it.
func labResultOf(ctx context.Context, s lab.Scenario, opt labOptions, k *diagnose.Knowledge) (r labResult, err error) {
	want, err := labPossible(s, opt)
	if err != nil {
		return r, err
	}
	opt.packets = max(opt.packets, want.Least)
	setup, err := s.Prepare(ctx)
	if err != nil {
		return r, &exitError{exitUnavailable, fmt.Errorf("%w (the lab needs root)", err)}
	}
	defer func() { err = errors.Join(err, setup.Close()) }()
	// Without it the commands that are printed lead nowhere, and are not run.
	pid, err := setup.Hold()
	if err != nil && !errors.Is(err, cure.ErrMissing) {
		return r, err
	}
	built, err := setup.Built()
	if err != nil {
		return r, err
	}
	var truth lab.Truth
	o, err := observeLab(ctx, []uint32{setup.NetNS}, func() (err error) {
		truth, err = setup.Provoke(ctx, opt.packets)
		return err
	})
	if err != nil {
		return r, err
	}
	ask(ctx, &o, k)
	r = labResult{
		Type: typeLab, SchemaVersion: record.SchemaVersion, Scenario: s.Name, Title: s.Title, Built: built, Steps: append([]string{}, want.Steps...),
		Truth: truth.Drops, Counted: o.Accounting.DropsAggregated, Evidence: append([]record.Evidence{}, truth.Evidence...),
		Diagnosis: diagnose.Run(&o, k, diagnose.Options{All: true}),
	}
	if want.Silent() {
		r.Counted = byCounters(r.Diagnosis)
	}
	r.Mismatch = mismatch(r, o.Counts, want)
	if opt.remedy && len(r.Diagnosis.Findings) > 0 && ctx.Err() == nil {
		p := labPatient{setup: setup, want: want, pid: pid, options: opt, before: &o, finding: r.Diagnosis.Findings[0], k: k}
		if r.Remedy, err = p.cure(ctx); err != nil && ctx.Err() == nil {
			r.Mismatch, err = append(r.Mismatch, err.Error()), nil
		}
		r.Mismatch = append(r.Mismatch, r.Remedy.mismatch()...)
	}
	if err := ctx.Err(); err != nil { // with facts missing the cause would be a worse one
		return r, fmt.Errorf("lab %s: interrupted: %w", s.Name, err)
	}
	return r, err
}

// labPossible returns what is expected of a scenario, or why it cannot be run
// here.
func labPossible(s lab.Scenario, opt labOptions) (lab.Expectation, error) {
	want, err := lab.Expected(s.Name)
	if err != nil {
		return want, err
	}
	var host kernel.Host
	if _, running, err := host.Identity(); err == nil && !want.WorksOn(running.Release) {
		return want, &exitError{exitUnavailable, &notOnKernelError{s.Name, running.Release, want.Why}}
	}
	if want.MachineOnly != "" && !opt.wholeHost {
		return want, &exitError{exitUnavailable, &notOnHostError{s.Name, want.MachineOnly}}
	}
	return want, nil
}

// notOnHostError says that a scenario is not for a machine that somebody needs.
type notOnHostError struct{ scenario, why string }

func (e *notOnHostError) Error() string {
	return fmt.Sprintf("lab %s: only with --whole-host, in a virtual machine that is thrown away: %s", e.scenario, e.why)
}

// observeLab watches namespaces, by their inodes, while packets are sent.
func observeLab(ctx context.Context, spaces []uint32, send func() error) (record.Observation, error) {
	var names []string
	for _, inode := range spaces {
		names = append(names, strconv.FormatUint(uint64(inode), 10))
	}
	s, err := observe.Start(observe.Options{
		Filter:   observe.Filter{NetNS: names},
		Counters: true, Program: release, Source: observe.ChooseBPF,
	})
	if err != nil {
		return record.Observation{}, err
	}
	defer s.Close()
	watch, enough := context.WithCancel(ctx)
	defer enough()
	sent := make(chan error, 1)
	go func() {
		sent <- send()
		enough()
	}()
	c := record.NewCollector(s.Header())
	err = s.Run(watch, func(iv record.Interval) error { c.Add(iv); return nil })
	enough()
	err = errors.Join(err, <-sent)
	return c.Finish(s.Trailer()), err
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
	for _, id := range want.Contributors {
		if !slices.ContainsFunc(f.Contributors, func(c record.Finding) bool { return c.Cause == id }) {
			list = append(list, fmt.Sprintf("%s does not stand beside %s", id, f.Cause))
		}
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
