package observe

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/probe/skbdrop"
	"github.com/whydrop/whydrop/record"
)

// SourceSkbDrop is the name of the source that eBPF on skb:kfree_skb gives.
const SourceSkbDrop = "skbdrop"

// skbDrop is the source that eBPF on skb:kfree_skb gives: all that can be known
// of a drop.
type skbDrop struct {
	probe *skbdrop.Probe
	// xdp is nil where counters are not asked for.
	xdp     *xdp
	resolve *resolver
	args    int
	reasons *kernel.Reasons
	// hidden is why functions have no names; nil where they have.
	hidden error
	raw    []rawCount // used again by each drain
	closed bool
}

// rawCount is a count that has no names yet.
type rawCount struct {
	key          skbdrop.Key
	drops, bytes uint64
}

func openSkbDrop(s *site) (*opened, error) {
	types, err := s.host.LoadBTF()
	if err != nil {
		return nil, unavailable(s.host, err)
	}
	p := &skbDrop{}
	if p.args, err = kernel.KfreeSkbArgs(types.Spec); err != nil {
		return nil, unavailable(s.host, err)
	}
	p.reasons = s.host.LoadReasons(types)
	match, err := s.opt.Filter.compile(p.reasons, s.names)
	if err != nil {
		return nil, err
	}
	p.resolve = newResolver(p.reasons, nil, s.names, s.offset)
	// The two slowest steps, at the same time.
	var names sync.WaitGroup
	var refused error
	names.Go(func() { refused = s.symbols.read(false) })
	if s.opt.Counters {
		// First, and detached last: no drop without its exception.
		p.xdp = openXDP(types)
	}
	p.probe, err = skbdrop.Open(probeOptions(s.opt, p.args, types, p.reasons))
	names.Wait()
	if err != nil {
		return nil, unavailable(s.host, errors.Join(err, p.xdp.close()))
	}
	if refused != nil {
		return nil, errors.Join(refused, p.close())
	}
	p.resolve.traps = p.probe
	p.resolve.symbols, p.hidden = s.symbols.named(), s.symbols.hidden
	return &opened{dropSource: p, match: match}, nil
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
	o.Traps, _ = types.HasTrapReport()
	if opt.Rich {
		o.Burst, o.Refill, o.RingBytes = 64, 50, 4<<20
	}
	return o
}

func (p *skbDrop) name() string     { return SourceSkbDrop }
func (p *skbDrop) began() time.Time { return p.probe.Attached() }
func (p *skbDrop) detach() error    { return errors.Join(p.probe.Detach(), p.xdp.detach()) }

// own are the counters that eBPF alone gives; see xdp.counters.
func (p *skbDrop) own(names *netns.Names, only map[uint32]bool) ([]record.Counter, error) {
	if p.xdp == nil {
		return nil, nil
	}
	return p.xdp.counters(names, only)
}

func (p *skbDrop) roll() {
	if p.xdp != nil {
		p.xdp.roll()
	}
}

func (p *skbDrop) describe(k *record.Kernel) {
	k.KfreeSkbArgs, k.ReasonsFrom = p.args, p.reasons.From()
}

func (p *skbDrop) poll(sample sampleFunc) error {
	err := p.samples(sample)
	if terr := p.probe.Tick(); err == nil {
		err = terr
	}
	return err
}

func (p *skbDrop) samples(f sampleFunc) error {
	return p.probe.Samples(func(raw *skbdrop.Sample) {
		p.resolve.learn(raw)
		f(p.resolve.key(raw.Key), func() record.Drop { return p.resolve.drop(raw) })
	})
}

func (p *skbDrop) drain(sample sampleFunc, count countFunc) error {
	p.resolve.refresh()
	p.raw = p.raw[:0]
	p.probe.Counts(func(k skbdrop.Key, drops, bytes uint64) {
		p.raw = append(p.raw, rawCount{k, drops, bytes})
	})
	// After the counts, so that for each of them the sample that names its
	// device has been read.
	if err := p.samples(sample); err != nil {
		return err
	}
	for _, raw := range p.raw {
		count(p.resolve.key(raw.key), raw.drops, raw.bytes)
	}
	return nil
}

func (p *skbDrop) lost() (losses, error) {
	now, err := p.probe.Stats()
	if err != nil {
		return losses{}, fmt.Errorf("account for drops: %w", err)
	}
	return losses{
		mapFull: now.TableFull, unattributed: now.Unattributed,
		samplesLost: now.SamplesLost, decodeErrs: now.DecodeErrors,
	}, nil
}

func (p *skbDrop) close() error {
	if p.closed {
		return nil
	}
	p.closed = true
	return errors.Join(p.probe.Close(), p.xdp.close())
}

func (p *skbDrop) books() (record.Source, []record.Blind) {
	src := record.Source{Name: SourceSkbDrop, State: record.SourceOK}
	var lacks []string
	if p.hidden != nil {
		lacks = append(lacks, "no names of functions: "+p.hidden.Error())
	}
	if err := p.reasons.Why(); err != nil {
		lacks = append(lacks, "no names of reasons: "+err.Error())
	}
	if _, refused := p.probe.Hardware(); refused != nil {
		lacks = append(lacks, "no drops by hardware: "+refused.Error())
	}
	if p.xdp != nil && p.xdp.why != nil && !errors.Is(p.xdp.why, kernel.ErrNoXDPException) {
		lacks = append(lacks, "no failures of XDP programs: "+p.xdp.why.Error())
	}
	if lacks != nil {
		src.State, src.Why = record.SourceDegraded, strings.Join(lacks, "; ")
	}
	var list []record.Blind
	if p.xdp != nil && p.xdp.why != nil {
		list = append(list, record.Blind{
			What: "whether an XDP program dropped packets on purpose or failed", Why: p.xdp.why.Error(),
		})
	}
	if p.args < 3 {
		list = append(list, record.Blind{
			What: "why packets were dropped", Why: "this kernel gives no drop reasons", Fix: "Linux 5.17 or newer gives them",
		})
	}
	if p.args < 4 {
		list = append(list, record.Blind{
			What: "the receiving socket of some drops", Why: "this kernel's tracepoint does not name it", Fix: "Linux 6.11 or newer does",
		})
	}
	if p.hidden != nil {
		list = append(list, record.Blind{What: BlindNames, Why: p.hidden.Error()})
	}
	return src, list
}
