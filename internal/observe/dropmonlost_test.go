package observe

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// sessionOf is a session of that source alone.
func sessionOf(d *dropMon) *Session {
	return &Session{source: d, opt: Options{Interval: time.Second}, since: time.Now(), symbols: newSymbols(kernel.Host{}, "")}
}

// deafMonitor is one whose statistics can be made to fail.
type deafMonitor struct {
	*fakeMonitor
	err error
}

func (m *deafMonitor) Stats() (dropmon.Stats, error) {
	if m.err != nil {
		return dropmon.Stats{}, m.err
	}
	return m.fakeMonitor.Stats()
}

// TestStatsFailAtTheEnd: what was lost until then is not lost twice, nor fewer
// than none.
func TestStatsFailAtTheEnd(t *testing.T) {
	m := &deafMonitor{fakeMonitor: newFakeMonitor(dropmon.ModePacket)}
	d := &dropMon{start: time.Now()}
	if _, err := d.watch(m, Options{}, ChooseDropmon, matcher{}); err != nil {
		t.Fatal(err)
	}
	s := sessionOf(d)
	m.lost = 5
	m.tail(7)
	var sum record.Accounting
	sink := func(iv record.Interval) error {
		sum.DropsLost += iv.Accounting.DropsLost
		sum.DropsSeen += iv.Accounting.DropsSeen
		return nil
	}
	if err := s.flush(sink); err != nil {
		t.Fatal(err)
	}
	m.err = errors.New("no answer")
	if err := s.finish(sink); !errors.Is(err, m.err) {
		t.Errorf("the end: %v", err)
	}
	if sum.DropsLost != 12 || sum.DropsSeen != 12 {
		t.Errorf("lost %d, seen %d, want 12", sum.DropsLost, sum.DropsSeen)
	}
}

// TestCountedBeforeTheReaderFailed: what was counted is told all the same, and
// the source has failed.
func TestCountedBeforeTheReaderFailed(t *testing.T) {
	f := newFakeMonitor(dropmon.ModeSummary)
	d := monitored(t, f, Options{})
	f.send(d, dropmon.Alert{Points: []dropmon.Point{{PC: 0x42, Drops: 1000}}})
	f.fail = errors.New("the socket is gone")
	close(f.alerts)
	<-d.stopped
	s := sessionOf(d)
	var seen uint64
	err := s.Run(t.Context(), func(iv record.Interval) error {
		seen += iv.Accounting.DropsSeen
		return nil
	})
	if !errors.Is(err, f.fail) || seen != 1000 {
		t.Errorf("%v, %d drops of 1000", err, seen)
	}
	if src, _ := d.books(); src.State != record.SourceFailed {
		t.Errorf("source %+v", src)
	}
}

// TestWholePackets: of packets that another's monitor tells whole, the first
// bytes are kept.
func TestWholePackets(t *testing.T) {
	f := newFakeMonitor(dropmon.ModePacket)
	f.joined = "another's"
	d := monitored(t, f, Options{})
	f.send(d, dropmon.Alert{Packet: &dropmon.Packet{
		PC: 1, Time: time.Now(), Protocol: 0x800, Payload: append(frame(1), bytes.Repeat([]byte{7}, 60000)...), OriginalLength: 60042,
	}})
	_, samples := drained(t, d)
	if len(samples) != 1 || len(samples[0].Headers) != packetBytes || cap(samples[0].Headers) > 2*packetBytes ||
		samples[0].Length != 60042 || samples[0].Packet == nil {
		t.Errorf("%d samples, of the first %+v", len(samples), samples[0])
	}
}

