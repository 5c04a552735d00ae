package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// How --until-loss waits.
const (
	// lossPiece is how much of the time before a loss is kept: the counters are
	// read anew as often. It is also how soon a loss is noticed that no drop event
	// tells of.
	lossPiece = 30 * time.Second
	// lossQuiet is how long no more of it must come until the loss is diagnosed,
	// lossMost how long that is waited for.
	lossQuiet = 3 * time.Second
	lossMost  = 30 * time.Second
	// lossForgives is how long a kind of drop is not waited for any more that the
	// diagnosis has found to be no loss.
	lossForgives = 10 * time.Minute
	// maxForgiven bounds how many such kinds are known, pieceSamples the samples of
	// a piece.
	maxForgiven  = 10_000
	pieceSamples = 10_000
)

// untilLoss waits for a loss and says why it was.
func (a *app) untilLoss(ctx context.Context, f *diagnoseFlags, k *diagnose.Knowledge) error {
	f.duration = 0
	w := &waiter{app: a, flags: &f.watching, knowledge: k, begin: time.Now(), every: lossPiece, forgiven: map[string]time.Time{}}
	whole := ctx
	ctx, cancel := context.WithDeadline(ctx, w.begin.Add(f.timeout))
	defer cancel()
	stop := a.countdown(f.timeout)
	o, found, err := w.wait(ctx, whole)
	stop()
	err = errors.Join(err, w.partial)
	if o == nil {
		return err
	}
	kept := f.keep(o) // first, as diagnose does
	if !found {
		d := w.nothing(o)
		return errors.Join(a.printDiagnosis(d, &f.watching), err, kept, partial(d.Accounting))
	}
	if !a.quiet {
		fmt.Fprintf(a.err, "whydrop: loss after %s of waiting\n", time.Since(w.begin).Round(time.Second))
	}
	return errors.Join(a.verdict(o, k, &f.watching), err, kept)
}

// nothing is the diagnosis of a wait without a loss, of which o is the last piece:
// it is of the whole time.
func (w *waiter) nothing(o *record.Observation) record.Diagnosis {
	whole := *o
	whole.Window = record.Window{Start: w.begin, End: o.Window.End, Duration: o.Window.End.Sub(w.begin)}
	whole.Accounting = w.total
	d := w.flags.judge(&whole, w.knowledge)
	a := &d.Accounting
	a.DropsExplained, a.DropsUnexplained = w.hidden.DropsExplained, w.hidden.DropsUnexplained
	a.DropsHiddenBenign, a.DropsHiddenExpected = w.hidden.DropsHiddenBenign, w.hidden.DropsHiddenExpected
	if shown := a.DropsAggregated - min(a.DropsAggregated, a.DropsHiddenBenign+a.DropsHiddenExpected); d.Elsewhere != nil && len(w.forgiven) == 0 {
		d.Elsewhere.Drops = max(d.Elsewhere.Drops, shown)
	}
	if w.gap > 0 {
		d.Blind = append(d.Blind, record.Blind{
			What: fmt.Sprintf("loss in %s of this time", w.gap.Round(time.Millisecond)),
			Why:  "drops that turned out to be no loss were looked into, and nothing was watched meanwhile",
		})
	}
	if w.pieces > 1 {
		what := "no loss"
		if d.Elsewhere != nil {
			what = "no loss of this traffic"
		}
		d.Checked = append(d.Checked, fmt.Sprintf("what is said of counters is of the last %s; the time before was looked at in pieces, and %s was found in any",
			o.Window.Duration.Round(time.Second), what))
	}
	d.Counters = []record.Counter{}
	d.Ledger = record.Ledger{Stations: []record.StationLoss{}, Entries: []record.LedgerEntry{}}
	return d
}

// waiter watches until there is a loss. It keeps no more than the last piece.
type waiter struct {
	app       *app
	flags     *watching
	knowledge *diagnose.Knowledge
	begin     time.Time
	// every is how long a piece is.
	every time.Duration
	// total and hidden are the books of all that was watched.
	total, hidden record.Accounting
	// partial says that only counters were read.
	partial error
	// ended is when the last session ended, gap how long there was none in all.
	ended time.Time
	gap   time.Duration
	// forgiven are the kinds of drops that were found to be no loss, and when.
	forgiven map[string]time.Time

	session *observe.Session
	piece   *keeper
	pieces  int
	// since is when the piece began, loss and last when the first and the last drop
	// came in it that may be a loss; zero without one.
	since, loss, last time.Time
	// suspects are the kinds of those.
	suspects map[string]bool
	// cancel ends the session, ends says whether it ends.
	cancel func()
	ends   func() error
}

// wait watches until a loss or the end of ctx. found says that it was a loss; the
// observation is the last piece.
func (w *waiter) wait(ctx, whole context.Context) (o *record.Observation, found bool, err error) {
	for {
		o, err = w.watch(ctx)
		if o == nil {
			return nil, false, err
		}
		ask(whole, o, w.knowledge)
		if hasLoss(w.flags.judge(o, w.knowledge)) {
			return o, true, err
		}
		if ctx.Err() != nil || err != nil {
			return o, false, err
		}
		w.forgive(time.Now())
	}
}

