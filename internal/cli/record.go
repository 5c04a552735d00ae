package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
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
		RunE: func(c *cobra.Command, _ []string) error {
			if file == "" {
				return usage(errors.New("record: name the file to write: -w FILE"))
			}
			if err := checkDurations(map[string]time.Duration{"duration": w.duration, "interval": interval}); err != nil {
				return err
			}
			k, err := loadKnowledge()
			if err != nil {
				return err
			}
			s, err := observe.Start(observe.Options{
				Interval: interval, Duration: w.duration, Filter: w.filter, Rich: true, Counters: true, Program: release,
			})
			if err != nil {
				return err
			}
			defer s.Close()
			return a.write(c.Context(), s, file, k)
		},
	}
	w.filterFlags(c)
	c.Flags().StringVarP(&file, "write", "w", "", "the `file` to write; - is standard output")
	c.Flags().DurationVar(&w.duration, "duration", 0, "how long to watch (default: until interrupted)")
	c.Flags().DurationVar(&interval, "interval", time.Second, "how often to write what was counted")
	return c
}

// write records a session into a file.
func (a *app) write(ctx context.Context, s *observe.Session, path string, k *diagnose.Knowledge) (err error) {
	out := a.out
	if path != "-" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return usage(err)
		}
		defer func() {
			if cerr := f.Close(); err == nil {
				err = cerr
			}
		}()
		out = f
	}
	w, err := record.NewWriter(out, s.Header())
	if err != nil {
		return err
	}
	progress := a.progress()
	var total record.Accounting
	keep := newKeeper(s.Header())
	err = s.Run(ctx, func(iv record.Interval) error {
		total.Add(iv.Accounting)
		keep.add(iv)
		fmt.Fprintf(progress, "\r%d drops, %d samples; Ctrl-C ends the recording ", total.DropsSeen, total.Samples)
		return w.Interval(iv)
	})
	fmt.Fprintln(progress)
	if err != nil {
		return err
	}
	if err := w.Close(keep.finish(s.Trailer(), k)); err != nil {
		return err
	}
	if a.json && path != "-" {
		if err := report.JSON(a.out, map[string]any{
			"schema_version": record.SchemaVersion, "file": path, "accounting": total,
		}); err != nil {
			return err
		}
	} else if path != "-" && !a.quiet {
		fmt.Fprintf(a.err, "%d drops and %d samples in %s\n", total.DropsSeen, total.Samples, path)
	}
	return partial(total)
}

// keeper remembers of a recording what says which facts are wanted at its end.
type keeper struct {
	collector *record.Collector
	keys      int
}

// What a keeper remembers at most.
const (
	keptSamples = 2000
	keptKeys    = 50_000
)

func newKeeper(h record.Header) *keeper {
	k := &keeper{collector: record.NewCollector(h)}
	k.collector.MaxSamples = keptSamples
	return k
}

func (k *keeper) add(iv record.Interval) {
	if k.keys >= keptKeys {
		iv.Counts, iv.Samples = nil, nil
	}
	k.collector.Add(iv)
	k.keys = len(k.collector.Finish(record.Trailer{}).Counts)
}

// finish adds the facts to what ends the recording.
func (k *keeper) finish(t record.Trailer, knowledge *diagnose.Knowledge) record.Trailer {
	o := k.collector.Finish(t)
	ask(&o, knowledge)
	t.Facts, t.Blind = o.Facts, o.Blind
	return t
}

// partial is the error of exit code 4 where drops were counted without their
// key, because the table was full, or records could not be decoded.
func partial(a record.Accounting) error {
	if a.MapFull == 0 && a.DecodeErrors == 0 {
		return nil
	}
	return &exitError{exitPartial, fmt.Errorf(
		"incomplete: %d drops were counted without reason or place (more kinds of drops than the table holds), %d records could not be decoded",
		a.MapFull, a.DecodeErrors)}
}
