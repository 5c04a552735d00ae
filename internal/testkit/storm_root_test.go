//go:build root

package testkit

import (
	"context"
	"errors"
	"sync"
	"testing"
)

// One key: what was asked for, and fast enough to be a storm. A quiet host
// makes 9 million a second; whoever traces drops at the same time makes it
// fewer, hence the lower limit.
func TestStorm(t *testing.T) {
	s := NewStorm(t, 1, StormPackets(1)...)
	const enough = 1e6
	const calls uint64 = 2
	rounds, best := 5, 0.0
	if testing.Short() { // an emulated machine
		rounds = 1
	}
	n := calls * stormCall
	for i := 0; i < rounds && best < enough; i++ {
		truth, err := s.Run(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if truth.Drops != n || truth.TestPackets != calls {
			t.Fatalf("%+v, want %d drops by %d calls", truth, n, calls)
		}
		best = max(best, float64(truth.Drops)/truth.CPU.Seconds())
	}
	t.Logf("%.1f million drops a second of processor time", best/1e6)
	if best < enough && !testing.Short() { // an emulated machine
		t.Errorf("%.0f drops a second of processor time, want %.0f", best, enough)
	}
}

func TestStormKeys(t *testing.T) {
	s := NewStorm(t, stormFan, StormPackets(100)...)
	const keys = stormFan * 100
	truth, err := s.Run(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if truth.Drops != keys*stormFan || truth.TestPackets != keys {
		t.Errorf("%+v, want %d drops by %d calls", truth, keys*stormFan, keys)
	}
	if len(s.Devices()) != stormFan || s.NetNS() == 0 {
		t.Errorf("devices %v, namespace %d", s.Devices(), s.NetNS())
	}
}

// Two storms at once do not enter each other's truth.
func TestStormTogether(t *testing.T) {
	storms := []*Storm{NewStorm(t, 1, StormPackets(1)...), NewStorm(t, 2, StormPackets(3)...)}
	n := uint64(6 * stormFan * 2500)
	if testing.Short() { // an emulated machine
		n /= 5
	}
	var wg sync.WaitGroup
	for _, s := range storms {
		wg.Go(func() {
			if truth, err := s.Run(t.Context(), n); err != nil || truth.Drops != n {
				t.Errorf("%+v, %v, want %d drops", truth, err, n)
			}
		})
	}
	wg.Wait()
}

func TestStormCancelled(t *testing.T) {
	s := NewStorm(t, 1, StormPackets(1)...)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if truth, err := s.Run(ctx, 1); !errors.Is(err, context.Canceled) || truth.Drops != 0 {
		t.Errorf("%+v, %v", truth, err)
	}
}

// The devices' count is compared with what was handed to them.
func TestStormDisagreement(t *testing.T) {
	s := NewStorm(t, 1, StormPackets(1)...)
	link, err := s.ns.Links().LinkByIndex(s.devices[len(s.devices)-1] + 1) // receives, is not sent to
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Links().LinkSetDown(link); err != nil {
		t.Fatal(err)
	}
	if truth, err := s.Run(t.Context(), 1); err == nil || truth.Drops != stormFan-1 {
		t.Errorf("%+v, %v, want %d drops and an error", truth, err, stormFan-1)
	}
}

func TestStormRefuses(t *testing.T) {
	for _, devices := range []int{0, stormFan + 1} {
		if f := try(func(t testing.TB) { NewStorm(t, devices, StormPackets(1)...) }); !f.failed {
			t.Errorf("%d devices were accepted", devices)
		}
	}
	if f := try(func(t testing.TB) { NewStorm(t, 1) }); !f.failed {
		t.Error("a storm without packets was accepted")
	}
}
