package cli

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// signals end the program. One ends the watching; the second ends everything at
// once, and what holds eBPF the kernel cleans up. It does not do so for its drop
// monitor, which would go on for the whole host: where that may be in use, every
// usual way of being ended is caught, the second signal only ends the waiting,
// and the third ends everything.
type signals struct {
	got chan os.Signal
	// hurry is closed by the second.
	hurry   chan struct{}
	monitor atomic.Bool
}

// catchSignals returns a context that is done with the first signal, until stop.
func catchSignals() (_ context.Context, s *signals, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	s = &signals{got: make(chan os.Signal, 3), hurry: make(chan struct{})}
	signal.Notify(s.got, os.Interrupt, syscall.SIGTERM)
	over := make(chan struct{})
	go s.heed(cancel, over)
	return ctx, s, func() {
		close(over)
		signal.Stop(s.got)
		cancel()
	}
}

func (s *signals) heed(cancel func(), over <-chan struct{}) {
	defer signal.Stop(s.got)
	next := func() bool {
		select {
		case <-s.got:
			return true
		case <-over:
			return false
		}
	}
	if !next() {
		return
	}
	cancel()
	if s.monitor.Load() && next() {
		close(s.hurry)
	}
}

// mayMonitor says that the drop monitor may be in use from now on. The end of a
// terminal or a pipe is caught, too, but for what who started this has chosen to
// ignore (nohup).
func (s *signals) mayMonitor() {
	if s == nil || s.monitor.Swap(true) {
		return
	}
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT} {
		if !signal.Ignored(sig) {
			signal.Notify(s.got, sig)
		}
	}
}

// noMonitor takes that back.
func (s *signals) noMonitor() {
	if s != nil && s.monitor.Swap(false) {
		signal.Reset(syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT)
	}
}

// hurried is closed when there is no time to wait any longer.
func (s *signals) hurried() <-chan struct{} {
	if s == nil {
		return nil
	}
	return s.hurry
}
