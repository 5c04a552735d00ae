package observe

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/counter"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// Without any privilege the counters of the own namespace can be read.
func TestCountersOfOwnNamespace(t *testing.T) {
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	c := beginCounters(names, map[uint32]bool{names.Own(): true})
	list := c.end()
	found := map[string]bool{}
	for _, n := range list {
		if n.Level {
			continue // it goes up and down
		}
		if n.After < n.Before || n.Delta != n.After-n.Before && n.Delta != 0 {
			t.Errorf("counter %+v", n)
		}
		if n.NetNS.Inode == names.Own() {
			found[n.Name] = true
		} else if n.NetNS.Inode != 0 {
			t.Errorf("%s is of namespace %d, which was not asked for", n.Name, n.NetNS.Inode)
		}
	}
	for _, want := range []string{"Udp.RcvbufErrors", "TcpExt.ListenDrops", "link.rx_dropped"} {
		if !found[want] {
			t.Errorf("no counter %s among %d", want, len(list))
		}
	}
	if s := c.lacks.source(); s.State == record.SourceOff {
		t.Errorf("source %+v", s)
	}
}

// A namespace that cannot be entered, one that went and one that came are
// said, and the rest is read all the same.
func TestCountersThatCannotBeRead(t *testing.T) {
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	own := names.Own()
	c := beginCounters(names, map[uint32]bool{own: true})
	c.only = nil
	gone := space{Namespace: netns.Namespace{Inode: 7, Path: "/nonexistent"}}
	c.spaces = append(c.spaces, gone)
	delete(c.known, own)
	list := c.end()
	if len(list) == 0 {
		t.Error("nothing was read")
	}
	for _, n := range list {
		if n.NetNS.Inode == gone.Inode {
			t.Fatalf("counter of a namespace that is gone: %+v", n)
		}
	}
	text := fmt.Sprint(c.lacks.blind())
	for _, want := range []string{"1 network namespaces that went away", "network namespaces that came"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	for i := range 5 {
		s := space{Namespace: netns.Namespace{Inode: uint32(i), Name: fmt.Sprint("n", i)}}
		s.err = fmt.Errorf("enter network namespace /run/netns/n%d: %w", i, os.ErrPermission)
		if c.could(&s, counter.Snapshot{}) {
			t.Error("a namespace that was not entered was read")
		}
	}
	text = fmt.Sprint(c.lacks.blind())
	if want := "counters in network namespaces n0, n1, n2 and 2 more"; !strings.Contains(text, want) {
		t.Errorf("no %q in %s", want, text)
	}
	if s := c.lacks.source(); s.State != record.SourceDegraded || s.Why == "" {
		t.Errorf("source %+v", s)
	}
}

// TestCountersOfReusedInode: the kernel gives the number of a namespace that is
// gone to the next one. The two are not compared.
func TestCountersOfReusedInode(t *testing.T) {
	_, err := netns.Cookie()
	testkit.SkipBefore(t, "5.14", "SO_NETNS_COOKIE", err)
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	own := names.Own()
	c := beginCounters(names, map[uint32]bool{own: true})
	defer c.close()
	of := func(list []record.Counter) (n int) {
		for _, x := range list {
			if x.NetNS.Inode == own {
				n++
			}
		}
		return n
	}
	if of(c.end()) == 0 {
		t.Error("it is still the same, but has no counters")
	}
	c.only = nil
	c.spaces[0].cookie++ // as if it had been another one
	if n := of(c.end()); n > 0 {
		t.Errorf("%d counters of two namespaces", n)
	}
	text := fmt.Sprint(c.lacks.blind())
	if !strings.Contains(text, "1 network namespaces that went away") || !strings.Contains(text, "namespaces that came") {
		t.Error(text)
	}
	// One that was asked for is gone for good: the other is not what was meant.
	w, err := WatchCounters(CounterOptions{NetNS: []string{fmt.Sprint(os.Getpid())}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Next(); w.Over() || w.Unread() != nil {
		t.Errorf("it is there, but over %v, unread %v", w.Over(), w.Unread())
	}
	w.counters.spaces[0].cookie++
	for range 2 {
		list, _ := w.Next()
		if n := of(list); n > 0 || len(w.Unread()) != 1 || !w.Over() {
			t.Errorf("%d counters, unread %v, over %v", n, w.Unread(), w.Over())
		}
	}
}

func TestSourceWithoutAnyCounter(t *testing.T) {
	var l lacks
	if s := l.source(); s.State != record.SourceOff || s.Why == "" {
		t.Errorf("nothing was read: %+v", s)
	}
	l.snapshot(counter.Snapshot{Values: []counter.Value{{Name: "Udp.InErrors"}}}, "host")
	l.pass("counters of 1 network namespaces that came meanwhile", "none from before")
	if s := l.source(); s.State != record.SourceOK || s.Why != "" {
		t.Errorf("a namespace that came later is nobody's fault: %+v", s)
	}
	l.snapshot(counter.Snapshot{Missing: []record.Blind{{What: "counters of x", Why: "no"}}}, "host")
	l.snapshot(counter.Snapshot{Missing: []record.Blind{{What: "counters of x", Why: "no"}}}, "host")
	if s := l.source(); s.State != record.SourceDegraded || len(l.blind()) != 2 {
		t.Errorf("source %+v, blind %+v", s, l.blind())
	}
}

func TestTooManyCounters(t *testing.T) {
	list := make([]record.Counter, maxCounters+10)
	for i := range list {
		list[i] = record.Counter{Name: fmt.Sprint(i), Delta: uint64(i % 2)}
	}
	c := &counters{}
	kept := c.bounded(list)
	moved := 0
	for i, n := range kept {
		moved += int(n.Delta)
		if i > 0 && len(n.Name) < len(kept[i-1].Name) {
			t.Fatalf("%s behind %s", n.Name, kept[i-1].Name)
		}
	}
	if len(kept) != maxCounters || moved != len(list)/2 || len(c.lacks.blind()) != 1 {
		t.Errorf("%d kept, %d of them moved, blind %+v", len(kept), moved, c.lacks.blind())
	}
	for i := range list {
		list[i].Delta = 1
	}
	if kept := c.bounded(list); len(kept) != maxCounters {
		t.Errorf("%d kept where all moved", len(kept))
	}
}

func TestFactsOfOwnNamespace(t *testing.T) {
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	own := names.Own()
	const gone = netns.FirstInode + 12345
	requests := []record.FactRequest{
		{Kind: "sysctl", Arg: "net/ipv4/ip_forward", NetNS: own},
		{Kind: "netns", NetNS: own},
		{Kind: "sysctl", Arg: "net/ipv4/ip_forward", NetNS: gone},
		{Kind: "netns", NetNS: gone},
		{Kind: "no-such-kind", NetNS: own},
		{Kind: "owner", Arg: "1", NetNS: own},
	}
	facts, blind := Facts(t.Context(), requests)
	byRequest := map[record.FactRequest][]record.Fact{}
	for _, f := range facts {
		k := record.FactRequest{Kind: f.Kind, Arg: f.Request, NetNS: f.NetNS.Inode}
		byRequest[k] = append(byRequest[k], f)
	}
	for i, req := range requests {
		found := byRequest[req]
		if len(found) != 1 {
			t.Fatalf("%+v has the answers %+v", req, found)
		}
		missing := found[0].Missing != ""
		if req.Kind == "owner" { // "none", or not known without root
			continue
		}
		if want := i >= 2 && i <= 4; missing != want {
			t.Errorf("%+v: missing is %v: %+v", req, missing, found[0])
		}
	}
	if v := byRequest[requests[0]][0].Value; v != "0" && v != "1" {
		t.Errorf("ip_forward is %q", v)
	}
	if f := byRequest[requests[1]][0]; f.Fields["pid"] == "" {
		t.Errorf("no process in the own namespace: %+v", f)
	}
	if len(blind) != 1 || !strings.Contains(blind[0].Why, "gone") {
		t.Errorf("blind %+v", blind)
	}
	if facts, blind := Facts(t.Context(), nil); facts != nil || blind != nil {
		t.Errorf("nothing asked: %v, %v", facts, blind)
	}
}

func TestFactsOfTheHost(t *testing.T) {
	facts, _ := Facts(t.Context(), []record.FactRequest{{Kind: "netns"}, {Kind: "sysctl", Arg: "net/core/netdev_max_backlog"}})
	if len(facts) != 2 {
		t.Fatalf("%+v", facts)
	}
	for _, f := range facts {
		if f.NetNS != (record.NetNS{}) || f.Missing != "" {
			t.Errorf("%+v", f)
		}
	}
}

// A setting of the whole host that was asked for in two namespaces is there
// once.
func TestJoinFacts(t *testing.T) {
	a := record.FactRequest{Kind: "sysctl", Arg: "net/core/netdev_max_backlog", NetNS: 1}
	b := a
	b.NetNS = 2
	c := record.FactRequest{Kind: "link", Arg: "eth0", NetNS: 2}
	host := record.Fact{Kind: a.Kind, Request: a.Arg, Value: "1000"}
	of2 := record.Fact{Kind: c.Kind, Request: c.Arg, NetNS: record.NetNS{Inode: 2}}
	got := joinFacts([]record.FactRequest{a, b, c}, [][]record.Fact{{host}, {host}, {of2, of2}})
	if len(got) != 3 || got[0].Value != "1000" || got[1].Kind != "link" {
		t.Errorf("%+v", got)
	}
	why := errors.New("no procfs")
	for i, f := range failed([]record.FactRequest{a, c}, why) {
		if f.Missing != why.Error() || f.NetNS.Inode != uint32(i+1) || f.Name == "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestCheckFact(t *testing.T) {
	for request, good := range map[[2]string]bool{
		{"owner", "4242"}: true, {"owner", "0"}: false, {"owner", "x"}: false, {"owner", ""}: false,
		{"netns", ""}: true, {"netns", "x"}: false,
		{"sysctl", "net/ipv4/ip_forward"}: true, {"no-such-kind", ""}: false,
	} {
		if err := CheckFact(request[0], request[1]); (err == nil) != good {
			t.Errorf("%v: %v", request, err)
		}
	}
}
