package observe

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/whydrop/whydrop/internal/counter"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// SourceCounters is the name of the source that the kernel's counters are.
const SourceCounters = "counters"

const (
	// maxSpaces bounds the namespaces whose counters are read.
	maxSpaces = 256
	// maxCounters bounds the counters of an observation. One takes some 250
	// bytes in a file, of which a line has at most 64 MiB.
	maxCounters = 200_000
	// maxReaders bounds the threads that read at the same time.
	maxReaders = 4
)

// counters are the kernel's counters of the host and of each namespace that
// can be entered, read when the watching begins and when it ends.
type counters struct {
	names *netns.Names
	// only are the namespaces that are asked for; nil is all. lost are those of
	// them that are gone: another one may have the number now.
	only, lost map[uint32]bool
	// known are those that were there at the beginning.
	known map[uint32]bool
	// host and hostAfter are the two reads of what the whole host has; reader
	// reads it, in the host's namespace if inHost.
	host, hostAfter counter.Snapshot
	reader          *counter.Reader
	inHost          bool
	spaces          []space
	// found are the namespaces that there were at the last read.
	found []netns.Namespace
	// partial says that there may have been more at the first read than spaces;
	// hidden that not all may have been found at the last.
	partial, hidden bool
	lacks           lacks
	// began is when all had been read once, ended when the second read began.
	began, ended time.Time
}

// window is the time that every counter saw.
func (c *counters) window() record.Window {
	return record.Window{Start: c.began, End: c.ended, Duration: max(0, c.ended.Sub(c.began))}
}

// space is a namespace with its counters.
type space struct {
	netns.Namespace
	before, after counter.Snapshot
	// reader reads them. Its files stay open between two reads where the
	// namespace lasts as long as the program, and nowhere else: they would keep
	// one alive that everybody has left, with the devices that are to go back to
	// the host.
	reader *counter.Reader
	lasts  bool
	err    error
	// cookie is the namespace's own, 0 where it is not told; replaced says that
	// another one was there at the read before, with the same inode.
	cookie   uint64
	replaced bool
}

// read makes snap what the counters are now, or nothing and sets err.
func (s *space) read(snap *counter.Snapshot) {
	if s.reader == nil {
		s.reader = counter.NewReader()
	}
	was := s.cookie
	s.err = s.Do(func() error {
		if cookie, err := netns.Cookie(); err == nil {
			s.cookie = cookie
		}
		s.reader.Read(snap)
		return nil
	})
	s.replaced = was != 0 && s.cookie != was
	if s.err != nil {
		*snap = counter.Snapshot{}
	}
	if s.err != nil || !s.lasts {
		s.close()
	}
}

func (s *space) close() {
	if s.reader != nil {
		s.reader.Close()
	}
}

func (s *space) label() string { return namespaceLabel(s.Name, s.Inode) }

// namespaceLabel names a namespace as /proc/PID/ns/net does where it has no
// name of its own.
func namespaceLabel(name string, inode uint32) string {
	return cmp.Or(name, fmt.Sprintf("net:[%d]", inode))
}

// beginCounters reads what the counters are now. It never fails: what cannot
// be read is among the lacks.
func beginCounters(names *netns.Names, only map[uint32]bool) *counters {
	c := &counters{names: names, only: only, lost: map[uint32]bool{}, known: map[uint32]bool{}}
	found, blind := names.List()
	if only == nil {
		for _, b := range blind {
			c.lacks.add("counters in "+b.What, b.Why, b.Fix, "")
		}
	}
	c.readHost(&c.host, found)
	for _, ns := range found {
		c.known[ns.Inode] = true
		if only == nil || only[ns.Inode] {
			c.spaces = append(c.spaces, c.space(ns))
		}
	}
	if n := len(c.spaces) - maxSpaces; n > 0 {
		c.spaces = c.spaces[:maxSpaces]
		c.lacks.add(fmt.Sprintf("counters of %d further network namespaces", n),
			fmt.Sprintf("those of at most %d are read", maxSpaces), "name the one in question with --netns", "")
	}
	c.each(func(s *space) { s.read(&s.before) })
	c.keep(func(s *space) bool { return c.could(s, s.before) })
	c.partial = len(blind) > 0 || len(c.spaces) < len(found)
	c.began = time.Now()
	return c
}

// space is a namespace of which nothing was read yet.
func (c *counters) space(ns netns.Namespace) space {
	return space{Namespace: ns, lasts: ns.Name == netns.Host || ns.Inode == c.names.Own()}
}

// keep leaves out the namespaces for which wanted says false.
func (c *counters) keep(wanted func(*space) bool) {
	c.spaces = slices.DeleteFunc(c.spaces, func(s space) bool {
		if wanted(&s) {
			return false
		}
		s.close()
		return true
	})
}

// could notes what a read of a namespace lacks; false where all of it does.
func (c *counters) could(s *space, snap counter.Snapshot) bool {
	if s.err == nil {
		c.lacks.snapshot(snap, s.label())
		return true
	}
	why := s.err
	if inner := errors.Unwrap(why); inner != nil {
		why = inner // without the path, which is different for each
	}
	c.lacks.add("counters", why.Error(), "run as root", s.label())
	return false
}

