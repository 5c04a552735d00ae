//go:build root

package observe

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// observed runs f while both namespaces are watched, with the counters.
func observed(t *testing.T, opt Options, f func()) record.Observation {
	t.Helper()
	opt.Counters, opt.Interval = true, 100*time.Millisecond
	s, err := Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c := record.NewCollector(s.Header())
	f()
	s.opt.Duration = time.Since(s.since) + 200*time.Millisecond // and what is under way
	if err := s.Run(t.Context(), func(iv record.Interval) error { c.Add(iv); return nil }); err != nil {
		t.Fatal(err)
	}
	return c.Finish(s.Trailer())
}

func counterIn(o record.Observation, name string, inode uint32) (n uint64, found bool) {
	for _, c := range o.Counters {
		if c.Name == name && c.NetNS.Inode == inode {
			n += c.Delta
			found = true
		}
	}
	return n, found
}

// TestCountersOfNamespaces: what the counters of each namespace did is told
// apart, and equals the drops that were counted.
func TestCountersOfNamespaces(t *testing.T) {
	host, peer := pair(t, "cnt0")
	const n = 37
	o := observed(t, Options{}, func() {
		udp(t, peer, "192.0.2.1:9", n)
		namespace(t) // comes after the beginning
	})
	if got, ok := counterIn(o, "Udp.NoPorts", host.Inode()); !ok || got != n {
		t.Errorf("Udp.NoPorts in the receiver's namespace: +%d, %v, want +%d", got, ok, n)
	}
	if got, ok := counterIn(o, "Udp.NoPorts", peer.Inode()); !ok || got != 0 {
		t.Errorf("Udp.NoPorts in the sender's namespace: +%d, %v, want +0", got, ok)
	}
	if _, ok := counterIn(o, "softnet.dropped", 0); !ok {
		t.Error("no counters of the whole host")
	}
	var drops uint64
	for _, c := range o.Counts {
		if c.NetNS.Inode == host.Inode() && c.IPProto == 17 {
			drops += c.Drops
		}
	}
	if drops != n {
		t.Errorf("%d drops, want %d", drops, n)
	}
	if text := fmt.Sprint(o.Blind); !strings.Contains(text, "came meanwhile") {
		t.Errorf("a namespace that came is not said: %s", text)
	}
	if len(o.Sources) != 2 || o.Sources[1].Name != SourceCounters || o.Sources[1].State == record.SourceOff {
		t.Errorf("sources %+v", o.Sources)
	}
}

// With a filter of namespaces no other is entered, and without being asked
// none is.
func TestCountersOfOneNamespace(t *testing.T) {
	host, _ := pair(t, "cnt0")
	o := observed(t, Options{Filter: Filter{NetNS: []string{fmt.Sprint(host.Inode())}}}, func() {})
	if len(o.Counters) == 0 {
		t.Error("no counters")
	}
	for _, c := range o.Counters {
		if c.NetNS.Inode != 0 && c.NetNS.Inode != host.Inode() {
			t.Fatalf("counter of another namespace: %+v", c)
		}
	}
	if o := watched(t, func() {}, host); len(o.Counters) != 0 || len(o.Sources) != 1 {
		t.Errorf("%d counters that nobody asked for, sources %+v", len(o.Counters), o.Sources)
	}
}

// socketIn makes a socket in a namespace; the text is its inode.
func socketIn(t *testing.T, ns *netlab.Namespace) (*net.UDPConn, string) {
	t.Helper()
	var c *net.UDPConn
	if err := ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Fstat(int(fd), &st) }); err != nil || serr != nil {
		t.Fatal(err, serr)
	}
	return c, strconv.FormatUint(st.Ino, 10)
}

// Facts are read in the namespace that they are asked for in.
func TestFactsOfNamespaces(t *testing.T) {
	host, peer := pair(t, "cnt0")
	mine, inode := socketIn(t, host)
	defer mine.Close()
	facts, blind := Facts(t.Context(), []record.FactRequest{
		{Kind: "link", Arg: "cnt0", NetNS: host.Inode()},
		{Kind: "link", Arg: "cnt0", NetNS: peer.Inode()},
		{Kind: "netns", NetNS: peer.Inode()},
		{Kind: "owner", Arg: inode, NetNS: host.Inode()},
		{Kind: "owner", Arg: "nonsense", NetNS: host.Inode()},
	})
	if len(facts) != 5 || len(blind) != 0 {
		t.Fatalf("facts %+v, blind %+v", facts, blind)
	}
	if f := facts[3]; f.Fields["pid"] != strconv.Itoa(os.Getpid()) || f.NetNS.Inode != host.Inode() {
		t.Errorf("the owner of an own socket: %+v", f)
	}
	if f := facts[4]; f.Missing == "" || f.Kind != "owner" {
		t.Errorf("the owner of nonsense: %+v", f)
	}
	if f := facts[0]; f.Missing != "" || f.Fields["kind"] != "veth" || f.NetNS.Inode != host.Inode() {
		t.Errorf("the device where it is: %+v", f)
	}
	if f := facts[1]; f.Fields["kind"] == "veth" || f.NetNS.Inode != peer.Inode() {
		t.Errorf("the device where it is not: %+v", f)
	}
	// Only this program leads to it, by a file that means nothing to others.
	if f := facts[2]; f.Missing != "" || f.Fields["path"] != "" || f.Fields["pid"] != "" {
		t.Errorf("the namespace: %+v", f)
	}
}
