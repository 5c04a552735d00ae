//go:build root

package lab

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// Where the kernel holds packets to lose them later, not too many are sent at
// once, and each is waited for.
func TestHeld(t *testing.T) {
	testkit.NeedRoot(t)
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	var taken, lost, most uint64
	r := &rig{from: ns, patience: 10 * time.Second}
	r.emit = func() error {
		taken++
		most = max(most, taken-lost)
		return nil
	}
	r.taken = func() (uint64, error) { return taken, nil }
	r.lost = func() (uint64, error) {
		lost = min(lost+held/4, taken)
		return lost, nil
	}
	const n = 2*held + 1
	sent, err := r.lose(t.Context(), n)
	if err != nil || sent != n || lost != n {
		t.Errorf("sent %d, lost %d of %d: %v", sent, lost, n, err)
	}
	if most != held {
		t.Errorf("%d packets were held at once, want %d", most, held)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if sent, err := r.lose(cancelled, n); sent != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: sent %d, %v", sent, err)
	}
}

// A send that should fail and does not is no loss.
func TestFailing(t *testing.T) {
	for _, c := range []struct {
		err error
		ok  bool
	}{{nil, false}, {unix.EPERM, true}, {unix.EINVAL, false}} {
		err := failing(func() error { return c.err }, unix.EPERM)()
		if (err == nil) != c.ok {
			t.Errorf("%v: %v", c.err, err)
		}
	}
}
