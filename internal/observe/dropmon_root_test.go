//go:build root

package observe

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// watching is a session that runs.
type watching struct {
	t    *testing.T
	s    *Session
	c    *record.Collector
	stop context.CancelFunc
	done chan error
}

func watch(t *testing.T, opt Options) *watching {
	t.Helper()
	s, err := Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	ctx, stop := context.WithCancel(t.Context())
	w := &watching{t, s, record.NewCollector(s.Header()), stop, make(chan error, 1)}
	go func() { w.done <- s.Run(ctx, func(iv record.Interval) error { w.c.Add(iv); return nil }) }()
	t.Cleanup(stop)
	return w
}

// end ends sessions together and returns what they saw.
func end(list ...*watching) []record.Observation {
	var out []record.Observation
	for _, w := range list {
		w.stop()
	}
	for _, w := range list {
		select {
		case err := <-w.done:
			if err != nil {
				w.t.Error(err)
			}
		case <-time.After(time.Minute):
			w.t.Fatal("still watching a minute after the end was asked for")
		}
		out = append(out, w.c.Finish(w.s.Trailer()))
	}
	return out
}

// kinds are losses at different places of the packet's way. Those that are
// headless are of packets that this host sends and that have no link header yet:
// the blind spot of packet mode (net_dm_packet_trace_kfree_skb_hit,
// net/core/drop_monitor.c).
var kinds = []struct {
	name     string
	headless bool
}{
	{"udp-noport", false},
	{"udp-rcvbuf", false},
	{"ip-ttl", false},
	{"xdp-drop", false},
	{"qdisc-fifo-limit", false},
	{"nf-output-drop", true},
	{"neigh-failed", true},
}

// prepared are the kinds, ready to be provoked. The kernel has loaded the modules
// for them then, whose functions have names.
func prepared(t *testing.T) map[*lab.Setup]*provokedKind {
	t.Helper()
	ready := map[*lab.Setup]*provokedKind{}
	for _, k := range kinds {
		s, err := lab.Find(k.name)
		if err != nil {
			t.Fatal(err)
		}
		setup, err := s.Prepare(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { setup.Close() })
		ready[setup] = &provokedKind{name: k.name, headless: k.headless}
	}
	return ready
}

// provoked loses packets of each kind and returns how many of each, by the
// namespace they were lost in.
func provoked(t *testing.T, ready map[*lab.Setup]*provokedKind, each int) map[uint32]provokedKind {
	t.Helper()
	lost := map[uint32]provokedKind{}
	for setup, k := range ready {
		truth, err := setup.Provoke(t.Context(), each)
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		k.drops = truth.Drops
		lost[setup.NetNS] = *k
	}
	return lost
}

type provokedKind struct {
	name     string
	headless bool
	drops    uint64
}

// at adds up drops by their place in the kernel.
func at(counts []record.Count, of func(record.Count) bool) map[record.Address]uint64 {
	sums := map[record.Address]uint64{}
	for _, c := range counts {
		if of(c) {
			sums[c.Location.Address] += c.Drops
		}
	}
	return sums
}

func anywhere(record.Count) bool { return true }

// TestSameDrops watches provoked losses with eBPF and with the drop monitor at
// once. In summary mode both see the same at each place. In packet mode the drop
// monitor misses exactly what has no link header yet.
func TestSameDrops(t *testing.T) {
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	for _, choice := range []Choice{ChooseDropmonSummary, ChooseDropmonPacket} {
		t.Run(string(choice), func(t *testing.T) {
			ready := prepared(t)
			dm := watch(t, Options{Source: choice, Rich: true})
			bpf := watch(t, Options{Source: ChooseBPF, Rich: true})
			lost := provoked(t, ready, 20)
			// What is under way in a softirq.
			time.Sleep(200 * time.Millisecond)
			seen := end(bpf, dm)
			mine := func(c record.Count) bool { return lost[c.NetNS.Inode].name != "" }
			same(t, choice, seen[0], seen[1], lost, at(seen[0].Counts, mine))
			for i, o := range seen {
				a := o.Accounting
				if a.DropsSeen != a.DropsAggregated || a.AlertsLost+a.DropsLost+a.DecodeErrors+a.MapFull != 0 {
					t.Errorf("%s: accounting %+v", []string{"eBPF", "drop monitor"}[i], a)
				}
			}
			if choice == ChooseDropmonPacket {
				sameDetails(t, seen[0], seen[1], lost)
			}
		})
	}
}

// same compares the counts at the places of the provoked losses.
func same(t *testing.T, choice Choice, bpf, dm record.Observation, lost map[uint32]provokedKind, places map[record.Address]uint64) {
	t.Helper()
	headless := at(bpf.Counts, func(c record.Count) bool { return lost[c.NetNS.Inode].headless })
	byBPF, byDM := at(bpf.Counts, anywhere), at(dm.Counts, anywhere)
	for ns, k := range lost {
		var n uint64
		for _, c := range bpf.Counts {
			if c.NetNS.Inode == ns {
				n += c.Drops
			}
		}
		if n != k.drops {
			t.Errorf("%s: eBPF saw %d, lost were %d", k.name, n, k.drops)
		}
	}
	for place, mine := range places {
		want := byBPF[place]
		if choice == ChooseDropmonPacket {
			want -= headless[place]
		}
		if got := byDM[place]; got != want {
			t.Errorf("%s: the drop monitor saw %d drops, eBPF %d, of them %d provoked, %d without a link header", name(bpf, place), got, byBPF[place], mine, headless[place])
		}
	}
	for _, c := range dm.Counts {
		if c.Location.Symbol != "" && name(bpf, c.Location.Address) != c.Location.String() && places[c.Location.Address] > 0 {
			t.Errorf("the drop monitor's %s is eBPF's %s", c.Location, name(bpf, c.Location.Address))
		}
	}
	if len(places) < 4 {
		t.Errorf("only %d places", len(places))
	}
	if t.Failed() {
		t.Logf("lost %+v\neBPF %s\ndrop monitor %s", lost, list(bpf.Counts), list(dm.Counts))
	}
}

