package report_test

import (
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// TestEachClock: a drop of a capture has the time of the host's clock alone.
func TestEachClock(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC)
	for want, d := range map[string]record.Drop{
		"[   12.345678] ":    {Time: at, KernelTime: 12345678901},
		"[03:04:05.678901] ": {Time: at},
		"[    0.000000] ":    {},
	} {
		var b strings.Builder
		if err := report.Each(&b, d, "", report.Style{}); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(b.String(), want) {
			t.Errorf("got %q, want it to begin with %q", b.String(), want)
		}
	}
}
