package observe

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// SourceDropmon is the name of the source that the drop monitor (NET_DM) is.
const SourceDropmon = "dropmon"

const (
	// packetBytes is how much of a packet its alert carries: all headers that
	// are decoded.
	packetBytes = 192
	// packetQueue is how many packets wait on each CPU: the kernel's default. They
	// keep their memory, which may be 64 KiB each.
	packetQueue = 1000
	// summaryPlaces is how many places a CPU counts in a second in summary mode
	// (dm_hit_limit, net/core/drop_monitor.c). Drops at another are not counted.
	summaryPlaces = 64
	// summaryDelay is how long drops wait in summary mode: dm_delay, a second
	// after the first on a CPU, and what the kernel needs to send them.
	summaryDelay = 1200 * time.Millisecond
	// packetDelay is how long a packet's alert takes where none wait before it.
	packetDelay = 200 * time.Millisecond
	// quiet is how long no alert comes when all have come, and patience how much
	// longer that may take where it never gets quiet.
	quiet    = 100 * time.Millisecond
	patience = 2 * time.Second
)

// monitor is what this source needs of dropmon.Monitor and its Conn.
type monitor interface {
	Receive(f func(dropmon.Alert)) error
	SetReadDeadline(time.Time) error
	Config() (dropmon.Config, error)
	Stats() (dropmon.Stats, error)
	Running() (bool, error)
	Lost() uint64
	Unusable() uint64
	Joined() string
	Notes() []string
	Stop() error
	Close() error
}

// liveMonitor is the running kernel's.
type liveMonitor struct {
	*dropmon.Conn
	m *dropmon.Monitor
}

func (l liveMonitor) Joined() string  { return l.m.Joined() }
func (l liveMonitor) Notes() []string { return l.m.Notes() }
func (l liveMonitor) Stop() error     { return l.m.Stop() }
func (l liveMonitor) Close() error    { return l.m.Close() }

// dropMon is the source that the drop monitor is. A goroutine reads alerts and
// adds them up; the methods hand on what it has.
type dropMon struct {
	m      monitor
	mode   dropmon.Mode
	start  time.Time
	own    bool // started by this process
	filter Filter
	offset time.Duration
	// tail are the counts of the monitor's full queues when the source began.
	tail dropmon.Stats
	// lastTail are those that were asked for last.
	lastTail dropmon.Stats
	names    dropmonNames
	// stopped is closed when the reader has ended, with err.
	stopped chan struct{}
	err     error
	closed  bool
	// asked is when it was last asked whether the monitor runs, ended what was
	// learned then that ends the watching.
	asked time.Time
	ended error
	hurry <-chan struct{} // see Options
	// last is what was lost, as of when the monitor was closed.
	last losses

	mu sync.Mutex // for what follows, which the reader fills
	alertBook
}

// openDropmon opens the drop monitor in the mode that the options need, or joins
// one that runs. With load it may load the module.
func openDropmon(s *site, choice Choice, load bool) (*opened, error) {
	match, err := dropmonMatch(s)
	if err != nil {
		return nil, err
	}
	d := &dropMon{filter: s.opt.Filter, offset: s.offset}
	// In summary mode there are no words of the kernel to place a file by.
	if err := s.symbols.read(choice != ChooseDropmonSummary); err != nil {
		return nil, err
	}
	d.names.symbols, d.names.hidden = s.symbols.named(), s.symbols.hidden
	d.names.reasons = func() []record.Reason { return loadReasons(s.host).Names() }
	want := wantedMode(s.opt, choice, d.names.hidden != nil)
	o := dropmon.Options{Software: true, Hardware: true, LoadModule: load}
	o.Config, d.tail = before(want)
	m, err := dropmon.Open(o)
	if err != nil {
		return nil, noDropmon(err, load)
	}
	d.start = m.Began()
	found, err := d.watch(liveMonitor{m.Conn(), m}, s.opt, choice, match)
	var u *UnavailableError
	if errors.As(err, &u) && len(m.Notes()) > 0 { // nobody else will say them
		u.Missing += "; " + strings.Join(m.Notes(), "; ")
	}
	return found, err
}

