package lab

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// sinkBuffer is what a sink asks for, in bytes: more than one batch takes.
const sinkBuffer = 1 << 20

// sink receives datagrams for a port of ns and throws them away until the
// topology is closed, so that what arrives is not lost for want of somebody
// who reads. It returns how many it has read.
func (t *topology) sink(ns *netlab.Namespace, port uint16) (counter, error) {
	s, err := listen(ns, port)
	if err != nil {
		return nil, err
	}
	t.onClose(s.close)
	if err := s.setBuffer(sinkBuffer); err != nil {
		return nil, err
	}
	return t.readInto(s)
}

// readInto reads from a socket all that comes, until the topology is closed,
// and returns how many datagrams it was.
func (t *topology) readInto(s *lazySocket) (counter, error) {
	var read atomic.Uint64
	err := t.serveUntilClosed(s.fd, func() error {
		n, err := s.drain()
		read.Add(n)
		return err
	})
	return func() (uint64, error) { return read.Load(), nil }, err
}

// serveUntilClosed calls work whenever fd can be read, until the topology is
// closed, and once more then.
func (t *topology) serveUntilClosed(fd int, work func() error) error {
	// A pipe wakes it when it is to end.
	var stop [2]int
	if err := unix.Pipe2(stop[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make receiver's pipe: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve(fd, stop[0], work) }()
	t.onClose(func() error {
		return errors.Join(unix.Close(stop[1]), <-ended, unix.Close(stop[0]))
	})
	return nil
}

// serve works until the other end of the pipe stop is closed.
func serve(fd, stop int, work func() error) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for packets: %w", err)
		}
		if err := work(); err != nil || fds[1].Revents != 0 {
			return err
		}
	}
}
