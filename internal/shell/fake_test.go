package shell

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/record"
)

// fake is a backend whose sessions do what a script says, a line each:
//
//	config MODE TRUNC QUEUE        before the first session
//	stats SOFTWARE HARDWARE
//	nohardware                     stats has no hardware
//	foreign                        another program monitors
//	kas                            there are names,
//	name ADDRESS SYMBOL OFFSET     this one
//	refuse config|stats|start|stop ERRNO
//	session                        what follows is for the next start
//	point ADDRESS DROPS            goes on with the last message
//	trap NAME DROPS
//	packet KEY=VALUE...            a message of its own
//	message                        begins another summary
//	interrupt                      Ctrl-C, after what was received so far
//	wait MILLISECONDS              nothing comes for so long
//	break                          the session fails
//	late                           what follows comes at the stop only
//	delay MILLISECONDS             how late an alert may come
//	note TEXT, ending TEXT, lost TEXT
type fake struct {
	t          *testing.T
	config     dropmon.Config
	stats      dropmon.Stats
	refuse     map[string]error
	sessions   [][]string
	interrupts chan os.Signal
	running    bool
	foreign    bool
	// started are the arguments of every start, and the configuration then.
	started []string
	names   names
	delay   time.Duration
}

type names map[uint64]record.Location

func (n names) Resolve(addr uint64) record.Location { return n[addr] }

// newFake reads a script.
func newFake(t *testing.T, script string) *fake {
	f := &fake{
		t: t, config: dropmon.Config{Queue: 1000}, refuse: map[string]error{}, interrupts: make(chan os.Signal, 1),
		stats: dropmon.Stats{Software: dropmon.Tail{Known: true}, Hardware: dropmon.Tail{Known: true}},
	}
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		args := strings.Fields(rest)
		switch word {
		case "", "#":
		case "config":
			f.config = dropmon.Config{Mode: dropmon.Mode(f.number(args[0])), Truncate: uint32(f.number(args[1])), Queue: uint32(f.number(args[2]))}
		case "stats":
			f.stats.Software.Dropped, f.stats.Hardware.Dropped = f.number(args[0]), f.number(args[1])
		case "foreign":
			f.foreign = true
		case "delay":
			f.delay = time.Duration(f.number(args[0])) * time.Millisecond
		case "nohardware":
			f.stats.Hardware.Known = false
		case "refuse":
			f.refuse[args[0]] = fmt.Errorf("ask the kernel: %w", syscall.Errno(f.number(args[1])))
		case "kas":
			f.names = names{}
		case "name":
			f.names[f.number(args[0])] = record.Location{Symbol: args[1], Offset: f.number(args[2])}
		case "session":
			f.sessions = append(f.sessions, nil)
		default:
			n := len(f.sessions) - 1
			f.sessions[n] = append(f.sessions[n], line)
		}
	}
	return f
}

func (f *fake) number(s string) uint64 {
	f.t.Helper()
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *fake) Config() (dropmon.Config, error) { return f.config, nil }

func (f *fake) SetConfig(c dropmon.Config) error {
	if f.running || f.foreign {
		return fmt.Errorf("configure: %w", dropmon.ErrBusy)
	}
	if err := f.refuse["config"]; err != nil {
		return err
	}
	f.config = c
	return nil
}

func (f *fake) Stats() (dropmon.Stats, error) { return f.stats, f.refuse["stats"] }
func (f *fake) Close() error                  { return nil }

func (f *fake) Start(software, hardware bool) (Session, error) {
	f.started = append(f.started, fmt.Sprintf("software %t, hardware %t, %s, %d, %d", software, hardware, f.config.Mode, f.config.Truncate, f.config.Queue))
	if err := f.refuse["start"]; err != nil {
		return nil, err
	}
	if f.running {
		f.t.Error("started twice")
	}
	f.running = true
	s := &fakeSession{fake: f}
	if len(f.sessions) > 0 {
		s.script, f.sessions = f.sessions[0], f.sessions[1:]
	}
	return s, nil
}

type fakeSession struct {
	*fake
	script []string
	ending Ending
}

