package counter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

var eth0 = record.Device{Index: 2, Name: "eth0"}

// driverStrings are the strings of a driver in testdata/ethtool.
func driverStrings(t testing.TB, file string) []string {
	t.Helper()
	var strs []string
	for line := range strings.Lines(string(load(t, file))) {
		if !strings.HasPrefix(line, "#") {
			strs = append(strs, strings.TrimSuffix(line, "\n"))
		}
	}
	return strs
}

// TestDriverStrings shows what becomes of the strings of drivers: none is lost,
// none is there twice, and what a queue counts is of the queue.
func TestDriverStrings(t *testing.T) {
	files, err := filepath.Glob("testdata/ethtool/reconstructed-*.txt")
	if err != nil || len(files) < 15 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			strs := driverStrings(t, strings.TrimPrefix(file, "testdata/"))
			numbers := make([]uint64, len(strs))
			for i := range numbers {
				numbers[i] = uint64(i + 1)
			}
			// Those that stand above the queues of vmxnet3 number them.
			headers := map[string]uint64{}
			for i, s := range strs {
				if strings.HasSuffix(s, "Queue#") {
					numbers[i] = headers[s]
					headers[s]++
				}
			}
			values := valuesOf(statSets()[0], strs, numbers)
			wellFormed(t, values, driverSource)
			seen := map[string]bool{}
			kept := map[uint64]bool{}
			var b bytes.Buffer
			for _, v := range values {
				if id := v.Name + "|" + v.Object; seen[id] {
					t.Errorf("%s of %q is there twice", v.Name, v.Object)
				} else {
					seen[id] = true
				}
				kept[v.Value] = true
				fmt.Fprintf(&b, "%d\t%s\t%s", v.Value, v.Name, v.Object)
				if v.Level {
					b.WriteString("\tlevel")
				}
				b.WriteByte('\n')
			}
			for i, n := range numbers {
				if !kept[n] && !strings.HasSuffix(strs[i], "Queue#") {
					t.Errorf("%q is lost", strs[i])
				}
			}
			testkit.Golden(t, strings.TrimSuffix(file, ".txt")+".golden", b.Bytes())
		})
	}
}

// TestQueueNumbers holds the ways in which drivers write numbers of queues, and
// numbers that are none.
func TestQueueNumbers(t *testing.T) {
	for _, tt := range []struct{ text, name, object string }{
		{"rx_queue_0_drops", "rx_queue_drops", "queue rx-0"},
		{"rx0_missed", "rx_missed", "queue rx-0"},
		{"tx-0.packets", "tx.packets", "queue tx-0"},
		{"[3]: rx_discards", "rx_discards", "queue rx-3"},
		{"[3]: tpa_aborts", "tpa_aborts", "queue 3"},
		{"queue_0_tx_queue_stop", "queue_tx_queue_stop", "queue tx-0"},
		{"Queue[0] InPackets", "Queue InPackets", "queue 0"},
		{"rxq0: rx_bytes", "rxq: rx_bytes", "queue rx-0"},
		{"0: rcv_pkts", "rcv_pkts", "queue rx-0"},
		{"rx_posted_desc[0]", "rx_posted_desc", "queue rx-0"},
		{"Rx ring  0 frames", "Rx ring frames", "queue rx-0"},
		{"rvec_0_rx_pkts", "rvec_rx_pkts", "queue rx-0"},
		{"ptp_cq0_late_cqe", "ptp_cq_late_cqe", "queue 0"},
		{"cpu0_rx_packets", "cpu_rx_packets", "cpu 0"},
		// Sizes, priorities, lanes, numbers of tries.
		{"rx_64_bytes_phy", "rx_64_bytes_phy", ""},
		{"rx_0_to_63", "rx_0_to_63", ""},
		{"rx_65_to_127_octet_packets", "rx_65_to_127_octet_packets", ""},
		{"port.rx_size_64", "port.rx_size_64", ""},
		{"rx_prio0_discards", "rx_prio0_discards", ""},
		{"port.rx_priority_0_xon_rx", "port.rx_priority_0_xon_rx", ""},
		{"veb.tc_0_rx_bytes", "veb.tc_0_rx_bytes", ""},
		{"rx_err_lane_0_phy", "rx_err_lane_0_phy", ""},
		{"tx_collide_2times", "tx_collide_2times", ""},
		{"rx_bytes_cos0", "rx_bytes_cos0", ""},
		{"rx_007_x", "rx_007_x", ""},
		{"rx_4294967296_x", "rx_4294967296_x", ""},
		{"p05_in_good_octets", "p05_in_good_octets", ""},
		{"0", "0", ""},
		{"[0]: ", "[0]:", ""},
	} {
		got := statNames([]string{tt.text}, []uint64{1})[0]
		if got.name != tt.name || got.object != tt.object {
			t.Errorf("%q: %q of %q, want %q of %q", tt.text, got.name, got.object, tt.name, tt.object)
		}
	}
}

