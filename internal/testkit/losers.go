package testkit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Of the sockets of [LosingSockets] one in losersEach loses datagrams.
const losersEach = 100

// LosingSockets is [ManySockets] with n UDP sockets on addresses of loopback, of
// which one in 100 has no room for what is sent to it. It returns how many
// datagrams were lost and how many sockets lost some: at least one each. The
// test must call [LosingSocketChild] first.
func LosingSockets(t testing.TB, test string, n int) (lost uint64, losers int) {
	t.Helper()
	for _, said := range ManySockets(t, test, n) {
		var l uint64
		var k int
		if _, err := fmt.Sscanf(said, "lost %d %d", &l, &k); err != nil {
			t.Fatalf("child: %q: %v", said, err)
		}
		lost, losers = lost+l, losers+k
	}
	return lost, losers
}

// LosingSocketChild is [SocketChild] for [LosingSockets].
func LosingSocketChild(t testing.TB) bool {
	t.Helper()
	return SocketChild(t, func(first, n int) string {
		lost, losers, err := loseDatagrams(first, n)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("lost %d %d", lost, losers)
	})
}

func loseDatagrams(first, n int) (lost uint64, losers int, err error) {
	const sent = 10
	var full []int
	for i := first; i < first+n; i++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return 0, 0, fmt.Errorf("socket %d: %w", i, err)
		}
		// 16,384 ports of each address.
		at := &unix.SockaddrInet4{Port: 20_000 + i&0x3fff, Addr: [4]byte{127, 0, byte(1 + i>>14), 1}}
		if err := unix.Bind(fd, at); err != nil {
			return 0, 0, fmt.Errorf("bind socket %d: %w", i, err)
		}
		if i%losersEach != 0 {
			continue
		}
		errs := []error{unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)}
		for range sent {
			errs = append(errs, unix.Sendto(fd, make([]byte, 1000), 0, at))
		}
		if err := errors.Join(errs...); err != nil {
			return 0, 0, fmt.Errorf("fill socket %d: %w", i, err)
		}
		full = append(full, fd)
	}
	lost = uint64(len(full) * sent)
	for came := uint64(1); came > 0; lost -= came { // until nothing is under way any more
		time.Sleep(50 * time.Millisecond)
		came = 0
		for _, fd := range full {
			n, err := drain(fd)
			if err != nil {
				return 0, 0, err
			}
			came += n
		}
	}
	return lost, len(full), nil
}

// drain reads what is there, and says how many datagrams that was.
func drain(fd int) (n uint64, err error) {
	b := make([]byte, 2000)
	for ; ; n++ {
		_, _, err := unix.Recvfrom(fd, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case errors.Is(err, unix.EINTR):
			n--
		case err != nil:
			return n, fmt.Errorf("read a full socket: %w", err)
		}
	}
}
