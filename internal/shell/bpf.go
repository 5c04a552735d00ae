package shell

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

const (
	// summaryInterval is how often drops are summed up, as the drop monitor
	// does; packetInterval is how soon after a drop it is shown.
	summaryInterval = time.Second
	packetInterval  = 200 * time.Millisecond
	// backlog is how many intervals may wait to be shown.
	backlog = 16
)

var (
	errNoQueue    = errors.New("eBPF has no queue of that kind: every drop is counted, and the samples that packet mode shows thin out under load by themselves")
	errNoHardware = errors.New("the drops of hardware are shown here by the drop monitor only (whydrop watch shows them by eBPF, too): set hw false")
)

// bpf is the backend where the kernel has no drop monitor.
type bpf struct {
	program string
	config  dropmon.Config
	// running is true during a session.
	running bool
	// missed adds up what could not be shown.
	missed dropmon.Tail
}

// OpenBPF looks whether eBPF can watch drops here. Program is whydrop's version.
// The error is *observe.UnavailableError where it cannot.
func OpenBPF(program string) (Backend, error) {
	b := &bpf{program: program, missed: dropmon.Tail{Known: true}}
	s, err := observe.Start(b.options())
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *bpf) options() observe.Options {
	o := observe.Options{
		Source: observe.ChooseBPF, Interval: summaryInterval, Program: b.program,
		// The shell names what it shows, if it was asked to.
		Symbols: kernel.SymbolsNone, Unrecorded: true,
	}
	if b.config.Mode == dropmon.ModePacket {
		o.Interval, o.Rich, o.Each = packetInterval, true, true
	}
	return o
}

func (b *bpf) Config() (dropmon.Config, error) { return b.config, nil }

func (b *bpf) SetConfig(c dropmon.Config) error {
	if b.running {
		return dropmon.ErrBusy
	}
	if c.Queue != b.config.Queue {
		return errNoQueue
	}
	b.config = c
	return nil
}

// Stats are the samples and counts that found no room.
func (b *bpf) Stats() (dropmon.Stats, error) { return dropmon.Stats{Software: b.missed}, nil }

func (b *bpf) Close() error { return nil }

func (b *bpf) Start(software, hardware bool) (Session, error) {
	if hardware {
		return nil, errNoHardware
	}
	s, err := observe.Start(b.options())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	v := &bpfSession{
		bpf: b, config: b.config, notes: s.Notes(), cancel: cancel,
		alerts: make(chan []dropmon.Alert, backlog),
	}
	if b.config.Mode == dropmon.ModePacket {
		v.notes = append(v.notes, "packets are samples: all of a few drops, some of many; summary mode counts all")
	}
	b.running = true
	v.work.Go(func() {
		defer close(v.alerts)
		v.err = s.Run(ctx, v.interval)
	})
	return v, nil
}

// bpfSession is the time that the eBPF program is attached.
type bpfSession struct {
	bpf    *bpf
	config dropmon.Config
	notes  []string
	cancel context.CancelFunc
	work   sync.WaitGroup
	alerts chan []dropmon.Alert
	err    error // of the watching, once alerts is closed
	told   bool  // by Receive
	// What follows is the worker's until alerts is closed.
	total record.Accounting
}

// interval hands on what an interval brought.
func (s *bpfSession) interval(iv record.Interval) error {
	s.total.Add(iv.Accounting)
	var list []dropmon.Alert
	if s.config.Mode == dropmon.ModePacket {
		for i := range iv.Samples {
			if !iv.Samples[i].Hardware() { // not asked for
				list = append(list, dropmon.Alert{Packet: packetOf(&iv.Samples[i], s.config.Truncate)})
			}
		}
	} else if points := pointsOf(iv.Counts); len(points) > 0 {
		list = []dropmon.Alert{{Points: points}}
	}
	s.alerts <- list
	return nil
}

func (s *bpfSession) Notes() []string      { return s.notes }
func (s *bpfSession) Delay() time.Duration { return 0 }

