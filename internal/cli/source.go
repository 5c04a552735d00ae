package cli

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
)

// source is the value of --source.
type source observe.Choice

func (s *source) String() string { return string(*s) }
func (s *source) Type() string   { return "source" }

func (s *source) Set(text string) error {
	if !slices.Contains(observe.Choices(), observe.Choice(text)) {
		return errors.New("want auto, bpf, dropmon (dropmon:summary, dropmon:packet) or counters")
	}
	*s = source(text)
	return nil
}

// sourceHelp explains --source where there is room for it.
const sourceHelp = `Drops are seen by an eBPF program (--source bpf); where that does not work by the
kernel's drop monitor NET_DM (dropmon), which tells less of each drop; else
only counters are read (counters). auto takes the first that works and says
why. It loads no module: only --source dropmon loads drop_monitor where that is
needed, and says so. dropmon counts by place alone (summary mode), unless single
drops or reasons are asked for or the names of functions are hidden: then, or
with dropmon:packet, it takes packets one by one (packet mode) and may lose some.
A drop monitor that somebody else started is only listened to.`

// sourceFlag adds --source.
func (w *watching) sourceFlag(c *cobra.Command) {
	w.source = source(observe.ChooseAuto)
	c.Flags().Var(&w.source, "source", "what sees the drops: auto, bpf, dropmon or counters, see whydrop --help")
}

// start begins to watch, and says what a user should know of how.
func (a *app) start(w *watching, opt observe.Options) (*observe.Session, error) {
	opt.Source, opt.Program = observe.Choice(w.source), release
	opt.Duration, opt.Filter, opt.Symbols = w.duration, w.filter, w.symbols
	opt.Hurry = a.signals.hurried()
	s, err := a.open(opt)
	if err != nil {
		return nil, err
	}
	a.say(s.Notes())
	return s, nil
}

// open begins to watch, with all care for the drop monitor while it may be in
// use.
func (a *app) open(opt observe.Options) (*observe.Session, error) {
	a.signals.mayMonitor()
	s, err := observe.Start(opt)
	if err != nil || s.Source().Name != observe.SourceDropmon {
		a.signals.noMonitor()
	}
	return s, err
}

// say prints notes of how the watching began, for a person.
func (a *app) say(notes []string) {
	if a.quiet {
		return
	}
	for _, n := range notes {
		fmt.Fprintf(a.err, "whydrop: %s\n", report.Clean(n))
	}
}

// unwatched is the error of exit code 4 where nobody asked for counters alone,
// and they are all that there was.
func (w *watching) unwatched(s *observe.Session) error {
	if s.Watched() || observe.Choice(w.source) == observe.ChooseCounters {
		return nil
	}
	return &exitError{exitPartial, errors.New("incomplete: no drop was watched, only counters were read")}
}
