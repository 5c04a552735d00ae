package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
)

// diagnoseFlags is the flags of `whydrop diagnose`.
type diagnoseFlags struct {
	watching
	save      string
	untilLoss bool
	timeout   time.Duration
}

func (a *app) diagnoseCommand() *cobra.Command {
	var f diagnoseFlags
	c := &cobra.Command{
		Use:   "diagnose [FILTER]",
		Short: "Watch for a while, then say what was dropped and why",
		Long: `diagnose watches for 10 seconds (or --duration, or reads a recorded file) and
then says what was lost and why: the cause with the numbers that speak for and
against it, whose packets they were, and what to do. The first line says whether
to act. Without loss it says what was checked, and shows the loss counters since
boot. Drops that are normal life of the protocols are only counted; --all shows
them. Nothing is changed: remedies are printed, never applied.

With a FILTER, or --pid, findings about that traffic come first, then those that
meet all traffic of the host (ring, backlog, conntrack, memory); the others are
summed up in one line. --pid knows the sockets that the process has open
while it is watched.

` + filterHelp + `

--until-loss waits until something is lost that is neither expected nor benign,
then until three seconds pass without more of it (thirty at most), and says why.
What is older than thirty seconds when the loss begins is forgotten. Loss that
raises no drop event is looked for every thirty seconds. --timeout ends the
waiting with exit status 0.

--save FILE keeps what was seen, for "whydrop verify FILE" after something was
changed, and for "whydrop report -r FILE".`,
		Example: `  whydrop diagnose --duration 30s
  whydrop diagnose -i eth0 -j
  whydrop diagnose host 10.0.0.7 and tcp port 443
  whydrop diagnose --pid 4242
  whydrop diagnose --until-loss --timeout 1h --markdown
  whydrop diagnose --save before.wd
  whydrop diagnose -r drops.whydrop --fail-on fault`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.traffic.filterArgs(args); err != nil {
				return err
			}
			if err := f.check(a, c); err != nil {
				return err
			}
			return a.diagnose(c, &f)
		},
	}
	f.filterFlags(c)
	f.readFlags(c)
	f.sourceFlag(c)
	f.symbolsFlag(c)
	f.verdict.flags(c)
	f.traffic.pidFlag(c)
	a.asciiFlag(c)
	fs := c.Flags()
	fs.DurationVar(&f.duration, "duration", 10*time.Second, "how long to watch")
	fs.BoolVar(&f.untilLoss, "until-loss", false, "wait until there is a loss, then diagnose it")
	fs.DurationVar(&f.timeout, "timeout", time.Hour, "with --until-loss: how long to wait")
	fs.StringVar(&f.save, "save", "", "write what was seen to this `file`, as record does")
	return c
}

func (f *diagnoseFlags) check(a *app, c *cobra.Command) error {
	if err := checkDurations(map[string]time.Duration{"duration": f.duration, "timeout": f.timeout}); err != nil {
		return err
	}
	if err := f.checkRead(c, "duration", "source", "save", "until-loss", "timeout"); err != nil {
		return err
	}
	if err := f.verdict.check(a); err != nil {
		return err
	}
	switch {
	case f.duration == 0:
		return usage(errors.New("--duration 0s: want a positive duration, such as 10s"))
	case f.timeout == 0:
		return usage(errors.New("--timeout 0s: want a positive duration, such as 1h"))
	case f.untilLoss && c.Flags().Changed("duration"):
		return usage(errors.New("--until-loss and --duration: want one of them; --timeout says how long to wait"))
	case !f.untilLoss && c.Flags().Changed("timeout"):
		return usage(errors.New("--timeout: says how long --until-loss waits"))
	case c.Flags().Changed("save") && (f.save == "" || f.save == "-"):
		return usage(errors.New("--save: name a file"))
	}
	return nil
}

// diagnose observes, saves and says what was lost.
func (a *app) diagnose(c *cobra.Command, f *diagnoseFlags) (err error) {
	k, err := a.loadKnowledge()
	if err != nil {
		return err
	}
	a.hintDevices(&f.watching)
	if err := f.findProcess(); err != nil {
		return err
	}
	if f.save != "" {
		if f.saved, err = a.openOutput(f.save); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.saved.close()) }()
	}
	if f.untilLoss {
		return a.untilLoss(c.Context(), f, k)
	}
	o, err := a.observation(c.Context(), &f.watching, k)
	if o == nil {
		return err
	}
	kept := f.keep(o) // first: whoever reads the verdict may have enough of it
	return errors.Join(a.verdict(o, k, &f.watching), err, kept)
}
