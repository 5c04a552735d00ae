package dropmon

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say how Open begins.
type Options struct {
	// Config is set before the monitor starts; nil leaves it as it is.
	Config *Config
	// Software and Hardware say which drops are asked for: one of them at
	// least, unless Passive.
	Software, Hardware bool
	// LoadModule lets the kernel load the module drop_monitor if it is not.
	LoadModule bool
	// Passive only listens: it neither starts nor configures.
	Passive bool
	// ReceiveBuffer is the socket's, in bytes; 0 is a default.
	ReceiveBuffer int
}

// Monitor is a connection with good manners: it starts the monitor where nobody
// has, and only listens where somebody has; what it started it stops, and what
// it set it sets back. While it monitors there is a note of it under
// /run/whydrop, by which the next run knows what a killed one left.
type Monitor struct {
	conn   *Conn
	dir    string // of the note
	book   *book  // nil where nothing was started or no note can be kept
	joined string
	began  time.Time
	notes  []string
	// what this monitor has started and must stop
	software, hardware bool
	changed            bool // the configuration
	before, set        Config
}

// Open listens, and starts the monitor unless it runs already. The errors are
// those of Dial, os.ErrPermission, and of commands.
func Open(o Options) (*Monitor, error) { return openMonitor(o, noteDir) }

func openMonitor(o Options, dir string) (*Monitor, error) {
	if !o.Passive && !o.Software && !o.Hardware {
		return nil, errNothing
	}
	m := &Monitor{dir: dir}
	err := m.dial(o)
	if err != nil {
		return nil, m.noted(err)
	}
	m.began = time.Now()
	if err = m.conn.Join(); err == nil && o.Passive {
		m.joined = m.passive()
	} else if err == nil {
		err = m.begin(o)
	}
	if err != nil {
		return nil, m.noted(errors.Join(err, m.Close()))
	}
	return m, nil
}

// dial connects, and has the module loaded if that is allowed and needed.
func (m *Monitor) dial(o Options) (err error) {
	m.conn, err = Dial(o.ReceiveBuffer)
	if !o.LoadModule || !errors.Is(err, ErrNoFamily) {
		return err
	}
	if err := LoadModule(); err != nil {
		return err
	}
	m.notef("the kernel's module drop_monitor was loaded for this, and stays; modprobe -r drop_monitor unloads it")
	m.conn, err = Dial(o.ReceiveBuffer)
	return err
}

func (m *Monitor) notef(format string, args ...any) {
	m.notes = append(m.notes, fmt.Sprintf(format, args...))
}

// noted adds to an error what was done to the host all the same.
func (m *Monitor) noted(err error) error {
	if err == nil || len(m.notes) == 0 {
		return err
	}
	return fmt.Errorf("%w; %s", err, strings.Join(m.notes, "; "))
}

// Began is when it began to tell of drops: no later than the first.
func (m *Monitor) Began() time.Time { return m.began }

// Joined is empty if this process started the monitor; else it says whose it is
// and that this process only listens.
func (m *Monitor) Joined() string { return m.joined }

// Notes are what was done to the host or found on it that its user should know.
func (m *Monitor) Notes() []string { return m.notes }

// Conn is the connection. It is closed by Close.
func (m *Monitor) Conn() *Conn { return m.conn }

// begin starts the monitor, or finds out who has.
func (m *Monitor) begin(o Options) error {
	holder, running, err := m.take()
	if err != nil {
		return err
	}
	if holder != "" {
		m.joined = holder + m.onlyListening()
		return heldIdle(holder, running)
	}
	if m.book != nil && m.book.left != nil {
		if running, err = m.takeOver(running); err != nil || m.joined != "" {
			return err
		}
	}
	if running {
		return m.join()
	}
	return m.start(o)
}

// take takes the lock of the note and asks whether the monitor runs. The holder
// is the whydrop that has the lock; one that is just starting or stopping gets a
// moment for it.
func (m *Monitor) take() (holder string, running bool, err error) {
	const patience, pause = 3 * time.Second, 20 * time.Millisecond
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		b, pid, err := openBook(m.dir, true)
		if err == nil {
			m.book = b
		} else if !errors.Is(err, errHeld) {
			m.notef("%v: if whydrop is killed now, only `whydrop doctor --recover-dropmon` stops the monitor", err)
		}
		held := errors.Is(err, errHeld)
		running, err = m.conn.Running()
		if err != nil || !held || running || time.Now().After(deadline) {
			if held {
				holder = otherWhydrop(pid)
			}
			if b := m.book; b != nil && b.broken {
				m.notef("the note %s cannot be read and is not heeded", b.file.Name())
			}
			return holder, running, err
		}
	}
}

// heldIdle is the error where another whydrop has the note and its monitor does
// not run, as somebody has stopped it: to listen would be to see nothing.
func heldIdle(holder string, running bool) error {
	if running {
		return nil
	}
	return fmt.Errorf("%w: %s, but somebody has stopped it: end that whydrop first", ErrInUse, holder)
}

func otherWhydrop(pid int) string {
	if pid == 0 {
		return "another whydrop uses the drop monitor"
	}
	return processName("/proc", pid) + " uses the drop monitor"
}

