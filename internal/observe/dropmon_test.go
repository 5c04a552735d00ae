package observe

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// fakeMonitor gives the alerts that are put into it.
type fakeMonitor struct {
	mu     sync.Mutex
	config dropmon.Config
	stats  dropmon.Stats
	lost   uint64
	joined string
	closed int
	alerts chan dropmon.Alert
	ended  chan struct{}
	fail   error
	off    bool
}

func (f *fakeMonitor) Running() (bool, error) { return !f.off, nil }
func (f *fakeMonitor) Stop() error            { return nil }

func newFakeMonitor(mode dropmon.Mode) *fakeMonitor {
	return &fakeMonitor{config: dropmon.Config{Mode: mode}, alerts: make(chan dropmon.Alert), ended: make(chan struct{})}
}

func (f *fakeMonitor) Receive(take func(dropmon.Alert)) error {
	for {
		select {
		case a, ok := <-f.alerts:
			if !ok {
				return f.fail
			}
			take(a)
		case <-f.ended:
			return os.ErrDeadlineExceeded
		}
	}
}

func (f *fakeMonitor) SetReadDeadline(time.Time) error {
	close(f.ended)
	return nil
}

func (f *fakeMonitor) Config() (dropmon.Config, error) { return f.config, nil }

func (f *fakeMonitor) Stats() (dropmon.Stats, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats, nil
}

func (f *fakeMonitor) tail(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Software = dropmon.Tail{Dropped: n, Known: true}
}

func (f *fakeMonitor) Lost() uint64     { return f.lost }
func (f *fakeMonitor) Unusable() uint64 { return 0 }
func (f *fakeMonitor) Joined() string   { return f.joined }
func (f *fakeMonitor) Notes() []string  { return []string{"a note"} }
func (f *fakeMonitor) Close() error     { f.closed++; return nil }

// monitored makes the source of a fake monitor.
func monitored(t *testing.T, f *fakeMonitor, opt Options) *dropMon {
	t.Helper()
	n := 0
	d := &dropMon{start: time.Now(), filter: opt.Filter, offset: time.Hour, tail: f.stats}
	d.names.symbols = fakeNames{&n}
	d.names.reasons = func() []record.Reason {
		return []record.Reason{
			{Name: "NO_SOCKET", Subsystem: "core", Value: 3},
			{Name: "TWICE", Subsystem: "core", Value: 9},
			{Name: "TWICE", Subsystem: "other", Value: 1 << 16},
		}
	}
	if _, err := d.watch(f, opt, ChooseDropmon, matcher{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.close() })
	return d
}

// drained is what a source gives until now.
func drained(t *testing.T, d *dropMon) (counts []record.Count, samples []record.Drop) {
	t.Helper()
	err := d.drain(
		func(_ record.Key, whole func() record.Drop) { samples = append(samples, whole()) },
		func(k record.Key, drops, bytes uint64) {
			counts = append(counts, record.Count{Key: k, Drops: drops, Bytes: bytes})
		})
	if err != nil {
		t.Fatal(err)
	}
	return counts, samples
}

// send hands alerts to the source and waits until they are taken.
func (f *fakeMonitor) send(d *dropMon, list ...dropmon.Alert) {
	for _, a := range list {
		f.alerts <- a
	}
	// The last one is being taken when the channel is free again.
	f.alerts <- dropmon.Alert{Points: []dropmon.Point{{}}}
	d.mu.Lock()
	defer d.mu.Unlock()
}