// readHost makes snap the counters of the whole host: in the host's namespace where
// that can be entered, because some are to be seen there alone, and every time
// with the same reader, which knows how far it has read the kernel's log.
func (c *counters) readHost(snap *counter.Snapshot, found []netns.Namespace) {
	first := c.reader == nil
	if first {
		c.reader = counter.NewHostReader()
	}
	read := func() error {
		c.reader.Read(snap)
		return nil
	}
	entered := (first || c.inHost) && len(found) > 0 && found[0].Name == netns.Host && found[0].Do(read) == nil
	switch {
	case entered:
		c.inHost = true
	case c.inHost: // and it cannot be entered any more
		*snap = counter.ReadHost()
	default:
		_ = read() // it has no error
	}
	c.lacks.snapshot(*snap, "")
}

// close closes the files that are read again and again. It may be called more
// than once, and before anything was read.
func (c *counters) close() {
	if c == nil {
		return
	}
	if c.reader != nil {
		c.reader.Close()
	}
	for i := range c.spaces {
		c.spaces[i].close()
	}
}

// each runs fn for every namespace, a few at a time.
func (c *counters) each(fn func(*space)) {
	next := make(chan *space)
	var wg sync.WaitGroup
	for range min(maxReaders, runtime.GOMAXPROCS(0), len(c.spaces)) {
		wg.Go(func() {
			for s := range next {
				fn(s)
			}
		})
	}
	for i := range c.spaces {
		next <- &c.spaces[i]
	}
	close(next)
	wg.Wait()
}

// end reads again and returns what the counters did meanwhile: those of the
// host, then those of each namespace.
func (c *counters) end() []record.Counter {
	c.ended = time.Now()
	found, blind := c.names.List()
	c.found, c.hidden = found, len(blind) > 0
	now := map[uint32]netns.Namespace{}
	for _, ns := range found {
		now[ns.Inode] = ns
	}
	var moves counter.Moves
	if c.partial {
		moves.Partly()
	}
	gone, came := c.turnover(now, &moves)
	c.readHost(&c.hostAfter, found)
	list := counter.Diff(c.host, c.hostAfter, record.NetNS{})
	c.each(func(s *space) { s.read(&s.after) })
	for i := range c.spaces {
		s := &c.spaces[i]
		if s.replaced {
			gone++
			if c.only == nil {
				came++
			}
			moves.Add(s.before, counter.Snapshot{})
		} else {
			moves.Add(s.before, s.after)
		}
	}
	for i := range c.spaces {
		if s := &c.spaces[i]; c.could(s, s.after) && !s.replaced {
			list = counter.AppendDiff(list, s.before, s.after, record.NetNS{Inode: s.Inode, Name: s.Name}, &moves)
		}
	}
	c.say(gone, came, moves.Came())
	return c.bounded(list)
}

// turnover leaves out the namespaces that are gone, and returns how many those
// are and how many have come. The others may have to be entered another way than
// at the beginning: the process that led there may have ended.
func (c *counters) turnover(now map[uint32]netns.Namespace, moves *counter.Moves) (gone, came int) {
	c.keep(func(s *space) bool {
		_, there := now[s.Inode]
		if !there {
			gone++
			moves.Add(s.before, counter.Snapshot{})
		}
		return there
	})
	for i := range c.spaces {
		c.spaces[i].Namespace = now[c.spaces[i].Inode]
	}
	for inode := range c.only {
		if _, there := now[inode]; c.known[inode] && !there {
			c.lost[inode] = true
		}
	}
	for inode := range now {
		if !c.known[inode] && c.wants(inode) {
			came++
		}
	}
	return gone, came
}

// wants says whether a namespace is asked for.
func (c *counters) wants(inode uint32) bool {
	return c.only == nil || c.only[inode] && !c.lost[inode]
}

// say notes what came and went between two reads.
func (c *counters) say(gone, came, devices int) {
	if gone > 0 {
		c.lacks.pass(fmt.Sprintf("counters of %d network namespaces that went away meanwhile", gone),
			"they went with the namespace")
	}
	if came > 0 {
		c.lacks.pass(fmt.Sprintf("counters of %d network namespaces that came meanwhile", came),
			"nothing is known of them from before")
	}
	if devices > 0 {
		c.lacks.pass(fmt.Sprintf("what %d devices counted that came into a network namespace meanwhile", devices),
			"they may have been in another one before, whose counts they bring along")
	}
}

// bounded leaves out counters that did not move, the last ones first, where
// there are too many.
func (c *counters) bounded(list []record.Counter) []record.Counter {
	over := len(list) - maxCounters
	if over <= 0 {
		return list
	}
	c.lacks.add("counters that did not move, as far as they were too many",
		fmt.Sprintf("%d counters were read, at most %d are kept", len(list), maxCounters), "name a network namespace with --netns", "")
	kept := make([]record.Counter, 0, maxCounters)
	for i := len(list) - 1; i >= 0; i-- {
		switch {
		case over > 0 && list[i].Delta == 0:
			over--
		case len(kept) < maxCounters:
			kept = append(kept, list[i])
		}
	}
	slices.Reverse(kept)
	return kept
}
