package observe

import (
	"errors"
	"time"

	"github.com/whydrop/whydrop/record"
)

var errNoDrops = errors.New("-i and --reason choose drops, and with --source counters none is watched")

// nothing is the source that sees no drop, where counters alone are read.
type nothing struct {
	start time.Time
	asked bool
}

// openNothing always works. A filter by device or reason chooses drops, of which
// there are none: who asks for both is told.
func openNothing(s *site) (*opened, error) {
	n := &nothing{start: time.Now(), asked: s.opt.Source == ChooseCounters}
	f := s.opt.Filter
	if n.asked && len(f.Interfaces)+len(f.Reasons) > 0 {
		return nil, &FilterError{errNoDrops}
	}
	only, err := f.spaces(s.names)
	if err != nil {
		return nil, err
	}
	return &opened{dropSource: n, match: matcher{netns: only}}, nil
}

func (n *nothing) name() string                      { return SourceCounters }
func (n *nothing) began() time.Time                  { return n.start }
func (n *nothing) describe(*record.Kernel)           {}
func (n *nothing) poll(sampleFunc) error             { return nil }
func (n *nothing) drain(sampleFunc, countFunc) error { return nil }
func (n *nothing) lost() (losses, error)             { return losses{}, nil }
func (n *nothing) detach() error                     { return nil }
func (n *nothing) close() error                      { return nil }

// books have no entry of its own: the counters have one.
func (n *nothing) books() (record.Source, []record.Blind) {
	b := record.Blind{
		What: "drops: where in the kernel, why, and whose packets",
		Why:  "no source that sees them works here, only counters were read",
	}
	var src record.Source
	if n.asked {
		b.Why, b.Fix = "only counters were asked for", "whydrop without --source counters watches them"
		src = record.Source{Name: SourceSkbDrop, State: record.SourceOff, Why: "only counters were asked for"}
	}
	return src, []record.Blind{b}
}
