package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/record"
)

func (a *app) reportCommand() *cobra.Command {
	var w watching
	var failOn string
	c := &cobra.Command{
		Use:   "report -r FILE",
		Short: "Say what a recorded file shows, on any machine",
		Long: `report reads what was seen on this machine or another one and prints the verdict
that "whydrop diagnose" would have printed there. It needs no rights and looks
at nothing of this machine. A file is one of

  whydrop record   with counters and settings, so that causes can be proven
  whydrop dump     alerts of the kernel's drop monitor, as a pcap of netlink
  dwdump           the same; so is a capture of nlmon (pcap or pcapng)

and may be gzipped. "whydrop watch -r FILE" shows the same file drop by drop.`,
		Example: `  whydrop report -r drops.whydrop
  whydrop report -r drops.pcap --all
  ssh router whydrop dump --duration 30s | whydrop report -r -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage(fmt.Errorf("report: one file at a time, got %q", args))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && w.file != "":
				return usage(fmt.Errorf("report: one file at a time, got %q and -r %q", args[0], w.file))
			case len(args) == 1:
				w.file = args[0]
			case w.file == "":
				return usage(errors.New("report: name the file to read: -r FILE (- is standard input)"))
			}
			if err := w.checkRead(c); err != nil {
				return err
			}
			fail := record.Class(failOn)
			if failOn != "" && fail.Severity() == 0 {
				return usage(fmt.Errorf("--fail-on %q: want fault, capacity or policy", failOn))
			}
			k, err := loadKnowledge()
			if err != nil {
				return err
			}
			o, err := a.readObservation(&w)
			if o == nil {
				return err
			}
			return errors.Join(a.verdict(o, k, w.all, fail), err)
		},
	}
	w.filterFlags(c)
	w.readFlags(c)
	w.symbolsFlag(c)
	a.asciiFlag(c)
	c.Flags().StringVar(&failOn, "fail-on", "", "exit with 1 on a finding of this `class` or worse: fault, capacity or policy")
	return c
}
