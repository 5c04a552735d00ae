package report_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

// caused is a diagnosis with one finding that has a cause, and all that a
// finding can have.
func caused() record.Diagnosis {
	d := quiet()
	d.Accounting.DropsSeen += 93
	d.Accounting.DropsAggregated += 93
	d.Findings = []record.Finding{{
		Cause: "udp-rcvbuf", Class: record.ClassCapacity, Station: record.StationSocket, Direction: record.DirectionRX,
		Title: "93 datagrams for port 5000 found a full receive buffer.",
		Drops: 93, LostBy: "drops", Rate: 9.3, Confidence: record.ConfidenceLikely,
		Reasons: []string{"SOCKET_RCVBUFF"}, Locations: []string{"udp_queue_rcv_one_skb+0x437"},
		Devices: []string{"veth0 (netns lab)"}, NetNS: []string{"lab"}, Owners: []string{"dnsd[4321] (socket inode 4242)"},
		Flows: []record.FlowShare{{Flow: flow(17, "10.0.0.1:4242", "10.0.0.2:5000"), Samples: 11, Of: 12}},
		Evidence: []record.Evidence{
			{Kind: "drop", Name: "SOCKET_RCVBUFF@udp_queue_rcv_one_skb", Value: "93", Source: "skb:kfree_skb", Command: "bpftrace -e 'tracepoint:skb:kfree_skb { @ = count(); }'", Supports: true},
			{Kind: "counter", Name: "Udp.RcvbufErrors", Value: "93", Before: "4021", After: "4114", Source: "/proc/net/snmp", Command: "ip netns exec lab nstat -az UdpRcvbufErrors", Supports: true, Says: "counts the same loss"},
			{Kind: "fact", Name: "sysctl net/core/rmem_max", Value: "33554432", Source: "/proc/sys/net/core/rmem_max", Command: "sysctl net.core.rmem_max", Says: "the limit of SO_RCVBUF is no small one, so that it is rather the program which asks for too little"},
			{Kind: "fact", Name: "a name that is longer than its column can be, by far", Value: "5", Supports: true},
			{Kind: "drop", Name: "stack", Value: "udp_queue_rcv_one_skb <- udp_unicast_rcv_skb <- ip_protocol_deliver_rcu <- ip_local_deliver_finish", Source: "skb:kfree_skb", Supports: true},
		},
		Remedy: []record.Remedy{
			{
				Command: "sysctl -w net.core.rmem_max=134217728", Persist: "echo 'net.core.rmem_max = 134217728' > /etc/sysctl.d/90-whydrop.conf",
				Undo: "sysctl -w net.core.rmem_max=33554432", Risk: "Each socket that asks for it may hold so much memory, and the host has to have it.",
				Why: "SO_RCVBUF is bounded by it.",
			},
			{Command: "make the program read faster"},
		},
		Verify:    []string{"ip netns exec lab nstat -az UdpRcvbufErrors   # must not grow"},
		Unchecked: []string{"udp-sockets: it was not read"},
		Next:      []string{"ss -uanm", "whydrop watch --each"},
	}}
	return d
}

// counted is a diagnosis with a loss that only counters show.
func counted() record.Diagnosis {
	d := quiet()
	d.Findings = []record.Finding{{
		Cause: "tcp-accept-overflow", Class: record.ClassCapacity, Station: record.StationTransport, Direction: record.DirectionRX,
		Title: "1 connection was refused, the accept queue of 0.0.0.0:80 was full", Drops: 1, LostBy: "counters", Rate: 0.1,
		Confidence: record.ConfidenceCertain, NetNS: []string{"host"},
		Evidence: []record.Evidence{{Kind: "counter", Name: "TcpExt.ListenOverflows", Value: "1", Before: "0", After: "1", Supports: true}},
	}}
	d.Counters = []record.Counter{
		{Name: "TcpExt.ListenOverflows", Delta: 1, After: 1, ExplainedBy: []string{"tcp-accept-overflow"}},
		{Name: "TcpExt.TCPRetransSegs", Delta: 7, After: 9, NetNS: record.NetNS{Inode: 4026531999, Name: "blue"}},
		{Name: "link.rx_dropped", Delta: 2, After: 2, Device: record.Device{Index: 2, Name: "eth0"}},
	}
	return d
}

// sinceBoot is a diagnosis without loss on a host that has seen some.
func sinceBoot() record.Diagnosis {
	d := quiet()
	d.Counters = []record.Counter{
		{Name: "Udp.RcvbufErrors", Before: 4021, After: 4021, NetNS: record.NetNS{Inode: 4026531833, Name: "host"}, Command: "nstat -az UdpRcvbufErrors"},
		{Name: "link.rx_missed_errors", Before: 12, After: 12, Device: record.Device{Index: 2, Name: "eth0"}, NetNS: record.NetNS{Inode: 4026532001}, Command: "ip -s -s link show dev eth0"},
		{Name: "softnet.dropped", Before: 1, After: 1},
	}
	for range 10 {
		d.Counters = append(d.Counters, record.Counter{Name: "Ip.InDiscards", Before: 1, After: 1})
	}
	return d
}

func TestFinding(t *testing.T) {
	both := caused()
	both.Findings = append(both.Findings, counted().Findings...)
	busy := quiet()
	for range 12 {
		busy.Counters = append(busy.Counters, record.Counter{Name: "Ip.InDiscards", Delta: 5, After: 5})
	}
	for _, c := range []struct {
		name  string
		d     record.Diagnosis
		style report.Style
	}{
		{"cause", caused(), report.Style{}},
		{"cause-color", caused(), report.Style{Color: true}},
		{"cause-narrow", caused(), report.Style{Width: 50}},
		{"cause-by-counters", counted(), report.Style{}},
		{"causes", both, report.Style{}},
		{"since-boot", sinceBoot(), report.Style{}},
		{"moved", busy, report.Style{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := diagnosis(t, c.d, c.style)
			golden(t, c.name, got)
			checkLines(t, got)
		})
	}
}

