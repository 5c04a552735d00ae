package shell

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// summaryDelay is how long the kernel keeps a summary back: it sends one a
// second after its first drop (dm_delay of net/core/drop_monitor.c). What it
// keeps goes when the monitor stops. The rest is for a machine that is busy.
const summaryDelay = 1200 * time.Millisecond

// drain is how long the end listens for alerts that wait in the socket.
const drain = 50 * time.Millisecond

// dropMonitor is the backend of the kernel's drop monitor. The configuration is
// the kernel's, for the whole host: it is changed for the time of a session, and
// then set back, so that nothing stays behind.
type dropMonitor struct {
	conn *dropmon.Conn
	// next is what the user has set; nil is what the kernel has.
	next *dropmon.Config
}

// OpenDropMonitor connects to the drop monitor, and has its module loaded if
// need be, which the note then says. Errors are those of dropmon.Open.
func OpenDropMonitor() (_ Backend, note string, _ error) {
	c, err := dropmon.Dial(0)
	if errors.Is(err, dropmon.ErrNoFamily) {
		// In vain where the kernel has no such module; then err says why.
		if lerr := dropmon.LoadModule(); lerr == nil {
			note = "the kernel's module drop_monitor was loaded for this, and stays; modprobe -r drop_monitor unloads it"
			c, err = dropmon.Dial(0)
		}
	}
	if err != nil {
		return nil, "", err
	}
	return &dropMonitor{conn: c}, note, nil
}

func (d *dropMonitor) Config() (dropmon.Config, error) {
	if d.next != nil {
		return *d.next, nil
	}
	return d.conn.Config()
}

// SetConfig keeps c for the next session. It asks the kernel whether it would
// take it by setting what is set already.
func (d *dropMonitor) SetConfig(c dropmon.Config) error {
	now, err := d.conn.Config()
	if err != nil {
		return err
	}
	if err := d.conn.SetConfig(now); err != nil {
		return err
	}
	d.next = &c
	return nil
}

func (d *dropMonitor) Stats() (dropmon.Stats, error) { return d.conn.Stats() }
func (d *dropMonitor) Close() error                  { return d.conn.Close() }

func (d *dropMonitor) Start(software, hardware bool) (Session, error) {
	before, err := d.conn.Stats()
	if err != nil {
		return nil, err
	}
	m, err := dropmon.Open(dropmon.Options{Config: d.next, Software: software, Hardware: hardware, LoadModule: true})
	if err != nil {
		return nil, err
	}
	s := &dropMonitorSession{monitor: m, stats: before, notes: m.Notes()}
	if joined := m.Joined(); joined != "" {
		s.notes = append(s.notes, joined)
	}
	// What it is now: another's, or what a killed whydrop had changed.
	config, err := m.Conn().Config()
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if config.Mode == dropmon.ModeSummary {
		s.delay = summaryDelay
	}
	return s, nil
}

// dropMonitorSession is the time that the monitor is used.
type dropMonitorSession struct {
	monitor *dropmon.Monitor
	notes   []string
	delay   time.Duration
	stats   dropmon.Stats // before
	skipped int
}

func (s *dropMonitorSession) Notes() []string      { return s.notes }
func (s *dropMonitorSession) Delay() time.Duration { return s.delay }

func (s *dropMonitorSession) Receive(wait time.Duration, f func(dropmon.Alert) bool) error {
	conn := s.monitor.Conn()
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return fmt.Errorf("wait for alerts: %w", err)
	}
	var derr error
	err := conn.Receive(func(a dropmon.Alert) {
		s.skipped += a.Skipped
		if !f(a) && derr == nil {
			derr = conn.SetReadDeadline(time.Now())
		}
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = derr
	}
	return err
}

func (s *dropMonitorSession) Stop(f func(dropmon.Alert) bool) (Ending, error) {
	conn := s.monitor.Conn()
	var e Ending
	rerr := s.Receive(drain, f)
	now, serr := conn.Stats()
	for _, queue := range []struct {
		of     string
		before dropmon.Tail
		after  dropmon.Tail
	}{{"software", s.stats.Software, now.Software}, {"hardware", s.stats.Hardware, now.Hardware}} {
		if n := queue.after.Dropped - queue.before.Dropped; queue.before.Known && queue.after.Known && n > 0 {
			e.Lost = append(e.Lost, fmt.Sprintf("%d dropped packets of %s found the kernel's queue for alerts full; set queue makes it longer", n, queue.of))
		}
	}
	err := errors.Join(rerr, serr, s.monitor.Close())
	// Now it is known what the socket lost.
	if n := conn.Lost(); n > 0 {
		e.Lost = append(e.Lost, fmt.Sprintf("%d messages of the drop monitor were lost, the socket had no room for them", n))
	}
	if n := conn.Unusable(); n > 0 {
		e.Lost = append(e.Lost, fmt.Sprintf("%d messages of the drop monitor were not understood", n))
	}
	if s.skipped > 0 {
		e.Notes = append(e.Notes, fmt.Sprintf("%d attributes of alerts are not known here and were left out", s.skipped))
	}
	return e, err
}
