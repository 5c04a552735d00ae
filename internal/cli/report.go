package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) reportCommand() *cobra.Command {
	var w watching
	c := &cobra.Command{
		Use:   "report -r FILE [FILTER]",
		Short: "Say what a recorded file shows, on any machine",
		Long: `report reads what was seen on this machine or another one and prints the verdict
that "whydrop diagnose" would have printed there. It needs no rights and looks
at nothing of this machine. A file is one of

  whydrop record   with counters and settings, so that causes can be proven
  whydrop dump     alerts of the kernel's drop monitor, as a pcap of netlink
  dwdump           the same; so is a capture of nlmon (pcap or pcapng)

and may be gzipped. "whydrop watch -r FILE" shows the same file drop by drop. With
a FILTER findings about that traffic come first.

` + filterHelp,
		Example: `  whydrop report -r drops.whydrop
  whydrop report -r drops.pcap --all
  whydrop report -r drops.whydrop --markdown udp port 53
  ssh router whydrop dump --duration 30s | whydrop report -r -`,
		RunE: func(c *cobra.Command, args []string) error {
			if w.file == "" && len(args) > 0 {
				w.file, args = args[0], args[1:]
			}
			if w.file == "" {
				return usage(errors.New("report: name the file to read: -r FILE (- is standard input)"))
			}
			err := errors.Join(w.traffic.filterArgs(args), w.checkRead(c), w.verdict.check(a))
			if err != nil {
				return err
			}
			k, err := a.loadKnowledge()
			if err != nil {
				return err
			}
			o, err := a.readObservation(&w)
			if o == nil {
				return err
			}
			return errors.Join(a.verdict(o, k, &w), err)
		},
	}
	w.filterFlags(c)
	w.readFlags(c)
	w.symbolsFlag(c)
	a.asciiFlag(c)
	w.verdict.flags(c)
	return c
}
