package kernel

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// UnknownReasonError is the error for a name that is no reason of this kernel.
type UnknownReasonError struct {
	Name string
	// Nearest are at most three names that look like it, best first.
	Nearest []string
	// Why is not nil where this kernel's names are not known at all.
	Why error
}

func (e *UnknownReasonError) Error() string {
	s := fmt.Sprintf("reason %q: this kernel has no such drop reason", e.Name)
	if e.Why != nil {
		return fmt.Sprintf("reason %q: names are not known here (a number works): %v", e.Name, e.Why)
	}
	if len(e.Nearest) > 0 {
		s += "; did you mean " + strings.Join(e.Nearest, " or ") + "?"
	}
	return s
}

func (e *UnknownReasonError) Unwrap() error { return e.Why }

// Parse finds the reasons that a person means by name: the kernel's name in
// any case, with or without SKB_DROP_REASON_, or the number. Several
// subsystems may have the name. The error is an *UnknownReasonError.
func (r *Reasons) Parse(name string) ([]record.Reason, error) {
	if value, err := strconv.ParseUint(name, 0, 32); err == nil {
		reason := r.Lookup(uint32(value))
		reason.Value = uint32(value)
		return []record.Reason{reason}, nil
	}
	wanted := strings.TrimPrefix(strings.ToUpper(name), reasonPrefix)
	known := r.Names()
	var found []record.Reason
	for _, reason := range known {
		if strings.EqualFold(reason.Name, wanted) {
			found = append(found, reason)
		}
	}
	if found != nil {
		return found, nil
	}
	err := &UnknownReasonError{Name: name, Nearest: nearest(wanted, known)}
	if len(known) == 0 {
		err.Why = r.why
	}
	return nil, err
}

// nearest returns the names that contain wanted or differ from it little.
func nearest(wanted string, known []record.Reason) []string {
	type candidate struct {
		name     string
		distance int
	}
	var candidates []candidate
	for _, reason := range known {
		name := strings.ToUpper(reason.Name)
		d := distance(wanted, name)
		switch {
		case len(wanted) >= 3 && strings.Contains(name, wanted):
			d = min(d, 1)
		case d > max(2, len(wanted)/3):
			continue
		}
		candidates = append(candidates, candidate{reason.Name, d})
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.distance, b.distance) })
	names := make([]string, 0, 3)
	for _, c := range candidates {
		if len(names) < cap(names) && !slices.Contains(names, c.name) {
			names = append(names, c.name)
		}
	}
	return names
}

// distance is Levenshtein's, of bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
