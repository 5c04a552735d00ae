//go:build root

package testkit

import (
	"fmt"
	"os"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

func TestInNetNS(t *testing.T) {
	ran := false
	InNetNS(t, func(ns *netlab.Namespace) {
		inside, err := os.Readlink("/proc/thread-self/ns/net")
		if want := fmt.Sprintf("net:[%d]", ns.Inode()); err != nil || inside != want {
			t.Errorf("in %s, %v, want %s", inside, err, want)
		}
		ran = true
	})
	if !ran {
		t.Error("the function did not run")
	}
}

// What ends the function ends the test.
func TestInNetNSEnds(t *testing.T) {
	for _, c := range []struct {
		name            string
		end             func(t testing.TB)
		failed, skipped bool
	}{
		{"fatal", func(t testing.TB) { t.Fatal("the end") }, true, false},
		{"skip", func(t testing.TB) { t.Skipf("the end") }, false, true},
		{"error", func(t testing.TB) { t.Error("an error") }, true, false},
	} {
		after := false
		f := try(func(t testing.TB) {
			InNetNS(t, func(*netlab.Namespace) { c.end(t) })
			after = true
		})
		if after || f.failed != c.failed || f.skipped != c.skipped {
			t.Errorf("%s: failed %v, skipped %v, went on %v: %s", c.name, f.failed, f.skipped, after, f.text)
		}
	}
}