func TestSummaries(t *testing.T) {
	f := newFakeMonitor(dropmon.ModeSummary)
	f.stats.Software = dropmon.Tail{Dropped: 100, Known: true}
	d := monitored(t, f, Options{})
	full := dropmon.Alert{}
	for i := range summaryPlaces {
		full.Points = append(full.Points, dropmon.Point{PC: 0x10000 + uint64(i), Drops: 1})
	}
	f.send(d,
		dropmon.Alert{Points: []dropmon.Point{{PC: 0x1234, Drops: 3}, {PC: 0, Drops: 1}}},
		dropmon.Alert{Points: []dropmon.Point{{PC: 0x1234, Drops: 4}}, Traps: []dropmon.Trap{{Name: "ttl_value_is_too_small", Drops: 2}}},
		dropmon.Alert{Skipped: 1}, dropmon.Alert{Empty: true, Skipped: 1}, // nothing that could be read, and nothing
		full)
	counts, samples := drained(t, d)
	if len(samples) != 0 || len(counts) != 2+summaryPlaces {
		t.Fatalf("%d counts, %d samples", len(counts), len(samples))
	}
	var soft, hard record.Count
	for _, c := range counts {
		switch {
		case c.Hardware():
			hard = c
		case c.Location.Address == 0x1234:
			soft = c
		}
	}
	if soft.Drops != 7 || soft.Location.String() != "f1200+0x34" || soft.Reason != (record.Reason{}) || soft.Direction != record.DirectionUnknown {
		t.Errorf("software %+v", soft)
	}
	if hard.Drops != 2 || hard.Reason != (record.Reason{Name: "ttl_value_is_too_small", Subsystem: "devlink"}) || hard.Location != (record.Location{}) {
		t.Errorf("hardware %+v", hard)
	}
	f.lost = 5
	l, err := d.lost()
	if err != nil || l != (losses{alertsLost: 5, decodeErrs: 1}) {
		t.Errorf("lost %+v, %v", l, err)
	}
	src, blind := d.books()
	if src.State != record.SourceDegraded || !strings.Contains(src.Why, "1 summaries were full") {
		t.Errorf("source %+v", src)
	}
	text := fmt.Sprint(blind)
	for _, want := range []string{"why packets were dropped", "more than 64", "may have happened 1 times", "counted twice"} {
		if !strings.Contains(text, want) {
			t.Errorf("blind has no %q: %s", want, text)
		}
	}
	// What was handed on does not come again.
	if counts, _ := drained(t, d); len(counts) != 0 {
		t.Errorf("again: %+v", counts)
	}
}

// frame is an Ethernet frame with an IPv4 UDP datagram to a port.
func frame(port byte) []byte {
	return []byte{
		2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0,
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1,
		0x10, 0, 0, port, 0, 8, 0, 0,
	}
}

func TestPackets(t *testing.T) {
	f := newFakeMonitor(dropmon.ModePacket)
	f.tail(100)
	d := monitored(t, f, Options{})
	at := time.Now()
	packet := func(reason string, port byte) dropmon.Alert {
		return dropmon.Alert{Packet: &dropmon.Packet{
			PC: 0x1234, Symbol: "udp_rcv+0x34/0x100", Reason: reason, InIndex: 2, Time: at, Protocol: 0x800,
			OriginalLength: 42, Payload: frame(port),
		}}
	}
	for i := range 20 {
		f.send(d, packet("NO_SOCKET", byte(i)))
	}
	bare := frame(1)[14:] // from a device without link headers
	f.send(d, packet("TWICE", 99), dropmon.Alert{Packet: &dropmon.Packet{PC: 1, Reason: "NEW", Time: at, Protocol: 0x800, Payload: bare, OriginalLength: 28}},
		dropmon.Alert{Packet: &dropmon.Packet{PC: 2, Time: at, Protocol: 0x800, Payload: []byte{1, 2, 3}}})
	f.tail(107)
	f.lost = 2
	counts, samples := drained(t, d)
	got := map[string]record.Count{}
	for _, c := range counts {
		got[c.Reason.Name] = c
	}
	c := got["NO_SOCKET"]
	if c.Drops != 20 || c.Bytes != 20*42 || c.Reason.Subsystem != "core" || c.Reason.Value != 3 || c.EtherType != 0x800 ||
		c.IPProto != 17 || c.Device != (record.Device{Index: 2}) || c.NetNS.Inode != 0 {
		t.Errorf("count %+v", c)
	}
	if r := got["TWICE"].Reason; r.Subsystem != "" || r.Value != 0 {
		t.Errorf("a reason of two subsystems is given to one: %+v", r)
	}
	if len(counts) != 4 || got["NEW"].IPProto != 17 || got[""].IPProto != 0 {
		t.Errorf("counts %+v", counts)
	}
	// Of a kind 8 samples at once, though all are counted.
	if len(samples) != 8+3 {
		t.Errorf("%d samples", len(samples))
	}
	s := samples[0]
	if s.Packet == nil || s.Packet.Flow.Dst.String() != "192.0.2.1:0" || s.Length != 42 || !s.Time.Equal(at) ||
		s.KernelTime != uint64(at.Add(-time.Hour).UnixNano()) || len(s.Headers) != 42 {
		t.Errorf("sample %+v, packet %+v", s, s.Packet)
	}
	l, err := d.lost()
	if err != nil || l != (losses{dropsLost: 7 + 2}) {
		t.Errorf("lost %+v, %v", l, err)
	}
	_, blind := d.books()
	if text := fmt.Sprint(blind); !strings.Contains(text, "no link header") || strings.Contains(text, "why packets") {
		t.Errorf("blind: %s", text)
	}
	if err := d.detach(); err != nil || f.closed != 1 {
		t.Errorf("detach: %v, closed %d times", err, f.closed)
	}
	f.tail(1000) // another's, later
	if l, err := d.lost(); err != nil || l.dropsLost != 9 {
		t.Errorf("lost after the end %+v, %v", l, err)
	}
}

