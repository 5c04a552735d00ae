package observe

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// send sends datagrams to a port of the loopback where nobody listens.
func send(t *testing.T, n int) {
	t.Helper()
	l, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	closed := l.LocalAddr().(*net.UDPAddr)
	l.Close()
	c, err := net.ListenUDP("udp4", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.WriteTo([]byte("x"), closed); err != nil {
			t.Fatal(err)
		}
	}
}

// noPorts is the counter in a list; it must be there once.
func noPorts(t *testing.T, list []record.Counter, inode uint32) record.Counter {
	t.Helper()
	var found []record.Counter
	for _, c := range list {
		if c.Name == "Udp.NoPorts" && c.NetNS.Inode == inode {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("Udp.NoPorts is there %d times in namespace %d", len(found), inode)
	}
	return found[0]
}

// Without any privilege the counters of the own namespace are read, and each
// interval begins where the one before ended.
func TestWatchCounters(t *testing.T) {
	w, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprint(os.Getpid())}, Program: "v"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	own := w.counters.names.Own()
	if h, k := w.Identity(); h.Program != "v" || h.CPUs == 0 || k.Release == "" {
		t.Errorf("identity %+v %+v", h, k)
	}
	first := noPorts(t, w.Totals(), own)
	if first.Before != first.After || first.Delta != 0 {
		t.Errorf("since boot: %+v", first)
	}
	last := first.After
	for i, n := range []int{3, 0, 2} {
		send(t, n)
		list, window := w.Next()
		c := noPorts(t, list, own)
		// Others may use the namespace too.
		if c.Before != last || c.Delta < uint64(n) || c.After != c.Before+c.Delta {
			t.Errorf("interval %d: %+v, before it was %d", i, c, last)
		}
		if window.Duration <= 0 || !window.End.After(window.Start) {
			t.Errorf("window %+v", window)
		}
		last = c.After
	}
	if s, blind := w.Books(); s.Name != SourceCounters || s.State == record.SourceOff || blind == nil {
		t.Errorf("books: %+v, %v", s, blind)
	}
	if u := w.Unread(); u != nil {
		t.Errorf("not read: %v", u)
	}
	w.Close()
}

func TestWatchCountersOfNothing(t *testing.T) {
	var filter *FilterError
	if _, err := WatchCounters(CounterOptions{NetNS: []string{"no-such"}}); !errors.As(err, &filter) {
		t.Errorf("a name that does not exist: %v", err)
	}
	const gone = netns.FirstInode + 12345
	var none *UnavailableError
	_, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprintf("net:[%d]", gone)}})
	if !errors.As(err, &none) || !strings.HasPrefix(err.Error(), "cannot read the kernel's counters: ") || !strings.Contains(err.Error(), "gone") {
		t.Errorf("an inode that nothing leads to: %v", err)
	}
	own := fmt.Sprint(os.Getpid())
	w, err := WatchCounters(CounterOptions{NetNS: []string{own, fmt.Sprint(gone)}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if u := w.Unread(); len(u) != 1 || u[0] != fmt.Sprintf("net:[%d]", gone) {
		t.Errorf("not read: %v", u)
	}
	all, err := WatchCounters(CounterOptions{NetNS: []string{"all", own}})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if all.counters.only != nil || all.Unread() != nil {
		t.Errorf("all: only %v", all.counters.only)
	}
}

// What went wrong in an interval is said for it; what never can be read is said
// every time, and once.
func TestWatchCountersLacks(t *testing.T) {
	w, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprint(os.Getpid())}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.lasting.add("counters in a", "refused", "run as root", "a")
	gone := space{Namespace: netns.Namespace{Inode: 7, Path: "/nonexistent"}}
	w.counters.spaces = append(w.counters.spaces, gone)
	said := func() string {
		w.Next()
		_, blind := w.Books()
		return fmt.Sprint(blind)
	}
	if text := said(); !strings.Contains(text, "1 network namespaces that went away") || !strings.Contains(text, "refused") {
		t.Errorf("an interval: %s", text)
	}
	if text := said(); strings.Contains(text, "1 network namespaces that went away") || strings.Count(text, "refused") != 1 {
		t.Errorf("the next: %s", text)
	}
}