// watch begins to read alerts.
func (d *dropMon) watch(m monitor, opt Options, choice Choice, match matcher) (_ *opened, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	c, err := m.Config()
	if err != nil {
		return nil, noDropmon(err, true)
	}
	d.m, d.mode, d.own = m, c.Mode, m.Joined() == ""
	single := opt.Each || len(opt.Filter.Reasons) > 0 || choice == ChooseDropmonPacket
	if single && d.mode == dropmon.ModeSummary {
		return nil, &UnavailableError{
			Missing: "the drop monitor is in summary mode, which tells neither single drops nor reasons, and it is not whydrop's to change: " + m.Joined(),
			Fix:     "end what started it",
		}
	}
	if !d.own {
		// What it lost until now is not this observation's.
		if d.tail, err = m.Stats(); err != nil {
			return nil, noDropmon(err, true)
		}
	}
	d.alertBook, d.hurry = newAlertBook(opt.Rich), opt.Hurry
	d.stopped = make(chan struct{})
	go d.read()
	return &opened{dropSource: d, match: match, notes: m.Notes()}, nil
}

// wantedMode is the mode that fits best. Exact counts matter most, and a storm
// costs summary mode nothing, where packet mode loses what its queue does not
// hold, and never sees what has no link header. So packet mode is for who wants
// single drops, or reasons, or to know places by name where kallsyms hides them:
// the kernel then writes the names itself.
func wantedMode(opt Options, choice Choice, hidden bool) dropmon.Mode {
	switch {
	case choice == ChooseDropmonSummary:
		return dropmon.ModeSummary
	case choice == ChooseDropmonPacket, opt.Each, len(opt.Filter.Reasons) > 0, hidden:
		return dropmon.ModePacket
	}
	return dropmon.ModeSummary
}

// before looks at the monitor before it is opened: the configuration to ask for,
// and what it had lost. Where it is not there yet, as before its module is
// loaded, it has its defaults.
func before(mode dropmon.Mode) (*dropmon.Config, dropmon.Stats) {
	now := dropmon.Config{Queue: packetQueue}
	var tail dropmon.Stats
	if c, err := dropmon.Dial(0); err == nil {
		if found, err := c.Config(); err == nil {
			now = found
		}
		// Without it the tail counts from 0, which is said to be lost then.
		tail, _ = c.Stats()
		_ = c.Close() // it has only asked
	}
	now.Mode = mode
	if mode == dropmon.ModePacket {
		now.Truncate, now.Queue = packetBytes, packetQueue
	}
	return &now, tail
}

// noDropmon says why there is no drop monitor and what would change it.
func noDropmon(err error, load bool) error {
	u := &UnavailableError{Missing: err.Error(), Err: err}
	switch {
	case errors.Is(err, os.ErrPermission):
		u.Fix = "run it as root (sudo whydrop)"
	case errors.Is(err, dropmon.ErrNoFamily) && !load && strings.HasPrefix(kernel.Host{}.NetDM().Fix, "modprobe"):
		u.Fix = "--source dropmon loads it"
	}
	return u
}

func (d *dropMon) read() {
	defer close(d.stopped)
	d.err = d.m.Receive(func(a dropmon.Alert) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.take(a)
	})
}

func (d *dropMon) name() string     { return SourceDropmon }
func (d *dropMon) began() time.Time { return d.start }

func (d *dropMon) describe(k *record.Kernel) {
	k.ReasonsFrom = kernel.FromNone
	if d.mode == dropmon.ModePacket {
		k.ReasonsFrom = SourceDropmon
	}
}

// poll hands on samples. It fails where the reader has.
func (d *dropMon) poll(sample sampleFunc) error {
	d.ask()
	if err := d.failure(); err != nil {
		return err
	}
	d.handOn(sample)
	return nil
}

// ask looks every second whether the monitor still does what it did: anybody may
// stop it for everybody, and nothing tells.
func (d *dropMon) ask() {
	const pause = time.Second
	if d.closed || d.ended != nil || time.Since(d.asked) < pause {
		return
	}
	d.asked = time.Now()
	at := d.asked.Format(time.TimeOnly)
	on, err := d.m.Running()
	if err != nil {
		return // not because it was stopped
	}
	if !on {
		d.ended = fmt.Errorf("somebody stopped the drop monitor for everybody, shortly before %s: drops after that are not seen", at)
		return
	}
	if c, err := d.m.Config(); err == nil && c.Mode != d.mode {
		d.ended = fmt.Errorf("somebody set the drop monitor to mode %s, shortly before %s: it was watched in mode %s", c.Mode, at, d.mode)
	}
}

