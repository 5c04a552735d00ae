package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Diagnosis prints d as text: the verdict in the first line, which says whether
// to act, then the findings with what, where, why and what to do, each with its
// symptoms below it, then what is not on this host, the way with the loss at each
// station, the counters that nothing explains, the accounting and what could not
// be seen.
func Diagnosis(w io.Writer, d record.Diagnosis, s Style) error {
	var b strings.Builder
	// The verdict is one line however long it is: scripts read it.
	b.WriteString(verdict(d) + "\n")
	if !s.Quiet {
		for i, f := range d.Findings {
			b.WriteByte('\n')
			writeFinding(&b, fmt.Sprintf("%d. ", i+1), f, s)
		}
		writeConclusions(&b, d.Conclusions, s)
		b.WriteByte('\n')
		writeElsewhere(&b, d.Elsewhere, s)
		writeChecked(&b, d, s)
		writeLedger(&b, d.Ledger, s)
		writeCounters(&b, d, s)
	}
	writeBooks(&b, d.Accounting, hasElsewhere(d), d.Sources, d.Blind, s)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("print diagnosis: %w", err)
	}
	return nil
}
