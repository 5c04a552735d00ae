package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// leftOver is the part of a loss that may be left for it to count as cured.
const leftOver = 0.01

// verifyFlags is the flags of `whydrop verify`: before is the file, the rest says
// how to watch again.
type verifyFlags struct {
	watching
	before string
	pid    int
}

func (a *app) verifyCommand() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Say whether a loss is gone, after something was changed",
		Long: `verify observes again as long, with the same -i, --reason, --netns, --pid and
FILTER as FILE was made with ("whydrop diagnose --save FILE" or "whydrop record"),
and says of each finding whether it is gone, less, the same, worse or new. Losses
are compared as parts of the traffic that flowed, so it does not matter whether
there is more or less of it now; without any traffic nothing can be said. With
-r AFTER a second file is compared, and nothing of this machine is looked at; one
that leaves out more than FILE does is refused.

Exit status: 0 where each finding is gone, or less than 1 % of its share of the
traffic is left, and none is new; 1 otherwise, also where it cannot be told;
with --fail-on only findings of that class or worse count. 2, 3 and 4 are as
for the other commands.`,
		Example: `  whydrop diagnose --save before.wd
  sysctl -w net.core.rmem_default=851968
  whydrop verify before.wd
  whydrop verify before.wd --duration 1m --markdown
  whydrop verify before.wd -r after.wd -j`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(fmt.Errorf("verify: name one file, of the time before the change; got %q", args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			f.before = args[0]
			if err := f.check(a, c); err != nil {
				return err
			}
			return a.verify(c.Context(), &f)
		},
	}
	f.sourceFlag(c)
	f.symbolsFlag(c)
	f.verdict.flags(c)
	a.asciiFlag(c)
	fs := c.Flags()
	fs.Lookup("fail-on").Usage = "only findings of this `class` or worse count: fault, capacity or policy"
	fs.StringVarP(&f.file, "read", "r", "", "read what was seen after the change from this `file`, instead of watching")
	fs.DurationVar(&f.duration, "duration", 0, "how long to watch (default: as long as the file was)")
	fs.IntVar(&f.pid, "pid", 0, "where the `process` of the file has another number now")
	return c
}

func (f *verifyFlags) check(a *app, c *cobra.Command) error {
	if err := checkDurations(map[string]time.Duration{"duration": f.duration}); err != nil {
		return err
	}
	if err := f.checkRead(c, "duration", "source", "pid"); err != nil {
		return err
	}
	switch {
	case f.duration == 0 && c.Flags().Changed("duration"):
		return usage(errors.New("--duration 0s: want a positive duration, such as 10s"))
	case f.before == "-" && f.file == "-":
		return usage(errors.New("verify: standard input can be one of the two files"))
	}
	return f.verdict.check(a)
}

// verify compares a file with now, or with another file.
func (a *app) verify(ctx context.Context, f *verifyFlags) error {
	k, err := a.loadKnowledge()
	if err != nil {
		return err
	}
	then := watching{file: f.before, symbols: f.symbols}
	before, err := a.readObservation(&then)
	if err != nil { // a file that ends early has no counters to compare
		return usage(err)
	}
	if err := f.again(then.header.Asked, before); err != nil {
		return err
	}
	after, err := a.observation(ctx, &f.watching, k)
	if after == nil {
		return err
	}
	if err := f.comparable(then.header.Asked); err != nil {
		return err
	}
	cmp := diagnose.Compare(before, after, k)
	f.restrict(&cmp, then.header.Asked, before, after, k)
	if perr := a.printComparison(cmp, f); perr != nil {
		return perr
	}
	err = errors.Join(err, partial(after.Accounting))
	if !f.better(cmp) {
		return errors.Join(&exitError{code: exitFinding}, err)
	}
	return err
}

