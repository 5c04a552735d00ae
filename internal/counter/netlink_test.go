package counter

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// attr makes one netlink attribute, with its padding.
func attr(kind int, content []byte) []byte { return kernelnet.Message{}.Attr(kind, content) }

func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func words(v ...uint32) []byte {
	var b []byte
	for _, w := range v {
		b = binary.NativeEndian.AppendUint32(b, w)
	}
	return b
}

func longs(v ...uint64) []byte {
	var b []byte
	for _, w := range v {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

// link makes a message of a device with n fields of statistics: 1, 2, 3 …
func link(index uint32, name string, n int) []byte {
	var stats []byte
	for i := range n {
		stats = append(stats, longs(uint64(i+1))...)
	}
	return join(words(0, index, 0, 0), attr(unix.IFLA_IFNAME, append([]byte(name), 0)), attr(unix.IFLA_STATS64, stats))
}

// TestParseLinksSample holds the numbers that ip -s -s link showed when the
// messages were taken.
func TestParseLinksSample(t *testing.T) {
	values, err := parseLinks(loadMessages(t, "links-6.18.hex"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		device uint32
		want   uint64
	}{
		{"link.rx_packets", 2, 10},
		{"link.rx_bytes", 2, 4060},
		{"link.tx_packets", 2, 2},
		{"link.tx_bytes", 3, 4060},
		{"link.carrier_changes", 3, 2},
		{"link.rx_otherhost_dropped", 1, 0},
		{"link.rx_nohandler", 1, 0},
	} {
		if got := deviceValue(t, values, c.name, c.device); got != c.want {
			t.Errorf("%s of %d = %d, want %d", c.name, c.device, got, c.want)
		}
	}
	if got := values[0]; got.Device.Name != "lo" || got.Command != "ip -s -s link show dev lo" {
		t.Errorf("%+v", got)
	}
}

// TestParseLinksByLength: the structure grew twice, and will again.
func TestParseLinksByLength(t *testing.T) {
	for _, c := range []struct {
		kernel string
		fields int
		last   string
	}{
		{"4.5", 23, "link.tx_compressed"},
		{"4.6", 24, "link.rx_nohandler"},
		{"5.19", 25, "link.rx_otherhost_dropped"},
		{"to come", 27, "link.stats64_26"},
	} {
		values, err := parseLinks([][]byte{link(7, "x y", c.fields)})
		if err != nil {
			t.Fatal(err)
		}
		if len(values) != c.fields {
			t.Fatalf("%s: %d values, want %d", c.kernel, len(values), c.fields)
		}
		last := values[c.fields-1]
		if last.Name != c.last || last.Value != uint64(c.fields) || last.Device.Index != 7 || last.Device.Name != "x y" {
			t.Errorf("%s: %+v", c.kernel, last)
		}
		if want := "ip -s -s link show dev 'x y'"; last.Command != want {
			t.Errorf("command %q, want %q", last.Command, want)
		}
	}
}

func TestParseLinksHostile(t *testing.T) {
	good := link(7, "eth0", 25)
	short := attr(unix.IFLA_STATS64, nil)
	for name, m := range map[string][]byte{
		"empty":            {},
		"half a header":    good[:15],
		"no statistics":    good[:16],
		"half a name":      good[:19],
		"empty statistics": join(good[:16], short),
		"long attribute":   join(good[:16], []byte{0xff, 0xff, 23, 0}),
		"zero attribute":   join(good[:16], []byte{0, 0, 0, 0, 0, 0, 0, 0}),
	} {
		values, err := parseLinks([][]byte{m, good})
		if !errors.Is(err, kernelnet.ErrShort) {
			t.Errorf("%s: error %v", name, err)
		}
		if len(values) != 25 {
			t.Errorf("%s: the other device has %d values", name, len(values))
		}
	}
	if values, err := parseLinks([][]byte{link(0, "x", 25)}); err == nil {
		t.Errorf("no error for index 0: %v", values)
	}
}

// queue makes a message of a qdisc.
func queue(device, handle, parent uint32, kind string, drops uint32, more ...[]byte) []byte {
	stats := join(
		attr(nl.TCA_STATS_BASIC, join(longs(1000), words(10, 0))),
		attr(nl.TCA_STATS_QUEUE, words(5, 500, drops, drops+1, drops+2)),
		join(more...),
	)
	return join(words(0, device, handle, parent, 2), attr(nl.TCA_KIND, append([]byte(kind), 0)), attr(nl.TCA_STATS2|unix.NLA_F_NESTED, stats))
}

// TestParseQdiscsSample holds the numbers that tc -s qdisc showed when the
// messages were taken: an htb over a pfifo and a tbf, which dropped 45 = 32 +
// 13, and two clsact.
func TestParseQdiscsSample(t *testing.T) {
	values, err := parseQdiscs(loadMessages(t, "qdiscs-6.18.hex"), map[uint32]string{3: "va"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		device uint32
		want   uint64
	}{
		{"qdisc.drops", 3, 45},
		{"qdisc.overlimits", 3, 23},
		{"qdisc.requeues", 3, 0},
		{"qdisc.packets", 3, 10},
		{"qdisc.bytes", 3, 4060},
		{"clsact.drops", 3, 0},
		{"clsact.drops", 2, 9},
		{"qdisc.drops", 2, 0},
		{"qdisc.drops", 1, 0},
	} {
		if got := deviceValue(t, values, c.name, c.device); got != c.want {
			t.Errorf("%s of %d = %d, want %d", c.name, c.device, got, c.want)
		}
	}
	for _, v := range values {
		want := "tc -s qdisc show" // without a name
		if v.Device.Index == 3 {
			want = "tc -s qdisc show dev va"
		}
		if v.Command != want {
			t.Errorf("command %q, want %q", v.Command, want)
		}
	}
}

func TestQdiscTree(t *testing.T) {
	const root = handleRoot
	for _, c := range []struct {
		name     string
		messages [][]byte
		want     uint64
	}{
		{"one", [][]byte{queue(1, 0, root, "pfifo_fast", 7)}, 7},
		{"leaf repeated by its ancestors", [][]byte{
			queue(1, 0x10000, root, "htb", 7),
			queue(1, 0x20000, 0x10010, "prio", 7),
			queue(1, 0x30000, 0x20001, "pfifo", 7),
		}, 7},
		{"children before their parent", [][]byte{
			queue(1, 0x30000, 0x10002, "pfifo", 2),
			queue(1, 0x20000, 0x10001, "pfifo", 5),
			queue(1, 0x10000, root, "htb", 7),
		}, 7},
		{"the parent's own", [][]byte{ // htb: packets without a class
			queue(1, 0x10000, root, "htb", 12),
			queue(1, 0x20000, 0x10001, "pfifo", 7),
		}, 12},
		{"a child that the parent does not know of", [][]byte{
			queue(1, 0x10000, root, "mq", 0),
			queue(1, 0x20000, 0x10001, "pfifo", 7),
		}, 7},
		{"mq of the kernel, without handles", [][]byte{
			queue(1, 0, root, "mq", 9),
			queue(1, 0, 1, "fq_codel", 4),
			queue(1, 0, 2, "fq_codel", 5),
		}, 9},
		{"mq with a handle", [][]byte{
			queue(1, 0x10000, root, "mq", 9),
			queue(1, 0, 0x10001, "fq_codel", 4),
			queue(1, 0x70000, 0x10002, "fq_codel", 5),
		}, 9},
		{"clsact beside", [][]byte{
			queue(1, 0, root, "noqueue", 0),
			queue(1, 0xffff0000, handleIngress, "clsact", 100),
		}, 0},
		{"without a parent that is there", [][]byte{queue(1, 0, 0x990001, "pfifo", 3), queue(1, 0, 5, "pfifo", 4)}, 7},
		{"its own parent", [][]byte{queue(1, 0x10000, 0x10001, "htb", 3), queue(1, 0, root, "pfifo", 4)}, 4},
		{"a circle", [][]byte{queue(1, 0x10000, 0x20001, "htb", 3), queue(1, 0x20000, 0x10001, "htb", 3), queue(1, 0, root, "pfifo", 4)}, 4},
		{"other devices", [][]byte{queue(1, 0, root, "pfifo", 7), queue(2, 0, root, "pfifo", 100)}, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			values, err := parseQdiscs(c.messages, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := deviceValue(t, values, "qdisc.drops", 1); got != c.want {
				t.Errorf("%d drops, want %d", got, c.want)
			}
		})
	}
}

func TestQdiscExtra(t *testing.T) {
	fq := longs(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
	app := func(b []byte) []byte { return attr(nl.TCA_STATS_APP, b) }
	messages := [][]byte{
		queue(1, 0, handleRoot, "mq", 0),
		queue(1, 0, 1, "fq", 0, app(fq)),
		queue(1, 0, 2, "fq", 0, app(fq[:56])), // 3.12
		queue(2, 0, handleRoot, "fq_codel", 0, app(words(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)), attr(nl.TCA_STATS_PKT64, longs(1<<33))),
		queue(3, 0, handleRoot, "red", 0, app(words(1, 2, 3, 4))),
		queue(4, 0, handleRoot, "codel", 0, app(words(1, 2, 3, 4, 5, 6, 7, 8, 9))),
		queue(5, 0, handleRoot, "fq", 0), // no statistics of its own
	}
	values, err := parseQdiscs(messages, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		device uint32
		want   uint64
	}{
		{"fq.flows_plimit", 1, 10},
		{"fq.allocation_errors", 1, 14},
		{"fq.ce_mark", 1, 11},
		{"fq.horizon_drops", 1, 12},
		{"fq.band0_drops", 1, 15},
		{"fq.band2_drops", 1, 17},
		{"fq_codel.drop_overlimit", 2, 2},
		{"fq_codel.drop_overmemory", 2, 9},
		{"qdisc.packets", 2, 1 << 33},
		{"red.early", 3, 1},
		{"red.pdrop", 3, 2},
		{"codel.drop_overlimit", 4, 6},
		{"qdisc.requeues", 5, 1},
		{"qdisc.overlimits", 5, 2},
	} {
		if got := deviceValue(t, values, c.name, c.device); got != c.want {
			t.Errorf("%s of %d = %d, want %d", c.name, c.device, got, c.want)
		}
	}
	for _, v := range values {
		if v.Device.Index == 5 && v.Name == "fq.flows_plimit" {
			t.Errorf("%+v was not in the message", v)
		}
	}
}

func TestParseQdiscsHostile(t *testing.T) {
	good := queue(1, 0, handleRoot, "pfifo", 7)
	for n := range len(good) {
		values, err := parseQdiscs([][]byte{good[:n]}, nil)
		if err == nil || len(values) != 0 {
			t.Fatalf("%d of %d bytes: error %v, %v", n, len(good), err, values)
		}
	}
	short := queue(2, 0, handleRoot, "pfifo", 7)
	binary.NativeEndian.PutUint16(short[len(short)-24:], 8) // the length of TCA_STATS_QUEUE
	values, err := parseQdiscs([][]byte{short, good}, nil)
	if err == nil || deviceValue(t, values, "qdisc.drops", 1) != 7 {
		t.Errorf("error %v, %v", err, values)
	}
}
