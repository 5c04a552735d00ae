// Package shell is the prompt of dropwatch: its verbs, messages and lines, on
// the kernel's drop monitor, or on eBPF where the kernel has none. What differs
// from dropwatch, and why, is in docs/compatibility.md.
//
// It must not judge what it prints, stop what it did not start, or leave
// anything behind: what it changed is put back however the conversation ends,
// short of SIGKILL, and after that the next start does it.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/report"
)

const prompt = "dropwatch> "

// Backend is where drops come from. One goroutine uses it.
type Backend interface {
	// Config is how the next session reports drops.
	Config() (dropmon.Config, error)
	// SetConfig changes that. It fails with dropmon.ErrBusy while drops are
	// monitored.
	SetConfig(dropmon.Config) error
	// Stats are the drops that could not be reported.
	Stats() (dropmon.Stats, error)
	// Start begins to monitor; at least one of both is true.
	Start(software, hardware bool) (Session, error)
	// Close gives up what the backend holds. No session runs any more.
	Close() error
}

// Session is a backend that monitors.
type Session interface {
	// Notes are what a user should know about the start.
	Notes() []string
	// Receive hands alerts to f until wait is over, or f returns false.
	Receive(wait time.Duration, f func(dropmon.Alert) bool) error
	// Delay is how long after a drop its alert may come.
	Delay() time.Duration
	// Stop ends the session. It hands what came in until then to f.
	Stop(f func(dropmon.Alert) bool) (Ending, error)
}

// Ending is what a user should know about a session that is over.
type Ending struct {
	// Notes are worth knowing; Lost says what should have been shown and was
	// not.
	Notes, Lost []string
}

// Options are one conversation.
type Options struct {
	// In are the lines; a terminal gets a line editor with a history. Out is
	// for what dropwatch prints, Err for what it keeps silent about.
	In       io.Reader
	Out, Err io.Writer
	Backend  Backend
	// Names is nil without a lookup method; Method says what they are.
	Names  Names
	Method string
	// Interrupts are Ctrl-C; nil is none.
	Interrupts <-chan os.Signal
	// Zone is that of the timestamps; nil is the local one.
	Zone *time.Location
}

// FailedError says that something in the conversation did not work.
type FailedError struct {
	// Commands is how many lines failed, Lost whether alerts were lost.
	Commands int
	Lost     bool
}

func (e *FailedError) Error() string {
	var parts []string
	switch e.Commands {
	case 0:
	case 1:
		parts = append(parts, "a command failed")
	default:
		parts = append(parts, fmt.Sprintf("%d commands failed", e.Commands))
	}
	if e.Lost {
		parts = append(parts, "drops are missing from what was shown")
	}
	return strings.Join(parts, "; ")
}

// Shell is a conversation.
type Shell struct {
	out     *printer
	err     io.Writer
	in      input
	signals *signals
	backend Backend
	format  format

	software, hardware bool
	// limit is how many alerts a start shows; 0 means all.
	limit uint64
	// session is nil while nothing is monitored.
	session Session
	// shown counts the alerts of this session.
	shown uint64
	// until is when a session ends that was asked to; zero before that.
	until  time.Time
	over   bool // the conversation ends
	failed FailedError
	// unlearned is true after names could not learn.
	unlearned bool
}

// Run talks until exit, the end of the input, an interrupt at the prompt, or
// the end of the context. Then nothing is monitored any more. It returns
// *FailedError when the conversation went on after something had failed. It
// does not close the backend.
func Run(ctx context.Context, o Options) error {
	if o.Zone == nil {
		o.Zone = time.Local
	}
	s := &Shell{
		out: &printer{w: o.Out}, err: o.Err, backend: o.Backend,
		format: format{names: o.Names, zone: o.Zone}, software: true,
	}
	var err error
	if s.signals, err = watchSignals(ctx, o.Interrupts); err != nil {
		return err
	}
	defer s.signals.close()
	s.in = newInput(o.In, s.out, s.signals)
	s.out.printf("Initializing %s\n", report.Clean(o.Method))
	for !s.over && s.out.err == nil {
		s.ask()
	}
	s.out.print("Shutting down ...\n")
	switch {
	case s.out.err != nil:
		return fmt.Errorf("write to standard output: %w", s.out.err)
	case s.failed != FailedError{}:
		return &s.failed
	}
	return nil
}

