// Command levels runs the checks and tests of the repository level by level
// (lint, unit, race, fuzz, soak, root, vm, bench), counts what passed, failed
// and was skipped, and ends with a table and the line "N passed, N failed, N
// skipped".
//
// It installs nothing and changes no file; the Makefile prepares the machine.
// It must not know what a single test is about: it only finds, runs and counts.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// level is one named group of checks.
type level struct {
	name string
	what string
	run  func(*runner) error
	// when says which levels run at the same time.
	when when
}

// when is the order of levels. What waits more than it works runs beside what
// works more than it waits.
type when int

const (
	inTurn when = iota // after the level before it
	beside             // from the beginning, beside those in turn
	// beside too, but alone with the machines: it asserts what this kernel
	// does as a whole, and the levels before vm have processes of their own.
	besideMachines
	machines // in turn; nothing that needs this host alone has begun before
	last     // alone, when all others have ended
)

// levels are all levels in the order in which they run.
func levels() []level {
	return []level{
		{"lint", "formatting, vet, staticcheck, the rules of internal/archtest", (*runner).lint, inTurn},
		{"unit", "unit and golden tests, as this user", (*runner).unit, inTurn},
		{"race", "the unit tests again under the race detector, without what one goroutine computes, counted by package", (*runner).race, inTurn},
		{"fuzz", "every fuzz target for a moment, beyond its seeds", (*runner).fuzz, inTurn},
		{"soak", "busy healthy hosts on this kernel for ten minutes of watching, as root", (*runner).soak, beside},
		{"root", "tests on the real kernel, as root", (*runner).root, besideMachines},
		{"vm", "the same tests on Debian's kernels, in virtual machines", (*runner).vm, machines},
		{"bench", "every benchmark once", (*runner).bench, last},
	}
}

func main() {
	fuzzTime := flag.String("fuzztime", "5s", "how long each fuzz target runs (go test -fuzztime)")
	dir := flag.String("dir", ".", "the repository")
	full := flag.String("full", "all", "kernels on which the machines run everything, as for vmtest -full")
	without := flag.String("without", "", "leave this `level` out")
	why := flag.String("why", "no reason given", "why, for the table")
	flag.Usage = func() {
		_, _ = fmt.Fprintf(flag.CommandLine.Output(), "usage: levels [flags] [level…]\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ok, err := runLevels(os.Stdout, setting{*dir, *fuzzTime, *full}, flag.Args(), leftOut{*without, *why})
	if err != nil {
		fmt.Fprintln(os.Stderr, "levels:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// setting is what the levels need to know.
type setting struct {
	dir      string // the repository
	fuzzTime string // for each target, as go test -fuzztime
	full     string // kernels that run everything, as vmtest -full
}

// leftOut is a level that does not run, and why; a level without a name is
// none.
type leftOut struct{ level, why string }

// runLevels runs the named levels, or all, but not the one that is left out,
// and says whether nothing failed.
func runLevels(out io.Writer, s setting, names []string, not leftOut) (bool, error) {
	todo, err := choose(levels(), names)
	if err != nil {
		return false, err
	}
	if not.level != "" {
		if _, err := choose(levels(), []string{not.level}); err != nil {
			return false, err
		}
		todo = slices.DeleteFunc(todo, func(l level) bool { return l.name == not.level })
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return false, fmt.Errorf("find repository: %w", err)
	}
	began := time.Now()
	done := (&schedule{out: out, setting: s}).run(todo)
	return summarize(out, done, not, time.Since(began)), nil
}

// choose returns the levels with the given names, in the order of all.
func choose(all []level, names []string) ([]level, error) {
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, l := range all {
		known = append(known, l.name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return nil, fmt.Errorf("level %q is none of %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(l level) bool {
		return !slices.Contains(names, l.name)
	}), nil
}

// summarize prints the table and the closing line, and says whether nothing
// failed.
func summarize(out io.Writer, done []*tally, not leftOut, took time.Duration) bool {
	var sum tally
	_, _ = fmt.Fprintf(out, "\n%-8s %8s %8s %8s %9s\n", "level", "passed", "failed", "skipped", "seconds")
	row := func(t *tally) {
		_, _ = fmt.Fprintf(out, "%-8s %8d %8d %8d %9.1f\n", t.level, t.passed, t.failed, t.skipped, t.took.Seconds())
	}
	for _, t := range done {
		row(t)
		sum.passed += t.passed
		sum.failed += t.failed
		sum.skipped += t.skipped
		sum.failures = append(sum.failures, t.failures...)
	}
	if not.level != "" {
		_, _ = fmt.Fprintf(out, "%-8s left out: %s\n", not.level, not.why)
	}
	sum.level, sum.took = "all", took // of some at the same time
	row(&sum)
	for _, f := range sum.failures {
		_, _ = fmt.Fprintf(out, "FAILED %s\n", f)
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", sum.passed, sum.failed, sum.skipped)
	return sum.failed == 0
}
