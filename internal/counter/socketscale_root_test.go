//go:build root

package counter

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// manySockets is how many sockets the tests open: what the goal says, or what
// an emulated machine has room for.
func manySockets() int {
	if testing.Short() {
		return 3000
	}
	return 100_000
}

// openSockets has n UDP sockets opened in the namespace of the calling thread,
// and returns what they have lost together and how many lost something.
func openSockets(t testing.TB, test string, n int) (lost uint64, losers int) {
	t.Helper()
	for _, said := range testkit.ManySockets(t, test, n) {
		var l uint64
		var k int
		if _, err := fmt.Sscanf(said, "lost %d %d", &l, &k); err != nil {
			t.Fatalf("child: %q: %v", said, err)
		}
		lost, losers = lost+l, losers+k
	}
	return lost, losers
}

// openMany is what the children do for openSockets.
func openMany(t *testing.T, first, n int) string {
	const sent = 10
	var losers []int
	for i := first; i < first+n; i++ {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(t, err)
		// 16,384 ports of each address.
		at := &unix.SockaddrInet4{Port: 20_000 + i&0x3fff, Addr: [4]byte{127, 0, byte(1 + i>>14), 1}}
		must(t, unix.Bind(fd, at))
		if i%100 != 0 {
			continue
		}
		must(t, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1))
		for range sent {
			must(t, unix.Sendto(fd, make([]byte, 1000), 0, at))
		}
		losers = append(losers, fd)
	}
	lost := uint64(len(losers) * sent)
	for came := uint64(1); came > 0; lost -= came { // until nothing is under way any more
		time.Sleep(50 * time.Millisecond)
		came = 0
		for _, fd := range losers {
			came += received(t, fd)
		}
	}
	return fmt.Sprintf("lost %d %d", lost, len(losers))
}

// heap is what the process has taken for its heap.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys - m.HeapReleased
}

// TestRead100000Sockets opens that many (3,000 in short mode) and reads what
// they lost: exactly, in bounded time, in bounded memory.
func TestRead100000Sockets(t *testing.T) {
	if testkit.SocketChild(t, func(first, n int) string { return openMany(t, first, n) }) {
		return
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		n := manySockets()
		lost, losers := openSockets(t, t.Name(), n)
		inUse, err := readInUse(thread)
		must(t, err)
		if lost == 0 || inUse["UDP"] != uint64(n) {
			t.Fatalf("%d sockets of %d, %d lost", inUse["UDP"], n, lost)
		}
		there, err := live.Has("inet_diag", "udp_diag")
		there = there && err == nil
		for way, has := range map[string]func(...string) (bool, error){"sock_diag": live.Has, "/proc/net": noModules} {
			before := heap()
			began := time.Now()
			s := readSockets(has)
			took := time.Since(began)
			grew := int64(heap() - before)
			t.Logf("%s: %d sockets in %v, %d values, %d KiB more of heap", way, n, took, len(s.Values), grew>>10)
			if took > 3*time.Second {
				t.Errorf("%s: it took %v", way, took)
			}
			if grew > 32<<20 {
				t.Errorf("%s: the heap grew by %d bytes", way, grew)
			}
			got := losses(t, s.Values, "udp")
			if n > maxListed && !(way == "sock_diag" && there) {
				if len(got) > 0 || s.whole(missingSockets("udp")) {
					t.Errorf("%s: %d values and nothing missing", way, len(got))
				}
				continue
			}
			if got[""] != lost || len(got) != losers+1 || len(s.Missing) > 0 {
				t.Errorf("%s: %d lost by %d sockets, want %d by %d; missing %+v", way, got[""], len(got)-1, lost, losers, s.Missing)
			}
		}
	})
}

// BenchmarkRead100000Sockets reads them as often as the benchmark asks for.
func BenchmarkRead100000Sockets(b *testing.B) {
	testkit.InNetNS(b, func(*netlab.Namespace) {
		openSockets(b, "TestRead100000Sockets", manySockets())
		b.ReportAllocs()
		for b.Loop() {
			if s := readSockets(live.Has); len(s.Values) == 0 {
				b.Fatal(errors.New("nothing was read"))
			}
		}
	})
}

// BenchmarkReadSockets reads a namespace with a socket of each kind.
func BenchmarkReadSockets(b *testing.B) {
	testkit.InNetNS(b, func(ns *netlab.Namespace) {
		for _, tt := range lossy {
			if !unsupported(b, tt.table, tt.proto) {
				tt.lose(b, ns, tt.proto)
			}
		}
		b.ReportAllocs()
		for b.Loop() {
			readSockets(live.Has)
		}
	})
}
