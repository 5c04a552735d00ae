package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// countersFlags is the flags of `whydrop counters`.
type countersFlags struct {
	interval   time.Duration
	count      int
	all        bool
	mapOnly    bool
	interfaces []string
	netns      []string
}

func (a *app) countersCommand() *cobra.Command {
	var f countersFlags
	c := &cobra.Command{
		Use:   "counters",
		Short: "Show the kernel's loss counters along the packet's way",
		Long: `counters reads the kernel's counters of loss, retransmission and pressure in all
network namespaces that it can enter, and shows them by the stations of the
packet's way: a map first, then each counter that is not 0, with its parts (CPUs,
queues, classes, sockets) below it. The numbers count since boot, or since their
device, namespace or socket was made; with --interval it shows what they grow by.
Of counters that count the same packet only one is added to a station's loss; a
number in parentheses is counted by a station further along too. Counters that
are not in whydrop's catalogue are listed under "unknown"; "whydrop explain NAME"
says what is known about the others. It needs no eBPF: without any privilege it
reads those of its own namespace.`,
		Example: `  whydrop counters
  whydrop counters --map --netns all
  whydrop counters --interval 1s -i eth0
  whydrop counters --interval 10s --count 1 -j`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(c); err != nil {
				return err
			}
			return a.counters(c.Context(), &f)
		},
	}
	fs := c.Flags()
	fs.DurationVar(&f.interval, "interval", 0, "show what the counters grow by, as often as this")
	fs.IntVarP(&f.count, "count", "c", 0, "end after so many intervals (default: until interrupted)")
	fs.BoolVar(&f.all, "all", false, "show counters that are 0, too, and those of normal activity")
	fs.BoolVar(&f.mapOnly, "map", false, "print the station map only")
	fs.StringSliceVarP(&f.interfaces, "interface", "i", nil, "only the counters of this `device`; may be repeated")
	fs.StringSliceVar(&f.netns, "netns", nil, "only this network `namespace`, see whydrop --help; may be repeated")
	a.asciiFlag(c)
	return c
}

// asciiFlag is of the commands that draw.
func (a *app) asciiFlag(c *cobra.Command) {
	c.Flags().BoolVar(&a.ascii, "ascii", false, "draw with plain characters")
}

func (f *countersFlags) check(c *cobra.Command) error {
	switch {
	case f.interval < 0, f.interval == 0 && c.Flags().Changed("interval"):
		return usage(fmt.Errorf("--interval %s: want a positive duration, such as 1s", f.interval))
	case f.count < 0:
		return usage(fmt.Errorf("--count %d: want a positive number", f.count))
	case f.count > 0 && f.interval == 0:
		return usage(errors.New("--count: how long is an interval? Give --interval"))
	}
	return checkNames(c)
}

// counters reads and prints counters.
func (a *app) counters(ctx context.Context, f *countersFlags) error {
	k, err := a.loadCounters()
	if err != nil {
		return err
	}
	start := time.Now()
	w, err := observe.WatchCounters(observe.CounterOptions{NetNS: f.netns, Program: release})
	if err != nil {
		return err
	}
	defer w.Close()
	first := w.Totals()
	s := sight{watch: w, knowledge: k, flags: f}
	if len(f.interfaces) > 0 {
		s.devices = diagnose.NewDevices(f.interfaces)
		if missing := s.devices.Find(first); missing != nil {
			return usage(fmt.Errorf("-i %s: no such device in the network namespaces that were read", missing[0]))
		}
	}
	var r record.CounterReport
	if f.interval > 0 {
		r, err = a.counterIntervals(ctx, &s)
	} else {
		r = s.report(first, record.Window{Start: start, End: start})
		if a.json {
			err = report.JSON(a.out, r)
		} else {
			err = report.Counters(a.out, r, f.view(), a.style(f.all))
		}
	}
	if err != nil {
		return err
	}
	if len(r.Unread) > 0 {
		return &exitError{exitPartial, fmt.Errorf("incomplete: no counters of %s", strings.Join(r.Unread, ", "))}
	}
	return nil
}

// sight is what counters are read and chosen with.
type sight struct {
	watch     *observe.CounterWatch
	knowledge *diagnose.Knowledge
	flags     *countersFlags
	devices   *diagnose.Devices // nil is all
	straddle  diagnose.Straddle
}

// view is what is printed: since boot the map and the list, then the list, or
// the map alone.
func (f *countersFlags) view() report.CounterView {
	return report.CounterView{Map: f.mapOnly || f.interval == 0, List: !f.mapOnly}
}

// counterIntervals prints what the counters grow by until the context is done,
// enough was shown or nothing is left of what was asked for. It returns the last
// report.
func (a *app) counterIntervals(ctx context.Context, s *sight) (last record.CounterReport, err error) {
	f := s.flags
	if !a.json {
		fmt.Fprintln(a.progress(), "reading counters every", f.interval, "- Ctrl-C ends it")
	}
	ticks := time.NewTicker(f.interval)
	defer ticks.Stop()
	for n := 0; (f.count == 0 || n < f.count) && ctx.Err() == nil && !s.watch.Over(); n++ {
		select {
		case <-ctx.Done(): // the last interval may be shorter
		case <-ticks.C:
		}
		last = s.report(s.watch.Next())
		if a.json {
			err = report.JSON(a.out, last)
		} else {
			err = report.CounterInterval(a.out, last, f.view(), a.style(f.all))
		}
		if err != nil {
			return last, err
		}
	}
	if a.json {
		return last, nil
	}
	return last, report.CounterBooks(a.err, last, a.style(f.all))
}

// report puts together what was read; a window without a length is since boot.
func (s *sight) report(cs []record.Counter, window record.Window) record.CounterReport {
	r := record.CounterReport{
		Type: record.TypeCounters, SchemaVersion: record.SchemaVersion,
		SinceBoot: s.flags.interval == 0, Window: window, Interfaces: s.flags.interfaces,
	}
	r.Host, r.Kernel = s.watch.Identity()
	r.Source, r.Blind = s.watch.Books()
	r.Blind = append(r.Blind, diagnose.WentBack(cs, s.knowledge)...)
	for _, name := range s.watch.Unread() {
		r.Unread = append(r.Unread, "network namespace "+name)
	}
	if s.devices != nil {
		for _, name := range s.devices.Find(cs) {
			r.Unread = append(r.Unread, "device "+name)
		}
	}
	r.Stations, r.Hidden = diagnose.CountersByStation(cs, s.knowledge, diagnose.CounterOptions{
		Interval: window.Duration, All: s.flags.all, Devices: s.devices, Straddle: &s.straddle,
	})
	return r
}