// TestTwins: a packet that hardware trapped and the kernel dropped then is one
// drop, whichever is told first: hardware's, or the kernel's where hardware only
// handed it over.
func TestTwins(t *testing.T) {
	at := time.Now()
	trap := func(name string, port byte, when time.Time) dropmon.Alert {
		return dropmon.Alert{Packet: &dropmon.Packet{
			Origin: dropmon.OriginHardware, TrapName: name, TrapGroup: "a_group",
			InIndex: 7, InName: "swp1", Time: when, Payload: frame(port), OriginalLength: 42,
		}}
	}
	hard := func(port byte, when time.Time) dropmon.Alert { return trap("ttl_value_is_too_small", port, when) }
	drop := func(port byte, when time.Time) dropmon.Alert { return trap("dmac_filter", port, when) }
	soft := func(port byte, when time.Time) dropmon.Alert {
		return dropmon.Alert{Packet: &dropmon.Packet{PC: 0x1234, Reason: "IP_INHDR", Time: when, Protocol: 0x800, Payload: frame(port), OriginalLength: 42}}
	}
	for name, c := range map[string]struct {
		alerts     []dropmon.Alert
		hard, soft uint64
	}{
		"hardware first": {[]dropmon.Alert{hard(1, at), soft(1, at.Add(time.Millisecond))}, 0, 1},
		"kernel first":   {[]dropmon.Alert{soft(1, at), hard(1, at)}, 0, 1},
		"two and one":    {[]dropmon.Alert{hard(1, at), hard(1, at), soft(1, at)}, 1, 1},
		"hardware alone": {[]dropmon.Alert{hard(1, at)}, 1, 0},
		"others":         {[]dropmon.Alert{hard(1, at), soft(2, at)}, 1, 1},
		"drop first":     {[]dropmon.Alert{drop(1, at), soft(1, at.Add(time.Millisecond))}, 1, 0},
		"drop last":      {[]dropmon.Alert{soft(1, at), drop(1, at)}, 1, 0},
		"a driver's own": {[]dropmon.Alert{soft(1, at), trap("own", 1, at)}, 1, 0},
		"drop, two, one": {[]dropmon.Alert{soft(1, at), soft(1, at), drop(1, at)}, 1, 1},
		"much later":     {[]dropmon.Alert{hard(1, at), soft(1, at.Add(2*time.Second))}, 1, 1},
	} {
		f := newFakeMonitor(dropmon.ModePacket)
		d := monitored(t, f, Options{})
		f.send(d, c.alerts...)
		counts, samples := drained(t, d)
		var h, s uint64
		for _, n := range counts {
			if n.Hardware() {
				h += n.Drops
				if n.Reason.Group != "a_group" || n.Device.Name != "swp1" || n.Direction != record.DirectionRX {
					t.Errorf("%s: %+v", name, n)
				}
			} else {
				s += n.Drops
			}
		}
		for _, sample := range samples {
			if sample.Hardware() {
				h += 100
			} else {
				s += 100
			}
		}
		// Each has its sample.
		if h != 101*c.hard || s != 101*c.soft {
			t.Errorf("%s: %d by hardware, %d by the kernel (and 100 for each sample), want %d and %d", name, h, s, 101*c.hard, 101*c.soft)
		}
	}
}

func TestKindsAreBounded(t *testing.T) {
	b := newAlertBook(false)
	for i := range maxAlertKeys + 10 {
		b.take(dropmon.Alert{Packet: &dropmon.Packet{PC: uint64(i)}})
		b.take(dropmon.Alert{Points: []dropmon.Point{{PC: uint64(i) + 1, Drops: 2}}})
	}
	if b.mapFull != 10+20 || len(b.packets) != maxAlertKeys || len(b.points) != maxAlertKeys {
		t.Errorf("%d without a key, %d and %d kinds", b.mapFull, len(b.packets), len(b.points))
	}
	if len(b.samples) > maxAlertSamples || len(b.twins.latest) > maxTwins {
		t.Errorf("%d samples, %d twins", len(b.samples), len(b.twins.recent))
	}
}

