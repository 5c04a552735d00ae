//go:build root

package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/observe"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestFqChain sends more datagrams than one flow of fq may hold. Each that is
// lost is counted by fq, by its qdisc, by IP and by UDP, and is one drop: four
// entries of the ledger, which are one chain.
func TestFqChain(t *testing.T) {
	testkit.NeedConfig(t, "CONFIG_NET_SCH_FQ")
	testkit.NeedRoot(t)
	host, to := fqPair(t)
	o := observing(t, host, func() error { return sendMany(host, to, fqSent) })
	for tries := 0; drops(o) < fqSent-fqFlowLimit-20 && testkit.HidesPID1() && tries < 2; tries++ {
		o = observing(t, host, func() error { return sendMany(host, to, fqSent) })
	}
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	d := diagnose.Run(&o, k, diagnose.Options{All: true})
	want := drops(o)
	if want < fqSent-fqFlowLimit-20 || want > fqSent {
		t.Errorf("%d drops of %d sent", want, fqSent)
	}
	left := []string{"Udp.SndbufErrors", "Ip.OutDiscards", "fq.flows_plimit", "qdisc.drops"}
	for _, e := range d.Ledger.Entries {
		i := slices.Index(left, e.Counter)
		if i < 0 {
			t.Errorf("the ledger has %+v too", e)
			continue
		}
		left = slices.Delete(left, i, i+1)
		if e.Delta != want || e.Drops != want || e.Relation != record.RelationEqual || !e.Closed || e.Chain != 1 {
			t.Errorf("%+v, want %d of one chain", e, want)
		}
	}
	if len(left) > 0 {
		t.Errorf("the ledger lacks %v", left)
	}
	var lost uint64
	for _, s := range d.Ledger.Stations {
		if s.Station != record.StationQdisc {
			t.Errorf("lost at %s too: %+v", s.Station, s)
		}
		lost += s.Explained + s.Unexplained
	}
	if lost != want {
		t.Errorf("%d lost by station, want %d: a chain is one loss", lost, want)
	}
	if t.Failed() {
		t.Log(evidenceOf(o, d))
	}
}

// fqSent is how many datagrams are sent at once, fqFlowLimit how many of them may
// wait.
const fqSent, fqFlowLimit = 300, 10

// fqPair makes a namespace whose device fq0 has fq, and an address behind it.
func fqPair(t *testing.T) (*netlab.Namespace, netip.AddrPort) {
	t.Helper()
	host, peer := newNS(t), newNS(t)
	joined(t, host, peer)
	link, err := host.Link("fq0")
	if err != nil {
		t.Fatal(err)
	}
	fq := netlink.NewFq(netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT})
	fq.FlowPacketLimit, fq.FlowMaxRate = fqFlowLimit, 1000 // packets, bytes a second
	if err := host.Links().QdiscAdd(fq); err != nil {
		t.Fatal(err)
	}
	return host, netip.MustParseAddrPort("198.51.100.2:9")
}

// joined joins two namespaces by fq0 and fq1, with 198.51.100.1 and .2.
func joined(t *testing.T, host, peer *netlab.Namespace) {
	t.Helper()
	hostNet, peerNet := netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")
	if err := netlab.Veth(netlab.End{NS: host, Name: "fq0", Addr: hostNet}, netlab.End{NS: peer, Name: "fq1", Addr: peerNet}); err != nil {
		t.Fatal(err)
	}
}

func drops(o record.Observation) (n uint64) {
	for _, c := range o.Counts {
		n += c.Drops
	}
	return n
}

func newNS(t *testing.T) *netlab.Namespace {
	t.Helper()
	ns, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// observing watches a namespace with eBPF while fn runs.
func observing(t *testing.T, ns *netlab.Namespace, fn func() error) record.Observation {
	t.Helper()
	return observingBy(t, ns, observe.ChooseBPF, fn)
}

func observingBy(t *testing.T, ns *netlab.Namespace, source observe.Choice, fn func() error) record.Observation {
	t.Helper()
	s, err := observe.Start(observe.Options{
		Counters: true, Program: release, Source: source,
		Filter: observe.Filter{NetNS: []string{strconv.FormatUint(uint64(ns.Inode()), 10)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- fn()
		stop()
	}()
	c := record.NewCollector(s.Header())
	err = s.Run(ctx, func(iv record.Interval) error { c.Add(iv); return nil })
	stop()
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return c.Finish(s.Trailer())
}

// sendMany sends n datagrams of one flow, which no send buffer holds back.
func sendMany(ns *netlab.Namespace, to netip.AddrPort, n int) error {
	return ns.Do(func() error {
		// Not connected: an ICMP error of the peer is none of a later send.
		c, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return err
		}
		raw, err := c.SyscallConn()
		if err != nil {
			return errors.Join(err, c.Close())
		}
		var serr error
		err = raw.Control(func(fd uintptr) {
			serr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20)
		})
		if err := errors.Join(err, serr, c.SetWriteDeadline(time.Now().Add(30*time.Second))); err != nil {
			return errors.Join(fmt.Errorf("set send buffer: %w", err), c.Close())
		}
		for i := range n {
			if _, err := c.WriteToUDPAddrPort(make([]byte, 600), to); err != nil {
				return errors.Join(fmt.Errorf("send datagram %d: %w", i, err), c.Close())
			}
		}
		return c.Close()
	})
}
