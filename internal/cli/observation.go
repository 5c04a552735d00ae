package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// observation watches and reads the facts that this leaves open, or reads a
// file. With a file that ends early it returns what there is, and an error.
func (a *app) observation(ctx context.Context, w *watching, k *diagnose.Knowledge) (*record.Observation, error) {
	if w.file != "" {
		return a.readObservation(w)
	}
	s, err := a.start(w, observe.Options{Interval: time.Second, Counters: true})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	w.header = s.Header()
	c := record.NewCollector(w.header)
	stop := a.countdown(w.duration)
	err = s.Run(ctx, func(iv record.Interval) error {
		c.Add(iv)
		w.traffic.glance()
		return nil
	})
	stop()
	o := c.Finish(s.Trailer())
	o.Blind = addBlind(o.Blind, w.traffic.look())
	ask(ctx, &o, k)
	return &o, errors.Join(err, w.unwatched(s))
}

// maxRounds bounds how often facts lead to further ones, such as a socket's
// state to its owner.
const maxRounds = 3

// ask reads the facts that decide between the causes that o leaves possible.
// An interruption, or observe.FactsTime, ends it: the facts that are not read
// by then say so.
func ask(ctx context.Context, o *record.Observation, k *diagnose.Knowledge) {
	ctx, stop := afterwards(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, observe.FactsTime) // for all rounds
	defer cancel()
	asked := map[record.FactRequest]bool{}
	for range maxRounds {
		var open []record.FactRequest
		for _, r := range diagnose.Wants(o, k) {
			if !asked[r] {
				asked[r] = true
				open = append(open, r)
			}
		}
		if len(open) == 0 {
			return
		}
		facts, blind := observe.Facts(ctx, open)
		o.Facts = append(o.Facts, facts...)
		o.Blind = addBlind(o.Blind, blind)
	}
}

// afterwards is a context for what follows watching. The interruption that
// ended the watching does not end that, too; the next one does.
func afterwards(ctx context.Context) (_ context.Context, stop func()) {
	if ctx.Err() == nil {
		return ctx, func() {}
	}
	ctx, stop = signal.NotifyContext(context.WithoutCancel(ctx), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // one more ends the program
	return ctx, stop
}

func (a *app) readObservation(w *watching) (*record.Observation, error) {
	r, done, err := a.openNamed(w)
	if err != nil {
		return nil, err
	}
	defer done()
	w.header = r.Header()
	c := record.NewCollector(w.header)
	seen := keys{}
	drops, blind := w.filter.Recorded(r.Header().Sources)
	defer func() { a.hintUnmatched(w.file, drops, seen) }()
	var end error
	for n := 0; ; n++ {
		iv, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, record.ErrTruncated) || err != nil && n > 0 {
			// What came before it is good.
			end = &exitError{exitPartial, fmt.Errorf("%s: %w", w.file, err)}
			break
		}
		if err != nil {
			return nil, usage(fmt.Errorf("%s: %w", w.file, err))
		}
		seen.add(iv)
		c.Add(filterInterval(iv, drops))
	}
	// A record that ends early has none; what a capture's books say holds.
	t, _ := r.Trailer()
	o := c.Finish(filterTrailer(t, w.filter))
	o.Blind = addBlind(o.Blind, blind)
	return &o, end
}

// addBlind adds what is not there yet: a record may have been made with a filter
// already.
func addBlind(list, more []record.Blind) []record.Blind {
	for _, b := range more {
		if !slices.Contains(list, b) {
			list = append(list, b)
		}
	}
	return list
}

// filterTrailer leaves out the counters and facts of namespaces that the
// filter does not ask for, and keeps those of the whole host.
func filterTrailer(t record.Trailer, f observe.Filter) record.Trailer {
	spaces := observe.Filter{NetNS: f.NetNS}
	left := func(ns record.NetNS) bool { return ns.Inode != 0 && !spaces.Match(record.Key{NetNS: ns}) }
	t.Counters = slices.DeleteFunc(t.Counters, func(c record.Counter) bool { return left(c.NetNS) })
	t.Facts = slices.DeleteFunc(t.Facts, func(f record.Fact) bool { return left(f.NetNS) })
	return t
}

// filterInterval leaves out what the filter does not ask for, and accounts
// for it.
func filterInterval(iv record.Interval, f observe.Filter) record.Interval {
	out := iv
	out.Counts, out.Samples = []record.Count{}, []record.Drop{}
	for _, c := range iv.Counts {
		if f.Match(c.Key) {
			out.Counts = append(out.Counts, c)
			continue
		}
		// A file may claim anything: never below zero.
		n := min(c.Drops, out.Accounting.DropsAggregated)
		out.Accounting.DropsAggregated -= n
		out.Accounting.DropsFiltered += n
	}
	for _, d := range iv.Samples {
		if f.Match(d.Key) {
			out.Samples = append(out.Samples, d)
		}
	}
	return out
}

// countdown shows on a terminal how long it still takes; the returned
// function ends that and clears the line.
func (a *app) countdown(d time.Duration) (stop func()) {
	out := a.progress()
	if out == io.Discard {
		return func() {}
	}
	end := time.Now().Add(d)
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(time.Second / 4)
		defer t.Stop()
		for {
			left := max(0, time.Until(end)).Round(time.Second)
			fmt.Fprintf(out, "\rwatching for dropped packets, %s left (Ctrl-C ends it early) ", left)
			select {
			case <-done:
				fmt.Fprint(out, "\r\x1b[K")
				return
			case <-t.C:
			}
		}
	}()
	return func() { close(done); <-gone }
}