func TestWantedMode(t *testing.T) {
	reasons := Filter{Reasons: []string{"NO_SOCKET"}}
	for _, c := range []struct {
		opt    Options
		choice Choice
		hidden bool
		want   dropmon.Mode
	}{
		{Options{}, ChooseDropmon, false, dropmon.ModeSummary},
		{Options{Rich: true}, ChooseDropmon, false, dropmon.ModeSummary},
		{Options{Each: true}, ChooseDropmon, false, dropmon.ModePacket},
		{Options{Filter: reasons}, ChooseDropmon, false, dropmon.ModePacket},
		{Options{}, ChooseDropmon, true, dropmon.ModePacket},
		{Options{}, ChooseDropmonSummary, true, dropmon.ModeSummary},
		{Options{}, ChooseDropmonPacket, false, dropmon.ModePacket},
	} {
		if got := wantedMode(c.opt, c.choice, c.hidden); got != c.want {
			t.Errorf("%+v %s %v: %s, want %s", c.opt, c.choice, c.hidden, got, c.want)
		}
	}
}

// TestJoinedMonitor: somebody else's monitor is in the mode that they chose.
func TestJoinedMonitor(t *testing.T) {
	for _, c := range []struct {
		mode   dropmon.Mode
		opt    Options
		choice Choice
		fails  bool
	}{
		{dropmon.ModeSummary, Options{}, ChooseDropmon, false},
		{dropmon.ModeSummary, Options{Each: true}, ChooseDropmon, true},
		{dropmon.ModeSummary, Options{}, ChooseDropmonPacket, true},
		{dropmon.ModePacket, Options{}, ChooseDropmonSummary, false},
	} {
		f := newFakeMonitor(c.mode)
		f.joined = "dropwatch (pid 12) started it"
		f.tail(50)
		d := &dropMon{}
		_, err := d.watch(f, c.opt, c.choice, matcher{})
		var u *UnavailableError
		if errors.As(err, &u) != c.fails || c.fails && (!strings.Contains(err.Error(), f.joined) || f.closed != 1) {
			t.Errorf("%s %+v %s: %v, closed %d times", c.mode, c.opt, c.choice, err, f.closed)
		}
		if c.fails {
			continue
		}
		src, _ := d.books()
		if src.State != record.SourceDegraded || !strings.Contains(src.Why, f.joined) || d.mode != c.mode {
			t.Errorf("source %+v", src)
		}
		if l, err := d.lost(); err != nil || l != (losses{}) {
			t.Errorf("what was lost before is counted: %+v, %v", l, err)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestReaderFails(t *testing.T) {
	f := newFakeMonitor(dropmon.ModeSummary)
	d := monitored(t, f, Options{})
	f.fail = errors.New("the socket is gone")
	close(f.alerts)
	<-d.stopped
	if err := d.poll(nil); !errors.Is(err, f.fail) {
		t.Errorf("poll: %v", err)
	}
	began := time.Now()
	if err := d.detach(); err != nil || time.Since(began) > time.Second {
		t.Errorf("detach: %v after %s", err, time.Since(began))
	}
}

func TestDropmonFilter(t *testing.T) {
	compile := func(f Filter) (matcher, error) { return dropmonMatch(testSite(t, Options{Filter: f})) }
	m, err := compile(Filter{Interfaces: []string{"eth0"}, NetNS: []string{"4026531840"}})
	if err != nil {
		t.Fatal(err)
	}
	// It could be the one that is asked for, and nothing tells.
	if !m.Match(record.Key{}) || !m.netns[4026531840] {
		t.Errorf("a drop without device and namespace does not match %+v", m)
	}
	m, err = compile(Filter{Reasons: []string{"a_drivers_own_trap"}})
	if err != nil {
		t.Fatal(err)
	}
	if !m.Match(record.Key{Reason: trapReason("a_drivers_own_trap", "g")}) || m.Match(record.Key{Reason: trapReason("another", "g")}) || m.Match(record.Key{Reason: record.Reason{Name: "NO_SOCKET"}}) || m.Match(record.Key{}) {
		t.Error("a trap's name does not choose it alone")
	}
	for _, f := range []Filter{{Interfaces: []string{""}}, {NetNS: []string{"no-such-namespace"}}} {
		var wrong *FilterError
		if _, err := compile(f); !errors.As(err, &wrong) {
			t.Errorf("filter %+v: %v, want a *FilterError", f, err)
		}
	}
}
