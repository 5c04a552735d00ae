package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// labMatrix is what was found for what was provoked: the last that `whydrop lab
// run all -j` prints.
type labMatrix struct {
	// Type is typeMatrix.
	Type          string `json:"type"`
	SchemaVersion int    `json:"schema_version"`
	// Rows are the scenarios in their order, Columns the causes that were found
	// for any of them.
	Rows    []labMatrixRow `json:"rows"`
	Columns []string       `json:"columns"`
	// Right are the scenarios whose first finding was the cause, Wrong the
	// others, Skipped those that did not run.
	Right   int `json:"right"`
	Wrong   int `json:"wrong"`
	Skipped int `json:"skipped"`
	// Cured are the scenarios in which a command ended the loss, Repaired those
	// in which the scenario itself did what the remedy says, Refused those whose
	// command would have changed more than the lab's namespace.
	Cured    int `json:"cured"`
	Repaired int `json:"repaired"`
	Refused  int `json:"refused"`
}

// typeMatrix is the type of a labMatrix in JSON.
const typeMatrix = "matrix"

// labMatrixRow is what was found for one scenario.
type labMatrixRow struct {
	// Truth is the scenario, Cause the id that should have been found.
	Truth string `json:"truth"`
	Cause string `json:"cause"`
	// Found has the packets of each cause that was found, First is the first.
	Found map[string]uint64 `json:"found"`
	First string            `json:"first"`
	// Forbidden are those of Found that the scenario only looks like.
	Forbidden []string `json:"forbidden"`
	Skipped   string   `json:"skipped,omitempty"`
}

func newLabMatrix() *labMatrix {
	return &labMatrix{Type: typeMatrix, SchemaVersion: record.SchemaVersion, Rows: []labMatrixRow{}, Columns: []string{}}
}

// add adds the row of a result.
func (m *labMatrix) add(r labResult) {
	want, _ := lab.Expected(r.Scenario) // of one that there is none of nothing is expected
	row := labMatrixRow{Truth: r.Scenario, Cause: want.Cause, Found: map[string]uint64{}, Forbidden: []string{}, Skipped: r.Skipped}
	for i, f := range r.Diagnosis.Findings {
		if i == 0 {
			row.First = f.Cause
		}
		row.Found[f.Cause] += f.Drops
		if slices.Contains(want.Forbidden, f.Cause) && !slices.Contains(row.Forbidden, f.Cause) {
			row.Forbidden = append(row.Forbidden, f.Cause)
		}
		if !slices.Contains(m.Columns, f.Cause) {
			m.Columns = append(m.Columns, f.Cause)
		}
	}
	slices.Sort(m.Columns)
	m.Rows = append(m.Rows, row)
	switch {
	case r.Skipped != "":
		m.Skipped++
	case row.right():
		m.Right++
	default:
		m.Wrong++
	}
	switch c := r.Remedy; {
	case c == nil:
	case c.Command != nil && c.Command.Refused != "":
		m.Refused++
	case !c.Tried || len(c.mismatch()) > 0:
	case c.Kind == lab.RemedyCommand:
		m.Cured++
	default:
		m.Repaired++
	}
}

// right says whether what was provoked was found first, and nothing that it only
// looks like.
func (r labMatrixRow) right() bool { return r.First == r.Cause && len(r.Forbidden) == 0 }

// labMatrix prints the matrix: as text the rows that are not as they should be
// in full, as nothing is to be seen in a hundred columns.
func (a *app) labMatrix(m *labMatrix) error {
	if a.json {
		return report.JSON(a.out, m)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-26s %s\n", "provoked", "found, with packets")
	for _, r := range m.Rows {
		fmt.Fprintf(&b, "%-26s %s\n", report.Clean(r.Truth), report.Clean(r.text()))
	}
	fmt.Fprintf(&b, "\n%d right, %d wrong, %d skipped. Remedies: %d commands and %d repairs ended the loss, %d commands were not run as they reach further than the lab.\n",
		m.Right, m.Wrong, m.Skipped, m.Cured, m.Repaired, m.Refused)
	_, err := a.out.Write([]byte(b.String()))
	return err
}

// text is the row's causes, that with most packets first.
func (r labMatrixRow) text() string {
	if r.Skipped != "" {
		return "(skipped)"
	}
	causes := slices.SortedFunc(maps.Keys(r.Found), func(x, y string) int {
		return cmp.Or(cmp.Compare(r.Found[y], r.Found[x]), cmp.Compare(x, y))
	})
	var parts []string
	for _, c := range causes {
		part := fmt.Sprintf("%s %d", c, r.Found[c])
		switch {
		case slices.Contains(r.Forbidden, c):
			part += " FORBIDDEN"
		case c == r.First && c != r.Cause:
			part += " WRONG, want " + r.Cause
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "nothing, want " + r.Cause
	}
	return strings.Join(parts, ", ")
}