func valuesOf(set statSet, strs []string, numbers []uint64) []Value {
	return set.add(nil, eth0, &gstrings{names: strs}, numbers)
}

// TestSumsOfQueues: a driver's own number of the whole stays as it is, and
// where it has none there is the sum.
func TestSumsOfQueues(t *testing.T) {
	strs := []string{"rx_drops", "rx0_drops", "rx1_drops", "tx0_kicks", "tx1_kicks", "rx0_x", "rx1_x", "rx_posted_desc[0]", "peer_ifindex", "same", "same"}
	values := valuesOf(statSets()[0], strs, []uint64{9, 1, 2, 3, 4, math.MaxUint64, 1, 7, 8, 10, 11})
	want := map[string]uint64{
		"ethtool.rx_drops": 9, "ethtool.rx_drops of queue rx-0": 1, "ethtool.rx_drops of queue rx-1": 2,
		"ethtool.tx_kicks": 7, "ethtool.tx_kicks of queue tx-0": 3, "ethtool.tx_kicks of queue tx-1": 4,
		"ethtool.rx_x of queue rx-0": math.MaxUint64, "ethtool.rx_x of queue rx-1": 1, // no sum of 64 bits
		"ethtool.rx_posted_desc of queue rx-0": 7, "ethtool.peer_ifindex": 8,
		"ethtool.same of string 9": 10, "ethtool.same of string 10": 11,
	}
	got := map[string]uint64{}
	for _, v := range values {
		name := v.Name
		if v.Object != "" {
			name += " of " + v.Object
		}
		got[name] = v.Value
		if v.Device != eth0 || v.Level != (v.Name == "ethtool.peer_ifindex" || v.Name == "ethtool.rx_posted_desc") {
			t.Errorf("%+v", v)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestParseIoctls holds the structures of include/uapi/linux/ethtool.h.
func TestParseIoctls(t *testing.T) {
	counts, err := parseCounts(join(words(unix.ETHTOOL_GSSET_INFO, 0), longs(1<<setStats|1<<setPHYStats), words(20, 3)))
	if d := cmp.Diff(map[uint]int{setStats: 20, setPHYStats: 3}, counts); d != "" || err != nil {
		t.Error(d, err)
	}
	if counts, err := parseCounts(join(words(unix.ETHTOOL_GSSET_INFO, 0), longs(0))); err != nil || len(counts) != 0 {
		t.Error(counts, err)
	}
	// More sets than were asked for, or nothing.
	for _, b := range [][]byte{nil, join(words(1, 0), longs(7), words(1, 2))} {
		if counts, err := parseCounts(b); !errors.Is(err, kernelnet.ErrShort) {
			t.Error(counts, err)
		}
	}
	str := func(s string) []byte { return append([]byte(s), make([]byte, sizeofGString-len(s))...) }
	full := strings.Repeat("x", sizeofGString)
	names, err := parseGStrings(join(words(unix.ETHTOOL_GSTRINGS, setStats, 2), str("rx"), []byte(full)), 2)
	if err != nil || len(names) != 2 || names[0] != "rx" || names[1] != full {
		t.Error(names, err)
	}
	if _, err := parseGStrings(join(words(unix.ETHTOOL_GSTRINGS, setStats, 2), str("rx")), 2); !errors.Is(err, kernelnet.ErrShort) {
		t.Error(err)
	}
	if _, err := parseGStrings(words(unix.ETHTOOL_GSTRINGS, setStats, 0), 2); !errors.Is(err, errChanged) { // since 6.19
		t.Error(err)
	}
	values, err := parseGStats(join(words(unix.ETHTOOL_GSTATS, 2), longs(5, math.MaxUint64)), 2)
	if err != nil || len(values) != 2 || values[0] != 5 || values[1] != math.MaxUint64 {
		t.Error(values, err)
	}
	if _, err := parseGStats(join(words(unix.ETHTOOL_GSTATS, 2), longs(5)), 2); !errors.Is(err, kernelnet.ErrShort) {
		t.Error(err)
	}
	if _, err := parseGStats(join(words(unix.ETHTOOL_GSTATS, 3), longs(5, 6, 7)), 2); !errors.Is(err, errChanged) {
		t.Error(err)
	}
}

func FuzzDriverStrings(f *testing.F) {
	for _, file := range []string{"mlx5", "bnxt", "vmxnet3", "ena", "virtio_net"} {
		f.Add(strings.Join(driverStrings(f, "ethtool/reconstructed-"+file+".txt"), "\n"))
	}
	f.Add("rx0_\n[0]: \n[0]:  \n0: \nTx Queue#\n  a\nb\nrx_queue_0_\nrx[0]\ncpu0\n rx0")
	f.Fuzz(func(t *testing.T, text string) {
		strs := strings.Split(text, "\n")
		numbers := make([]uint64, len(strs))
		seen := map[key]bool{}
		for i, st := range statNames(strs, numbers) {
			k := key{name: st.name, object: st.object}
			if seen[k] {
				t.Errorf("%q: %+v is there twice", strs[i], st)
			}
			seen[k] = true
		}
		for _, v := range valuesOf(statSets()[1], strs, numbers) {
			if !strings.HasPrefix(v.Name, "ethtool-phy.") || len(v.Name) == len("ethtool-phy.") || strings.TrimSpace(v.Object) != v.Object {
				t.Errorf("%+v", v)
			}
		}
	})
}

func FuzzParseIoctls(f *testing.F) {
	f.Add(join(words(unix.ETHTOOL_GSSET_INFO, 0), longs(1<<setStats|1<<setPHYStats), words(20, 3)), 2)
	f.Add(join(words(unix.ETHTOOL_GSTRINGS, setStats, 1), make([]byte, sizeofGString)), 1)
	f.Add(join(words(unix.ETHTOOL_GSTATS, 2), longs(5, 6)), 2)
	f.Fuzz(func(t *testing.T, b []byte, n int) {
		n = min(max(n, 0), maxStats)
		counts, err := parseCounts(b)
		if err == nil && 16+4*len(counts) > len(b) {
			t.Errorf("%d counts in %d bytes", len(counts), len(b))
		}
		if names, err := parseGStrings(b, n); err == nil && (len(names) != n || binary.NativeEndian.Uint32(b[8:]) != uint32(n)) {
			t.Errorf("%d names of %d", len(names), n)
		}
		if values, err := parseGStats(b, n); err == nil && len(values) != n {
			t.Errorf("%d values of %d", len(values), n)
		}
	})
}

func TestUniqueStats(t *testing.T) {
	got := uniqueStats([]stat{{name: "a"}, {name: "a", object: "queue 1"}, {name: "a"}, {name: "a", object: "queue 1"}, {name: "b"}})
	for i, want := range []string{"string 0", "queue 1 string 1", "string 2", "queue 1 string 3", ""} {
		if got[i].object != want {
			t.Errorf("%d: %q, want %q (%s)", i, got[i].object, want, strconv.Quote(got[i].name))
		}
	}
}