func (s *bpfSession) Receive(wait time.Duration, f func(dropmon.Alert) bool) error {
	over := time.After(wait)
	for {
		select {
		case <-over:
			return nil
		case list, ok := <-s.alerts:
			if !ok {
				s.told = true
				return cmp.Or(s.err, errors.New("the watching is over"))
			}
			if !hand(list, f) {
				return nil
			}
		}
	}
}

// hand hands alerts to f until it returns false.
func hand(list []dropmon.Alert, f func(dropmon.Alert) bool) bool {
	for _, a := range list {
		if !f(a) {
			return false
		}
	}
	return true
}

// Stop detaches the program. What was counted until then is shown too.
func (s *bpfSession) Stop(f func(dropmon.Alert) bool) (Ending, error) {
	s.cancel()
	more := true
	for list := range s.alerts {
		more = more && hand(list, f)
	}
	s.work.Wait()
	s.bpf.running = false
	var e Ending
	a := s.total
	missed := a.DropsUnattributed + a.MapFull
	if missed > 0 {
		e.Lost = append(e.Lost, fmt.Sprintf("%d drops have no location: %d of more kinds than the table holds, %d inside of another drop", missed, a.MapFull, a.DropsUnattributed))
	}
	if s.config.Mode == dropmon.ModePacket {
		missed += a.SamplesLost
		if a.DropsAggregated > a.Samples {
			e.Notes = append(e.Notes, fmt.Sprintf("%d packets were dropped, %d of them came as samples", a.DropsAggregated, a.Samples))
		}
	}
	s.bpf.missed.Dropped += missed
	if s.told {
		return e, nil
	}
	return e, s.err
}

// pointsOf adds up the kernel's drops of each location, those with the most
// first.
func pointsOf(counts []record.Count) []dropmon.Point {
	sums := map[uint64]uint64{}
	for _, c := range counts {
		if !c.Hardware() {
			sums[uint64(c.Location.Address)] += c.Drops
		}
	}
	var points []dropmon.Point
	for pc, n := range sums {
		points = append(points, dropmon.Point{PC: pc, Drops: uint32(min(n, 1<<32-1))})
	}
	slices.SortFunc(points, func(a, b dropmon.Point) int {
		return cmp.Or(cmp.Compare(b.Drops, a.Drops), cmp.Compare(a.PC, b.PC))
	})
	return points
}

// packetOf is a sample as the drop monitor would tell of it; truncate is in
// bytes, and 0 is all that was sampled.
func packetOf(d *record.Drop, truncate uint32) *dropmon.Packet {
	p := &dropmon.Packet{
		PC: uint64(d.Location.Address), Reason: d.Reason.Name, Time: d.Time,
		Protocol: d.EtherType, OriginalLength: wholeLength(d), Payload: d.Headers,
	}
	// As there: the device that the packet came in by.
	if d.Direction == record.DirectionRX || d.Direction == record.DirectionForward {
		p.InIndex, p.InName = d.Device.Index, d.Device.Name
	}
	if truncate > 0 && int(truncate) < len(p.Payload) {
		p.Payload = p.Payload[:truncate]
	}
	return p
}

// wholeLength is the length of a packet in bytes from its first header on. The
// kernel's own starts where the packet was dropped, behind the headers that were
// done with by then.
func wholeLength(d *record.Drop) uint32 {
	whole := max(d.Length, uint32(len(d.Headers)))
	if d.Packet == nil {
		return whole
	}
	start := packet.StartNetwork
	if d.Packet.SrcMAC != "" {
		start = packet.StartEthernet
	}
	var h packet.Headers
	if h.Decode(d.Headers, start, d.EtherType) != nil {
		return whole
	}
	length := h.TotalLen
	if length > 0 && start == packet.StartEthernet {
		length += 14 + 4*uint32(h.VLANCount)
	}
	return max(whole, length)
}
