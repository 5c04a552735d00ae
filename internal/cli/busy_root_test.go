//go:build root

package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// busyFor is how long each of the two observations of a busy host takes,
// busyHosts how many hosts there are at the same time.
var (
	busyFor   = flag.Duration("busy", 3*time.Second, "how long TestBusyHost watches, twice")
	busyHosts = flag.Int("hosts", 1, "how many hosts TestBusyHost watches, at the same time")
)

// TestBusyHost watches hosts that close connections, are scanned and hear
// their network's noise; that transfer much over TCP, through a rate limit that
// only delays, into a network that loses some; where containers come and go, and
// whose connection tracking is half full. Nothing is lost there, and nothing is found; then a
// service stops reading in the middle of it, and that is.
func TestBusyHost(t *testing.T) {
	if testing.Short() { // an emulated machine
		*busyFor = *busyFor * 2 / 3
	}
	var hidden atomic.Uint64
	t.Run("hosts", func(t *testing.T) {
		for i := range *busyHosts {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				hidden.Add(busyHost(t))
			})
		}
	})
	during := 2 * *busyFor * time.Duration(*busyHosts)
	if during >= 8*time.Minute && hidden.Load() < 100_000 {
		t.Errorf("%d frees in %s: those are no busy hosts", hidden.Load(), during)
	}
	t.Logf("%d expected frees hidden in %s of watching", hidden.Load(), during)
}

// busyHost returns how many frees were counted as hidden.
func busyHost(t *testing.T) (hidden uint64) {
	busy := testkit.NewBusy(t)
	busier := testkit.NewBusier(t, busy)
	halfFull(t, busy)
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 2)
	go func() { ran <- busy.Run(ctx) }()
	go func() { ran <- busier.Run(ctx) }()
	defer stop()
	var rounds uint64 // while somebody watched
	watch := func(during func() error) record.Diagnosis {
		o, n := watchBusy(t, busy, during)
		rounds += n
		k, err := loadKnowledge()
		if err != nil {
			t.Fatal(err)
		}
		return diagnose.Run(&o, k, diagnose.Options{})
	}
	quiet := watch(func() error { return nil })
	for _, f := range quiet.Findings {
		if f.Class.Severity() >= record.ClassCapacity.Severity() {
			t.Errorf("found on a healthy host: %s", text(t, quiet))
			break
		}
	}
	lossy := watch(func() error { return loseDatagrams(busy) })
	if len(lossy.Findings) == 0 || lossy.Findings[0].Cause != "udp-rcvbuf" || lossy.Findings[0].Class != record.ClassCapacity {
		t.Errorf("the loss in the middle of it was not found first: %s", text(t, lossy))
	}
	for _, f := range lossy.Findings[min(1, len(lossy.Findings)):] {
		if f.Class.Severity() >= record.ClassCapacity.Severity() {
			t.Errorf("found %s beside the one loss: %s", f.Cause, text(t, lossy))
		}
	}
	if err := busier.Check(); err != nil {
		t.Error(err)
	}
	stop()
	if err := errors.Join(<-ran, <-ran); err != nil {
		t.Fatal(err)
	}
	for _, d := range []record.Diagnosis{quiet, lossy} {
		hidden += d.Accounting.DropsHiddenExpected + d.Accounting.DropsHiddenBenign
	}
	// Each round frees at least ten packets.
	if least := rounds * 10; hidden < least || hidden == 0 {
		t.Errorf("%d frees counted as hidden in %d rounds, want %d", hidden, rounds, least)
	}
	return hidden
}

// halfFull fills half of the host's connection tracking table.
func halfFull(t *testing.T, busy *testkit.Busy) {
	t.Helper()
	entries, done, err := lab.FillConntrack(busy.Host, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := done(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d connections are tracked, half of what can be", entries)
}

func text(t *testing.T, d record.Diagnosis) string {
	t.Helper()
	var b writer
	if err := report.Diagnosis(&b, d, report.Style{}); err != nil {
		t.Fatal(err)
	}
	return "\n" + string(b)
}

type writer []byte

func (w *writer) Write(b []byte) (int, error) { *w = append(*w, b...); return len(b), nil }

// watchBusy observes both namespaces; during runs in the middle. It also
// returns how many rounds there were meanwhile.
func watchBusy(t *testing.T, busy *testkit.Busy, during func() error) (o record.Observation, rounds uint64) {
	t.Helper()
	var spaces []string
	for _, ns := range []uint32{busy.Host.Inode(), busy.Peer.Inode()} {
		spaces = append(spaces, strconv.FormatUint(uint64(ns), 10))
	}
	s, err := observe.Start(observe.Options{Counters: true, Filter: observe.Filter{NetNS: spaces}, Program: release})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before := busy.Rounds()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { // not until during has ended, however slow the machine is
		time.Sleep(*busyFor / 2)
		done <- during()
		time.Sleep(*busyFor / 2)
		stop()
	}()
	c := record.NewCollector(s.Header())
	err = s.Run(ctx, func(iv record.Interval) error { c.Add(iv); return nil })
	rounds = busy.Rounds() - before
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	o = c.Finish(s.Trailer())
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	ask(t.Context(), &o, k)
	return o, rounds
}

// loseDatagrams sends more to a socket of the busy host than it holds.
func loseDatagrams(busy *testkit.Busy) error {
	const port, n = 7777, 200
	var to *net.UDPConn
	to2 := netip.AddrPortFrom(busy.HostAddr, port)
	err := busy.Host.Do(func() error {
		var err error
		to, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(to2))
		return err
	})
	if err != nil {
		return fmt.Errorf("open lazy socket: %w", err)
	}
	if err := to.SetReadBuffer(4096); err != nil {
		return err
	}
	err = busy.Peer.Do(func() error {
		from, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to2))
		if err != nil {
			return err
		}
		for range n {
			if _, werr := from.Write(make([]byte, 1000)); werr != nil {
				return errors.Join(werr, from.Close())
			}
		}
		return from.Close()
	})
	// The socket stays open until the namespace's end of watching.
	time.AfterFunc(*busyFor, func() { _ = to.Close() })
	return err
}
