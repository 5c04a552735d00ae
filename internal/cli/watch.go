package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// watchFlags is the flags of `whydrop watch`.
type watchFlags struct {
	watching
	each     bool
	interval time.Duration
	count    int
}

func (a *app) watchCommand() *cobra.Command {
	var w watchFlags
	c := &cobra.Command{
		Use:   "watch [FILTER]",
		Short: "Show drops as they happen",
		Long: `watch prints, every second, a line for each place, reason, device and namespace
that dropped packets, with the flow that was sampled most; with --each a line
for each sampled drop. The counts are exact, the samples thin out under load.
Ctrl-C ends it and prints how everything is accounted for.

With a FILTER only samples that match are shown, and with --each nothing else.
Without --each a line is shown where a sample of that interval matches: its count
is of all packets of the line, matching or not, because a count has no address. How
many drops had no sample that could tell is said at the end.

` + filterHelp + `

What --pid shows is what FILTER would show of the sockets of a process.

The class of a line is that of its reason and its place. Of --knowledge and of
/etc/whydrop/causes.d watch uses reasons and locations, and no causes, neither
yours nor those that are built in: these need counters and settings, which only
diagnose reads. So a drop that a cause calls benign can be shown here.`,
		Example: `  whydrop watch
  whydrop watch --each udp port 53 and host 10.0.0.7
  whydrop watch --each -i eth0 --count 20
  whydrop watch --reason SOCKET_RCVBUFF --netns blue --duration 1m`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := w.traffic.filterArgs(args); err != nil {
				return err
			}
			if err := w.check(); err != nil {
				return err
			}
			if err := w.checkRead(c, "duration", "interval", "source"); err != nil {
				return err
			}
			if err := w.findProcess(); err != nil {
				return err
			}
			a.hintDevices(&w.watching)
			v, err := a.newViewer(&w)
			if err != nil {
				return err
			}
			if w.file != "" {
				return a.replay(&w, v)
			}
			return a.watch(c.Context(), &w, v)
		},
	}
	w.filterFlags(c)
	w.readFlags(c)
	w.sourceFlag(c)
	w.symbolsFlag(c)
	w.traffic.pidFlag(c)
	f := c.Flags()
	f.BoolVar(&w.each, "each", false, "a line for each sampled drop")
	f.DurationVar(&w.interval, "interval", time.Second, "how often to print")
	f.DurationVar(&w.duration, "duration", 0, "how long to watch (default: until interrupted)")
	f.IntVarP(&w.count, "count", "c", 0, "end after so many intervals; with --each, after so many drops")
	return c
}

func (w *watchFlags) check() error {
	if w.interval == 0 {
		return usage(errors.New("--interval 0s: want a positive duration, such as 1s"))
	}
	if w.count < 0 {
		return usage(fmt.Errorf("--count %d: want a positive number", w.count))
	}
	return checkDurations(map[string]time.Duration{"interval": w.interval, "duration": w.duration})
}

// errEnough ends a watch that has shown what it was asked for.
var errEnough = errors.New("enough was shown")

// viewer prints intervals and adds them up.
type viewer struct {
	app       *app
	flags     *watchFlags
	knowledge *diagnose.Knowledge
	style     report.Style
	total     record.Accounting
	shown     int
	// unsampled are drops of which no sample says whether they are of the FILTER.
	unsampled uint64
}

func (a *app) newViewer(w *watchFlags) (*viewer, error) {
	k, err := a.loadTriage()
	if err != nil {
		return nil, err
	}
	a.hintCauses()
	return &viewer{app: a, flags: w, knowledge: k, style: a.style(w.all)}, nil
}

// hintCauses says that causes of somebody's own are not used, where they were asked
// for and there is nothing else, and that they are not good, where diagnose would
// refuse them. Neither is a reason not to watch.
func (a *app) hintCauses() {
	layers, err := a.ownLayers()
	if err != nil {
		return // loadTriage has said so
	}
	some := false
	for _, l := range layers {
		causes := l.has("causes/*/cause.yaml")
		some = some || causes
		if causes && slices.Contains(a.knowledgeDirs, l.dir) && !l.has("reasons/*.yaml", "locations/*.yaml") {
			fmt.Fprintf(a.err, "whydrop: %s has causes alone, which are for diagnose: watch uses reasons and locations\n", report.Clean(l.dir))
		}
	}
	if !some {
		return
	}
	if _, err := a.loadKnowledge(); err != nil {
		fmt.Fprintf(a.err, "whydrop: %s; diagnose refuses this, watch does not use it\n", report.Clean(err.Error()))
	}
}

// chosen leaves in an interval what the FILTER asks for: the samples that match,
// and the counts of the kinds of drops of which one does.
func (v *viewer) chosen(iv record.Interval) record.Interval {
	focus := v.flags.traffic.focus()
	if focus == nil {
		return iv
	}
	v.flags.traffic.glance()
	sampled, matches := map[record.Key]bool{}, map[record.Key]bool{}
	samples := []record.Drop{}
	for i := range iv.Samples {
		k := unnamed(iv.Samples[i].Key)
		sampled[k] = true
		if focus(&iv.Samples[i]) {
			matches[k] = true
			samples = append(samples, iv.Samples[i])
		}
	}
	counts := []record.Count{}
	for _, c := range iv.Counts {
		k := unnamed(c.Key)
		if matches[k] {
			counts = append(counts, c)
			continue
		}
		if !sampled[k] {
			v.unsampled += c.Drops
		}
		n := min(c.Drops, iv.Accounting.DropsAggregated)
		iv.Accounting.DropsAggregated -= n
		iv.Accounting.DropsFiltered += n
	}
	iv.Counts, iv.Samples = counts, samples
	return iv
}

