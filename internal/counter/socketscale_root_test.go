//go:build root

package counter

import (
	"errors"
	"runtime"
	"testing"
	"time"

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
	if testkit.LosingSocketChild(t) {
		return
	}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		n := manySockets()
		lost, losers := testkit.LosingSockets(t, t.Name(), n)
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
		testkit.LosingSockets(b, "TestRead100000Sockets", manySockets())
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
