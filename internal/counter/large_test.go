package counter

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

// vethStrings are those of veth with 4 queues (drivers/net/veth.c,
// veth_get_strings).
func vethStrings() []string {
	strs := []string{"peer_ifindex"}
	for q := range 4 {
		for _, s := range strings.Fields("xdp_packets xdp_bytes drops xdp_redirect xdp_drops xdp_tx xdp_tx_errors") {
			strs = append(strs, fmt.Sprintf("rx_queue_%d_%s", q, s))
		}
		for _, s := range strings.Fields("xdp_xmit xdp_xmit_errors") {
			strs = append(strs, fmt.Sprintf("tx_queue_%d_%s", q, s))
		}
	}
	return strs
}

// largeDump is what a host with 2,000 devices and 100,000 sockets, each of which
// lost something, answers.
type largeDump struct {
	links, qdiscs [][]byte
	strings       []string
	socket        []byte
}

const manySocketsThere = 100_000

func newLargeDump() largeDump {
	d := largeDump{strings: vethStrings(), socket: socketMessage(1, 1, 1, 9)}
	d.links, d.qdiscs = host(manyLinks)
	return d
}

// parse makes counters of all of it.
func (d largeDump) parse(t testing.TB) []Value {
	t.Helper()
	values, err := parseLinks(d.links)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[uint32]string, len(d.links))
	for _, v := range values {
		names[v.Device.Index] = v.Device.Name
	}
	qdiscs, err := parseQdiscs(d.qdiscs, names)
	if err != nil {
		t.Fatal(err)
	}
	values = append(values, qdiscs...)
	known, numbers := &gstrings{names: d.strings}, make([]uint64, len(d.strings))
	for i := range uint32(manyLinks) {
		values = statSets()[0].add(values, record.Device{Index: i + 1, Name: names[i+1]}, known, numbers)
	}
	var sockets tally
	dump := inetDumps(unix.IPPROTO_UDP)[0]
	for i := range uint32(manySocketsThere) {
		binary.NativeEndian.PutUint64(d.socket[44:], uint64(i+1))
		binary.NativeEndian.PutUint32(d.socket[68:], i+1)
		l, err := dump.parse(d.socket)
		if err != nil {
			t.Fatal(err)
		}
		sockets.add(l)
	}
	return append(values, kindNamed(t, "udp").values(&sockets, "x", "x")...)
}

// TestLargeDump: each device has all its counters, the sockets their total, and
// the memory that it takes to parse all of it is bounded.
func TestLargeDump(t *testing.T) {
	d := newLargeDump()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	values := d.parse(t)
	runtime.ReadMemStats(&after)
	of := map[string]map[uint32]int{}
	total := uint64(0)
	for _, v := range values {
		table, _, _ := strings.Cut(v.Name, ".")
		if of[table] == nil {
			of[table] = map[uint32]int{}
		}
		of[table][v.Device.Index]++
		if v.Name == "udp.drops" && v.Object == "" {
			total += v.Value
		}
	}
	if total != manySocketsThere || of["udp"][0] != maxSockets+1 {
		t.Errorf("%d lost by %d sockets", total, of["udp"][0]-1)
	}
	// Beside its strings a device has the sums of what veth counts by queue.
	for table, want := range map[string]int{"link": 25, "ethtool": len(d.strings) + 9} {
		for i := range uint32(manyLinks) {
			if n := of[table][i+1]; n != want {
				t.Fatalf("device %d has %d counters of %s, want %d", i+1, n, table, want)
			}
		}
	}
	took := after.TotalAlloc - before.TotalAlloc
	t.Logf("%d values, %d KiB", len(values), took>>10)
	if took > 160<<20 {
		t.Errorf("%d values took %d bytes", len(values), took)
	}
}

// BenchmarkLargeDump is what such a host costs when the kernel has answered.
func BenchmarkLargeDump(b *testing.B) {
	d := newLargeDump()
	b.ReportAllocs()
	for b.Loop() {
		d.parse(b)
	}
}

// BenchmarkDiff compares two reads of it.
func BenchmarkDiff(b *testing.B) {
	d := newLargeDump()
	before, after := snapshot(d.parse(b)...), snapshot(d.parse(b)...)
	b.ReportAllocs()
	for b.Loop() {
		if n := len(Diff(before, after, record.NetNS{})); n != len(after.Values) {
			b.Fatalf("%d counters", n)
		}
	}
}
