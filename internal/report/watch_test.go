package report_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/report"
	"github.com/whydrop/whydrop/record"
)

func sub(reason, symbol string, offset uint64, ns record.NetNS, dev record.Device) record.Key {
	return record.Key{
		Reason:   record.Reason{Name: reason, Subsystem: "core"},
		Location: record.Location{Symbol: symbol, Offset: offset},
		NetNS:    ns, Device: dev, EtherType: 0x0800, IPProto: 17, Direction: record.DirectionRX,
	}
}

var (
	lab  = record.NetNS{Inode: 4026532281, Name: "lab"}
	anon = record.NetNS{Inode: 4026532999}
)

// interval is one with a flow, a row of two protocols, one that was not
// sampled, one without names and two harmless ones; and what each is.
func interval() (record.Interval, []record.Class) {
	rcvbuf := sub("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 0x437, lab, record.Device{Index: 5, Name: "veth0"})
	refused := sub("NETFILTER_DROP", "nft_do_chain", 0x5a, anon, record.Device{Index: 2})
	refused.Location.Module = "nf_tables"
	refused6 := refused
	refused6.EtherType, refused6.IPProto = 0x86dd, 58
	csum := sub("TCP_CSUM", "tcp_v4_rcv", 0x1f, record.NetNS{Name: "host", Inode: 1}, record.Device{Index: 1, Name: "eth0"})
	csum.IPProto = 6
	nameless := record.Key{Location: record.Location{Address: 0xffffffffc0123456}}
	lldp := sub("UNHANDLED_PROTO", "__netif_receive_skb_core", 0x7e6, lab, record.Device{Index: 5, Name: "veth0"})
	lldp.EtherType, lldp.IPProto = 0x88cc, 0
	purge := sub("QUEUE_PURGE", "sk_stream_kill_queues", 0x57, lab, record.Device{})

	iv := record.Interval{
		Window: window(time.Second),
		Counts: []record.Count{
			{Key: nameless, Drops: 2},
			{Key: refused, Drops: 9},
			{Key: rcvbuf, Drops: 174, Bytes: 174000},
			{Key: lldp, Drops: 3},
			{Key: refused6, Drops: 1},
			{Key: csum, Drops: 10},
			{Key: purge, Drops: 40},
		},
		Accounting: record.Accounting{DropsSeen: 239, DropsAggregated: 239, Samples: 15},
	}
	for i := range 12 {
		d := record.Drop{Key: rcvbuf, Packet: &record.Packet{Flow: flow(17, "10.0.0.1:4242", "10.0.0.2:5000")}}
		d.Device.Name = "" // names may be found out later
		if i == 11 {
			d.Packet = &record.Packet{Flow: flow(17, "10.0.0.9:1", "10.0.0.2:5000")}
		}
		iv.Samples = append(iv.Samples, d)
	}
	iv.Samples = append(
		iv.Samples,
		record.Drop{Key: refused, Packet: &record.Packet{Flow: flow(6, "10.0.0.1:40000", "10.0.0.2:22")}},
		record.Drop{Key: refused6, Packet: nil},
		record.Drop{Key: lldp, Packet: &record.Packet{EtherType: 0x88cc, SrcMAC: "02:00:00:00:00:01", DstMAC: "01:80:c2:00:00:0e"}},
	)
	classes := []record.Class{
		record.ClassFault, record.ClassPolicy, record.ClassCapacity, record.ClassExpected,
		record.ClassPolicy, record.ClassFault, record.ClassBenign,
	}
	return iv, classes
}

func TestInterval(t *testing.T) {
	iv, classes := interval()
	for _, c := range []struct {
		name    string
		iv      record.Interval
		classes []record.Class
		style   report.Style
	}{
		{"interval", iv, classes, report.Style{}},
		{"interval-all", iv, classes, report.Style{All: true}},
		{"interval-color", iv, classes, report.Style{Color: true}},
		{"interval-no-classes", iv, nil, report.Style{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := report.Interval(&b, c.iv, c.classes, c.style); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, b.String())
			checkLines(t, b.String())
		})
	}
}

func TestIntervalWithoutDropsPrintsNothing(t *testing.T) {
	hidden, _ := interval()
	hidden.Counts = hidden.Counts[6:] // benign
	for _, iv := range []record.Interval{{}, hidden} {
		var b bytes.Buffer
		classes := make([]record.Class, len(iv.Counts))
		for i := range classes {
			classes[i] = record.ClassBenign
		}
		if err := report.Interval(&b, iv, classes, report.Style{}); err != nil || b.Len() > 0 {
			t.Errorf("%q, error %v", b.String(), err)
		}
	}
}