// comparable refuses a second file that leaves out what the first one does not: a
// loss that was filtered out is not gone.
func (f *verifyFlags) comparable(asked *record.Asked) error {
	after := f.header.Asked
	if f.file == "" || after == nil {
		return nil
	}
	if asked == nil {
		asked = &record.Asked{}
	}
	for _, l := range []struct {
		flag      string
		then, now []string
	}{{"-i", asked.Interfaces, after.Interfaces}, {"--reason", asked.Reasons, after.Reasons}, {"--netns", asked.NetNS, after.NetNS}} {
		missing := slices.ContainsFunc(l.then, func(s string) bool { return !slices.Contains(l.now, s) })
		if len(l.now) > 0 && (len(l.then) == 0 || missing) {
			return usage(fmt.Errorf("%s was made with %s %s, %s was not: what that leaves out cannot be compared", f.file, l.flag, strings.Join(l.now, ","), f.before))
		}
	}
	if after.PID != 0 && asked.PID == 0 {
		return usage(fmt.Errorf("%s was made with --pid %d, %s with none: what that leaves out cannot be compared", f.file, after.PID, f.before))
	}
	return nil
}

// again asks for what the file was made with. The sockets of a process are of no
// use with a file, and its namespace is in the file.
func (f *verifyFlags) again(asked *record.Asked, before *record.Observation) error {
	if f.duration == 0 {
		f.duration = before.Window.Duration
	}
	if err := f.narrow(asked); err != nil {
		return fmt.Errorf("%s: %w", f.before, err)
	}
	if f.file != "" {
		f.traffic.pid = 0
		return nil
	}
	if f.duration <= 0 {
		return usage(fmt.Errorf("%s: does not say how long it was watched; say --duration", f.before))
	}
	if f.pid != 0 {
		if f.traffic.pid == 0 {
			return usage(fmt.Errorf("--pid: %s is not of the traffic of a process", f.before))
		}
		f.traffic.pid = f.pid
	}
	if err := f.findProcess(); err != nil {
		return fmt.Errorf("observe as %s was (--pid says which process it is now): %w", f.before, err)
	}
	return nil
}

// restrict leaves out the findings that are of other traffic than that which was
// asked for.
func (f *verifyFlags) restrict(cmp *record.Comparison, asked *record.Asked, before, after *record.Observation, k *diagnose.Knowledge) {
	then, now := f.traffic.within(asked), f.traffic.within(f.header.Asked)
	if then == nil && now == nil {
		return
	}
	concerned := slices.Concat(
		diagnose.Run(before, k, diagnose.Options{Focus: then}).Findings,
		diagnose.Run(after, k, diagnose.Options{Focus: now}).Findings,
	)
	for _, g := range concerned { // Compare takes them one by one
		concerned = append(concerned, g.Symptoms...)
	}
	cmp.Changes = slices.DeleteFunc(cmp.Changes, func(c record.FindingChange) bool {
		if slices.ContainsFunc(concerned, func(g record.Finding) bool { return sameFinding(c.Finding, g) }) {
			return false
		}
		cmp.LeftOut++
		return true
	})
}

// sameFinding says whether two findings are of the same loss.
func sameFinding(a, b record.Finding) bool {
	return a.Cause == b.Cause && a.Station == b.Station && slices.Equal(a.NetNS, b.NetNS) &&
		slices.Equal(a.Devices, b.Devices) && slices.Equal(a.Reasons, b.Reasons)
}

// better says whether nothing is left to do of what counts.
func (f *verifyFlags) better(cmp record.Comparison) bool {
	least := record.Class(f.verdict.failOn).Severity()
	return !slices.ContainsFunc(cmp.Changes, func(c record.FindingChange) bool {
		if c.Finding.Class.Severity() < max(least, 1) {
			return false
		}
		cured := c.Outcome == record.OutcomeLess && c.Change <= leftOver-1
		return c.Outcome != record.OutcomeGone && !cured
	})
}

func (a *app) printComparison(cmp record.Comparison, f *verifyFlags) error {
	switch {
	case a.json:
		return report.JSON(a.out, cmp)
	case f.verdict.markdown:
		return report.ComparisonMarkdown(a.out, cmp, f.better(cmp))
	}
	return report.Comparison(a.out, cmp, f.better(cmp), a.style(false))
}