// unnamed is a key without the names that user space adds, which may be found out
// between a sample and its count.
func unnamed(k record.Key) record.Key {
	k.NetNS.Name, k.Device.Name = "", ""
	return k
}

// blind says what the FILTER could not tell.
func (v *viewer) blind() []record.Blind {
	if v.unsampled == 0 {
		return nil
	}
	return []record.Blind{{
		What: fmt.Sprintf("whether %d drops are of the traffic that was asked for", v.unsampled),
		Why:  "no sample was taken of their kind in that interval, and only samples have addresses",
	}}
}

// interval prints one interval.
func (v *viewer) interval(iv record.Interval) error {
	iv = v.chosen(iv)
	verdicts := v.knowledge.ClassifyCounts(iv.Counts, iv.Samples)
	hidden := diagnose.Tally(iv.Counts, verdicts, diagnose.Options{All: v.flags.all})
	v.total.Add(iv.Accounting)
	v.total.Add(hidden)
	iv.Accounting.Add(hidden)
	if v.flags.each {
		return v.each(iv.Samples)
	}
	classes := make([]record.Class, len(verdicts))
	for i, verdict := range verdicts {
		classes[i] = verdict.Class
	}
	if v.app.json {
		return report.IntervalJSON(v.app.out, iv, classes, v.style)
	}
	return report.Interval(v.app.out, iv, classes, v.style)
}

// each prints the samples of an interval, as far as they are shown.
func (v *viewer) each(drops []record.Drop) error {
	for i := range drops {
		class := v.knowledge.ClassifyDrop(&drops[i]).Class
		if !v.flags.all && !class.Shown() {
			continue
		}
		var err error
		if v.app.json {
			err = report.DropJSON(v.app.out, drops[i], class)
		} else {
			err = report.Each(v.app.out, drops[i], class, v.style)
		}
		if err != nil {
			return err
		}
		if v.shown++; v.shown == v.flags.count {
			return errEnough
		}
	}
	return nil
}

// summary prints what the whole watch comes to: with the other data where a
// program reads it, else beside them on stderr.
func (v *viewer) summary(t report.Total) error {
	t.Accounting = v.total
	t.Blind = addBlind(t.Blind, v.blind())
	if v.app.json {
		return report.SummaryJSON(v.app.out, t)
	}
	if v.flags.file == "" {
		fmt.Fprintln(v.app.progress()) // after the ^C of the terminal
	}
	return report.Summary(v.app.err, t, v.style)
}

func (a *app) watch(ctx context.Context, w *watchFlags, v *viewer) error {
	opt := observe.Options{Interval: w.interval, Rich: w.each, Each: w.each}
	if !w.each {
		opt.Intervals = w.count
	} else if opt.Interval > 200*time.Millisecond {
		opt.Interval = 200 * time.Millisecond // a drop is shown soon after it happened
	}
	s, err := a.start(&w.watching, opt)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintln(a.progress(), "watching for dropped packets, Ctrl-C ends it")
	err = s.Run(ctx, v.interval)
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	h, t := s.Header(), s.Trailer()
	if err := v.summary(report.Total{
		Window:  record.Window{Start: h.Start, End: t.End, Duration: t.End.Sub(h.Start)},
		Sources: t.Sources, Blind: t.Blind,
	}); err != nil {
		return err
	}
	return partial(v.total)
}

// replay shows a recorded file as the watch that it was.
func (a *app) replay(w *watchFlags, v *viewer) error {
	r, done, err := a.openNamed(&w.watching)
	if err != nil {
		return err
	}
	defer done()
	h := r.Header()
	total := report.Total{Window: record.Window{Start: h.Start}, Sources: h.Sources, Blind: h.Blind}
	var end, readErr error
	seen := keys{}
	drops, blind := w.filter.Recorded(h.Sources)
	defer func() { a.hintUnmatched(w.file, drops, seen) }()
	n := 0
	for end == nil {
		var iv record.Interval
		if iv, readErr = r.Next(); readErr != nil {
			end = readErr
			break
		}
		total.Window.End = iv.Window.End
		seen.add(iv)
		end = v.interval(filterInterval(iv, drops))
		if n++; end == nil && !w.each && n == w.count {
			end = errEnough
		}
	}
	if t, ok := r.Trailer(); ok {
		total.Sources, total.Blind, total.Window.End = t.Sources, t.Blind, t.End
	}
	total.Blind = addBlind(total.Blind, blind)
	total.Window.Duration = max(0, total.Window.End.Sub(h.Start))
	if err := v.summary(total); err != nil {
		return err
	}
	switch {
	case errors.Is(end, io.EOF), errors.Is(end, errEnough):
		return partial(v.total)
	case errors.Is(end, record.ErrTruncated), readErr != nil && n > 0:
		return &exitError{exitPartial, fmt.Errorf("%s: %w", w.file, end)}
	}
	return usage(fmt.Errorf("%s: %w", w.file, end))
}