func (s *fakeSession) Notes() []string {
	var notes []string
	for _, line := range s.script {
		if text, ok := strings.CutPrefix(line, "note "); ok {
			notes = append(notes, text)
		}
	}
	return notes
}

func (s *fakeSession) Delay() time.Duration { return s.delay }

// Receive plays the script up to the next interrupt.
func (s *fakeSession) Receive(wait time.Duration, f func(dropmon.Alert) bool) error {
	if !s.running {
		s.t.Error("received after the stop")
	}
	if len(s.script) == 0 {
		time.Sleep(min(wait, time.Millisecond))
	}
	return s.play(f, false)
}

func (s *fakeSession) play(f func(dropmon.Alert) bool, late bool) error {
	var summary dropmon.Alert
	send := func(a dropmon.Alert) bool {
		empty := a.Packet == nil && len(a.Points)+len(a.Traps) == 0
		summary = dropmon.Alert{}
		return empty || f(a)
	}
	for len(s.script) > 0 {
		line := s.script[0]
		if line == "late" && !late {
			break
		}
		s.script = s.script[1:]
		word, rest, _ := strings.Cut(line, " ")
		args := strings.Fields(rest)
		more := true
		switch word {
		case "point":
			summary.Points = append(summary.Points, dropmon.Point{PC: s.number(args[0]), Drops: uint32(s.number(args[1]))})
		case "trap":
			name, count, _ := strings.Cut(rest, " ")
			summary.Traps = append(summary.Traps, dropmon.Trap{Name: unquote(name), Drops: uint32(s.number(count))})
		case "message":
			more = send(summary)
		case "packet":
			more = send(summary) && send(dropmon.Alert{Packet: s.packet(args)})
		case "interrupt":
			send(summary)
			s.interrupts <- os.Interrupt
			for len(s.interrupts) > 0 { // until it was seen
				time.Sleep(time.Millisecond)
			}
			time.Sleep(10 * time.Millisecond)
			return nil
		case "wait":
			send(summary)
			time.Sleep(time.Duration(s.number(args[0])) * time.Millisecond)
			return nil
		case "break":
			return errors.New("the socket is gone")
		case "lost":
			s.ending.Lost = append(s.ending.Lost, rest)
		case "ending":
			s.ending.Notes = append(s.ending.Notes, rest)
		case "note", "late":
		default:
			s.t.Fatalf("script: %q", line)
		}
		if !more {
			return nil
		}
	}
	send(summary)
	return nil
}

// packet reads key=value; values are quoted Go strings where they hold blanks.
func (s *fakeSession) packet(args []string) *dropmon.Packet {
	p := &dropmon.Packet{}
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		number := func() uint64 { return s.number(value) }
		switch key {
		case "pc":
			p.PC = number()
		case "symbol":
			p.Symbol = unquote(value)
		case "reason":
			p.Reason = unquote(value)
		case "origin":
			p.Origin = dropmon.Origin(number())
		case "ifindex":
			p.InIndex = uint32(number())
		case "ifname":
			p.InName = unquote(value)
		case "time":
			p.Time = time.Unix(0, int64(number()))
		case "protocol":
			p.Protocol = uint16(number())
		case "original":
			p.OriginalLength = uint32(number())
		case "payload":
			p.Payload = make([]byte, number())
		case "trap":
			p.TrapName = unquote(value)
		case "group":
			p.TrapGroup = unquote(value)
		case "cookie":
			p.Cookie = []byte(unquote(value))
		default:
			s.t.Fatalf("packet: %q", a)
		}
	}
	return p
}

// unquote is for what a word of a script cannot hold.
func unquote(s string) string {
	if q, err := strconv.Unquote(s); err == nil {
		return q
	}
	return s
}

func (s *fakeSession) Stop(f func(dropmon.Alert) bool) (Ending, error) {
	if !s.running {
		s.t.Error("stopped twice")
	}
	s.running = false
	if err := s.play(f, true); err != nil {
		s.t.Error(err)
	}
	return s.ending, s.refuse["stop"]
}
