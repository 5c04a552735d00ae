//go:build root

package shell

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/probe/dropmon"
	"github.com/whydrop/whydrop/internal/testkit"
)

// A line of a summary, whole. Without a name it has three parts.
var (
	named   = regexp.MustCompile(`^(\d+) drops at (\S+\+[0-9a-f]+) \((0x[0-9a-f]{16})\) \[software\]$`)
	unnamed = regexp.MustCompile(`^(\d+) drops at location ((?:0x[0-9a-f]+|\(nil\))) \[software\]$`)
)

// place is what a conversation said of an address.
type place struct {
	name  string
	drops int
}

// places adds up a conversation in summary mode. The rest are the lines that are
// of no drop.
func places(t *testing.T, said string) (at map[string]place, rest []string) {
	t.Helper()
	at = map[string]place{}
	for line := range strings.Lines(said) {
		line = strings.TrimSuffix(line, "\n")
		name, address, count := "", "", ""
		if m := named.FindStringSubmatch(line); m != nil {
			count, name, address = m[1], m[2], m[3]
		} else if m := unnamed.FindStringSubmatch(line); m != nil {
			count, address = m[1], m[2]
		} else {
			// Both are in it, so that a drop in another format is seen.
			rest = append(rest, line)
			continue
		}
		n, err := strconv.Atoi(count)
		if err != nil {
			t.Fatal(err)
		}
		at[address] = place{name, at[address].drops + n}
	}
	return at, rest
}

// have says whether each number of drops is at some address.
func have(at map[string]place, counts []int) bool {
	for _, n := range counts {
		found := false
		for _, p := range at {
			found = found || p.drops == n
		}
		if !found {
			return false
		}
	}
	return true
}

// only keeps the addresses with these numbers of drops: the rest is background.
func only(at map[string]place, counts []int) map[string]place {
	at = maps.Clone(at)
	maps.DeleteFunc(at, func(_ string, p place) bool { return !slices.Contains(counts, p.drops) })
	return at
}

// asked are the lines without those that dropwatch prints when an alert comes
// between a request and its answer.
func asked(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(s string) bool {
		return strings.HasPrefix(s, "Waiting for ") && strings.HasSuffix(s, " ack...")
	})
}

