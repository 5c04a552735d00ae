// Package skbdrop sees every skb that the kernel drops: it counts all of them
// exactly, in the kernel, and brings a bounded number of whole records to
// user space. Its C is in skbdrop.bpf.c beside this file.
//
// It deals in the kernel's numbers. It must not turn them into names (that is
// internal/kernel's), decide what they mean (internal/diagnose) or know of any
// other probe.
package skbdrop

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
)

const (
	// levels is LEVELS of skbdrop.bpf.c: stretches a CPU has where programs nest.
	levels = 3
	// trapSlots is TRAP_SLOTS there: keys of hardware drops that a CPU can count.
	trapSlots = 128
	// twinTime is how long after its report a packet that hardware dropped is the
	// same when it is freed: as long as a softirq polls a driver, two jiffies of
	// any kernel (net.core.netdev_budget_usecs, net/core/hotdata.c) and some.
	twinTime = 25 * time.Millisecond
)

// Options says how to watch. The zero value of a field takes its default.
type Options struct {
	// Args is how many arguments the running kernel's tracepoint has: 2, 3
	// or 4 (kernel.KfreeSkbArgs). Required.
	Args int
	// Guarded says that the kernel never runs the program while it already
	// runs on the same CPU (kernel.BTF.GuardsRecursion). Where it does, nested
	// runs get tables of their own.
	Guarded bool
	// HaveCast says that the kernel has bpf_rdonly_cast (6.2 and later): the
	// program then reads packets without calling a helper.
	HaveCast bool
	// QdiscDrop is the number of the reason QDISC_DROP where the kernel has
	// the tracepoint qdisc:qdisc_drop (7.2), which tells it apart; else 0.
	QdiscDrop uint32
	// Traps says that the kernel has the tracepoint devlink:devlink_trap_report
	// (5.10, kernel.BTF.HasTrapReport), by which hardware tells its drops.
	Traps bool
	// Slots is how many keys a CPU can count, a power of two. Default 2048.
	Slots int
	// Burst is how many samples a key may take at once on a CPU, Refill how
	// many it gains with every Tick. Defaults 8 and 1.
	Burst, Refill int
	// RingBytes is the size of the buffer of samples, a power of two and a
	// multiple of the page size. Default 512 KiB.
	RingBytes int
	// Raw forces the program of type raw_tracepoint.
	Raw bool
	// BTF amortises reading the kernel's types. Optional.
	BTF *btf.Cache

	// twin replaces twinTime in tests.
	twin time.Duration
}

func (o *Options) setDefaults() error {
	if o.Args < 2 || o.Args > 4 {
		return fmt.Errorf("watch skb:kfree_skb: tracepoint with %d arguments is not known (2, 3 or 4 are)", o.Args)
	}
	if o.Slots == 0 {
		o.Slots = 2048
	}
	if bits.OnesCount(uint(o.Slots)) != 1 {
		return fmt.Errorf("watch skb:kfree_skb: %d slots: not a power of two", o.Slots)
	}
	if o.Burst == 0 {
		o.Burst = 8
	}
	if o.Refill == 0 {
		o.Refill = 1
	}
	if o.RingBytes == 0 {
		o.RingBytes = 512 << 10
	}
	if o.twin == 0 {
		o.twin = twinTime
	}
	return nil
}

// Probe watches from Open until Close. Its methods must not be called at the
// same time.
type Probe struct {
	coll  *ebpf.Collection
	prog  *ebpf.Program
	link  link.Link
	qdisc link.Link // nil where the kernel has no qdisc:qdisc_drop
	// trap is nil where the kernel has no devlink:devlink_trap_report, or refused;
	// then refused says why.
	trap    link.Link
	refused error
	traps   map[uint64]Trap // the names of those that were seen
	ring    *ringbuf.Reader
	table   *table
	epoch   *ebpf.Variable
	tick    uint32

	rec          ringbuf.Record
	sample       Sample
	decodeErrors uint64
	programType  string
	attached     time.Time
}

