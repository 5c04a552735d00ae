//go:build root

package skbdrop

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/testkit"
)

// variants are all the programs and tables that one kernel can be given. The
// nested tables and the raw program are for older kernels; they must count as
// exactly here.
func variants() map[string]Options {
	return map[string]Options{
		"tp_btf":               {Args: 4, Guarded: true, HaveCast: true},
		"tp_btf, no cast":      {Args: 4, Guarded: true},
		"tp_btf, nested":       {Args: 4},
		"tp_btf, no rx_sk":     {Args: 3, Guarded: true},
		"tp_btf, no reason":    {Args: 2, Guarded: true},
		"raw_tracepoint":       {Args: 4, Guarded: true, Raw: true},
		"raw_tracepoint, nest": {Args: 4, Raw: true},
	}
}

func start(t testing.TB, o Options) *Probe {
	t.Helper()
	p, err := Open(o)
	if err != nil {
		t.Fatalf("open %+v: %v", o, err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// sums adds up what p counted in one namespace.
func sums(p *Probe, netns uint32) (drops uint64, keys int) {
	p.Counts(func(k Key, n, _ uint64) {
		if k.NetNS == netns {
			drops += n
			keys++
		}
	})
	return drops, keys
}

func stats(t testing.TB, p *Probe) Stats {
	t.Helper()
	s, err := p.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryVariantCountsExactly(t *testing.T) {
	const n = 100_000
	storm := testkit.NewStorm(t, 2, testkit.StormPackets(3)...)
	for name, o := range variants() {
		t.Run(name, func(t *testing.T) {
			p := start(t, o)
			truth, err := storm.Run(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Detach(); err != nil {
				t.Fatal(err)
			}
			got, keys := sums(p, storm.NetNS())
			s := stats(t, p)
			if want := truth.Drops + truth.TestPackets; got+s.Unattributed != want {
				t.Errorf("counted %d, unattributed %d; happened %d", got, s.Unattributed, want)
			}
			if keys < 6 {
				t.Errorf("%d keys, want 6: two devices, three protocols", keys)
			}
			if s.TableFull != 0 {
				t.Errorf("table full %d times", s.TableFull)
			}
		})
	}
}

// TestStorm is the full one: both CPUs drop as fast as they can while a
// reader works as in production.
func TestStorm(t *testing.T) {
	const each = 26_000_000
	storms := []*testkit.Storm{
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
	}
	p := start(t, Options{Args: 4, Guarded: true, HaveCast: true})
	counted := map[uint32]uint64{}
	read := func() {
		p.Counts(func(k Key, n, _ uint64) { counted[k.NetNS] += n })
		if err := p.Samples(func(*Sample) {}); err != nil {
			t.Error(err)
		}
		if err := p.Tick(); err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	truths := make([]testkit.StormTruth, len(storms))
	var wg sync.WaitGroup
	for i, s := range storms {
		wg.Go(func() {
			var err error
			if truths[i], err = s.Run(t.Context(), each); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(100 * time.Millisecond):
		}
		read()
	}
	elapsed := time.Since(began)
	if err := p.Detach(); err != nil {
		t.Fatal(err)
	}
	read()
	s := stats(t, p)
	var got, want uint64
	for i := range storms {
		got += counted[storms[i].NetNS()]
		want += truths[i].Drops + truths[i].TestPackets
	}
	if got+s.Unattributed+s.TableFull != want {
		t.Errorf("counted %d, unattributed %d, table full %d; happened %d", got, s.Unattributed, s.TableFull, want)
	}
	t.Logf("%d drops in %s: %.1f million a second; unattributed %d, samples lost %d",
		want, elapsed.Round(time.Millisecond), float64(want)/elapsed.Seconds()/1e6, s.Unattributed, s.SamplesLost)
}

func TestMoreKeysThanSlots(t *testing.T) {
	const n = 500_000
	storm := testkit.NewStorm(t, 8, testkit.StormPackets(300)...)
	for _, o := range []Options{
		{Args: 4, Guarded: true, HaveCast: true, Slots: 64},
		{Args: 4, Slots: 64},
	} {
		t.Run(fmt.Sprintf("guarded %v", o.Guarded), func(t *testing.T) {
			p := start(t, o)
			truth, err := storm.Run(t.Context(), n)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Detach(); err != nil {
				t.Fatal(err)
			}
			var got, bytes uint64
			p.Counts(func(_ Key, drops, b uint64) { got += drops; bytes += b })
			s := stats(t, p)
			// Other keys of the host compete for slots, so all are added up; the
			// host itself drops a packet now and then.
			want := truth.Drops + truth.TestPackets
			if total := got + s.TableFull + s.Unattributed; total < want || total > want+1000 {
				t.Errorf("counted %d, table full %d, unattributed %d; happened %d", got, s.TableFull, s.Unattributed, want)
			}
			if s.TableFull == 0 {
				t.Error("2,400 keys found room in 64 slots")
			}
			if per := float64(bytes+s.TableFullBytes) / float64(got+s.TableFull); per < 40 || per > 70 {
				t.Errorf("%.1f bytes a drop, the packets have 50 (without the link header) to 64", per)
			}
		})
	}
}

// TestSamplesThinOut drops far more than may be sampled.
func TestSamplesThinOut(t *testing.T) {
	storm := testkit.NewStorm(t, 1, testkit.StormPackets(1)...)
	p := start(t, Options{Args: 4, Guarded: true, HaveCast: true, Burst: 5, Refill: 2})
	count := func() (n int) {
		t.Helper()
		if _, err := storm.Run(t.Context(), 10_000); err != nil {
			t.Fatal(err)
		}
		locations := map[uint64]int{}
		if err := p.Samples(func(s *Sample) {
			if s.NetNS == storm.NetNS() {
				locations[s.Location]++
			}
		}); err != nil {
			t.Fatal(err)
		}
		for _, at := range locations {
			n = max(n, at)
		}
		return n
	}
	cpus := 2 // the storm may move to the other CPU, whose bucket is its own
	if n := count(); n < 5 || n > 5*cpus {
		t.Errorf("%d samples of the first 10,000 drops, want 5 a CPU", n)
	}
	if err := p.Tick(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n < 2 || n > 5*cpus {
		t.Errorf("%d samples after a tick, want 2 a CPU (5 on a fresh one)", n)
	}
	if n := count(); n > 5*cpus {
		t.Errorf("%d samples without a tick", n)
	}
}

// benchmarkStorm reports the time of a drop with one monitor attached.
func benchmarkStorm(b *testing.B, attach func(testing.TB) func()) {
	storm := testkit.NewStorm(b, 1, testkit.StormPackets(1)...)
	detach := attach(b)
	defer detach()
	n := uint64(b.N)
	b.ResetTimer()
	if _, err := storm.Run(b.Context(), n); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStorm compares, in one run: no monitor, the least that any program
// costs, and this one. An operation is one drop.
func BenchmarkStorm(b *testing.B) {
	b.Run("none", func(b *testing.B) {
		benchmarkStorm(b, func(testing.TB) func() { return func() {} })
	})
	b.Run("empty", func(b *testing.B) {
		benchmarkStorm(b, attachEmpty)
	})
	for _, name := range []string{"tp_btf", "tp_btf, no cast", "tp_btf, nested", "raw_tracepoint"} {
		b.Run(name, func(b *testing.B) {
			benchmarkStorm(b, func(t testing.TB) func() {
				p, err := Open(variants()[name])
				if err != nil {
					t.Fatal(err)
				}
				return func() { p.Close() }
			})
		})
	}
}
