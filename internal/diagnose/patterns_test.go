package diagnose_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/knowledge"
)

// driverNames are the names that internal/counter makes of the strings of a
// driver.
func driverNames(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../counter/testdata/ethtool/reconstructed-*.golden")
	if err != nil || len(files) < 15 {
		t.Fatalf("%v, %v", files, err)
	}
	names := map[string][]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		driver := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "reconstructed-"), ".golden")
		for line := range strings.Lines(string(text)) {
			if name := strings.Split(line, "\t")[1]; !slices.Contains(names[driver], name) {
				names[driver] = append(names[driver], name)
			}
		}
	}
	return names
}

// harmless are the names of activity that sound like a loss, and why they are
// none.
var harmless = map[string]string{
	"ethtool.queue_tx_unmask_interrupt": "an interrupt is no error",
}

// TestEveryDriverStringIsPlaced shows what is said of each name that the known
// drivers have. What is no loss and no pressure is only counted, but for what
// sounds like a loss.
func TestEveryDriverStringIsPlaced(t *testing.T) {
	k := load(t)
	all := driverNames(t)
	drivers := make([]string, 0, len(all))
	for d := range all {
		drivers = append(drivers, d)
	}
	slices.Sort(drivers)
	var b bytes.Buffer
	for _, driver := range drivers {
		quiet := 0
		for _, name := range all[driver] {
			m, ok := k.Counter(name)
			if !ok {
				t.Errorf("%s: %s has no meaning", driver, name)
				continue
			}
			if !strings.Contains(m.Kernel, "("+strings.TrimSuffix(driver, "-5.10")+")") {
				t.Errorf("%s: what is said of %s is not said of this driver: %s", driver, name, m.Kernel)
			}
			if m.Kind == "activity" {
				quiet++
				if diagnose.SoundsLikeLoss(name) && harmless[name] == "" {
					t.Errorf("%s: %s sounds like a loss and is said to be none", driver, name)
				}
				continue
			}
			fmt.Fprintf(&b, "%s\t%s\t%s %s %s in %s\n", driver, strings.TrimPrefix(name, "ethtool."), m.Kind, m.Station, m.Direction, m.Unit)
			if slices.Contains(m.Overlaps, name) {
				t.Errorf("%s: %s overlaps with itself", driver, name)
			}
		}
		fmt.Fprintf(&b, "%s\t%d others\tactivity\n", driver, quiet)
	}
	testkit.Golden(t, "testdata/ethtool.golden", b.Bytes())
}

// TestDriverLosses holds the names that tell of the most frequent losses.
func TestDriverLosses(t *testing.T) {
	k := load(t)
	for name, want := range map[string]string{
		"ethtool.rx_missed_errors":             "loss ring rx packets",
		"ethtool.rx_out_of_buffer":             "loss ring rx packets",
		"ethtool.rx_queue_drops":               "loss ring rx packets",
		"ethtool.pkts rx OOB":                  "loss ring rx packets", // as vmxnet3 writes it
		"ethtool.rx_discards_phy":              "loss nic rx packets",
		"ethtool.rx_prio3_discards":            "loss nic rx packets",
		"ethtool.rx_crc_errors_phy":            "loss nic rx packets",
		"ethtool.tx_dropped":                   "loss driver-tx tx packets",
		"ethtool.tx_timeout_count":             "loss driver-tx tx events",
		"ethtool.conntrack_allowance_exceeded": "loss nic unknown packets",
		"ethtool.bw_in_allowance_exceeded":     "pressure nic unknown packets",
		"ethtool.rx_no_buffer_count":           "pressure ring rx events",
		"ethtool.tx_queue_stopped":             "pressure driver-tx unknown events",
		"ethtool.rx_prio0_pause":               "pressure nic unknown events",
		"ethtool.rx_csum_offload_errors":       "nothing nic rx packets",
		"ethtool.rx_packets":                   "activity nic unknown packets",
		"ethtool.queue_rx_xdp_drop":            "loss xdp rx packets",
		"ethtool-phy.rx_crc_errors":            "loss nic rx packets",
		"rmon.rx-etherStatsPkts65to127Octets":  "activity nic unknown packets",
		"ethtool.rx_queue_drop_cnt":            "loss ring rx packets", // of Google's cloud
		"ethtool.rx_no_buffers_posted":         "loss ring rx packets",
		"ethtool.rx_drops_packet_over_mru":     "loss nic rx packets",
		"ethtool.tx_tls_drop_no_sync_data":     "loss driver-tx tx packets",
		"ethtool.tx_queue_xdp_tx_drops":        "loss xdp tx packets",
		"ethtool.rx_fcoe_dropped":              "loss ring rx packets",
	} {
		m, ok := k.Counter(name)
		if got := fmt.Sprintf("%s %s %s %s", m.Kind, m.Station, m.Direction, m.Unit); !ok || got != want {
			t.Errorf("%s: %q (%v), want %q", name, got, ok, want)
		}
	}
	for _, name := range []string{"ethtool.unheard_of", "ethtool", "ethtool.", "", "rmon.rx_missed_errors", "Ethtool.rx_missed_errors"} {
		if m, ok := k.Counter(name); ok {
			t.Errorf("%q: %+v", name, m)
		}
	}
}

