package diagnose

import (
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

// TestSpan: samples of a capture, which has no clock of the kernel, are as far
// apart as their times say.
func TestSpan(t *testing.T) {
	kernel := func(ns uint64) *record.Drop { return &record.Drop{KernelTime: ns, Time: time.Unix(1e9, 0)} }
	host := func(ns int64) *record.Drop { return &record.Drop{Time: time.Unix(1e9, ns)} }
	for want, samples := range map[float64][]*record.Drop{
		0:   nil,
		2.5: {kernel(4e9), kernel(15e8), kernel(3e9)},
		1.5: {host(3e9), host(15e8), host(2e9)},
	} {
		if got := span(samples); got != want {
			t.Errorf("%d samples span %g s, want %g", len(samples), got, want)
		}
	}
	if got := span([]*record.Drop{{}, {Time: time.Unix(-5, 0)}}); got != 0 {
		t.Errorf("samples without a time span %g s", got)
	}
}
