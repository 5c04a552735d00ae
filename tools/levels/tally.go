package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// tally counts the results of one level and prints failures and skips as they
// come.
type tally struct {
	level                   string
	out                     io.Writer
	passed, failed, skipped int
	took                    time.Duration
	// failures names what failed, for the end of the run.
	failures []string
}

func (t *tally) pass() { t.passed++ }

// fail counts a failure of name and prints what it said.
func (t *tally) fail(name, output string) {
	t.failed++
	t.failures = append(t.failures, t.level+": "+name)
	_, _ = fmt.Fprintf(t.out, "FAIL %s\n%s", name, indent(output))
}

// skip counts a skip of name and prints its reason.
func (t *tally) skip(name, reason string) {
	t.skipped++
	_, _ = fmt.Fprintf(t.out, "SKIP %s: %s\n", name, reason)
}

func indent(s string) string {
	s = strings.TrimRight(s, "\n")
	if s == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(s, "\n", "\n    ") + "\n"
}

// add counts what another tally has counted.
func (t *tally) add(other *tally) {
	t.passed += other.passed
	t.failed += other.failed
	t.skipped += other.skipped
	t.failures = append(t.failures, other.failures...)
}