// TestNamesThatNobodyLookedAt: a name of a driver that is not in the file is not
// said to be harmless, though it begins or ends like others that are.
func TestNamesThatNobodyLookedAt(t *testing.T) {
	k := load(t)
	for _, name := range []string{
		"rx_nodesc_drops", "rx_nodesc_drop_cnt", "rx_noskb_drops", "rx_overflow", "rx_frm_trunc", "port_rx_dp_q_disabled_packets",
		"rx_drops_no_pbuf", "rx_drops_mtu", "rx_input_fifo_overflow_drop", "tx_drv_drops", "rx_post_fail", "tx_drop_frames",
		"rx_ovflow0_frames", "rx_bg0_frames_dropped", "rx_no_bufs", "tx_drops", "rx_replace_buf_alloc_fail", "rx_overflow_cntr",
		"rx_missed_cntr", "rx_buf_unav_irq", "tx_underflow", "tx_losscarrier", "dropped_frames", "rx_nobuf", "rx_err_pkt_len",
		"rx_phy_ip_err_discards", "tx_excess_collisions", "rx_filtered_packets", "rx_brb_truncate", "rx_0_dropped",
		"hw_rx_ucast_drop_packets", "tx_dma_map_err", "rx_discard", "rx_fifo_overrun", "rx_crc_error", "rx_fullq_drops",
		"[hw] rx filtered frames", "[hw] rx discarded frames", "rx_resource_errors", "rx_fw_discards", "RX Dropped Frames",
		"rx_dropped_packets", "port_drop_cnt", "rx_ring_full_drop_pkts", "rx_duplicates", "tx_retry_failed", "rx_retry",
	} {
		if m, ok := k.Counter("ethtool." + name); ok {
			t.Errorf("%s: %s, %q", name, m.Kind, m.Sentence)
		}
	}
	for _, word := range []string{"drops", "discards", "errors", "missed", "overrun", "no_bufs", "timeouts", "filtered"} {
		for _, form := range []string{"rx_%s_packets", "rx_queue_%s", "tx_%s_cnt", "rx_%s_phy", "port.rx_%s_frames", "ch_%s", "xdp %s tx", "adminq_%s_cnt"} {
			name := fmt.Sprintf(form, word)
			if m, ok := k.Counter("ethtool." + name); ok && (m.Kind == "activity" || m.Kind == "nothing") {
				t.Errorf("%s: %s, %q", name, m.Kind, m.Sentence)
			}
		}
	}
}