func name(o record.Observation, place record.Address) string {
	for _, c := range o.Counts {
		if c.Location.Address == place {
			return c.Location.String()
		}
	}
	return place.String()
}

func list(counts []record.Count) string {
	var b strings.Builder
	for _, c := range counts {
		fmt.Fprintf(&b, "\n  %d %s at %s netns %d", c.Drops, c.Reason.Name, c.Location, c.NetNS.Inode)
	}
	return b.String()
}

// sameDetails compares what both tell of single packets: the reason, the
// protocol and the flow.
func sameDetails(t *testing.T, bpf, dm record.Observation, lost map[uint32]provokedKind) {
	t.Helper()
	gives := slices.ContainsFunc(dm.Counts, func(c record.Count) bool { return c.Reason.Name != "" })
	if blind := slices.ContainsFunc(dm.Blind, func(b record.Blind) bool { return b.What == "why packets were dropped" }); blind == gives {
		t.Errorf("reasons are told: %v, and said not to be: %v", gives, blind)
	}
	if arguments(t) >= 3 && !gives {
		t.Error("this kernel has reasons, and the drop monitor gives none")
	}
	for _, c := range bpf.Counts {
		k := lost[c.NetNS.Inode]
		if k.name == "" || k.headless {
			continue
		}
		i := slices.IndexFunc(dm.Counts, func(d record.Count) bool { return d.Location.Address == c.Location.Address })
		if i < 0 {
			continue // said already
		}
		d := dm.Counts[i]
		// eBPF refines the qdiscs' one reason by another tracepoint (7.2).
		if gives && c.Reason != d.Reason && c.Reason.Subsystem != "qdisc" {
			t.Errorf("%s: reason %+v, eBPF's is %+v", k.name, d.Reason, c.Reason)
		}
		if d.EtherType != c.EtherType || d.IPProto != c.IPProto {
			t.Errorf("%s: ethertype %#x and protocol %d, eBPF's are %#x and %d", k.name, d.EtherType, d.IPProto, c.EtherType, c.IPProto)
		}
		flow := func(o record.Observation) (f record.Flow) {
			for _, s := range o.Samples {
				if s.Location.Address == c.Location.Address && s.Packet != nil {
					f = s.Packet.Flow
				}
			}
			return f
		}
		if a, b := flow(bpf), flow(dm); a != b {
			t.Errorf("%s: flow %v, eBPF's is %v", k.name, b, a)
		}
	}
}

// TestJoinOthersMonitor: somebody else's drop monitor is only listened to: it is
// in its mode, and runs on.
func TestJoinOthersMonitor(t *testing.T) {
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	other, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Start(true, false); err != nil {
		t.Fatal(err)
	}
	defer other.Stop(true, true)
	w := watch(t, Options{Source: ChooseDropmon})
	host, peer := pair(t, "host0")
	udp(t, peer, "192.0.2.1:9", 7)
	time.Sleep(200 * time.Millisecond)
	o := end(w)[0]
	var got uint64
	for _, c := range o.Counts {
		if slices.Contains([]string{"__udp4_lib_rcv", "udp_rcv"}, c.Location.Symbol) {
			got += c.Drops
		}
	}
	if got != 7 {
		t.Errorf("%d of 7 drops in namespace %d: %s", got, host.Inode(), list(o.Counts))
	}
	if src := o.Sources[0]; src.Name != SourceDropmon || src.State != record.SourceDegraded || !strings.Contains(src.Why, "only listen") {
		t.Errorf("source %+v", src)
	}
	if err := other.Start(true, false); !errors.Is(err, dropmon.ErrRunning) {
		t.Errorf("start of a monitor that should run on: %v", err)
	}
	// It tells no single drops.
	var u *UnavailableError
	if _, err := Start(Options{Source: ChooseDropmon, Each: true}); !errors.As(err, &u) {
		t.Errorf("single drops of a summary: %v", err)
	}
}

// TestStormInPacketMode: what the monitor's queue and the socket do not hold is
// counted all the same.
func TestStormInPacketMode(t *testing.T) {
	testkit.NeedRoot(t)
	if !testkit.Wants(t, "CONFIG_NET_DROP_MONITOR") {
		return
	}
	each := uint64(300_000)
	if testing.Short() { // an emulated machine
		each = 30_000
	}
	// Packets that leave by a device have a link header.
	storms := []*testkit.Storm{
		testkit.NewStorm(t, 1, testkit.StormPackets(1)...), testkit.NewStorm(t, 1, testkit.StormPackets(1)...),
	}
	dm := watch(t, Options{Source: ChooseDropmonPacket})
	bpf := watch(t, Options{Source: ChooseBPF})
	var wg sync.WaitGroup
	for _, s := range storms {
		wg.Go(func() {
			if _, err := s.Run(t.Context(), each); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(200 * time.Millisecond)
	seen := end(bpf, dm)
	a, want := seen[1].Accounting, seen[0].Accounting
	t.Logf("drop monitor %+v\neBPF %+v", a, want)
	if a.DropsLost == 0 {
		t.Errorf("a storm of %d, and nothing found the queue full", 2*each)
	}
	if a.DropsSeen != want.DropsSeen {
		t.Errorf("the drop monitor accounts for %d drops, eBPF for %d", a.DropsSeen, want.DropsSeen)
	}
}
