package shell

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// signals keeps what came while nobody looked, and wakes who waits for input.
type signals struct {
	interrupted, done atomic.Bool
	// wake is an eventfd that is readable after something came.
	wake  int
	stop  chan struct{}
	ended chan struct{}
}

// watchSignals keeps interrupts, and the end of the context, until close.
func watchSignals(ctx context.Context, interrupts <-chan os.Signal) (*signals, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	s := &signals{wake: wake, stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		done := ctx.Done()
		for {
			select {
			case <-s.stop:
				return
			case <-done:
				done = nil // once
				s.done.Store(true)
			case <-interrupts:
				s.interrupted.Store(true)
			}
			// It fails only when the counter is at its end: readable too.
			_, _ = unix.Write(wake, binary.NativeEndian.AppendUint64(nil, 1))
		}
	}()
	return s, nil
}

// take returns what came since it was called last. The end stays.
func (s *signals) take() (interrupted, done bool) {
	var count [8]byte
	_, _ = unix.Read(s.wake, count[:]) // EAGAIN: nothing came
	return s.interrupted.Swap(false), s.done.Load()
}

func (s *signals) close() {
	close(s.stop)
	<-s.ended
	_ = unix.Close(s.wake) // nothing was written to it that could be lost
}

// await waits until fd can be read, at most so many milliseconds (-1: for
// ever). It returns errInterrupt or errDone when that came first.
func (s *signals) await(fd, milliseconds int) (ready bool, err error) {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, milliseconds)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("wait for input: %w", err)
		}
		if fds[1].Revents != 0 {
			switch interrupted, done := s.take(); {
			case done:
				return false, errDone
			case interrupted:
				return false, errInterrupt
			}
			continue
		}
		return fds[0].Revents != 0, nil
	}
}