// TestManyTwins: each packet that hardware told of finds its own, in a ring that
// has gone round, and those that are forgotten find none.
func TestManyTwins(t *testing.T) {
	tw := newTwins()
	at := time.Unix(1, 0)
	packet := func(origin dropmon.Origin, n int) *dropmon.Packet {
		return &dropmon.Packet{Origin: origin, Time: at, Payload: []byte{byte(n), byte(n >> 8), 1}}
	}
	const hard, soft = dropmon.OriginHardware, dropmon.OriginSoftware
	// The same bytes over and over, then different ones.
	for range 3 * maxTwins {
		tw.meet(packet(hard, 1), alertKey{origin: hard})
	}
	for n := range maxTwins {
		if _, found := tw.meet(packet(hard, n+2), alertKey{origin: hard, pc: uint64(n)}); found {
			t.Fatalf("packet %d found itself", n)
		}
	}
	if _, found := tw.meet(packet(soft, 1), alertKey{}); found { // takes the place of the first
		t.Error("a forgotten packet is found")
	}
	for n := 1; n < maxTwins; n++ {
		if k, found := tw.meet(packet(soft, n+2), alertKey{}); !found || k.pc != uint64(n) {
			t.Fatalf("packet %d: %+v %v", n, k, found)
		}
	}
	if len(tw.latest) > maxTwins {
		t.Errorf("%d kinds are remembered", len(tw.latest))
	}
	for range 3 {
		tw.meet(packet(hard, 5000), alertKey{})
	}
	for n := range 4 {
		if _, found := tw.meet(packet(soft, 5000), alertKey{}); found != (n < 3) {
			t.Errorf("the same bytes %d: %v", n, found)
		}
	}
}

func BenchmarkTwins(b *testing.B) {
	tw := newTwins()
	p := &dropmon.Packet{Time: time.Unix(1, 0), Payload: make([]byte, packetBytes)}
	b.ReportAllocs()
	for n := range b.N {
		p.Payload[0], p.Payload[1], p.Payload[2] = byte(n), byte(n>>8), byte(n>>16)
		tw.meet(p, alertKey{})
	}
}

// TestHurry: who has no time to wait for alerts gets the monitor put back at
// once.
func TestHurry(t *testing.T) {
	f := newFakeMonitor(dropmon.ModeSummary)
	hurry := make(chan struct{})
	close(hurry)
	d := monitored(t, f, Options{Hurry: hurry})
	began := time.Now()
	if err := d.detach(); err != nil || f.closed != 1 || time.Since(began) > summaryDelay/2 {
		t.Errorf("%v, closed %d times, after %s", err, f.closed, time.Since(began))
	}
}

// TestStoppedByAnother: a monitor that anybody stopped, or set otherwise, tells
// of no drop, which is not the same as that there was none.
func TestStoppedByAnother(t *testing.T) {
	for name, change := range map[string]func(*fakeMonitor){
		"stopped":  func(f *fakeMonitor) { f.off = true },
		"set anew": func(f *fakeMonitor) { f.config.Mode = dropmon.ModePacket },
	} {
		for _, joined := range []string{"", "another's"} {
			f := newFakeMonitor(dropmon.ModeSummary)
			f.joined = joined
			d := monitored(t, f, Options{})
			none := func(record.Key, func() record.Drop) {}
			if err := d.poll(none); err != nil {
				t.Fatal(err)
			}
			change(f)
			if err := d.poll(none); err != nil {
				t.Errorf("%s: asked again at once: %v", name, err)
			}
			d.asked = time.Time{}
			if err := d.poll(none); err == nil {
				t.Errorf("%s, %q: nobody notices", name, joined)
			}
			if src, _ := d.books(); src.State != record.SourceFailed {
				t.Errorf("%s: source %+v", name, src)
			}
			if err := d.close(); err != nil {
				t.Errorf("%s: said again: %v", name, err)
			}
		}
	}
	f := newFakeMonitor(dropmon.ModeSummary)
	d := monitored(t, f, Options{})
	if f.off = true; d.close() == nil {
		t.Error("nobody notices at the end")
	}
}

// TestOthersOrigins: what a monitor of somebody else was started for shows only
// by what comes.
func TestOthersOrigins(t *testing.T) {
	blind := func(joined string, list ...dropmon.Alert) int {
		f := newFakeMonitor(dropmon.ModePacket)
		f.joined = joined
		d := monitored(t, f, Options{})
		f.send(d, list...)
		_, all := d.books()
		n := 0
		for _, b := range all {
			if strings.Contains(b.Why, "somebody else's") {
				n++
			}
		}
		return n
	}
	soft := dropmon.Alert{Packet: &dropmon.Packet{PC: 1, Time: time.Now()}}
	hard := dropmon.Alert{Traps: []dropmon.Trap{{Name: "t", Drops: 1}}}
	for i, got := range []int{blind("x"), blind("x", soft), blind("x", hard), blind("x", soft, hard), blind("")} {
		if want := []int{2, 1, 1, 0, 0}[i]; got != want {
			t.Errorf("case %d: %d blind, want %d", i, got, want)
		}
	}
}