// failure is why the watching ended early.
func (d *dropMon) failure() error {
	if d.ended != nil {
		return d.ended
	}
	select {
	case <-d.stopped:
		if d.err != nil && !errors.Is(d.err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("watch drops by drop monitor: %w", d.err)
		}
	default:
	}
	return nil
}

func (d *dropMon) handOn(sample sampleFunc) {
	d.mu.Lock()
	samples := d.takeSamples()
	d.mu.Unlock()
	for i := range samples {
		p := &samples[i]
		sample(d.names.packet(p.key), func() record.Drop { return d.names.drop(p, d.offset) })
	}
}

func (d *dropMon) drain(sample sampleFunc, count countFunc) error {
	d.mu.Lock()
	points, packets := d.takeCounts()
	d.mu.Unlock()
	for pc, n := range points {
		count(record.Key{Location: d.names.location(pc, ""), Direction: record.DirectionUnknown}, n, 0)
	}
	for k, n := range packets {
		count(d.names.packet(k), n.drops, n.bytes)
	}
	d.handOn(sample) // also where the reader has failed, which poll says
	return nil
}

func (d *dropMon) lost() (losses, error) {
	if d.closed {
		return d.last, nil
	}
	now, err := d.m.Stats()
	if err != nil {
		now, err = d.lastTail, fmt.Errorf("account for drops: %w", err)
	}
	d.lastTail = now
	d.mu.Lock()
	defer d.mu.Unlock()
	l := losses{mapFull: d.mapFull, decodeErrs: d.empty + d.m.Unusable()}
	l.dropsLost = grown(d.tail.Software, now.Software) + grown(d.tail.Hardware, now.Hardware)
	if d.mode == dropmon.ModePacket {
		l.dropsLost += d.m.Lost() // a message each
	} else {
		l.alertsLost = d.m.Lost()
	}
	return l, err
}

// grown is by how much a count grew; 0 where the kernel does not tell it.
func grown(old, now dropmon.Tail) uint64 {
	if !now.Known {
		return 0
	}
	return now.Dropped - min(old.Dropped, now.Dropped)
}

// detach waits until what was dropped by now has been told, and ends the
// monitor, if it is this process's. Ended earlier, what waits would be lost
// (net_dm_trace_off_set, net/core/drop_monitor.c).
func (d *dropMon) detach() error {
	if d.closed {
		return nil
	}
	if d.ended != nil { // nothing more comes
		return d.close()
	}
	delay := packetDelay
	if d.mode == dropmon.ModeSummary {
		delay = summaryDelay
	}
	for end := time.Now().Add(delay + patience); ; delay = quiet {
		before := d.seen()
		select {
		case <-d.stopped: // it has failed, and there is nothing to wait for
			return d.close()
		case <-d.hurry:
			return d.close()
		case <-time.After(delay):
		}
		if d.seen() == before || time.Now().After(end) {
			return d.close()
		}
	}
}

// seen is how many alerts have come.
func (d *dropMon) seen() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.alerts
}

func (d *dropMon) close() (err error) {
	if d.closed {
		return nil
	}
	known := d.ended
	d.asked = time.Time{}
	if d.ask(); known == nil {
		err = d.ended // else it was said already
	}
	// First, so that nothing comes any more while the rest is read.
	err = errors.Join(err, d.m.Stop())
	d.readRest()
	err = errors.Join(err, d.m.SetReadDeadline(time.Now()))
	<-d.stopped
	last, lerr := d.lost()
	d.closed, d.last = true, last
	return errors.Join(err, lerr, d.m.Close())
}

// readRest lets the reader take what has arrived.
func (d *dropMon) readRest() {
	const pause, most = 10 * time.Millisecond, time.Second
	for end := time.Now().Add(most); d.own && time.Now().Before(end); {
		before := d.seen()
		select {
		case <-d.stopped:
			return
		case <-time.After(pause):
		}
		if d.seen() == before {
			return
		}
	}
}

