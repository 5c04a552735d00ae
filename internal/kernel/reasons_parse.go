package kernel

import (
	"fmt"
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
	names := make([]string, len(known))
	for i, reason := range known {
		names[i] = reason.Name
	}
	err := &UnknownReasonError{Name: name, Nearest: Nearest(wanted, names, 3, strings.ToUpper)}
	if len(known) == 0 {
		err.Why = r.why
	}
	return nil, err
}
