package observe

import (
	"context"
	"errors"
	"time"

	"github.com/whydrop/whydrop/record"
)

// Header says what is known from the start.
func (s *Session) Header() record.Header {
	h := s.header
	h.Sources, h.Blind = s.books()
	return h
}

// Run watches and hands every interval to sink, until the context is done,
// the duration or the number of intervals is over, or sink returns an error.
// The last interval may be shorter. After it the kernel holds nothing of ours
// any more.
func (s *Session) Run(ctx context.Context, sink func(record.Interval) error) error {
	var end time.Time
	if s.opt.Duration > 0 {
		end = s.since.Add(s.opt.Duration)
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end)
		defer cancel()
	}
	ticks := time.NewTicker(min(tick, s.opt.Interval))
	defer ticks.Stop()
	next := s.since.Add(s.opt.Interval)
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return s.finish(sink)
		case <-ticks.C:
		}
		if err := s.source.poll(s.take); err != nil {
			return errors.Join(err, s.finish(sink))
		}
		// An interval that would end with the watching is left to finish.
		if now := time.Now(); now.Before(next) || !end.IsZero() && end.Sub(now) < tick {
			continue
		}
		if n++; s.opt.Intervals > 0 && n >= s.opt.Intervals {
			return s.finish(sink)
		}
		if err := s.flush(sink); err != nil {
			return errors.Join(err, s.Close())
		}
		for !next.After(s.since) {
			next = next.Add(s.opt.Interval)
		}
	}
}

// finish reads the counters, detaches, then reports what came in until then.
func (s *Session) finish(sink func(record.Interval) error) error {
	if s.counters != nil {
		s.trailer.Counters = s.counters.end()
		s.trailer.CountersWindow = s.counters.window()
	}
	err := s.source.detach()
	err = errors.Join(err, s.flush(sink), s.addOwn(&s.trailer))
	return errors.Join(err, s.Close())
}

// addOwn adds the counters that the source of the drops has of its own. Read after
// the drops, they lack none of them.
func (s *Session) addOwn(t *record.Trailer) error {
	p, ok := s.source.(*skbDrop)
	if !ok {
		return nil
	}
	list, err := p.own(s.names, s.match.netns)
	t.Counters = append(t.Counters, list...)
	return err
}

// Close ends the watching. It may be called more than once.
func (s *Session) Close() error {
	s.counters.close()
	if s.trailer.End.IsZero() {
		s.trailer.End = time.Now()
	}
	return errors.Join(s.source.close(), s.symbols.close())
}

// Trailer says what was learned by the end. Call it after Run.
func (s *Session) Trailer() record.Trailer {
	t := s.trailer
	t.Sources, t.Blind = s.books()
	return t
}

// take keeps a sample, as far as there is room and it is asked for.
func (s *Session) take(k record.Key, whole func() record.Drop) {
	s.pending.Accounting.Samples++
	if len(s.pending.Samples) < maxSamples && s.match.Match(k) {
		s.pending.Samples = append(s.pending.Samples, whole())
	}
}

// flush hands the pending interval to sink and begins the next.
func (s *Session) flush(sink func(record.Interval) error) error {
	counts := []record.Count{}
	var aggregated, filtered uint64
	merged := map[record.Key]int{} // the CPUs' counts of a key become one
	err := s.source.drain(s.take, func(k record.Key, drops, bytes uint64) {
		if !s.match.Match(k) {
			filtered += drops
			return
		}
		aggregated += drops
		i, ok := merged[k]
		if !ok {
			i = len(counts)
			merged[k] = i
			counts = append(counts, record.Count{Key: k})
		}
		counts[i].Drops += drops
		counts[i].Bytes += bytes
	})
	if err != nil {
		return err
	}
	now, err := s.source.lost()
	if err != nil {
		return err
	}
	iv := s.pending
	iv.Counts = counts
	if iv.Samples == nil {
		iv.Samples = []record.Drop{}
	}
	a := &iv.Accounting
	now.since(s.lost, a)
	a.DropsAggregated, a.DropsFiltered = aggregated, filtered
	a.DropsSeen = aggregated + filtered + a.MapFull + a.DropsUnattributed + a.DropsLost
	s.lost = now

	end := time.Now()
	iv.Window = record.Window{Start: s.since, End: end, Duration: end.Sub(s.since)}
	s.since = end
	s.pending = record.Interval{}
	return sink(iv)
}

// ProgramType says which type of eBPF program watches; empty where none does.
func (s *Session) ProgramType() string {
	if p, ok := s.source.(*skbDrop); ok {
		return p.probe.ProgramType()
	}
	return ""
}
