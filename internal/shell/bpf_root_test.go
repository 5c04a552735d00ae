//go:build root

package shell

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/testkit"
)

// TestOnBPF: the same conversation where there is no drop monitor.
func TestOnBPF(t *testing.T) {
	testkit.NeedRoot(t)
	b, err := OpenBPF("test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := prepare(t, map[string]int{"udp-noport": 7, "nf-rule-drop": 13})
	p := ours(t, b)
	p.say("start", "Issue Ctrl-C to stop monitoring\n", 1)
	l.provoke(t)
	p.stop() // which shows what was not shown yet
	at, _ := places(t, p.said())
	t.Logf("%v", at)
	for address, place := range only(at, l.counts) {
		if place.name == "" {
			t.Errorf("%s has no name", address)
		}
	}
	if !have(at, l.counts) {
		t.Errorf("want %v drops of %v:\n%s", l.counts, l.names, p.said())
	}
	p.say("stats", "Software statistics:\nTail dropped: 0\n", 1)

	p.say("set alertmode packet", "Alert mode successfully set\n", 1)
	p.say("set trunc 40", "Truncation length successfully set\n", 1)
	p.say("show", "Alert mode: Packet\nTruncation length: 40\nQueue length: 0\n", 1)
	p.say("start", "Issue Ctrl-C to stop monitoring\n", 2)
	l.provoke(t)
	p.until("packets", func(said string) bool { return len(sampled(said)) >= 20 })
	p.interrupt()
	p.until("stop", func(said string) bool { return strings.Count(said, "Got a stop message\n") == 2 })
	counts := map[string]int{}
	for _, lines := range sampled(p.end()) {
		counts["all"]++
		for _, line := range []string{"origin: software", "protocol: 0x800", "drop reason: NO_SOCKET", "drop reason: NETFILTER_DROP"} {
			if slices.Contains(lines, line) {
				counts[line]++
			}
		}
	}
	want := map[string]int{"all": 20, "origin: software": 20, "protocol: 0x800": 20}
	if reasons(t) {
		want["drop reason: NO_SOCKET"], want["drop reason: NETFILTER_DROP"] = 7, 13
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("%s in\n%s", diff, p.said())
	}
	if !strings.Contains(p.err.String(), "packets are samples") {
		t.Errorf("on stderr: %q", p.err.String())
	}
}

// sampled are the packets, each its lines, that came in by the device of the
// lab and were cut.
func sampled(said string) (list [][]string) {
	for text := range strings.SplitSeq(said, "\n\n") {
		if i := strings.LastIndex(text, "\ndrop at: "); i >= 0 { // behind other lines
			text = text[i+1:]
		}
		lines := strings.Split(text, "\n")
		if slices.Contains(lines, "input port name: lab0") && slices.Contains(lines, "length: 40") {
			list = append(list, lines)
		}
	}
	return list
}

// TestRefusalsOnBPF: what eBPF cannot do is said.
func TestRefusalsOnBPF(t *testing.T) {
	testkit.NeedRoot(t)
	b, err := OpenBPF("test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := ours(t, b)
	p.say("set queue 5", "Setting queue length to 5\nFailed config request, error: Operation not supported\n", 1)
	p.say("set hw true", "setting hardware drops monitoring to 1\n", 1)
	p.say("start", "Failed activation request, error: Operation not supported\n", 1)
	p.say("exit", "Shutting down ...\n", 1)
	if err := p.wait(); err == nil || err.Error() != "2 commands failed" {
		t.Errorf("%v", err)
	}
	for _, want := range []string{errNoQueue.Error(), errNoHardware.Error()} {
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("no %q in\n%s", want, p.err.String())
		}
	}
}
