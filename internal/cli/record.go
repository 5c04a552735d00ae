package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

func (a *app) recordCommand() *cobra.Command {
	var w watching
	var file string
	var interval time.Duration
	c := &cobra.Command{
		Use:   "record -w FILE",
		Short: "Watch and write a file, to be read on any machine",
		Long: `record watches until it is interrupted, or for --duration, and writes what it
sees to a file, at its end also the counters and the settings that a diagnosis
needs. "whydrop diagnose -r FILE" and "whydrop watch -r FILE" read it, on any
machine and without root. The file holds addresses, the first bytes of sampled
packets, and names of processes.`,
		Example: `  whydrop record -w drops.whydrop --duration 1m
  whydrop diagnose -r drops.whydrop`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if file == "" {
				return usage(errors.New("record: name the file to write: -w FILE"))
			}
			if err := checkDurations(map[string]time.Duration{"duration": w.duration, "interval": interval}); err != nil {
				return err
			}
			if err := errors.Join(checkNames(c), w.checkSymbols(c)); err != nil {
				return err
			}
			k, err := a.loadKnowledge()
			if err != nil {
				return err
			}
			out, err := a.openOutput(file)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, out.close()) }()
			s, err := a.start(&w, observe.Options{Interval: interval, Rich: true, Counters: true})
			if err != nil {
				return err
			}
			defer s.Close()
			return errors.Join(a.write(c.Context(), s, out, k), w.unwatched(s))
		},
	}
	w.filterFlags(c)
	w.sourceFlag(c)
	w.symbolsFlag(c)
	c.Flags().StringVarP(&file, "write", "w", "", "the `file` to write; - is standard output")
	c.Flags().DurationVar(&w.duration, "duration", 0, "how long to watch (default: until interrupted)")
	c.Flags().DurationVar(&interval, "interval", time.Second, "how often to write what was counted")
	return c
}

// output is the file of a recording, or standard output.
type output struct {
	path  string
	out   io.Writer
	file  *os.File // nil for standard output
	fresh bool     // the file was not there before
	begun bool
}

// openOutput opens what a recording is written to. What the file holds stays
// until begin: nothing is lost where nothing can be watched.
func (a *app) openOutput(path string) (*output, error) {
	if path == "-" {
		return &output{path: "standard output", out: a.out}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	fresh := err == nil
	if errors.Is(err, fs.ErrExist) {
		f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	}
	if err != nil {
		return nil, usage(err)
	}
	return &output{path: path, out: f, file: f, fresh: fresh}, nil
}

// begin empties the file.
func (o *output) begin() error {
	o.begun = true
	if o.file == nil {
		return nil
	}
	st, err := o.file.Stat()
	if err == nil && st.Mode().IsRegular() { // no pipe, no device
		err = o.file.Truncate(0)
	}
	return o.wrap(err)
}

func (o *output) wrap(err error) error {
	if err != nil {
		err = fmt.Errorf("write %s: %w", o.path, err)
	}
	return err
}

// close closes the file, and removes one that was made for nothing.
func (o *output) close() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if o.fresh && !o.begun {
		err = errors.Join(err, os.Remove(o.path))
	}
	return o.wrap(err)
}

// write records a session into a file.
func (a *app) write(ctx context.Context, s *observe.Session, out *output, k *diagnose.Knowledge) error {
	if err := out.begin(); err != nil {
		return err
	}
	w, err := record.NewWriter(out.out, s.Header())
	if err != nil {
		return out.wrap(err)
	}
	progress := a.progress()
	var total record.Accounting
	keep := newKeeper(s.Header())
	err = s.Run(ctx, func(iv record.Interval) error {
		total.Add(iv.Accounting)
		keep.add(iv)
		fmt.Fprintf(progress, "\r%d drops, %d samples; Ctrl-C ends the recording ", total.DropsSeen, total.Samples)
		return out.wrap(w.Interval(iv))
	})
	fmt.Fprintln(progress)
	if err != nil {
		return err
	}
	if err := w.Close(keep.finish(ctx, s.Trailer(), k)); err != nil {
		return out.wrap(err)
	}
	if a.json && out.file != nil {
		if err := report.JSON(a.out, map[string]any{
			"schema_version": record.SchemaVersion, "file": out.path, "accounting": total,
		}); err != nil {
			return err
		}
	} else if out.file != nil && !a.quiet {
		fmt.Fprintf(a.err, "%d drops and %d samples in %s\n", total.DropsSeen, total.Samples, out.path)
	}
	return partial(total)
}

// keeper remembers of a recording what says which facts are wanted at its end.
type keeper struct {
	collector *record.Collector
	keys      map[record.Key]bool
	cut       uint64 // drops of keys there was no room for
}

// What a keeper remembers at most.
const (
	keptSamples = 2000
	keptKeys    = 50_000
)

func newKeeper(h record.Header) *keeper {
	k := &keeper{collector: record.NewCollector(h), keys: map[record.Key]bool{}}
	k.collector.MaxSamples = keptSamples
	return k
}

// add remembers an interval. Drops of a key for which there is no room any
// more count as drops without a key.
func (k *keeper) add(iv record.Interval) {
	counts := make([]record.Count, 0, len(iv.Counts))
	for _, c := range iv.Counts {
		if !k.keys[c.Key] {
			if len(k.keys) >= keptKeys {
				iv.Accounting.DropsAggregated -= min(c.Drops, iv.Accounting.DropsAggregated)
				iv.Accounting.MapFull += c.Drops
				k.cut += c.Drops
				continue
			}
			k.keys[c.Key] = true
		}
		counts = append(counts, c)
	}
	iv.Counts = counts
	k.collector.Add(iv)
}

// finish adds the facts to what ends the recording.
func (k *keeper) finish(ctx context.Context, t record.Trailer, knowledge *diagnose.Knowledge) record.Trailer {
	o := k.collector.Finish(t)
	ask(ctx, &o, knowledge)
	t.Facts, t.Blind = o.Facts, o.Blind
	if k.cut > 0 {
		t.Blind = append(slices.Clone(t.Blind), record.Blind{
			What: fmt.Sprintf("the settings and states behind %d drops", k.cut),
			Why:  fmt.Sprintf("a recording looks for those of the first %d kinds of drops", keptKeys),
		})
	}
	return t
}

// partial is the error of exit code 4 where drops were counted without their
// key, or records of them were lost or could not be decoded.
func partial(a record.Accounting) error {
	var parts []string
	for _, p := range []struct {
		n    uint64
		what string
	}{
		{a.MapFull, "drops were counted without reason or place (more kinds of drops than the table holds)"},
		{a.DropsLost, "drops were counted without reason or place (the drop monitor's queue was full)"},
		{a.AlertsLost, "alerts of the drop monitor were lost"},
		{a.DecodeErrors, "records could not be decoded"},
	} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	if parts == nil {
		return nil
	}
	return &exitError{exitPartial, errors.New("incomplete: " + strings.Join(parts, ", "))}
}
