//go:build root

package counter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// socketsVariable tells a child of a test how many sockets it is to open.
const socketsVariable = "WHYDROP_TEST_SOCKETS"

// manySockets is how many sockets the tests open: what the goal says, or what
// an emulated machine has room for.
func manySockets() int {
	if testing.Short() {
		return 3000
	}
	return 100_000
}

// openSockets opens n UDP sockets in the namespace of the calling thread, by
// as many children of the test as their limits of open files ask for, and
// returns what the sockets have lost together and how many lost something.
// They are closed when the test ends.
func openSockets(t testing.TB, test string, n int) (lost uint64, losers int) {
	t.Helper()
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	each := int(min(limit.Max, 20_000)) - 50
	for first := 0; first < n; first += each {
		l, k := openChild(t, test, first, min(each, n-first))
		lost, losers = lost+l, losers+k
	}
	return lost, losers
}

func openChild(t testing.TB, test string, first, n int) (lost uint64, losers int) {
	t.Helper()
	child := exec.Command(os.Args[0], "-test.run=^"+test+"$")
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", socketsVariable, first, n))
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	must(t, err)
	stdout, err := child.StdoutPipe()
	must(t, err)
	must(t, child.Start()) // of the thread that is in the namespace
	t.Cleanup(func() {
		stdin.Close() // which ends it
		_, _ = io.Copy(io.Discard, stdout)
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := fmt.Fscanf(bufio.NewReader(stdout), "lost %d %d\n", &lost, &losers); err != nil {
		t.Fatalf("child with sockets %d to %d: %v", first, first+n, err)
	}
	return lost, losers
}

// isChild does what openSockets asks for where the process is such a child.
func isChild(t *testing.T) bool {
	t.Helper()
	var first, n int
	if _, err := fmt.Sscanf(os.Getenv(socketsVariable), "%d %d", &first, &n); err != nil {
		return false
	}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	limit.Cur = limit.Max
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
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
	fmt.Printf("lost %d %d\n", lost, len(losers))
	_, _ = io.Copy(io.Discard, os.Stdin) // until the parent has seen enough
	return true
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
	if isChild(t) {
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
		there, err := live.has("inet_diag", "udp_diag")
		there = there && err == nil
		for way, has := range map[string]func(...string) (bool, error){"sock_diag": live.has, "/proc/net": noModules} {
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
			if s := readSockets(live.has); len(s.Values) == 0 {
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
			readSockets(live.has)
		}
	})
}
