package observe

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/counter"
	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// CounterOptions says which counters are read.
type CounterOptions struct {
	// NetNS are the namespaces, as in Filter; none is all that can be entered.
	NetNS []string
	// Program is the version of whydrop, for the record.
	Program string
}

// CounterWatch reads the kernel's counters, and again as often as it is asked.
// It needs no eBPF: without any privilege it reads those of the own network
// namespace. Its methods must not be called at the same time.
type CounterWatch struct {
	counters *counters
	host     record.Host
	kernel   record.Kernel
	// read is when the last read began.
	read time.Time
	// lasting are the lacks that hold for every interval.
	lasting lacks
	// spacesOnly leaves out what the whole host has.
	spacesOnly bool
}

// WatchCounters reads the counters for the first time. Those of the whole host
// are left out where namespaces are asked for of which none is the host's. Close ends the watch. It
// returns *FilterError
// for a namespace that does not exist, and *UnavailableError where the counters
// of no namespace can be read.
func WatchCounters(opt CounterOptions) (*CounterWatch, error) {
	names, err := netns.NewNames()
	if err != nil {
		return nil, err
	}
	only, err := Filter{NetNS: opt.NetNS}.spaces(names)
	if err != nil {
		return nil, err
	}
	home, err := names.Find(netns.Host)
	if err != nil {
		home = names.Own()
	}
	w := &CounterWatch{read: time.Now(), spacesOnly: only != nil && !only[home]}
	var host kernel.Host
	// What cannot be read about the machine stays empty.
	w.host, w.kernel, _ = host.Identity()
	w.host.Program = opt.Program
	w.counters = beginCounters(names, only)
	if len(w.counters.spaces) == 0 {
		w.Close()
		return nil, noCounters(&w.counters.lacks)
	}
	if w.spacesOnly {
		w.counters.lacks.pass("counters of the whole host, such as those of softnet and of neighbours", "they are of no network namespace; without --netns they are shown")
	}
	w.lasting = w.counters.lacks.clone()
	return w, nil
}

// noCounters says why nothing could be read: the first lack of a namespace, not
// of the host, if there is one.
func noCounters(l *lacks) error {
	u := &UnavailableError{Cannot: "read the kernel's counters", Missing: errGone.Error()}
	for _, b := range l.blind() {
		u.Missing, u.Fix = b.What+": "+b.Why, b.Fix
		if strings.Contains(b.What, "network namespace") {
			break
		}
	}
	return u
}

// Close ends the watch. It may be called more than once.
func (w *CounterWatch) Close() { w.counters.close() }

// Identity says which machine it is.
func (w *CounterWatch) Identity() (record.Host, record.Kernel) { return w.host, w.kernel }

// Totals are the counters as they were first read, since boot or since the
// device or namespace was made: Before is After, and Delta 0. Call it before
// Next.
func (w *CounterWatch) Totals() []record.Counter {
	c := w.counters
	list := w.wanted(counter.Diff(counter.Snapshot{}, c.host, record.NetNS{}))
	for i := range c.spaces {
		s := &c.spaces[i]
		list = counter.AppendDiff(list, counter.Snapshot{}, s.before, record.NetNS{Inode: s.Inode, Name: s.Name}, &counter.Moves{})
	}
	return c.bounded(list)
}

// Next reads the counters again and returns what they did since the last read,
// and when that was. Namespaces that came meanwhile count from now on.
func (w *CounterWatch) Next() ([]record.Counter, record.Window) {
	c := w.counters
	now := time.Now()
	window := record.Window{Start: w.read, End: now, Duration: now.Sub(w.read)}
	w.read = now
	c.lacks = w.lasting.clone()
	list := w.wanted(c.end())
	c.lacks.read = len(list) > 0
	said := c.lacks
	c.lacks = w.lasting
	c.roll()
	w.lasting, c.lacks = c.lacks, said
	return list, window
}

// wanted leaves out counters of the whole host, unless they are wanted.
func (w *CounterWatch) wanted(list []record.Counter) []record.Counter {
	if !w.spacesOnly {
		return list
	}
	return slices.DeleteFunc(list, func(c record.Counter) bool { return c.NetNS.Inode == 0 })
}

// Books says how well the last read went and what it did not see.
func (w *CounterWatch) Books() (record.Source, []record.Blind) {
	return w.counters.lacks.source(), append([]record.Blind{}, w.counters.lacks.blind()...)
}

// Over says whether nothing leads to the namespaces that were asked for any more,
// so that a further read would give nothing.
func (w *CounterWatch) Over() bool {
	c := w.counters
	return c.only != nil && len(c.spaces) == 0 &&
		!slices.ContainsFunc(c.found, func(ns netns.Namespace) bool { return c.wants(ns.Inode) })
}

// Unread names the namespaces that were asked for and that the last read could
// not look into.
func (w *CounterWatch) Unread() []string {
	c := w.counters
	open := maps.Clone(c.only)
	for i := range c.spaces {
		delete(open, c.spaces[i].Inode)
	}
	var list []string
	for inode := range open {
		list = append(list, namespaceLabel(c.names.Name(inode), inode))
	}
	slices.Sort(list)
	return list
}

// roll makes the second read the first one of the next interval, whose second
// takes the memory of the first. A namespace that could not be read, or that
// came meanwhile, is read once for it.
func (c *counters) roll() {
	c.host, c.hostAfter = c.hostAfter, c.host
	for i := range c.spaces {
		s := &c.spaces[i]
		if s.err != nil {
			delete(c.known, s.Inode)
		}
		s.before, s.after = s.after, s.before
	}
	c.keep(func(s *space) bool {
		if s.replaced && c.only != nil {
			c.lost[s.Inode] = true
		}
		return s.err == nil && !c.lost[s.Inode]
	})
	fresh := &counters{names: c.names, only: c.only, lacks: c.lacks}
	there := map[uint32]bool{}
	for _, ns := range c.found {
		there[ns.Inode] = true
		if !c.known[ns.Inode] && c.wants(ns.Inode) && len(c.spaces)+len(fresh.spaces) < maxSpaces {
			fresh.spaces = append(fresh.spaces, c.space(ns))
		}
	}
	fresh.each(func(s *space) { s.read(&s.before) })
	for i := range fresh.spaces {
		if s := &fresh.spaces[i]; fresh.could(s, s.before) {
			c.spaces = append(c.spaces, *s)
		}
	}
	c.known, c.lacks = there, fresh.lacks
	c.partial = c.hidden || len(c.spaces) < len(c.found)
}