// The verdict must not say that nothing was lost and leave it at that where
// the kernel's counters moved.
func TestVerdictNamesCountersThatMoved(t *testing.T) {
	d := counted()
	d.Findings = nil
	first, _, _ := strings.Cut(diagnosis(t, d, report.Style{Quiet: true}), "\n")
	if want := "but 2 counters of loss or pressure moved"; !strings.Contains(first, want) {
		t.Errorf("no %q in %q", want, first)
	}
}

// All that is copied into a shell is whole on a line of its own.
func TestCommandsAreNotBroken(t *testing.T) {
	d := caused()
	for _, width := range []int{30, 80} {
		text := diagnosis(t, d, report.Style{Width: width})
		f := d.Findings[0]
		commands := append([]string{f.Remedy[0].Command, f.Remedy[0].Persist, f.Remedy[0].Undo}, f.Verify...)
		for _, e := range f.Evidence {
			commands = append(commands, e.Command)
		}
		for _, c := range append(commands, f.Next...) {
			if !strings.Contains(text, c+"\n") && c != "" {
				t.Errorf("width %d: %q is not at the end of a line of\n%s", width, c, text)
			}
		}
	}
}

func TestEvidenceSaysWhichSide(t *testing.T) {
	for line := range strings.Lines(diagnosis(t, caused(), report.Style{})) {
		for name, side := range map[string]string{"Udp.RcvbufErrors  ": "for ", "rmem_max  ": "against "} {
			if strings.Contains(line, name) && !strings.Contains(line, side) {
				t.Errorf("%q does not say %q", line, side)
			}
		}
	}
}

func topics() []report.Topic {
	return []report.Topic{
		{
			Kind: "cause", Name: "udp-rcvbuf", Class: record.ClassCapacity, Station: record.StationSocket, Direction: record.DirectionRX,
			Sentence: "${drops} datagrams", Text: "# A full buffer\n\n## What happened\n\nThe buffer was full.\n",
			Verified: []string{"5.10", "7.2"},
			Remedy:   caused().Findings[0].Remedy, Verify: []string{"nstat"}, Next: []string{"ss -uanm"},
		},
		{
			Kind: "counter", Name: "Udp.RcvbufErrors", Station: record.StationSocket, Sentence: "Datagrams that found the buffer full.",
			Counts: "loss, in packets", Kernel: "net/ipv4/udp.c", Overlaps: []string{"Udp.InErrors"}, Causes: []string{"udp-rcvbuf", "udp-mem"},
		},
		{Kind: "station", Name: "socket"},
	}
}

func TestExplain(t *testing.T) {
	var b bytes.Buffer
	if err := report.Explain(&b, topics(), report.Style{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "explain", b.String())
	checkLines(t, b.String())
}

// What a cause says about a packet or process is as hostile as these are.
func TestHostileFindings(t *testing.T) {
	const evil = "\x1b]0;pwned\x07\u009b2J\u202e\xff\n"
	for name, d := range map[string]record.Diagnosis{"cause": caused(), "counters": counted(), "boot": sinceBoot()} {
		spoil(&d, evil)
		text := diagnosis(t, d, report.Style{})
		checkHarmless(t, name, text)
	}
	list := topics()
	for i := range list {
		spoil(&list[i], evil)
	}
	var b bytes.Buffer
	if err := report.Explain(&b, list, report.Style{}); err != nil {
		t.Fatal(err)
	}
	checkHarmless(t, "explain", b.String())
}

func checkHarmless(t *testing.T, name, text string) {
	t.Helper()
	if !strings.Contains(text, "pwned") {
		t.Errorf("%s: the names are not in the output: %s", name, text)
	}
	for line := range strings.Lines(text) {
		if h := hostile(strings.TrimSuffix(line, "\n")); h != "" {
			t.Errorf("%s: %s in %q", name, h, line)
		}
	}
}

// A loss that nobody counts the packets of is a loss in the verdict too.
func TestVerdictOfEvents(t *testing.T) {
	events := func(n uint64) record.Finding {
		return record.Finding{
			Cause: record.CauseNotKnown, Class: record.ClassFault, Station: record.StationNIC, Title: "lost", Events: n, LostBy: "counters",
		}
	}
	for _, c := range []struct {
		name     string
		findings []record.Finding
		want     string
	}{
		{"one", []record.Finding{events(10)}, "act: 10 events of loss in 10 s at nic: not known."},
		{"two", []record.Finding{events(10), events(1)}, "act: 11 events of loss in 10 s: 10 events of loss at nic (not known), 1 event of loss at nic (not known)."},
		{"beside packets", append(counted().Findings, events(10)), "act: 1 packet lost in 10 s: 1 at transport (tcp-accept-overflow), 10 events of loss at nic (not known)."},
		{"many", []record.Finding{events(4), events(3), events(2), events(1)}, "act: 10 events of loss in 10 s: 4 events of loss at nic (not known), 3 events of loss at nic (not known), 2 events of loss at nic (not known), 1 more finding."},
	} {
		d := quiet()
		d.Findings = c.findings
		text := diagnosis(t, d, report.Style{})
		first, _, _ := strings.Cut(text, "\n")
		if first != c.want {
			t.Errorf("%s: %q, want %q", c.name, first, c.want)
		}
		if strings.Contains(text, " 0/s") || !strings.Contains(text, "of loss (by counters) at nic") {
			t.Errorf("%s:\n%s", c.name, text)
		}
	}
}
