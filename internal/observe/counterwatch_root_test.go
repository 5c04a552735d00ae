//go:build root

package observe

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/record"
)

// A namespace that comes is read from then on, and what it did before is in no
// interval; one that goes is not missed.
func TestWatchCountersOfNamespaces(t *testing.T) {
	host, peer := pair(t, "cnt0")
	w, err := WatchCounters(CounterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const n = 37
	udp(t, peer, "192.0.2.1:9", n)
	list, _ := w.Next()
	if c := noPorts(t, list, host.Inode()); c.Delta != n {
		t.Errorf("%+v, want +%d", c, n)
	}
	if c := noPorts(t, list, peer.Inode()); c.Delta != 0 {
		t.Errorf("of the sender: %+v", c)
	}

	late, other := pair(t, "cnt1")
	udp(t, other, "192.0.2.1:9", 5)
	list, _ = w.Next()
	for _, c := range list {
		if c.NetNS.Inode == late.Inode() {
			t.Fatalf("nothing is known of it from before: %+v", c)
		}
	}
	udp(t, other, "192.0.2.1:9", 6)
	list, _ = w.Next()
	if c := noPorts(t, list, late.Inode()); c.Delta != 6 || c.Before != 5 {
		t.Errorf("a namespace that came: %+v", c)
	}
	if c := noPorts(t, list, host.Inode()); c.Delta != 0 || c.Before != n {
		t.Errorf("the one that was there: %+v", c)
	}
}

// Only what is asked for is entered, also if another one comes.
func TestWatchCountersOfOneNamespace(t *testing.T) {
	host, peer := pair(t, "cnt0")
	w, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprintf("net:[%d]", host.Inode())}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	pair(t, "cnt1")
	udp(t, peer, "192.0.2.1:9", 3)
	for i, want := range []uint64{3, 0} {
		list, _ := w.Next()
		if c := noPorts(t, list, host.Inode()); c.Delta != want {
			t.Errorf("interval %d: %+v", i, c)
		}
		for _, c := range list {
			if c.NetNS.Inode != host.Inode() {
				t.Fatalf("of another namespace, or of the whole host: %+v", c)
			}
		}
	}
	for _, c := range w.Totals() {
		if c.NetNS.Inode != host.Inode() {
			t.Fatalf("since boot, of another namespace, or of the whole host: %+v", c)
		}
	}
	if s, blind := w.Books(); strings.Contains(s.Why, "whole host") || !strings.Contains(fmt.Sprint(blind), "counters of the whole host") {
		t.Errorf("source %+v, blind %v", s, blind)
	}
	all, err := WatchCounters(CounterOptions{NetNS: []string{"host", fmt.Sprint(host.Inode())}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if _, found := counterIn(record.Observation{Counters: all.Totals()}, "softnet.dropped", 0); !found {
		t.Error("with the host, what it has as a whole is missing")
	}
	// Where it is gone nothing is read, whatever the host has.
	if err := host.Close(); err != nil {
		t.Fatal(err)
	}
	list, _ := w.Next()
	if s, _ := w.Books(); len(list) > 0 || len(w.Unread()) != 1 || !w.Over() || s.State != record.SourceOff {
		t.Errorf("%d counters, unread %v, over %v, source %+v", len(list), w.Unread(), w.Over(), s)
	}
}

// Between two reads nothing keeps a namespace alive that everybody has left:
// its devices go with it, or back to the host. The files of the namespace that
// whydrop itself is in stay open.
func TestWatchCountersLetsGo(t *testing.T) {
	host, peer := pair(t, "cnt0")
	w, err := WatchCounters(CounterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for range 2 { // as after an interval, too
		w.Next()
	}
	if n := netFiles(t); n == 0 {
		t.Error("no file of the own namespace is open")
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := host.Link("cnt0"); err != nil {
			break // it went with its other end
		}
		if time.Now().After(end) {
			t.Fatal("the namespace is still there")
		}
	}
	if list, _ := w.Next(); len(list) == 0 {
		t.Error("nothing was read")
	}
	w.Close()
	if n := netFiles(t); n != 0 {
		t.Errorf("%d files of namespaces are open after the watch", n)
	}
}

// netFiles is how many files of /proc/net the process has open.
func netFiles(t *testing.T) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); strings.Contains(to, "/net/") {
			n++
		}
	}
	return n
}
