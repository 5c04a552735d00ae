package observe

import (
	"errors"
	"time"

	"github.com/whydrop/whydrop/record"
)

// Look reads the counters, then hands what came in until then to sink, as the end
// of the watching does; but the watching goes on. What it returns says what the
// counters did since the watching began, or since Roll. It may be called by the
// sink of Run only, and with Options.Counters only.
func (s *Session) Look(sink func(record.Interval) error) (record.Trailer, error) {
	lasting := s.counters.lacks.clone()
	t := record.Trailer{Counters: s.counters.end(), CountersWindow: s.counters.window()}
	err := errors.Join(s.flush(sink), s.addOwn(&t))
	t.End = time.Now()
	t.Sources, t.Blind = s.books()
	s.counters.lacks = lasting // what passes between two looks is said once
	return t, err
}

// Roll makes the last Look the beginning of what the next one tells. It returns
// what a record begins with that begins there.
func (s *Session) Roll() record.Header {
	s.counters.roll()
	if p, ok := s.source.(*skbDrop); ok {
		p.roll()
	}
	s.counters.began = s.counters.ended
	h := s.Header()
	h.Start = s.counters.began
	return h
}
