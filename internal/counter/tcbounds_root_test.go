//go:build root

package counter

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// TestAskerBounds: what does not fit is not kept, and that is said.
func TestAskerBounds(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		var links []string
		for _, name := range []string{"v0", "v1", "v2"} {
			links = append(links, "link add "+name+" type veth peer name "+name+"p")
		}
		batch(t, "ip", links)
		a, err := newAsker()
		if err != nil {
			t.Fatal(err)
		}
		defer a.close()
		all, err := readLinks(a)
		if err != nil || len(all) != 7 || a.bounded() != nil {
			t.Fatalf("%d devices, %v, %v", len(all), err, a.bounded())
		}
		a.room = 2*len(all[1]) + len(all[0])
		some, err := readLinks(a)
		if err != nil || len(some) < 1 || len(some) > 3 || a.left != len(all)-len(some) {
			t.Errorf("%d devices, %d left out, %v", len(some), a.left, err)
		}
		if err := a.bounded(); err == nil || !strings.Contains(err.Error(), "messages behind") {
			t.Errorf("%v", err)
		}
		a.begin()
		a.asked = maxAsked - 1
		for range 3 {
			if _, err := a.dumpOf(unix.RTM_NEWTCLASS, trafficRequest(unix.RTM_GETTCLASS, nl.TcMsg{Ifindex: 1})); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.bounded(); err == nil || err.Error() != "only 2048 of 2050 devices and qdiscs were asked" {
			t.Errorf("%v", err)
		}
	})
}

// TestReadingDevicesChangesNothing reads a namespace that has all kinds of
// queues and filters, and one that has none.
func TestReadingDevicesChangesNothing(t *testing.T) {
	state := func() string {
		modules, err := os.ReadFile("/proc/modules")
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		var names [][]byte
		for line := range bytes.Lines(modules) {
			name, _, _ := bytes.Cut(line, []byte{' '})
			names = append(names, name)
		}
		return string(bytes.Join(names, []byte{'\n'})) + string(program(t, "tc", "qdisc", "show")) + string(program(t, "ip", "-o", "link", "show"))
	}
	check := func(what string) {
		before := state()
		devicesNow(t)
		if after := state(); after != before {
			t.Errorf("%s: reading changed\n%s\nto\n%s", what, before, after)
		}
	}
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		check("empty")
		for _, c := range anywhere()[:1] {
			program(t, "ip", "link", "add", "v0", "up", "type", "veth", "peer", "name", "v1")
			var queues []string
			for _, command := range c.commands {
				queues = append(queues, onDevice(command, "v0"))
			}
			batch(t, "tc", queues)
		}
		// The kernel finds out a moment later that the other end is down.
		for end := time.Now().Add(20 * time.Second); strings.Contains(string(program(t, "ip", "-o", "link", "show", "dev", "v0")), "state UNKNOWN"); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the state of v0 is not known after 20 s")
			}
		}
		check("with queues")
	})
}
