//go:build root

package observe

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// spaces are a set as beginCounters takes it.
func spaces(list ...*netlab.Namespace) map[uint32]bool {
	only := map[uint32]bool{}
	for _, ns := range list {
		only[ns.Inode()] = true
	}
	return only
}

// move moves a device to another namespace.
func move(t *testing.T, device string, from, to *netlab.Namespace) {
	t.Helper()
	var f *os.File
	err := to.Do(func() (err error) {
		f, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := from.Link(device)
	if err == nil {
		err = from.Links().LinkSetNsFd(l, int(f.Fd()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestCountersOfMovedDevice: what a device has counted elsewhere is not counted
// again where it moves to; a device that is made counts from 0. Where not every
// namespace is read, nobody can tell the one from the other.
func TestCountersOfMovedDevice(t *testing.T) {
	host, peer := pair(t, "cnt0")
	third := namespace(t)
	const n = 53
	udp(t, host, "192.0.2.2:9", n)
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	all, one := beginCounters(names, spaces(host, peer, third)), beginCounters(names, spaces(third))
	defer all.close()
	defer one.close()
	all.only, all.partial = nil, false // as if there were no others
	move(t, "peer0", peer, third)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "made0"
	if err := third.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "made1"}); err != nil {
		t.Fatal(err)
	}
	of := func(list []record.Counter, device, name string) record.Counter {
		t.Helper()
		for _, c := range list {
			if c.NetNS.Inode == third.Inode() && c.Device.Name == device && c.Name == name {
				return c
			}
		}
		t.Fatalf("no %s of %s", name, device)
		return record.Counter{}
	}
	for _, c := range []struct {
		name  string
		c     *counters
		knows bool
		came  int
	}{{"all namespaces", all, true, 1}, {"one of them", one, false, 3}} {
		list := c.c.end()
		if got := of(list, "peer0", "link.rx_packets"); got.Delta != 0 || got.After != n {
			t.Errorf("%s: moved: %+v", c.name, got)
		}
		if got := of(list, "made0", "link.carrier_changes"); got.After == 0 || (got.Delta == got.After) != c.knows {
			t.Errorf("%s: made: %+v", c.name, got)
		}
		want := fmt.Sprintf("what %d devices counted", c.came)
		if text := fmt.Sprint(c.c.lacks.blind()); !strings.Contains(text, want) {
			t.Errorf("%s: no %q in %s", c.name, want, text)
		}
	}
}
