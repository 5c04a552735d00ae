package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/whydrop/whydrop/internal/filter"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/record"
)

// filterHelp explains FILTER where there is room for it.
const filterHelp = `FILTER is a part of what tcpdump takes (pcap-filter), in quotes or as words:

  ` + filter.Syntax + `

Addresses are numbers. A packet in a tunnel, or the one that an ICMP error is
about, is looked at too. Only samples have addresses and ports: what a FILTER
chooses are samples, the counts stay those of all packets.`

// traffic is the traffic that was asked for.
type traffic struct {
	filter *filter.Filter
	// pid is the process whose traffic it is, 0 without; process is what is
	// known of it while it is watched.
	pid     int
	process *observe.Process
}

// filterArgs reads a FILTER.
func (t *traffic) filterArgs(words []string) error {
	if len(words) == 0 {
		return nil
	}
	f, err := filter.Parse(words...)
	if err != nil {
		return usage(err)
	}
	t.filter = f
	return nil
}

func (t *traffic) pidFlag(c *cobra.Command) {
	c.Flags().IntVar(&t.pid, "pid", 0, "the traffic of this `process`: its network namespace, and first what its sockets lost")
}

// findProcess looks at the process that was asked for: its namespace becomes the
// one that is watched.
func (w *watching) findProcess() error {
	t := &w.traffic
	switch {
	case t.pid == 0:
		return nil
	case w.file != "":
		return usage(errors.New("--pid: a process means nothing in a file"))
	case len(w.filter.NetNS) > 0:
		return usage(errors.New("--pid and --netns: want one of them, a process is in one namespace"))
	}
	p, err := observe.FindProcess(t.pid)
	if err != nil {
		return err
	}
	t.process = p
	w.filter.NetNS = []string{fmt.Sprint(p.NetNS())}
	return nil
}

// glance looks at the process's sockets while it is watched.
func (t *traffic) glance() {
	if t.process != nil {
		t.process.Glance()
	}
}

// look looks at them for the last time, and says what it did not see.
func (t *traffic) look() []record.Blind {
	if t.process == nil {
		return nil
	}
	blind := []record.Blind{{
		What: fmt.Sprintf("packets of sockets that process %d had for a moment only", t.pid),
		Why:  fmt.Sprintf("its sockets are those that it was seen to have, %d in all", t.process.Sockets()),
	}}
	if err := t.process.Look(); err != nil {
		blind = append(blind, record.Blind{What: fmt.Sprintf("the sockets that process %d had at the end", t.pid), Why: err.Error()})
	}
	return blind
}

// focus chooses the samples of the traffic; nil is all.
func (t *traffic) focus() func(*record.Drop) bool { return t.within(nil) }

// marked are samples with a mark at those of the process: when they are read again
// its sockets are not known any more.
func (t *traffic) marked(samples []record.Drop) []record.Drop {
	if t.process == nil {
		return samples
	}
	out := slices.Clone(samples)
	for i := range out {
		out[i].OfProcess = t.process.Match(&out[i])
	}
	return out
}

// within chooses the samples of the traffic in a record that was made as q says;
// nil is all. Those of a process are marked, and are those of a process that is
// there now.
func (t *traffic) within(q *record.Asked) func(*record.Drop) bool {
	ofProcess := t.process != nil || q != nil && q.PID != 0
	if t.filter == nil && !ofProcess {
		return nil
	}
	return func(d *record.Drop) bool {
		if ofProcess && !d.OfProcess && (t.process == nil || !t.process.Match(d)) {
			return false
		}
		return t.filter == nil || t.filter.Match(d)
	}
}

// asked is what a record says of how it was narrowed; nil where it was not.
func (w *watching) asked() *record.Asked {
	q := record.Asked{Interfaces: w.filter.Interfaces, Reasons: w.filter.Reasons, NetNS: w.filter.NetNS, PID: w.traffic.pid}
	if w.traffic.process != nil {
		q.NetNS = nil // the process leads to it
	}
	if w.traffic.filter != nil {
		q.Filter = w.traffic.filter.String()
	}
	if len(q.Interfaces)+len(q.Reasons)+len(q.NetNS)+q.PID == 0 && q.Filter == "" {
		return nil
	}
	return &q
}

// narrow asks for what a record was narrowed to.
func (w *watching) narrow(q *record.Asked) error {
	if q == nil {
		return nil
	}
	w.filter = observe.Filter{Interfaces: q.Interfaces, Reasons: q.Reasons, NetNS: q.NetNS}
	w.traffic.pid = q.PID
	if strings.TrimSpace(q.Filter) == "" {
		return nil
	}
	return w.traffic.filterArgs([]string{q.Filter})
}
