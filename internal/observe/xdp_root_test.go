//go:build root

package observe

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// abort has an XDP program fail on all that comes in at a device.
func abort(t *testing.T, ns *netlab.Namespace, device string, flags int) (id ebpf.ProgramID) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close() // the device keeps it
	info, err := prog.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ = info.ID()
	l, err := ns.Link(device)
	if err == nil {
		err = ns.Do(func() error { return netlink.LinkSetXdpFdWithFlags(l, prog.FD(), flags) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestXDPCounters: in each record there is what came since the one before, of the
// namespaces that are asked for, and as many drops.
func TestXDPCounters(t *testing.T) {
	host, peer := pair(t, "host0")
	other, sender := pair(t, "host0")
	id := abort(t, host, "host0", unix.XDP_FLAGS_DRV_MODE)
	abort(t, other, "host0", unix.XDP_FLAGS_SKB_MODE)
	s, err := Start(Options{Interval: 100 * time.Millisecond, Counters: true, Filter: Filter{NetNS: []string{fmt.Sprint(host.Inode())}}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var drops uint64
	sink := func(iv record.Interval) error {
		drops += iv.Accounting.DropsAggregated
		return nil
	}
	read := func(last bool) []record.Counter {
		t.Helper()
		drops = 0
		if last {
			ctx, stop := context.WithCancel(t.Context())
			stop()
			err = s.Run(ctx, sink)
			return s.Trailer().Counters
		}
		trailer, lookErr := s.Look(sink)
		err = lookErr
		s.Roll()
		return trailer.Counters
	}
	before := uint64(0)
	for i, n := range []int{31, 0, 17} {
		udp(t, peer, "192.0.2.1:9", n)
		udp(t, sender, "192.0.2.1:9", 5)
		time.Sleep(300 * time.Millisecond) // what is under way in a softirq
		got := map[string]record.Counter{}
		for _, c := range read(i == 2) {
			if c.NetNS.Inode == other.Inode() {
				t.Errorf("of a namespace that nobody asked for: %+v", c)
			}
			if c.Source == "tracepoint xdp:xdp_exception" {
				got[c.Name+" "+c.Object] = c
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 3 || drops != uint64(n) {
			t.Errorf("after %d: %d drops, %+v", n, drops, got)
		}
		if c, ok := got["xdp_exception.missed "]; !ok || c.After != 0 || c.NetNS.Inode != 0 {
			t.Errorf("missed: %+v", c)
		}
		for _, object := range []string{"", fmt.Sprintf("program %d", id)} {
			c := got["xdp_exception.XDP_ABORTED "+object]
			if c.Before != before || c.Delta != uint64(n) || c.After != before+uint64(n) || c.NetNS.Inode != host.Inode() || c.Device.Name != "host0" {
				t.Errorf("after %d, %q: %+v", n, object, c)
			}
		}
		before += uint64(n)
	}
}

// TestXDPOnlyWithCounters: who asks for no counters pays for none.
func TestXDPOnlyWithCounters(t *testing.T) {
	s, err := Start(Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if p, ok := s.source.(*skbDrop); !ok || p.xdp != nil {
		t.Errorf("source %+v", s.source)
	}
}