// Open loads the program and attaches it. Errors wrap those of cilium/ebpf;
// one of kind os.ErrPermission means that CAP_BPF or CAP_PERFMON is missing.
func Open(o Options) (*Probe, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	// Before 5.11 maps count against RLIMIT_MEMLOCK. Without the capability to
	// raise it the load may still fit, and says so itself if it does not.
	_ = rlimit.RemoveMemlock()

	p, err := open(o, o.Raw)
	if err != nil && !o.Raw && errors.Is(err, ebpf.ErrNotSupported) {
		var rawErr error
		if p, rawErr = open(o, true); rawErr != nil {
			return nil, errors.Join(err, rawErr)
		}
		return p, nil
	}
	return p, err
}

func open(o Options, raw bool) (_ *Probe, err error) {
	spec, err := loadSkbdrop()
	if err != nil {
		return nil, fmt.Errorf("read eBPF object: %w", err)
	}
	name, other := skbdropProgKfreeSkbBtf, skbdropProgKfreeSkbRaw
	if raw {
		name, other = other, name
	}
	delete(spec.Programs, other)
	if o.QdiscDrop == 0 || raw {
		delete(spec.Programs, skbdropProgQdiscDropBtf)
	}
	if !o.Traps {
		delete(spec.Programs, skbdropProgTrapReportRaw)
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count possible cpus: %w", err)
	}
	if err := configure(spec, o, cpus); err != nil {
		return nil, err
	}
	p := &Probe{programType: "tp_btf", traps: map[uint64]Trap{}}
	if raw {
		p.programType = "raw_tracepoint"
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	p.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: o.BTF})
	if err != nil {
		return nil, fmt.Errorf("load eBPF program %s: %w", name, err)
	}
	p.prog = p.coll.Programs[name]
	p.epoch = p.coll.Variables[skbdropVarEpoch]
	if p.table, err = mapTable(p.coll.Maps[skbdropMapSlots]); err != nil {
		return nil, err
	}
	if p.ring, err = ringbuf.NewReader(p.coll.Maps[skbdropMapSamples]); err != nil {
		return nil, fmt.Errorf("open ring buffer of samples: %w", err)
	}
	if prog := p.coll.Programs[skbdropProgQdiscDropBtf]; prog != nil {
		// First, so that no packet is freed before its reason is known.
		if p.qdisc, err = link.AttachTracing(link.TracingOptions{Program: prog}); err != nil {
			return nil, fmt.Errorf("attach to tracepoint qdisc:qdisc_drop: %w", err)
		}
	}
	p.attached = time.Now()
	if p.link, err = attach(p.prog, raw); err != nil {
		return nil, err
	}
	p.attachTrap()
	return p, nil
}

// attachTrap has hardware drops counted too, where that works. The others are
// without it.
func (p *Probe) attachTrap() {
	prog := p.coll.Programs[skbdropProgTrapReportRaw]
	if prog == nil {
		return
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "devlink_trap_report", Program: prog})
	if err != nil {
		p.refused = fmt.Errorf("attach to tracepoint devlink:devlink_trap_report: %w", err)
		return
	}
	p.trap = l
}

// configure sets constants and sizes before the verifier sees them.
func configure(spec *ebpf.CollectionSpec, o Options, cpus int) error {
	rows := cpus * o.Slots
	nest := uint32(0)
	if !o.Guarded {
		rows *= levels
		nest = 1
	}
	trapBase, traps := uint32(rows), uint32(0)
	if o.Traps {
		rows += cpus * trapSlots
		traps = 1
	} else {
		spec.Maps[skbdropMapTraps].MaxEntries = 1
	}
	spec.Maps[skbdropMapSlots].MaxEntries = uint32(rows)
	spec.Maps[skbdropMapSamples].MaxEntries = uint32(o.RingBytes)
	cast := uint32(0)
	if o.HaveCast {
		cast = 1
	}
	if err := spec.Variables[skbdropVarTwinNs].Set(uint64(o.twin)); err != nil {
		return fmt.Errorf("set %s of the eBPF program: %w", skbdropVarTwinNs, err)
	}
	for name, v := range map[string]uint32{
		skbdropVarHaveTraps:    traps,
		skbdropVarTrapBase:     trapBase,
		skbdropVarHaveCast:     cast,
		skbdropVarQdiscDrop:    o.QdiscDrop,
		skbdropVarKfreeSkbArgs: uint32(o.Args),
		skbdropVarMayNest:      nest,
		skbdropVarSlotsPerCpu:  uint32(o.Slots),
		skbdropVarBurst:        uint32(o.Burst),
		skbdropVarRefill:       uint32(o.Refill),
	} {
		if err := spec.Variables[name].Set(v); err != nil {
			return fmt.Errorf("set %s of the eBPF program: %w", name, err)
		}
	}
	return nil
}

