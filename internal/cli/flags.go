package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// watching is the flags of every command that watches.
type watching struct {
	filter   observe.Filter
	duration time.Duration
	all      bool
	file     string
	source   source
	symbols  string
	traffic  traffic
	verdict  verdictFlags
	// saved is what the observation is written to as well; nil without --save.
	saved *output
	// header is what the record of the observation begins with.
	header record.Header
}

func (w *watching) filterFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVarP(&w.filter.Interfaces, "interface", "i", nil, "only drops on this `device`; may be repeated")
	f.StringSliceVar(&w.filter.Reasons, "reason", nil, "only drops for this `reason`, as the kernel names it; may be repeated")
	f.StringSliceVar(&w.filter.NetNS, "netns", nil, "only this network `namespace`, see whydrop --help; may be repeated")
}

func (w *watching) readFlags(c *cobra.Command) {
	c.Flags().BoolVar(&w.all, "all", false, "show expected and benign drops too")
	c.Flags().StringVarP(&w.file, "read", "r", "", "read a recorded `file` (- is standard input) instead of watching")
}

// checkNames refuses filters without a name: --netns "$NS" where NS is not set
// must not mean all of them.
func checkNames(c *cobra.Command) error {
	for flag, what := range map[string]string{"interface": "device", "netns": "network namespace", "reason": "reason"} {
		f := c.Flags().Lookup(flag)
		if f == nil || !f.Changed {
			continue
		}
		if names, err := c.Flags().GetStringSlice(flag); err != nil || len(names) == 0 || slices.Contains(names, "") {
			return usage(fmt.Errorf("--%s: the name of the %s is empty", flag, what))
		}
	}
	return nil
}

// checkPID refuses what is no number of a process: --pid "${PID:-0}" must not mean
// all of them.
func checkPID(c *cobra.Command) error {
	f := c.Flags().Lookup("pid")
	if f == nil || !f.Changed {
		return nil
	}
	if pid, err := c.Flags().GetInt("pid"); err != nil || pid <= 0 {
		return usage(errors.New("--pid: want the number of a process"))
	}
	return nil
}

// checkRead refuses what means nothing beside -r: flags that say how to watch,
// and the number of a process, which another machine gives to another one.
func (w *watching) checkRead(c *cobra.Command, live ...string) error {
	if err := errors.Join(checkNames(c), checkPID(c), w.checkSymbols(c)); err != nil || w.file == "" {
		return err
	}
	for _, name := range live {
		if c.Flags().Changed(name) {
			return usage(fmt.Errorf("--%s says how to watch; with -r the file says what was seen", name))
		}
	}
	for _, s := range w.filter.NetNS {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil && n < netns.FirstInode {
			return usage(fmt.Errorf("--netns %s: a process means nothing in a file; give a name or an inode number", s))
		}
	}
	return nil
}

// hintDevices says when -i names a device that is not here.
func (a *app) hintDevices(w *watching) {
	if w.file != "" || len(w.filter.NetNS) > 0 {
		return
	}
	for _, name := range w.filter.Interfaces {
		if _, err := net.InterfaceByName(name); err != nil {
			fmt.Fprintf(a.err, "whydrop: no device %q in this network namespace; watching for it in others\n", name)
		}
	}
}

// keys are those seen in a file.
type keys map[record.Key]bool

func (k keys) add(iv record.Interval) {
	for _, c := range iv.Counts {
		k[c.Key] = true
	}
}

// hintUnmatched says when a part of the filter fits nothing in the file.
func (a *app) hintUnmatched(file string, f observe.Filter, seen keys) {
	for _, what := range f.Unmatched(slices.Collect(maps.Keys(seen))) {
		fmt.Fprintf(a.err, "whydrop: no drop in %s matches %s\n", file, report.Clean(what))
	}
}

// checkDurations refuses durations that mean nothing.
func checkDurations(named map[string]time.Duration) error {
	for name, d := range named {
		if d < 0 {
			return usage(fmt.Errorf("--%s %s: want a positive duration, such as 10s", name, d))
		}
	}
	return nil
}

// style decides how out is printed on.
func (a *app) style(all bool) report.Style {
	s := report.Style{Width: 80, All: all, Quiet: a.quiet, ASCII: a.ascii}
	terminal := false
	if f, ok := a.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		terminal = true
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			s.Width = w
		}
	}
	_, noColor := os.LookupEnv("NO_COLOR")
	s.Color = a.color == "always" ||
		a.color == "auto" && terminal && !noColor && os.Getenv("TERM") != "dumb"
	return s
}

// progress returns where to tell a person that something goes on: stderr if
// that is a terminal and nobody asked for quiet.
func (a *app) progress() io.Writer {
	if f, ok := a.err.(*os.File); ok && !a.quiet && term.IsTerminal(int(f.Fd())) {
		return a.err
	}
	return io.Discard
}