// TestSummaryAsDropwatch: Debian's dropwatch and this one, one after the other,
// on the same losses.
func TestSummaryAsDropwatch(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	l := prepare(t, map[string]int{"udp-noport": 7, "tun-full-ring": 11, "nf-rule-drop": 13, "qdisc-fifo-limit": 17, "tcp-no-listener": 19})
	talk := func(p *partner) (map[string]place, []string) {
		p.say("start", "Issue Ctrl-C to stop monitoring\n", 1)
		l.provoke(t)
		p.until("drops of all", func(said string) bool {
			at, _ := places(t, said)
			return have(at, l.counts)
		})
		p.stop()
		p.say("stats", "Tail dropped: ", 2)
		p.say("show", "Queue length: ", 1)
		return places(t, p.end())
	}
	theirs, theirLines := talk(real(t))
	b := monitor(t)
	got, lines := talk(ours(t, b))
	t.Logf("dropwatch: %v", theirs)
	t.Logf("whydrop: %v", got)

	if diff := cmp.Diff(asked(theirLines), lines); diff != "" {
		t.Errorf("other lines than dropwatch's (-):\n%s", diff)
	}
	theirs, got = only(theirs, l.counts), only(got, l.counts)
	names, err := kernel.Host{}.OpenNames(kernel.SymbolsKallsyms)
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	modules := 0
	for address, p := range theirs {
		pc, err := strconv.ParseUint(address, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		if at := names.Resolve(pc); at.Module != "" {
			// Which dropwatch does not name right.
			modules++
			p.name = fmt.Sprintf("%s+%x", at.Symbol, at.Offset)
			theirs[address] = p
		}
	}
	if modules == 0 {
		t.Error("no place was in a module, but that of tun-full-ring should be")
	}
	if diff := cmp.Diff(theirs, got, cmp.AllowUnexported(place{})); diff != "" || len(got) < len(l.counts) {
		t.Errorf("other drops than dropwatch's (-):\n%s", diff)
	}
}

// The lines of a packet, whole, in their order. A question mark is for lines
// that not every packet has.
var packetLines = []struct {
	optional bool
	line     *regexp.Regexp
}{
	{false, regexp.MustCompile(`^drop at: \S+(?: \[\S+\]?)? \(0x[0-9a-f]{16}\)$`)},
	{false, regexp.MustCompile(`^origin: software$`)},
	{true, regexp.MustCompile(`^input port ifindex: \d+$`)},
	{false, regexp.MustCompile(`^timestamp: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d \d{4} \d{9} nsec$`)},
	{false, regexp.MustCompile(`^protocol: 0x[0-9a-f]+$`)},
	{true, regexp.MustCompile(`^length: \d+$`)},
	{false, regexp.MustCompile(`^original length: \d+$`)},
	{true, regexp.MustCompile(`^drop reason: [A-Z0-9_]+$`)},
}

// paragraph checks the lines of a packet, and returns them without the time.
func paragraph(t *testing.T, lines []string) string {
	t.Helper()
	var kept []string
	rest := lines
	for _, f := range packetLines {
		if len(rest) == 0 || !f.line.MatchString(rest[0]) {
			if !f.optional {
				t.Errorf("no %s in %q", f.line, lines)
			}
			continue
		}
		if !strings.HasPrefix(rest[0], "timestamp: ") {
			kept = append(kept, rest[0])
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		t.Errorf("too much or in another order: %q in %q", rest[0], lines)
	}
	return strings.Join(kept, "\n")
}

// packets counts the packets of a conversation in packet mode, each a paragraph.
func packets(t *testing.T, said string) (seen map[string]int, rest []string) {
	t.Helper()
	seen = map[string]int{}
	lines := strings.Split(strings.TrimSuffix(said, "\n"), "\n")
	for len(lines) > 0 {
		if !strings.HasPrefix(lines[0], "drop at: ") {
			rest = append(rest, lines[0])
			lines = lines[1:]
			continue
		}
		end := slices.Index(lines, "")
		if end < 0 {
			break // it is not there yet
		}
		seen[paragraph(t, lines[:end])]++
		lines = lines[end+1:]
	}
	return seen, rest
}

// dropsAt adds up packets by where they were dropped.
func dropsAt(seen map[string]int) map[string]place {
	at := map[string]place{}
	for p, n := range seen {
		where, _, _ := strings.Cut(p, "\n")
		at[where] = place{where, at[where].drops + n}
	}
	return at
}

// TestPacketsAsDropwatch is the same in packet mode, with the reason where the
// kernel tells it.
func TestPacketsAsDropwatch(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	l := prepare(t, map[string]int{"udp-noport": 7, "tun-full-ring": 11, "nf-rule-drop": 13})
	talk := func(p *partner) (map[string]int, []string) {
		p.say("set alertmode packet", "Alert mode successfully set\n", 1)
		p.say("set trunc 64", "Truncation length successfully set\n", 1)
		p.say("set queue 2000", "Queue length successfully set\n", 1)
		p.say("set alertlimit 0", "setting alert capture limit to 0\n", 1)
		p.say("show", "Queue length: 2000\n", 1)
		p.say("start", "Issue Ctrl-C to stop monitoring\n", 1)
		l.provoke(t)
		p.until("packets of all", func(said string) bool {
			// What is half printed is looked at once more.
			whole := said[:strings.LastIndex(said, "\n\n")+1] + "\n"
			if !strings.Contains(said, "\n\n") {
				return false
			}
			seen, _ := packets(t, whole)
			return have(dropsAt(seen), l.counts)
		})
		p.stop()
		p.say("set trunc 0", "Truncation length successfully set\n", 2)
		p.say("set queue 1000", "Queue length successfully set\n", 2)
		p.say("set alertmode summary", "Alert mode successfully set\n", 2)
		return packets(t, p.end())
	}
	before := configuration(t)
	theirs, theirLines := talk(real(t))
	got, lines := talk(ours(t, monitor(t)))
	if after := configuration(t); after != before {
		t.Errorf("the configuration was %+v, is %+v", before, after)
	}
	if diff := cmp.Diff(asked(theirLines), lines); diff != "" {
		t.Errorf("other lines than dropwatch's (-):\n%s", diff)
	}
	provoked := func(seen map[string]int) map[string]int {
		at := only(dropsAt(seen), l.counts)
		seen = maps.Clone(seen)
		maps.DeleteFunc(seen, func(p string, _ int) bool {
			where, _, _ := strings.Cut(p, "\n")
			_, ok := at[where]
			return !ok
		})
		return seen
	}
	theirs, got = provoked(theirs), provoked(got)
	t.Logf("whydrop: %v", got)
	if diff := cmp.Diff(theirs, got); diff != "" || len(got) < len(l.counts) {
		t.Errorf("other packets than dropwatch's (-):\n%s", diff)
	}
	reason := slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(p string) bool { return strings.Contains(p, "drop reason: NO_SOCKET") })
	if want := reasons(t); reason != want {
		t.Errorf("a packet with the reason NO_SOCKET: %t, want %t: %v", reason, want, got)
	}
}

// reasons says whether this kernel has reasons of drops.
func reasons(t *testing.T) bool {
	t.Helper()
	types, err := kernel.Host{}.LoadBTF()
	if err != nil {
		t.Fatal(err)
	}
	n, err := kernel.KfreeSkbArgs(types.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return n >= 3
}

// configuration is the kernel's.
func configuration(t *testing.T) dropmon.Config {
	t.Helper()
	c, err := dropmon.Dial(0)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// TestLimitAsDropwatch: an alertlimit ends the first start by itself, here and
// there, and here the second, too.
func TestLimitAsDropwatch(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	l := prepare(t, map[string]int{"udp-noport": 1})
	const stopped = "Got a stop message\n"
	// What is said until the first end, and behind the last.
	talk := func(p *partner, starts int) (first, last []string) {
		p.say("set alertlimit 1", "setting alert capture limit to 1\n", 1)
		for n := range starts {
			p.say("start", "Issue Ctrl-C to stop monitoring\n", n+1)
			l.provoke(t)
			p.until("end by itself", func(said string) bool { return strings.Count(said, stopped) > n })
		}
		said := p.end()
		_, first = places(t, said[:strings.Index(said, stopped)])
		_, last = places(t, said[strings.LastIndex(said, stopped):])
		return first, last
	}
	starts := 3
	if testing.Short() { // an emulated machine: each takes a second and more
		starts = 2
	}
	theirFirst, theirLast := talk(real(t), 1)
	first, last := talk(ours(t, monitor(t)), starts)
	if diff := cmp.Diff(asked(theirFirst), first) + cmp.Diff(asked(theirLast), last); diff != "" {
		t.Errorf("other lines than dropwatch's (-):\n%s", diff)
	}
}

// TestStopShowsWhatWaits: alerts that came before the end and that nobody has
// read yet are shown.
func TestStopShowsWhatWaits(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	l := prepare(t, map[string]int{"udp-noport": 7})
	b := monitor(t)
	if err := b.SetConfig(dropmon.Config{Mode: dropmon.ModePacket, Queue: 1000}); err != nil {
		t.Fatal(err)
	}
	s, err := b.Start(true, false)
	if err != nil {
		t.Fatal(err)
	}
	l.provoke(t)
	shown := 0
	if _, err := s.Stop(func(dropmon.Alert) bool { shown++; return true }); err != nil {
		t.Fatal(err)
	}
	if shown < 7 {
		t.Errorf("%d alerts of 7", shown)
	}
}

// TestManners: while dropwatch monitors this one listens, sees what dropwatch
// sees, and neither stops nor sets anything.
func TestManners(t *testing.T) {
	testkit.NeedRoot(t)
	testkit.NeedConfig(t, "CONFIG_NET_DROP_MONITOR")
	l := prepare(t, map[string]int{"udp-noport": 7})
	theirs := real(t)
	theirs.say("start", "Issue Ctrl-C to stop monitoring\n", 1)

	p := ours(t, monitor(t))
	p.say("set trunc 64", "Failed config request, error: Device or resource busy\n", 1)
	p.say("stop", "Stop request failed, error: Operation not permitted\n", 1)
	p.say("start", "Issue Ctrl-C to stop monitoring\n", 1)
	l.provoke(t)
	for _, p := range []*partner{p, theirs} {
		p.until("drops", func(said string) bool {
			at, _ := places(t, said)
			return have(at, l.counts)
		})
	}
	p.stop()
	p.say("exit", "Shutting down ...\n", 1)
	var failed *FailedError
	if err := p.wait(); !errors.As(err, &failed) || failed.Commands != 2 || failed.Lost {
		t.Errorf("%v", err)
	}
	for _, want := range []string{"another program monitors drops", "dropwatch (pid "} {
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("no %q in\n%s", want, p.err.String())
		}
	}

	before := theirs.said()
	l.provoke(t)
	theirs.until("drops after we have left", func(said string) bool {
		return strings.Count(said, "7 drops at ") > strings.Count(before, "7 drops at ")
	})
	theirs.stop()
	theirs.end()
}
