package shell

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
)

// glance is how long alerts are waited for before signals and typed lines are
// looked at.
const glance = 100 * time.Millisecond

var (
	errNothing = errors.New("neither software nor hardware drops are asked for: set sw true or set hw true")
	errStarted = errors.New("already monitoring: stop first")
	errNotOurs = errors.New("another program monitors drops; what was not started here is left alone")
	errEnded   = errors.New("monitoring ended by itself")
)

// start monitors until it is stopped.
func (s *Shell) start() {
	if s.session != nil {
		s.fail(errStarted)
		return
	}
	if !s.software && !s.hardware {
		s.fail(errNothing)
		return
	}
	s.out.print("Enabling monitoring...\n")
	session, err := s.backend.Start(s.software, s.hardware)
	if err != nil {
		s.refused("Failed activation request, error: %s\n", err)
		return
	}
	s.session, s.shown, s.until = session, 0, time.Time{}
	s.out.print("Kernel monitoring activated.\nIssue Ctrl-C to stop monitoring\n")
	s.notes(session.Notes())
	for s.session != nil {
		s.receive()
	}
}

// receive shows what comes within a glance, then looks who wants it to end.
func (s *Shell) receive() {
	err := s.session.Receive(glance, s.alert)
	interrupted, done := s.signals.take()
	switch {
	case s.out.err != nil, done:
		s.over = true
		s.end()
	case err != nil:
		s.fail(fmt.Errorf("%w: %w", errEnded, err))
		s.end()
	case s.limit > 0 && s.shown >= s.limit:
		s.out.print("Alert limit reached, deactivating!\nDeactivation requested, turning off monitoring\n")
		s.end()
	case interrupted && !s.until.IsZero(), !s.until.IsZero() && !time.Now().Before(s.until):
		s.end()
	case interrupted:
		s.endSoon()
	default:
		s.typed()
	}
}

// endSoon ends the session when the alerts of the drops so far have come; at
// once if it is asked for again.
func (s *Shell) endSoon() {
	delay := s.session.Delay()
	if delay == 0 || !s.until.IsZero() {
		s.end()
		return
	}
	s.until = time.Now().Add(delay)
}

// typed does what was typed on a terminal while drops are monitored. Lines from
// elsewhere wait for the prompt, as they do with dropwatch.
func (s *Shell) typed() {
	line, err := s.in.typed()
	switch {
	case errors.Is(err, errNothingTyped):
		return
	case err != nil: // Ctrl-D
		s.over = true
	default:
		s.do(line)
	}
	if s.over && s.session != nil {
		s.endSoon()
	}
}

// stop is the command.
func (s *Shell) stop() {
	s.out.print("Deactivation requested, turning off monitoring\n")
	if s.session != nil {
		s.endSoon()
		return
	}
	// Where nothing runs, dropwatch has the same answer.
	c, err := s.backend.Config()
	if err == nil {
		err = s.backend.SetConfig(c)
	}
	if errors.Is(err, dropmon.ErrBusy) {
		err = errNotOurs
	}
	if err != nil {
		s.refused("Stop request failed, error: %s\n", err)
		return
	}
	s.out.print("Got a stop message\n")
}

// end stops the session, shows what it still had, and says what it lost.
func (s *Shell) end() {
	ending, err := s.session.Stop(s.alert)
	s.session = nil
	if err != nil {
		s.refused("Stop request failed, error: %s\n", err)
	} else {
		s.out.print("Got a stop message\n")
	}
	s.notes(ending.Notes)
	s.notes(ending.Lost)
	s.failed.Lost = s.failed.Lost || len(ending.Lost) > 0
}

// learn tells the names what the kernel itself calls a place.
func (s *Shell) learn(p *dropmon.Packet) {
	l, ok := s.format.names.(interface {
		Learn(addr uint64, text string) error
	})
	if !ok || s.unlearned || p.Symbol == "" {
		return
	}
	if err := l.Learn(p.PC, p.Symbol); err != nil {
		s.unlearned = true
		s.fail(err)
	}
}

// alert shows an alert as far as the limit goes, and says whether there is
// room for more. A location, a trap and a packet count as one each.
func (s *Shell) alert(a dropmon.Alert) bool {
	for _, p := range a.Points {
		if s.room() {
			s.out.print(s.format.point(p))
		}
	}
	for _, t := range a.Traps {
		if s.room() {
			s.out.print(s.format.trap(t))
		}
	}
	if a.Packet != nil {
		s.learn(a.Packet)
	}
	if a.Packet != nil && s.room() {
		s.out.print(s.format.packet(a.Packet))
	}
	return s.out.err == nil && (s.limit == 0 || s.shown < s.limit)
}

// room takes one of the alerts that may be shown.
func (s *Shell) room() bool {
	if s.limit > 0 && s.shown >= s.limit {
		return false
	}
	s.shown++
	return true
}

// strerror is the C library's text for an error of the kernel, as dropwatch
// prints it.
func strerror(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, dropmon.ErrBusy):
		errno = syscall.EBUSY
	case errors.Is(err, dropmon.ErrRunning):
		errno = syscall.EAGAIN
	case errors.Is(err, errNoQueue), errors.Is(err, errNoHardware):
		errno = syscall.EOPNOTSUPP
	case errors.As(err, &errno):
	case errors.Is(err, os.ErrPermission), errors.Is(err, errNotOurs):
		errno = syscall.EPERM
	default:
		errno = syscall.EIO // what it is stands on stderr
	}
	text := errno.Error() // as in C, but for the first letter
	return string(text[0]-'a'+'A') + text[1:]
}
