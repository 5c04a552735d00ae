package observe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whydrop/whydrop/internal/probe/skbdrop"
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
		if err := s.collectSamples(); err != nil {
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
	err := s.probe.Detach()
	err = errors.Join(err, s.collectSamples(), s.flush(sink))
	return errors.Join(err, s.Close())
}

// Close ends the watching. It may be called more than once.
func (s *Session) Close() error {
	s.counters.close()
	if s.probe == nil {
		return nil
	}
	err := s.probe.Close()
	s.probe = nil
	s.trailer.End = time.Now()
	return err
}

// Trailer says what was learned by the end. Call it after Run.
func (s *Session) Trailer() record.Trailer {
	t := s.trailer
	t.Sources, t.Blind = s.books()
	return t
}

// collectSamples fetches the samples that have arrived and grants new ones.
func (s *Session) collectSamples() error {
	return errors.Join(s.readSamples(), s.probe.Tick())
}

func (s *Session) readSamples() error {
	return s.probe.Samples(func(raw *skbdrop.Sample) {
		s.resolve.learn(raw)
		s.pending.Accounting.Samples++
		if len(s.pending.Samples) >= maxSamples || !s.match.Match(s.resolve.key(raw.Key)) {
			return
		}
		s.pending.Samples = append(s.pending.Samples, s.resolve.drop(raw))
	})
}

// rawCount is a count that has no names yet.
type rawCount struct {
	key          skbdrop.Key
	drops, bytes uint64
}

// flush hands the pending interval to sink and begins the next.
func (s *Session) flush(sink func(record.Interval) error) error {
	s.resolve.refresh()
	s.raw = s.raw[:0]
	s.probe.Counts(func(k skbdrop.Key, drops, bytes uint64) {
		s.raw = append(s.raw, rawCount{k, drops, bytes})
	})
	// After the counts, so that for each of them the sample that names its
	// device has been read.
	if err := s.readSamples(); err != nil {
		return err
	}
	iv := s.pending
	iv.Counts = []record.Count{}
	if iv.Samples == nil {
		iv.Samples = []record.Drop{}
	}
	a := &iv.Accounting
	merged := map[record.Key]int{} // the CPUs' counts of a key become one
	for _, raw := range s.raw {
		k := s.resolve.key(raw.key)
		if !s.match.Match(k) {
			a.DropsFiltered += raw.drops
			continue
		}
		a.DropsAggregated += raw.drops
		i, ok := merged[k]
		if !ok {
			i = len(iv.Counts)
			merged[k] = i
			iv.Counts = append(iv.Counts, record.Count{Key: k})
		}
		iv.Counts[i].Drops += raw.drops
		iv.Counts[i].Bytes += raw.bytes
	}
	now, err := s.probe.Stats()
	if err != nil {
		return fmt.Errorf("account for drops: %w", err)
	}
	a.MapFull = now.TableFull - s.stats.TableFull
	a.DropsUnattributed = now.Unattributed - s.stats.Unattributed
	a.SamplesLost = now.SamplesLost - s.stats.SamplesLost
	a.DecodeErrors = now.DecodeErrors - s.stats.DecodeErrors
	a.DropsSeen = a.DropsAggregated + a.DropsFiltered + a.MapFull + a.DropsUnattributed
	s.stats = now

	end := time.Now()
	iv.Window = record.Window{Start: s.since, End: end, Duration: end.Sub(s.since)}
	s.since = end
	s.pending = record.Interval{}
	return sink(iv)
}

// ProgramType says which type of eBPF program watches.
func (s *Session) ProgramType() string { return s.probe.ProgramType() }
