//go:build root

package lab

import (
	"bytes"
	"os"
	"strconv"
	"testing"

	"github.com/whydrop/whydrop/internal/testkit"
)

// The CPU of the squeezed scenario ends its receive work with packets left.
func TestSqueezed(t *testing.T) {
	testkit.NeedRoot(t)
	setup, err := cpuBacklogSqueezed().Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer setup.Close()
	before := squeezed(t)
	provoke(t, setup, 20)
	if after := squeezed(t); after <= before {
		t.Errorf("time_squeeze stayed at %d", after)
	}
}

// squeezed is column 3 of softnet_stat, of all CPUs.
func squeezed(t *testing.T) (n uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		v, err := strconv.ParseUint(string(bytes.Fields(line)[2]), 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		n += v
	}
	return n
}