// takeOver puts back what a killed whydrop left, unless somebody listens to it
// by now. It returns whether the monitor still runs.
func (m *Monitor) takeOver(running bool) (bool, error) {
	left := *m.book.left
	others, err := listeners(m.conn.inode)
	if err != nil {
		return running, err
	}
	if running && len(others) > 0 {
		m.joined = fmt.Sprintf("a whydrop that was killed (pid %d) left the drop monitor running, and %s listens to it now%s",
			left.PID, describe(others), m.onlyListening())
		return running, m.forget()
	}
	what, err := putBack(m.conn, left, running)
	if err != nil {
		return running, err
	}
	if what != "" {
		m.notef("%s", what)
	}
	if running, err = m.conn.Running(); !running {
		m.book.left = nil // else its configuration is still to be set back
	}
	return running, err
}

// join only listens to a monitor that somebody else runs.
func (m *Monitor) join() error {
	others, err := listeners(m.conn.inode)
	if err != nil {
		return err
	}
	m.joined = "the drop monitor was left running and nobody listens to it (`whydrop doctor --recover-dropmon` stops it)"
	if len(others) > 0 {
		m.joined = describe(others) + " uses the drop monitor"
	}
	m.joined += m.onlyListening()
	return m.forget()
}

// onlyListening is how Joined ends.
func (m *Monitor) onlyListening() string {
	config, err := m.conn.Config()
	if err != nil {
		return ": only listening to it"
	}
	return fmt.Sprintf(": only listening to it, in mode %s", config.Mode)
}

// passive is what Joined says where listening is all that was asked for.
func (m *Monitor) passive() string {
	who := "nobody else listens"
	if others, err := listeners(m.conn.inode); err != nil {
		who = "who else listens is not known: " + err.Error()
	} else if len(others) > 0 {
		who = describe(others) + " listens too"
	}
	switch running, err := m.conn.Running(); {
	case err != nil: // it needs rights that listening does not
		return who + m.onlyListening()
	case !running:
		return who + "; the drop monitor does not run, so nothing comes until somebody starts it: only listening to it"
	}
	return who + m.onlyListening()
}

// start sets and starts the monitor, with the note of it written before.
func (m *Monitor) start(o Options) (err error) {
	if m.before, err = m.conn.Config(); err != nil {
		return err
	}
	m.set = m.before
	if o.Config != nil {
		m.set = *o.Config
	}
	if m.book != nil {
		err := m.book.write(note{
			PID: os.Getpid(), Started: time.Now(), Software: o.Software, Hardware: o.Hardware,
			Before: m.before, Set: m.set,
		})
		if err != nil {
			return err
		}
	}
	if m.set != m.before {
		err = m.conn.SetConfig(m.set)
		m.changed = err == nil
	}
	if err == nil {
		err = m.startOrigins(o)
	}
	if errors.Is(err, ErrRunning) || errors.Is(err, ErrBusy) {
		// Somebody was faster.
		return errors.Join(m.undo(), m.join())
	}
	return err
}

// startOrigins starts software and hardware one after the other, so that it is
// known which of them could not be.
func (m *Monitor) startOrigins(o Options) error {
	m.began = time.Now()
	if o.Software {
		if err := m.conn.Start(true, false); err != nil {
			return err
		}
		m.software = true
	}
	if !o.Hardware {
		return nil
	}
	err := m.conn.Start(false, true)
	if m.software && errors.Is(err, unix.EOPNOTSUPP) {
		m.notef("drops of hardware are not reported: the kernel was built without CONFIG_NET_DEVLINK")
		return nil
	}
	m.hardware = err == nil
	return err
}

// undo stops what was started and sets the configuration back.
func (m *Monitor) undo() (err error) {
	if m.software || m.hardware {
		if err = m.conn.Stop(m.software, m.hardware); err != nil {
			return err
		}
		m.software, m.hardware = false, false
	}
	if m.changed {
		_, err = restore(m.conn, m.before, m.set)
		if errors.Is(err, ErrBusy) {
			err = fmt.Errorf("set back configuration of drop monitor (it was %s): somebody started it meanwhile: %w", m.before, err)
		}
		m.changed = err != nil
	}
	return err
}

// Stop stops what this process started and sets back what it changed, as Close
// does, and leaves the connection open: what has arrived can still be received.
func (m *Monitor) Stop() error { return m.undo() }

// forget lets the lock of the note go. A note that was not dealt with stays.
func (m *Monitor) forget() error {
	b := m.book
	m.book = nil
	switch {
	case b == nil:
		return nil
	case b.left != nil, m.software, m.hardware, m.changed:
		return b.keep()
	}
	return b.remove()
}

// Close stops what was started, unless another has done so, sets back what was
// set, and closes the connection. It may be called more than once. The drops of
// the last second of summary mode are lost if Receive did not wait for them.
func (m *Monitor) Close() error {
	err := m.undo()
	return errors.Join(err, m.forget(), m.conn.Close())
}

// restore sets the configuration back to what it was before, unless it is not
// what was set: then somebody else has set it since.
func restore(c *Conn, before, set Config) (done bool, err error) {
	if before == set {
		return false, nil
	}
	now, err := c.Config()
	if err != nil || now != set {
		return false, err
	}
	return true, c.SetConfig(before)
}
