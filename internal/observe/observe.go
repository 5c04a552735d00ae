// Package observe watches a host for a window of time: it starts the sources
// that work here, says which do not, turns what they give into record's types
// and hands it on, interval by interval.
//
// It must not judge what it sees (internal/diagnose does), print, or change
// anything on the host.
package observe

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// tick is how often samples are fetched and new ones granted. The kernel
// never wakes the reader: a wake-up per sample costs more than the sample.
const tick = 100 * time.Millisecond

// maxSamples bounds the samples kept of one interval.
const maxSamples = 4096

// Options says what to watch.
type Options struct {
	// Interval is the time between two calls of the sink. Default 1 s.
	Interval time.Duration
	// Duration ends the watching; 0 leaves that to the context.
	Duration time.Duration
	// Intervals ends it after so many intervals; 0 means no such end.
	Intervals int
	// Rich asks for more samples: as many as a person might read one by one.
	Rich   bool
	Filter Filter
	// Each says that single drops are what is wanted: a source that can only
	// count does not do.
	Each bool
	// Counters reads the kernel's counters at the beginning and at the end,
	// in the namespaces that Filter names, or in all.
	Counters bool
	// Symbols says where the names of functions come from, as
	// kernel.Host.OpenNames takes it; empty is the kernel's own table.
	Symbols string
	// Unrecorded says that no record is made: its anchors, which stand at the
	// start of /proc/kallsyms, are not read.
	Unrecorded bool
	// Source says which source is to see the drops.
	Source Choice
	// Hurry is closed when there is no time to wait for what is on its way when
	// the watching ends: what was changed is put back all the same.
	Hurry <-chan struct{}
	// Program is the version of whydrop, for the record.
	Program string
}

// UnavailableError says that nothing can be watched, and what would change it.
type UnavailableError struct {
	// Cannot is what cannot be done; empty is to watch packet drops.
	Cannot string
	// Missing is what this host lacks, Fix what to do about it.
	Missing, Fix string
	Err          error
}

func (e *UnavailableError) Error() string {
	return "cannot " + cmp.Or(e.Cannot, "watch packet drops") + ": " + e.reason()
}

// reason is what is missing and what to do about it.
func (e *UnavailableError) reason() string {
	if e.Fix == "" {
		return e.Missing
	}
	return e.Missing + "; " + e.Fix
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Session is a watch that has begun. Its methods must not be called at the
// same time.
type Session struct {
	opt    Options
	source dropSource
	// failed are the sources that would have been better and do not work here.
	failed []record.Source
	match  matcher
	notes  []string
	names  *netns.Names
	// symbols are the names of functions.
	symbols *symbols
	// counters is nil where they are not asked for.
	counters *counters
	header   record.Header
	trailer  record.Trailer
	// lost is what was already reported.
	lost    losses
	pending record.Interval
	since   time.Time
}

// Start opens a source and begins. Every drop that the source can see is
// counted from its return on. It returns *UnavailableError where no source
// works that was asked for, *FilterError for a filter that names nothing, and
// *SymbolsError for symbols that cannot be used.
func Start(opt Options) (*Session, error) {
	if opt.Interval <= 0 {
		opt.Interval = time.Second
	}
	list, err := openers(opt)
	if err != nil {
		return nil, err
	}
	at := &site{opt: opt}
	at.symbols = newSymbols(at.host, opt.Symbols)
	if at.offset, err = kernel.ClockOffset(); err != nil {
		return nil, err
	}
	if at.names, err = netns.NewNames(); err != nil {
		return nil, err
	}
	found, failed, err := openFirst(at, list)
	if err != nil {
		return nil, errors.Join(err, at.symbols.close())
	}
	return begin(at, found, failed), nil
}

// begin makes a session of a source that has just been opened.
func begin(at *site, found *opened, failed []record.Source) *Session {
	s := &Session{
		opt: at.opt, source: found.dropSource, failed: failed, match: found.match, names: at.names, symbols: at.symbols,
		notes: append(fallback(found, failed), found.notes...), since: found.began(),
	}
	if at.opt.Counters {
		// Right after the first drop that is counted could have come.
		s.counters = beginCounters(at.names, s.match.netns)
	} else {
		at.names.List() // which finds the names of containers and units
	}
	h := &s.header
	h.Start = s.since
	// What cannot be read about the machine stays empty.
	h.Host, h.Kernel, _ = at.host.Identity()
	h.Host.Program = at.opt.Program
	if !at.opt.Unrecorded {
		h.Anchors, h.Kernel.BuildID = at.host.Anchors()
	}
	s.source.describe(&h.Kernel)
	if f := at.opt.Filter; len(f.Interfaces)+len(f.Reasons)+len(f.NetNS) > 0 {
		h.Asked = &record.Asked{Interfaces: f.Interfaces, Reasons: f.Reasons, NetNS: f.NetNS}
	}
	return s
}

// Notes are sentences that say what a user should know of how the watching
// began: which better source does not work, what was loaded or joined.
func (s *Session) Notes() []string { return s.notes }

// Watched says whether there is a source that sees drops, and not counters alone.
func (s *Session) Watched() bool { return s.source.name() != SourceCounters }

// Failed are the sources that would have been better and do not work here.
func (s *Session) Failed() []record.Source { return s.failed }

// Source is how well the source works that sees the drops; where there is none
// it is that of the counters.
func (s *Session) Source() record.Source {
	src, _ := s.source.books()
	if s.Watched() {
		return src
	}
	return record.Source{Name: SourceCounters, State: record.SourceOK}
}

// books are the sources and what they did not see, as far as that is known.
func (s *Session) books() ([]record.Source, []record.Blind) {
	src, own := s.symbols.tell(s.source.books())
	sources := slices.Clone(s.failed)
	if src.Name != "" {
		sources = append(sources, src)
	}
	list := append(s.blind(), own...)
	if s.counters == nil {
		return sources, list
	}
	return append(sources, s.counters.lacks.source()), append(list, s.counters.lacks.blind()...)
}

// blind lists what no source of drops can see, whichever it is.
func (s *Session) blind() []record.Blind {
	list := []record.Blind{{
		What: "loss before there is an skb, as far as the devices' common counters do not tell: native XDP, hardware",
		Why:  "no drop event exists",
		Fix:  "compare `ethtool -S DEV`",
	}}
	if s.counters == nil {
		list = []record.Blind{
			{
				What: "loss before there is an skb: full NIC rings, native XDP, hardware",
				Why:  "no drop event exists",
				Fix:  "compare `ip -s -s link` and `ethtool -S DEV`",
			},
			{
				What: "SYNs refused by a full accept or SYN queue",
				Why:  "the kernel frees them without a drop event",
				Fix:  "compare ListenOverflows and ListenDrops of `nstat -az`",
			},
		}
	}
	if err := s.names.HostError(); err != nil {
		list = append(list, record.Blind{
			What: "which network namespace is the host's",
			Why:  "the one of PID 1 may not be read",
			Fix:  "run as root or with CAP_SYS_PTRACE",
		})
	}
	return list
}