// books say what the mode cannot tell.
func (d *dropMon) books() (record.Source, []record.Blind) {
	d.mu.Lock()
	full, traps, reasons, packets, software := d.full, d.traps, d.reasons, d.packetsSeen, d.software
	d.mu.Unlock()
	src := record.Source{Name: SourceDropmon, State: record.SourceOK}
	var lacks []string
	if !d.own {
		lacks = append(lacks, "only listened to: "+d.m.Joined())
	}
	if d.names.hidden != nil && d.mode == dropmon.ModeSummary {
		lacks = append(lacks, "no names of functions: "+d.names.hidden.Error())
	}
	if full > 0 {
		lacks = append(lacks, fmt.Sprintf("%d summaries were full", full))
	}
	if lacks != nil {
		src.State, src.Why = record.SourceDegraded, strings.Join(lacks, "; ")
	}
	if err := d.failure(); err != nil {
		src.State, src.Why = record.SourceFailed, strings.Join(append(lacks, err.Error()), "; ")
	}
	var list []record.Blind
	if d.mode == dropmon.ModeSummary {
		list = d.summaryBlind(full, traps)
	} else {
		list = d.packetBlind(packets > 0 && !reasons)
	}
	if !d.own {
		list = append(list, othersOrigins(software, traps > 0)...)
	}
	if f := d.filter; len(f.Interfaces)+len(f.NetNS) > 0 {
		list = append(list, placeless)
	}
	return src, list
}

// othersOrigins is what a monitor of somebody else may not have been started for:
// the kernel does not tell what it was, only what comes of it.
func othersOrigins(software, hardware bool) (list []record.Blind) {
	const why = "the drop monitor is somebody else's, and the kernel does not tell whether they asked for these: none came"
	if !software {
		list = append(list, record.Blind{What: "drops of the kernel, if the drop monitor was started for those of hardware alone", Why: why})
	}
	if !hardware {
		list = append(list, record.Blind{What: "drops of hardware, if the drop monitor was started for those of the kernel alone", Why: why})
	}
	return list
}

func (d *dropMon) summaryBlind(full, traps uint64) []record.Blind {
	all := record.Blind{
		What: "why packets were dropped, their flows and sizes, and on which device and in which network namespace",
		Why:  "the drop monitor in summary mode counts by place in the kernel alone",
	}
	if d.own {
		all.Fix = "--source dropmon:packet tells more of each, and may lose some"
	}
	list := []record.Blind{all, {
		What: fmt.Sprintf("drops at further places, where more than %d a second drop packets on one CPU", summaryPlaces),
		Why:  "the drop monitor has no room for them in summary mode, and does not count them",
	}}
	if full > 0 {
		list[1].Why += fmt.Sprintf(": that may have happened %d times", full)
	}
	if traps > 0 {
		list = append(list, record.Blind{
			What: "whether a packet that hardware dropped was dropped by the kernel too, and is counted twice",
			Why:  "summaries tell nothing of single packets",
		})
	}
	if d.names.hidden != nil {
		list = append(list, record.Blind{What: BlindNames, Why: d.names.hidden.Error()})
	}
	return list
}

func (d *dropMon) packetBlind(noReasons bool) []record.Blind {
	list := []record.Blind{
		{
			What: "drops of packets that have no link header yet: what this host sends, as far as the output rules, routing and neighbours drop it",
			Why:  "the drop monitor passes over them in packet mode",
		},
		{
			What: "the network namespace, device name, direction, socket, task and CPU of drops",
			Why:  "the drop monitor does not tell them",
		},
	}
	if d.own {
		list[0].Fix = "--source dropmon:summary counts them"
	}
	if noReasons {
		list = append(list, record.Blind{
			What: "why packets were dropped", Why: "this kernel's drop monitor gives no drop reasons", Fix: "Linux 6.0 or newer gives them",
		})
	}
	if d.names.hidden != nil {
		list = append(list, record.Blind{
			What: "names of kernel functions beyond 39 characters",
			Why:  "the drop monitor cuts them, and the kernel's own table cannot be read: " + d.names.hidden.Error(),
		})
	}
	return list
}
