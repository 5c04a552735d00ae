package diagnose_test

import (
	"os"
	"path"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
)

// TestWholeCatalogue: every entry of the catalogue is a cause or a rule of
// locations; the three that are neither say where they are.
func TestWholeCatalogue(t *testing.T) {
	text, err := os.ReadFile("testdata/catalogue.txt")
	if err != nil {
		t.Fatal(err)
	}
	k := load(t)
	entries, elsewhere := 0, 0
	for line := range strings.Lines(string(text)) {
		id, where, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if id == "" || strings.HasPrefix(id, "#") {
			continue
		}
		entries++
		there := k.Cause(id) != nil || k.HasRule(id)
		switch {
		case where != "" && there:
			t.Errorf("%s is there, and testdata/catalogue.txt says that it is not", id)
		case where != "":
			elsewhere++
		case !there:
			t.Errorf("%s is neither a cause nor a rule of locations", id)
		}
	}
	if entries != 127+27+16 || elsewhere != 3 {
		t.Errorf("%d entries, %d of them elsewhere", entries, elsewhere)
	}
}

// TestCasesOfTheField: the losses that engineers wrote about, each as a recorded
// observation, are named. What is recorded of each is in the case's first line.
func TestCasesOfTheField(t *testing.T) {
	k := load(t)
	for _, c := range []struct{ story, cause, file string }{
		{"C1: a UDP sender beats fq's limit for a flow", "qdisc-fq-flow-limit", "kernel-6.12"},
		{"C2: a UDP server on RHEL 7 (3.10)", "udp-rcvbuf", "rhel7"},
		{"C3: an offset behind the function's end on CentOS 6 (2.6.32)", "udp-noport", "centos6"},
		{"C4: an asymmetric route and rp_filter", "ip-rpfilter", "lab-6.18"},
		{"C5: two containers get one port", "ct-insert-failed", "lab-6.18"},
		{"C6: the table of connections is full", "ct-table-full", "lab-6.18"},
		{"C7: DNS answers take 5 s", "h-dns-5s", "basic"},
		{"C8: the accept queue is full", "tcp-accept-queue", "lab-6.18"},
		{"C8: too many SYNs", "tcp-syn-queue", "lab-6.18"},
		{"C9: timestamps that go back", "tcp-paws", "tw-recycle"},
		{"C10: the input queue of a CPU is full", "cpu-backlog", "lab-6.18"},
		{"C11: the budget of receive work", "softirq-budget", "basic"},
		{"C12: the ring of a card is full", "nic-rx-ring-full", "basic"},
		{"C12: one CPU takes all interrupts", "nic-irq-imbalance", "basic"},
		{"C13: a VLAN that nobody has", "vlan-unconfigured", "lab-6.18"},
		{"C13: IPv6 is off", "ipv6-disabled", "lab-6.18"},
		{"C14: a short queue", "qdisc-fifo-limit", "lab-6.18"},
		{"C15: the receive buffer of a connection", "tcp-rcvbuf-prune", "lab-6.18"},
		{"C16: sent again while still in the host's queue", "tcp-local-queue", "lab-6.18"},
		{"C17: sent again, and nothing lost here", "h-remote-loss", "basic"},
		{"C18: loss in a network of RDMA", "rdma-out-of-sequence", "basic"},
		{"C19: the program does not read", "h-app-stalled", "basic"},
		{"C19: the peer is slow", "h-peer-acks-slow", "basic"},
		{"C20: answers go to another router", "h-switch-hsrp", "basic"},
		{"C21: an answer from another address", "udp-reply-source", "basic"},
	} {
		name := path.Join("causes", c.cause, "cases", c.file+".txtar")
		text, err := knowledge.FS.ReadFile(name)
		if err != nil {
			t.Errorf("%s: %v", c.story, err)
			continue
		}
		if err := k.RunCase(text); err != nil {
			t.Errorf("%s: %s: %v", c.story, name, err)
		}
		if !strings.Contains(string(text), "cause: "+c.cause) {
			t.Errorf("%s: %s does not want %s to be found", c.story, name, c.cause)
		}
	}
}

// TestSettingsOfNamespaces: no remedy for a namespace is kept in a file that only
// the host's own namespace reads.
func TestSettingsOfNamespaces(t *testing.T) {
	k := load(t)
	elsewhere, own := 0, 0
	for _, id := range []string{"icmp-echo-ignored", "tcp-syn-queue", "tcp-rcvbuf-prune"} {
		o := observationOf(t, knowledge.FS, path.Join("causes", id, "cases", "lab-6.18.txtar"))
		for _, f := range diagnose.Run(&o, k, diagnose.Options{All: true}).Findings {
			for _, r := range f.Remedy {
				if strings.HasPrefix(r.Command, "nsenter ") || strings.HasPrefix(r.Command, "ip netns exec ") {
					elsewhere++
					if strings.Contains(r.Persist, "/etc/sysctl.d/") {
						t.Errorf("%s: %s\n%s", id, r.Command, r.Persist)
					}
				} else {
					own++
				}
			}
		}
	}
	if elsewhere == 0 {
		t.Errorf("no remedy of a namespace, %d of the host", own)
	}
}