func attach(prog *ebpf.Program, raw bool) (l link.Link, err error) {
	if raw {
		l, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "kfree_skb", Program: prog})
	} else {
		l, err = link.AttachTracing(link.TracingOptions{Program: prog})
	}
	if err != nil {
		return nil, fmt.Errorf("attach to tracepoint skb:kfree_skb: %w", err)
	}
	return l, nil
}

// ProgramType says which type of program is attached: tp_btf or
// raw_tracepoint.
func (p *Probe) ProgramType() string { return p.programType }

// Attached is when the watching began: no later than the first drop counted.
func (p *Probe) Attached() time.Time { return p.attached }

// Tick grants every key its refill of samples. Call it at a steady pace.
func (p *Probe) Tick() error {
	p.tick++
	if err := p.epoch.Set(p.tick); err != nil {
		return fmt.Errorf("grant samples: %w", err)
	}
	return nil
}

// Counts calls f for every key that was dropped since the last call.
func (p *Probe) Counts(f func(k Key, drops, bytes uint64)) { p.table.drain(f) }

// Samples calls f for every record that has arrived. The Sample is used again
// afterwards: f must copy what it keeps.
func (p *Probe) Samples(f func(*Sample)) error {
	p.ring.SetDeadline(time.Unix(1, 0))
	for {
		err := p.ring.ReadInto(&p.rec)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read ring buffer of samples: %w", err)
		}
		if err := p.sample.decode(p.rec.RawSample); err != nil {
			p.decodeErrors++
			continue
		}
		f(&p.sample)
	}
}

// Stats are totals since Open.
type Stats struct {
	// TableFull drops were counted here alone, their key had no slot.
	TableFull, TableFullBytes uint64
	// SamplesLost records found the ring buffer full.
	SamplesLost uint64
	// Unattributed drops happened while the program already ran on that CPU:
	// recursion_misses of the kernel, or nesting deeper than the tables.
	Unattributed uint64
	// DecodeErrors records were not as long as they said.
	DecodeErrors uint64
}

// Stats reads the totals.
func (p *Probe) Stats() (Stats, error) {
	var per []skbdropCpuState
	if err := p.coll.Maps[skbdropMapState].Lookup(uint32(0), &per); err != nil {
		return Stats{}, fmt.Errorf("read state of the eBPF program: %w", err)
	}
	s := Stats{DecodeErrors: p.decodeErrors}
	for _, c := range per {
		s.TableFull += c.TableFull
		s.TableFullBytes += c.TableFullBytes
		s.SamplesLost += c.SamplesLost
		s.Unattributed += c.TooDeep
	}
	ps, err := p.prog.Stats()
	if err != nil {
		return Stats{}, fmt.Errorf("read statistics of the eBPF program: %w", err)
	}
	s.Unattributed += ps.RecursionMisses
	if prog := p.coll.Programs[skbdropProgTrapReportRaw]; prog != nil {
		if ps, err = prog.Stats(); err != nil {
			return Stats{}, fmt.Errorf("read statistics of the eBPF program for traps: %w", err)
		}
		s.Unattributed += ps.RecursionMisses
	}
	return s, nil
}

// Detach stops the watching; Counts, Samples and Stats then give the rest.
// It may be called more than once.
func (p *Probe) Detach() error {
	if p.link == nil {
		return nil
	}
	err := p.link.Close()
	p.link = nil
	if p.qdisc != nil {
		err = errors.Join(err, p.qdisc.Close())
	}
	if p.trap != nil {
		err = errors.Join(err, p.trap.Close())
	}
	if err != nil {
		return fmt.Errorf("detach from tracepoints: %w", err)
	}
	// A run that had begun on another CPU ends within microseconds.
	time.Sleep(time.Millisecond)
	return nil
}

// Close detaches and frees everything.
func (p *Probe) Close() error {
	err := p.Detach()
	if p.ring != nil {
		err = errors.Join(err, p.ring.Close())
	}
	if p.table != nil {
		err = errors.Join(err, p.table.unmap())
	}
	if p.coll != nil {
		p.coll.Close()
	}
	return err
}