// TestPatternsOverlapWithSomething: what a pattern overlaps with is in the
// catalogue or has a pattern too, and counts a loss.
func TestPatternsOverlapWithSomething(t *testing.T) {
	k := load(t)
	for driver, names := range driverNames(t) {
		for _, name := range names {
			m, _ := k.Counter(name)
			for _, other := range m.Overlaps {
				if o, ok := k.Counter(other); !ok || o.Kind != "loss" && o.Kind != "pressure" {
					t.Errorf("%s: %s overlaps with %s, which is %q", driver, name, other, o.Kind)
				}
			}
			if len(m.Overlaps) > 0 && m.Kind != "loss" {
				t.Errorf("%s: %s is no loss and overlaps", driver, name)
			}
		}
	}
}

// TestHardwareNamesAreKnown: what internal/counter makes of recorded answers has
// a meaning each, under fixed names too.
func TestHardwareNamesAreKnown(t *testing.T) {
	k := load(t)
	n := 0
	for _, file := range []string{"netdevsim/devlink.golden", "netdevsim/ethtool.golden", "reconstructed-infiniband.golden"} {
		text, err := os.ReadFile("../counter/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, "\t")
			if _, ok := k.Counter(name); !ok && name != "infiniband-hw.only_of_device" {
				t.Errorf("%s: %s has no meaning", file, name)
			}
			n++
		}
	}
	if n < 150 {
		t.Errorf("only %d names", n)
	}
}

const goodPatterns = `drivers: {a: drivers/net/a.c}
patterns:
  - {match: [rx_lost, 'rx_[0-9]_lost'], station: ring, direction: rx, unit: packets, kind: loss, sentence: It is lost., drivers: [a]}
  - {table: other, match: [.*], station: nic, direction: rx, unit: packets, kind: activity, sentence: All the rest., drivers: [a]}
`

func patterns(text string) fs.FS {
	files := catalogue(goodCounters, "next: {}\n")
	files["counters/ethtool-patterns.yaml"] = &fstest.MapFile{Data: []byte(text)}
	return files
}

func TestLoadPatterns(t *testing.T) {
	k, err := diagnose.Load(patterns(goodPatterns))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ethtool.rx_lost": "loss", "ethtool.RX_LOST": "loss", "ethtool-phy.rx_3_lost": "loss", "ethtool.rx_33_lost": "", "ethtool.rx_lostx": "",
		"other.x": "activity", "T.a": "loss",
	} {
		if m, ok := k.Counter(name); m.Kind != want || ok != (want != "") {
			t.Errorf("%s: %+v, %v", name, m, ok)
		}
	}
	if m, _ := k.Counter("ethtool.rx_lost"); m.Kernel != "drivers/net/a.c (a)" {
		t.Errorf("%+v", m)
	}
	for _, tt := range []struct{ old, new, want string }{
		{"kind: loss", "kind: luck", `unknown kind "luck"`},
		{"station: ring", "station: moon", `unknown station "moon"`},
		{"drivers: [a]", "drivers: [b]", "driver b has no file"},
		{"drivers: [a]", "drivers: [a], kernel: x", "kernel"},
		{"'rx_[0-9]_lost'", "'rx_['", "match"},
		{"'rx_[0-9]_lost'", "rx_lost", "twice"},
		{"match: [rx_lost, 'rx_[0-9]_lost']", "match: []", "nothing"},
		{"{a: drivers/net/a.c}", "{a: x.c, z: y.c}", "driver z"},
		{"patterns:", "pattern:", "pattern"},
	} {
		text := strings.Replace(goodPatterns, tt.old, tt.new, 1)
		if text == goodPatterns {
			t.Fatalf("nothing replaced by %q", tt.new)
		}
		if _, err := diagnose.Load(patterns(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.new, err, tt.want)
		}
	}
}

func BenchmarkCounterByPattern(b *testing.B) {
	k, err := diagnose.LoadCounters(knowledge.FS)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		k.Counter("ethtool.rx_queue_xdp_packets")
		k.Counter("ethtool.unheard_of")
	}
}
