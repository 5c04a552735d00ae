//go:build root

package shell

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// patience is how long anything may take in an emulated machine.
const patience = time.Minute

// partner is somebody to talk to: Debian's dropwatch or this package.
type partner struct {
	t         *testing.T
	name      string
	in        io.WriteCloser
	interrupt func()
	// wait waits for the end.
	wait     func() error
	out, err console
}

// console takes what is said and can be looked at meanwhile.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write takes more.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(b)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

func (p *partner) said() string { return p.out.String() }

// until waits until what was said is enough.
func (p *partner) until(what string, enough func(said string) bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !enough(p.said()); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%s: no %s within %s:\n%s%s", p.name, what, patience, p.said(), &p.err)
		}
	}
}

// say says a line and waits for the n-th answer that holds words.
func (p *partner) say(line, words string, n int) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
	p.until(words, func(said string) bool { return strings.Count(said, words) >= n })
}

// stop presses Ctrl-C.
func (p *partner) stop() {
	p.t.Helper()
	p.interrupt()
	p.until("stop", func(said string) bool { return strings.Contains(said, "Got a stop message\n") })
}

// end says exit and returns everything that was said.
func (p *partner) end() string {
	p.t.Helper()
	p.say("exit", "Shutting down ...\n", 1)
	if err := p.wait(); err != nil {
		p.t.Errorf("%s: %v\n%s", p.name, err, &p.err)
	}
	return p.said()
}

// real starts Debian's dropwatch. It writes to a terminal, since it keeps back
// what goes to a pipe until its end.
func real(t *testing.T) *partner {
	t.Helper()
	p := &partner{t: t, name: "dropwatch"}
	screen, terminal := testkit.PTY(t, true)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, "dropwatch", "-l", "kas")
	c.Stdout, c.Stderr, c.Env = terminal, &p.err, append(os.Environ(), "TERM=dumb")
	var err error
	if p.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatalf("%v (Debian's package dropwatch has it)", err)
	}
	go func() { _, _ = io.Copy(&p.out, screen) }() // until the terminal is closed
	p.interrupt = func() { _ = c.Process.Signal(unix.SIGINT) }
	p.wait = c.Wait
	return p
}

// ours starts a conversation with this package.
func ours(t *testing.T, b Backend) *partner {
	t.Helper()
	names, err := kernel.Host{}.OpenNames(kernel.SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { names.Close() })
	p := &partner{t: t, name: "whydrop"}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = out
	interrupts := make(chan os.Signal, 1)
	p.interrupt = func() { interrupts <- os.Interrupt }
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		result <- Run(ctx, Options{
			In: in, Out: &p.out, Err: &p.err, Backend: b, Names: names, Method: "kallsyms db", Interrupts: interrupts,
		})
	}()
	t.Cleanup(func() {
		cancel()
		out.Close()
		in.Close()
	})
	p.wait = func() error { return <-result }
	return p
}

// monitor is the backend of the drop monitor.
func monitor(t *testing.T) Backend {
	t.Helper()
	b, note, err := OpenDropMonitor()
	if err != nil {
		t.Fatal(err)
	}
	if note != "" {
		t.Logf("note: %s", note)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// losses are scenarios of the lab, each with a number of drops of its own, by
// which it is recognised.
type losses struct {
	setups []*lab.Setup
	names  []string
	counts []int
}

func prepare(t *testing.T, counts map[string]int) *losses {
	t.Helper()
	l := &losses{}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		s, err := lab.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		setup, err := s.Prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { setup.Close() })
		l.setups, l.names, l.counts = append(l.setups, setup), append(l.names, name), append(l.counts, counts[name])
	}
	return l
}

func (l *losses) provoke(t *testing.T) {
	t.Helper()
	for i, s := range l.setups {
		if truth, err := s.Provoke(t.Context(), l.counts[i]); err != nil || truth.Drops != uint64(l.counts[i]) {
			t.Fatalf("%s: %d drops, %v", l.names[i], truth.Drops, err)
		}
	}
}