func TestIntervalColumnsAreAligned(t *testing.T) {
	iv, classes := interval()
	var b bytes.Buffer
	if err := report.Interval(&b, iv, classes, report.Style{All: true}); err != nil {
		t.Fatal(err)
	}
	for _, column := range []string{" drops at ", "  dev ", "  netns "} {
		at := -1
		for line := range strings.Lines(b.String()) {
			i := strings.Index(line, column)
			if at == -1 {
				at = i
			}
			if i != at || i < 0 {
				t.Errorf("column %q at %d and %d in\n%s", column, at, i, b.String())
			}
		}
	}
}

func each() []record.Drop {
	key := sub("SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", 0x437, lab, record.Device{Index: 5, Name: "veth0"})
	nine := uint8(9)
	zero := uint8(0)
	return []record.Drop{
		{
			Key: key, KernelTime: 1234567890123, Length: 1042,
			Packet:      &record.Packet{Flow: flow(17, "10.0.0.1:4242", "10.0.0.2:5000")},
			Socket:      &record.Socket{Inode: 4242, From: "rx_sk"},
			CurrentTask: record.Task{PID: 10, TID: 11, Comm: "ksoftirqd/0"},
		},
		{
			Key: key, KernelTime: 1, Packet: &record.Packet{ARP: "who-has 10.0.0.2 tell 10.0.0.1"},
			CurrentTask: record.Task{PID: 10, TID: 10, Comm: "a b"},
		},
		{
			Key: key, KernelTime: 99999_000_001_000, Socket: &record.Socket{State: "TIME_WAIT"},
			Packet: &record.Packet{TCPFlags: 0x12, Fragment: true, Flow: flow(6, "[2001:db8::1]:443", "[2001:db8::2]:50000")},
		},
		{
			Key: key,
			Packet: &record.Packet{
				Flow: flow(1, "10.0.0.1:0", "10.0.0.2:0"), ICMPType: &nine, ICMPCode: &zero, Tunnel: "icmp-error",
				Inner: &record.Packet{Flow: flow(17, "10.0.0.2:53", "10.0.0.1:999")},
			},
		},
		{Key: key, Packet: &record.Packet{EtherType: 0x88cc, SrcMAC: "02:00:00:00:00:01", DstMAC: "01:80:c2:00:00:0e"}},
		{Key: record.Key{Location: record.Location{Address: 0xffffffffc0123456}}},
	}
}

func TestEach(t *testing.T) {
	var b bytes.Buffer
	for i, d := range each() {
		class := record.ClassCapacity
		if i == 1 {
			class = ""
		}
		if err := report.Each(&b, d, class, report.Style{}); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "each", b.String())
	checkLines(t, b.String())
	if strings.Contains(b.String(), "owner") {
		t.Error("the current task is no owner")
	}
	drops := each()
	i := 0
	for line := range strings.Lines(b.String()) {
		if told := drops[i].CurrentTask != (record.Task{}); strings.Contains(line, "current task ") != told {
			t.Errorf("the task is marked: %v, want %v: %q", !told, told, line)
		}
		i++
	}
}

func TestHardware(t *testing.T) {
	k := record.Key{Reason: record.Reason{Name: "ttl_value_is_too_small", Subsystem: record.SubsystemDevlink, Group: "l3_exceptions"}, Device: record.Device{Index: 3, Name: "swp1"}}
	var b bytes.Buffer
	if err := report.Interval(&b, record.Interval{Counts: []record.Count{{Key: k, Drops: 4}}}, nil, report.Style{}); err != nil {
		t.Fatal(err)
	}
	if err := report.Each(&b, record.Drop{Key: k}, "", report.Style{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "hardware", b.String())
	checkLines(t, b.String())
}

func TestSummary(t *testing.T) {
	d := lossy()
	d.Accounting.DropsUnattributed, d.Accounting.DropsSeen = 2, d.Accounting.DropsSeen+2
	total := report.Total{Window: window(12300 * time.Millisecond), Sources: d.Sources, Accounting: d.Accounting, Blind: d.Blind}
	for name, s := range map[string]report.Style{"summary": {}, "summary-quiet": {Quiet: true}} {
		var b bytes.Buffer
		if err := report.Summary(&b, total, s); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
		checkLines(t, b.String())
	}
}