// ask reads a line and does what it says.
func (s *Shell) ask() {
	line, err := s.in.line()
	switch {
	case err == nil:
		s.do(line)
	case errors.Is(err, errLong):
		s.fail(err)
	case errors.Is(err, errInterrupt):
		s.out.print("Got a sigint while not receiving\n")
		s.over = true
	case errors.Is(err, errDone):
		s.over = true
	default:
		if !errors.Is(err, io.EOF) {
			s.fail(fmt.Errorf("read a command: %w", err))
		}
		s.out.print("Terminating dropwatch...\n")
		s.over = true
	}
}

// do does what a line says.
func (s *Shell) do(line string) {
	c, err := parse(line)
	if errors.Is(err, errBoolean) {
		s.out.print("invalid boolean value\n")
		s.failed.Commands++
		return
	}
	if err != nil {
		s.fail(err)
		return
	}
	switch c.verb {
	case verbNone:
	case verbStart:
		s.start()
	case verbStop:
		s.stop()
	case verbExit:
		s.over = true
	case verbHelp:
		s.out.print(help)
	case verbShow:
		s.show()
	case verbStats:
		s.stats()
	default:
		s.set(c)
	}
}

// set changes a setting.
func (s *Shell) set(c command) {
	switch c.verb {
	case verbAlertLimit:
		s.limit = c.number
		s.out.printf("setting alert capture limit to %d\n", c.number)
	case verbAlertMode:
		s.configure("Setting alert mode\n", "Alert mode successfully set\n",
			func(to *dropmon.Config) { to.Mode = c.mode })
	case verbTrunc:
		s.configure(fmt.Sprintf("Setting truncation length to %d\n", c.number), "Truncation length successfully set\n",
			func(to *dropmon.Config) { to.Truncate = uint32(c.number) })
	case verbQueue:
		s.configure(fmt.Sprintf("Setting queue length to %d\n", c.number), "Queue length successfully set\n",
			func(to *dropmon.Config) { to.Queue = uint32(c.number) })
	case verbSoftware:
		s.software = c.on
		s.out.printf("setting software drops monitoring to %s\n", digit(c.on))
	case verbHardware:
		s.hardware = c.on
		s.out.printf("setting hardware drops monitoring to %s\n", digit(c.on))
	}
}

func digit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func (s *Shell) configure(before, after string, change func(*dropmon.Config)) {
	s.out.print(before)
	c, err := s.backend.Config()
	if err == nil {
		change(&c)
		err = s.backend.SetConfig(c)
	}
	if err != nil {
		s.refused("Failed config request, error: %s\n", err)
		return
	}
	s.out.print(after)
}

func (s *Shell) show() {
	s.out.print("Getting existing configuration\n")
	c, err := s.backend.Config()
	if err != nil {
		s.refused("Failed config request, error: %s\n", err)
		return
	}
	s.out.print(s.format.config(c))
}

func (s *Shell) stats() {
	s.out.print("Getting statistics\n")
	st, err := s.backend.Stats()
	if err != nil {
		s.fail(err)
		return
	}
	s.out.print(s.format.stats(st))
}

// fail says what did not work, where dropwatch says nothing.
func (s *Shell) fail(err error) {
	s.failed.Commands++
	s.note(err.Error())
}

// refused prints dropwatch's line for what the kernel refuses, with the text
// of its error, and what is known beyond that.
func (s *Shell) refused(line string, err error) {
	s.out.printf(line, strerror(err))
	s.fail(err)
}

// note tells what dropwatch would not, in a line. Nobody can be told when that
// fails.
func (s *Shell) note(what string) {
	what = strings.ReplaceAll(what, "\n", "; ") // of errors that were joined
	_, _ = fmt.Fprintf(s.err, "whydrop: %s\n", report.Clean(what))
}

func (s *Shell) notes(list []string) {
	for _, n := range list {
		s.note(n)
	}
}

// printer writes and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) print(text string) {
	if p.err == nil && text != "" {
		_, p.err = io.WriteString(p.w, text)
	}
}

func (p *printer) printf(format string, args ...any) { p.print(fmt.Sprintf(format, args...)) }
