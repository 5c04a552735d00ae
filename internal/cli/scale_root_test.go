//go:build root

package cli

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestCountersOfLargeHost: with 2,000 devices and 100,000 sockets, held by as
// many processes as their limits of open files ask for, whydrop counters is
// right, in bounded time and memory. docs/cost.md has what it takes; here it is
// logged and may take ten times as much.
func TestCountersOfLargeHost(t *testing.T) {
	if testkit.LosingSocketChild(t) {
		return
	}
	if testing.Short() {
		t.Skip("-short: 2,000 devices and 100,000 sockets are too much for an emulated machine; elsewhere leave -short out")
	}
	const pairs, sockets = 1000, 100_000
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		for i := range pairs {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = fmt.Sprint("left", i)
			if err := ns.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("right", i)}); err != nil {
				t.Fatal(err)
			}
		}
		lost, losers := testkit.LosingSockets(t, t.Name(), sockets)
		if losers != sockets/100 || lost < uint64(losers) {
			t.Fatalf("%d datagrams lost by %d sockets", lost, losers)
		}
		name := fmt.Sprintf("net:[%d]", ns.Inode())

		r := measured(t, command(t, "counters", "--netns", name), 256<<20)
		if total := fmt.Sprintf("  %d  udp.drops ", lost); r.code != exitOK || !strings.Contains(r.out, total) {
			t.Errorf("exit status %d, no %q in\n%.5000s%s", r.code, total, r.out, r.err)
		}
		r = measured(t, command(t, "counters", "--netns", name, "--all", "-j"), 512<<20)
		list := counterReportsOf(t, r)
		if r.code != exitOK || len(list) != 1 {
			t.Fatalf("exit status %d: %s", r.code, r.err)
		}
		large := sizeOf(list[0])
		want := largeHost{devices: 2*pairs + 1, inUse: sockets, lost: lost, losers: losers, overflow: lost}
		if large != want {
			t.Errorf("%+v, want %+v", large, want)
		}
	})
}

// largeHost is what is checked of a report: devices with counters, UDP sockets
// in use, what they lost together and by their own counters, and how many of
// these there are.
type largeHost struct {
	devices, losers       int
	inUse, lost, overflow uint64
}

func sizeOf(r record.CounterReport) (h largeHost) {
	devices := map[uint32]bool{}
	for _, s := range r.Stations {
		for _, c := range s.Counters {
			switch c.Name {
			case "link.rx_dropped":
				devices[c.Device.Index] = true
			case "UDP.inuse":
				h.inUse += c.After
			case "Udp.RcvbufErrors":
				h.overflow += c.After
			case "udp.drops":
				h.lost += c.After
				h.losers += len(c.Parts)
				for _, p := range c.Parts {
					if p.After == 0 {
						h.losers--
					}
				}
			}
		}
	}
	h.devices = len(devices)
	return h
}

// measured runs c, logs what it took, and bounds its peak of memory.
func measured(t *testing.T, c *exec.Cmd, most int64) result {
	t.Helper()
	began := time.Now()
	r := finish(t, c)
	took := time.Since(began)
	// The kernel counts in what the test had when it started the process
	// (fs/exec.c, exec_mmap), so it can be less.
	peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	t.Logf("%s: %v, CPU %v, at most %d MiB", strings.Join(c.Args[1:], " "), took.Round(time.Millisecond),
		(c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Round(time.Millisecond), peak>>20)
	if took > 10*time.Second || peak > most {
		t.Errorf("%s took %v and %d bytes of memory", strings.Join(c.Args[1:], " "), took, peak)
	}
	return r
}
