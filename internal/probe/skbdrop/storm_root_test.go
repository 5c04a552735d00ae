//go:build root

package skbdrop

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/testkit"
)

// best is the options that fit the running kernel, as internal/observe
// chooses them.
func best(t testing.TB) Options {
	t.Helper()
	testkit.NeedRoot(t)
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{BTF: types.Cache}
	if o.Args, err = kernel.KfreeSkbArgs(types.Spec); err != nil {
		t.Fatal(err)
	}
	if o.Guarded, err = types.GuardsRecursion(); err != nil {
		t.Fatal(err)
	}
	if o.HaveCast, err = types.HasFunc("bpf_rdonly_cast"); err != nil {
		t.Fatal(err)
	}
	if o.Traps, err = types.HasTrapReport(); err != nil {
		t.Fatal(err)
	}
	return o
}

// variants are all the programs and tables that work on the running kernel.
// What is meant for older kernels must count as exactly on newer ones.
func variants(t testing.TB) map[string]Options {
	o := best(t)
	all := map[string]Options{"best": o}
	add := func(name string, change func(*Options)) {
		v := o
		change(&v)
		all[name] = v
	}
	add("no cast", func(v *Options) { v.HaveCast = false })
	add("nested", func(v *Options) { v.Guarded = false })
	add("raw_tracepoint", func(v *Options) { v.Raw = true })
	add("raw_tracepoint, nested", func(v *Options) { v.Raw, v.Guarded = true, false })
	add("traps", func(v *Options) { v.Traps = true })
	add("no traps", func(v *Options) { v.Traps = false })
	for args := 2; args < o.Args; args++ {
		add(fmt.Sprintf("%d arguments", args), func(v *Options) { v.Args = args })
	}
	return all
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
	n := uint64(100_000)
	if testing.Short() { // an emulated machine
		n = 30_000
	}
	storm := testkit.NewStorm(t, 2, testkit.StormPackets(3)...)
	for name, o := range variants(t) {
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
	each := uint64(26_000_000)
	if testing.Short() { // an emulated machine
		each = 500_000
	}
	storms := []*testkit.Storm{
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
		testkit.NewStorm(t, 2, testkit.StormPackets(2)...),
	}
	p := start(t, best(t))
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
	n := uint64(150_000) // beside which what else the host drops is little
	if testing.Short() { // an emulated machine, with nothing else to do
		n = 50_000
	}
	packets := testkit.StormPackets(100)
	size := float64(len(packets[0]))
	storm := testkit.NewStorm(t, 8, packets...)
	for name, o := range variants(t) {
		o.Slots = 64
		t.Run(name, func(t *testing.T) {
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
				t.Error("800 keys found room in 64 slots")
			}
			// skb->len has the link header or not, depending on who dropped it.
			if per := float64(bytes+s.TableFullBytes) / float64(got+s.TableFull); per < size-14 || per > size {
				t.Errorf("%.1f bytes a drop, the packets have %.0f", per, size)
			}
		})
	}
}

// sampling is the best options with other tokens.
func sampling(t testing.TB, burst, refill int) Options {
	o := best(t)
	o.Burst, o.Refill = burst, refill
	return o
}

// TestSamplesThinOut drops far more than may be sampled.
func TestSamplesThinOut(t *testing.T) {
	storm := testkit.NewStorm(t, 1, testkit.StormPackets(1)...)
	p := start(t, sampling(t, 5, 2))
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
	cpus := runtime.NumCPU() // the storm may move to another CPU, whose bucket is its own
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
	for _, name := range []string{"no traps", "traps", "no cast", "nested", "raw_tracepoint"} {
		b.Run(name, func(b *testing.B) {
			benchmarkStorm(b, func(t testing.TB) func() {
				p, err := Open(variants(t)[name])
				if err != nil {
					t.Fatal(err)
				}
				return func() { p.Close() }
			})
		})
	}
}

// TestTrapLostSamplesAreSaid: a buffer that is too small must neither stop
// the watching nor hide what it lost, and the counts stay exact.
func TestTrapLostSamplesAreSaid(t *testing.T) {
	storm := testkit.NewStorm(t, 4, testkit.StormPackets(4)...)
	tiny := sampling(t, 64, 1)
	tiny.RingBytes = os.Getpagesize()
	p := start(t, tiny)
	truth, err := storm.Run(t.Context(), 64_000)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Detach(); err != nil {
		t.Fatal(err)
	}
	got, _ := sums(p, storm.NetNS())
	read := uint64(0)
	if err := p.Samples(func(*Sample) { read++ }); err != nil {
		t.Fatal(err)
	}
	s := stats(t, p)
	if want := truth.Drops + truth.TestPackets; got+s.Unattributed != want {
		t.Errorf("counted %d, unattributed %d; happened %d", got, s.Unattributed, want)
	}
	// 16 keys may take 64 samples each; a page holds seven.
	if read == 0 || s.SamplesLost == 0 || read+s.SamplesLost < 16*64 {
		t.Errorf("%d samples read, %d lost, want at least %d together", read, s.SamplesLost, 16*64)
	}
}