// watch is one session: it ends with a loss, or with ctx.
func (w *waiter) watch(ctx context.Context) (*record.Observation, error) {
	s, err := w.app.start(w.flags, observe.Options{Interval: time.Second, Counters: true})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	ctx, w.cancel = context.WithCancel(ctx)
	defer w.cancel()
	w.ends = ctx.Err
	w.session = s
	w.resume(s.Header().Start)
	w.flags.header = s.Header()
	w.fresh(s.Header())
	err = s.Run(ctx, w.interval)
	t := s.Trailer()
	w.ended = t.End
	o := w.piece.collector.Finish(t)
	o.Blind = addBlind(o.Blind, w.flags.traffic.look())
	w.partial = w.flags.unwatched(s)
	return &o, err
}

// resume notes how long nothing was watched until a session begins.
func (w *waiter) resume(begin time.Time) {
	if !w.ended.IsZero() {
		w.gap += max(0, begin.Sub(w.ended))
	}
}

// fresh begins a piece and forgets the one before.
func (w *waiter) fresh(h record.Header) {
	w.piece, w.since = newKeeper(h), h.Start
	w.pieces++
	w.piece.collector.MaxSamples = pieceSamples
	w.loss, w.last, w.suspects = time.Time{}, time.Time{}, map[string]bool{}
}

// interval takes what came in a second, and decides whether to go on.
func (w *waiter) interval(iv record.Interval) error {
	w.flags.traffic.glance()
	w.take(iv)
	now := iv.Window.End
	switch {
	case w.ends() != nil: // this was the last
	case w.over(now):
		w.cancel() // what comes until the end is taken too
	case w.loss.IsZero() && now.Sub(w.since) >= w.every:
		return w.look()
	}
	return nil
}

// take adds an interval to the piece and to the books.
func (w *waiter) take(iv record.Interval) {
	w.piece.add(iv)
	w.total.Add(iv.Accounting)
	verdicts := w.knowledge.ClassifyCounts(iv.Counts, iv.Samples)
	w.hidden.Add(diagnose.Tally(iv.Counts, verdicts, diagnose.Options{}))
	wanted := w.wanted(iv.Samples)
	for i, v := range verdicts {
		if v.Class.Shown() && (wanted == nil || wanted[suspectOf(iv.Counts[i].Key)]) {
			w.suspect(suspectOf(iv.Counts[i].Key), iv.Window.End)
		}
	}
}

// wanted are the kinds of drops with a sample of the traffic that was asked for;
// nil is all.
func (w *waiter) wanted(samples []record.Drop) map[string]bool {
	focus := w.flags.traffic.focus()
	if focus == nil {
		return nil
	}
	kinds := map[string]bool{}
	for i := range samples {
		if focus(&samples[i]) {
			kinds[suspectOf(samples[i].Key)] = true
		}
	}
	return kinds
}

// suspectOf names a kind of drop.
func suspectOf(k record.Key) string {
	return fmt.Sprintf("%s/%s at %s+%d in %d", k.Reason.Subsystem, k.Reason.Name, k.Location.Symbol, k.Location.Offset, k.NetNS.Inode)
}

// suspect notes what may be a loss, unless it was found to be none.
func (w *waiter) suspect(kind string, now time.Time) {
	if at, ok := w.forgiven[kind]; ok && now.Sub(at) < lossForgives {
		return
	}
	w.suspects[kind] = true
	if w.loss.IsZero() {
		w.loss = now
	}
	w.last = now
}

// over says whether a loss is over, or goes on for too long to be waited for.
func (w *waiter) over(now time.Time) bool {
	return !w.loss.IsZero() && (now.Sub(w.last) >= lossQuiet || now.Sub(w.loss) >= lossMost)
}

// forgive remembers that what was suspected is no loss.
func (w *waiter) forgive(now time.Time) {
	for kind, at := range w.forgiven {
		if now.Sub(at) >= lossForgives {
			delete(w.forgiven, kind)
		}
	}
	for kind := range w.suspects {
		if len(w.forgiven) < maxForgiven {
			w.forgiven[kind] = now
		}
	}
}

// look reads the counters at the end of a piece. A loss that they show is waited
// for as one of drops is; without one the next piece begins.
func (w *waiter) look() error {
	edge := record.Interval{}
	t, err := w.session.Look(func(iv record.Interval) error {
		edge = iv
		w.take(iv)
		return nil
	})
	if err != nil {
		return err
	}
	if w.loss.IsZero() {
		for _, f := range w.losses(t) {
			w.suspect(f, t.End)
		}
	}
	if !w.loss.IsZero() {
		return nil
	}
	// What came while the counters were read may be counted by either.
	w.fresh(w.session.Roll())
	w.piece.add(edge)
	return nil
}

// losses names those that the counters of a piece show beside its drops.
func (w *waiter) losses(t record.Trailer) []string {
	o := w.piece.collector.Finish(t)
	var list []string
	for _, f := range w.flags.judge(&o, w.knowledge).Findings {
		if f.Class.Shown() {
			what := fmt.Sprintf("%s at %s in %q on %q", f.Cause, f.Station, f.NetNS, f.Devices)
			if len(f.Evidence) > 0 {
				what += " by " + f.Evidence[0].Name
			}
			list = append(list, what)
		}
	}
	return list
}
