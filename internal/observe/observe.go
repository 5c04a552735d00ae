// Package observe watches a host for a window of time: it starts the sources
// that work here, says which do not, turns what they give into record's types
// and hands it on, interval by interval.
//
// It must not judge what it sees (internal/diagnose does), print, or change
// anything on the host.
package observe

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/probe/skbdrop"
	"github.com/whydrop/whydrop/record"
)

// SourceSkbDrop is the name of the source that eBPF on skb:kfree_skb gives.
const SourceSkbDrop = "skbdrop"

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
	// Counters reads the kernel's counters at the beginning and at the end,
	// in the namespaces that Filter names, or in all.
	Counters bool
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
	s := "cannot " + cmp.Or(e.Cannot, "watch packet drops") + ": " + e.Missing
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

func (e *UnavailableError) Unwrap() error { return e.Err }

// Session is a watch that has begun. Its methods must not be called at the
// same time.
type Session struct {
	opt     Options
	probe   *skbdrop.Probe
	resolve *resolver
	match   matcher
	// counters is nil where they are not asked for.
	counters *counters
	header   record.Header
	trailer  record.Trailer
	// stats are those already reported.
	stats   skbdrop.Stats
	pending record.Interval
	raw     []rawCount // used again by each flush
	since   time.Time
}

// Start attaches to the kernel. Every drop from its return on is counted. It
// returns *UnavailableError where no source works, and *FilterError for a
// filter that names nothing.
func Start(opt Options) (*Session, error) {
	if opt.Interval <= 0 {
		opt.Interval = time.Second
	}
	var host kernel.Host
	types, err := host.LoadBTF()
	if err != nil {
		return nil, unavailable(host, err)
	}
	args, err := kernel.KfreeSkbArgs(types.Spec)
	if err != nil {
		return nil, unavailable(host, err)
	}
	offset, err := kernel.ClockOffset()
	if err != nil {
		return nil, err
	}
	names, err := netns.NewNames()
	if err != nil {
		return nil, err
	}
	reasons := host.LoadReasons(types)
	s := &Session{opt: opt}
	if s.match, err = opt.Filter.compile(reasons, names); err != nil {
		return nil, err
	}
	s.resolve = newResolver(reasons, nil, names, offset)
	// The two slowest steps, at the same time.
	type table struct {
		symbols *kernel.Symbols
		read    bool
		err     error
	}
	loaded := make(chan table, 1)
	go func() {
		symbols, read, err := kernel.SharedSymbols()
		loaded <- table{symbols, read, err}
	}()
	s.probe, err = skbdrop.Open(probeOptions(opt, args, types, reasons))
	t := <-loaded
	if err != nil {
		return nil, unavailable(host, err)
	}
	if t.err == nil {
		var read time.Time
		if t.read {
			read = time.Now()
		}
		s.resolve.symbols = newSymbols(t.symbols, read)
	}
	s.since = s.probe.Attached()
	if opt.Counters {
		// Right after the first drop that is counted could have come.
		s.counters = beginCounters(names, s.match.netns)
	} else {
		names.List() // which finds the names of containers and units
	}
	s.describe(host, args, reasons, t.err)
	return s, nil
}

// probeOptions fits the probe to the kernel. What the kernel does not say it
// has, the program does without: it is slower then, and counts as exactly.
func probeOptions(opt Options, args int, types *kernel.BTF, reasons *kernel.Reasons) skbdrop.Options {
	o := skbdrop.Options{Args: args, BTF: types.Cache}
	o.Guarded, _ = types.GuardsRecursion()
	o.HaveCast, _ = types.HasFunc("bpf_rdonly_cast")
	if has, _ := types.HasQdiscDrop(); has {
		if found, err := reasons.Parse("QDISC_DROP"); err == nil {
			o.QdiscDrop = found[0].Value
		}
	}
	if opt.Rich {
		o.Burst, o.Refill, o.RingBytes = 64, 50, 4<<20
	}
	return o
}

// describe fills what is known from the start.
func (s *Session) describe(host kernel.Host, args int, reasons *kernel.Reasons, symbolsErr error) {
	h := &s.header
	h.Start = s.since
	// What cannot be read about the machine stays empty.
	h.Host, h.Kernel, _ = host.Identity()
	h.Host.Program = s.opt.Program
	h.Kernel.KfreeSkbArgs = args
	h.Kernel.ReasonsFrom = reasons.From()
	src := record.Source{Name: SourceSkbDrop, State: record.SourceOK}
	var lacks []string
	if symbolsErr != nil {
		lacks = append(lacks, "no names of functions: "+symbolsErr.Error())
	}
	if err := reasons.Why(); err != nil {
		lacks = append(lacks, "no names of reasons: "+err.Error())
	}
	if lacks != nil {
		src.State, src.Why = record.SourceDegraded, strings.Join(lacks, "; ")
	}
	h.Sources = []record.Source{src}
	h.Blind = blind(args, s.counters != nil, symbolsErr, s.resolve.netns.HostError())
}

// books are the sources and what they did not see, as far as that is known.
func (s *Session) books() ([]record.Source, []record.Blind) {
	sources, blind := s.header.Sources, s.header.Blind
	if s.counters == nil {
		return sources, blind
	}
	return append(slices.Clone(sources), s.counters.lacks.source()), append(slices.Clone(blind), s.counters.lacks.blind()...)
}

// blind lists what this source cannot see on this host.
func blind(args int, counters bool, symbolsErr, hostErr error) []record.Blind {
	list := []record.Blind{{
		What: "loss before there is an skb, as far as the devices' common counters do not tell: native XDP, hardware",
		Why:  "no drop event exists",
		Fix:  "compare `ethtool -S DEV`",
	}}
	if !counters {
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
	if args < 3 {
		list = append(list, record.Blind{
			What: "why packets were dropped", Why: "this kernel gives no drop reasons", Fix: "Linux 5.17 or newer gives them",
		})
	}
	if args < 4 {
		list = append(list, record.Blind{
			What: "the receiving socket of some drops", Why: "this kernel's tracepoint does not name it", Fix: "Linux 6.11 or newer does",
		})
	}
	if symbolsErr != nil {
		list = append(list, record.Blind{What: "names of kernel functions", Why: symbolsErr.Error()})
	}
	if hostErr != nil {
		list = append(list, record.Blind{
			What: "which network namespace is the host's",
			Why:  "the one of PID 1 may not be read",
			Fix:  "run as root or with CAP_SYS_PTRACE",
		})
	}
	return list
}
