//go:build root

package counter

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// tcFields are fields of tc that have another name in the kernel's structures:
// those of every kind, and those of one.
var tcFields = map[string]map[string]string{
	"": {"rate": "bps"},
	"fq": {
		"inactive": "inactive_flows", "throttled": "throttled_flows", "throttled#2": "throttled", "gc": "gc_flows",
		"highprio": "highprio_packets", "retrans": "tcp_retrans", "latency": "unthrottle_latency_ns",
		"alloc_errors": "allocation_errors", "next_packet_delay": "time_next_delayed_flow",
		"band0_pkts": "band0_pkt_count", "band1_pkts": "band1_pkt_count", "band2_pkts": "band2_pkt_count", "fastpath": "fastpath_packets",
	},
	"fq_codel": {"memory_used": "memory_usage"},
	"fq_pie":   {"pkts_in": "packets_in", "memory_used": "memory_usage"},
	"pie":      {"pkts_in": "packets_in"},
	"hhf":      {"tot_hh": "hh_tot_count", "cur_hh": "hh_cur_count"},
	"htb":      {"options.direct_packets_stat": "direct_pkts"},
	"sfq": {
		"options.prob_mark": "prob_mark", "options.prob_mark_head": "prob_mark_head", "options.prob_drop": "prob_drop",
		"options.forced_mark": "forced_mark", "options.forced_mark_head": "forced_mark_head", "options.forced_drop": "forced_drop",
	},
	"cake": {
		"capacity_estimate": "capacity_estimate64", "min_network_size": "min_netlen", "max_network_size": "max_netlen",
		"min_adj_size": "min_adjlen", "max_adj_size": "max_adjlen", "avg_hdr_offset": "avg_netoff",
	},
	"cake tin": {
		"threshold_rate": "threshold_rate64", "sent_bytes": "sent_bytes64", "drops": "dropped_packets",
		"ecn_mark": "ecn_marked_packets", "ack_drops": "acks_dropped_packets", "max_pkt_len": "max_skblen",
	},
}

// tcSettings are the fields of `tc -s -j qdisc` that are no statistics.
var tcSettings = notCompared{
	"kind|handle|parent|dev|root|refcnt|offloaded": "the name and place of the qdisc",
	"ingress_block|egress_block":                   "the number of a block of filters",
	"options\\..*":                                 "parameters: the fact qdiscs has them; the counters among them are in tcFields",
}

// tcMoving are levels that change with time alone.
var tcMoving = []string{"fq.time_next_delayed_flow", "fq.unthrottle_latency_ns", "codel.drop_next", "fq_codel.drop_next", "cake.drop_next_us", "cake.blue_timer_us"}

// tcRates are estimates over the last seconds. They rise and fall by
// themselves, so one that moved may have been higher in between.
var tcRates = []string{"qdisc.bps", "qdisc.pps"}

// qdiscObject is how whydrop names the qdisc that tc shows.
func qdiscObject(s shown) string {
	if s.text("handle") == "0:" && s.text("parent") != "" {
		return "qdisc 0: parent " + s.text("parent")
	}
	return "qdisc " + s.text("handle")
}

// qdiscName is the name of a field of tc, of a kind of qdisc and, for what
// has them, its part.
func qdiscName(kind, path string) (name, part string) {
	common := []string{"bytes", "packets", "drops", "overlimits", "requeues", "backlog", "qlen", "rate", "pps"}
	if slices.Contains(common, path) {
		if other, ok := tcFields[""][path]; ok {
			path = other
		}
		return "qdisc." + path, ""
	}
	fields := tcFields[kind]
	for _, list := range []struct{ prefix, part string }{{"tins.", "tin "}, {"options.vqs.", "vq "}} {
		if rest, ok := strings.CutPrefix(path, list.prefix); ok {
			var number string
			number, path, _ = strings.Cut(rest, ".")
			part = " " + list.part + number
			fields = tcFields[kind+" "+strings.TrimSpace(list.part)]
		}
	}
	if other, ok := fields[path]; ok {
		path = other
	}
	return kind + "." + path, part
}

// TestMatchesTCQueues compares every field of every qdisc and class, of many
// kinds at once, with traffic and losses.
func TestMatchesTCQueues(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		devices := setUp(t, ns)
		compareQdiscs(t, ns, devices)
		compareAllClasses(t, devices)
	})
}

func compareQdiscs(t *testing.T, ns *netlab.Namespace, devices map[string]uint32) {
	t.Helper()
	byName := deviceNames(t, ns)
	m, out := around(t, func() []byte { return program(t, "tc", "-s", "-j", "qdisc", "show") })
	kinds := map[string]bool{}
	for _, s := range readShown(t, out) {
		index, kind := byName[s.text("dev")], s.text("kind")
		kinds[kind] = true
		for _, f := range s {
			name, part := qdiscName(kind, f.path)
			id := ident{index, name, qdiscObject(s) + part}
			switch _, known := m.after[id]; {
			case !f.number && f.text != "true":
			case known && slices.Contains(tcMoving, name), known && slices.Contains(tcRates, name) && m.before[id] != m.after[id]:
				m.moves(id)
			case known && f.text == "true": // dropping
				m.same(id, "1", 0)
			case tcSettings.has(f.path) && !(known && f.number):
			case known && strings.HasSuffix(f.path, "prob"):
				sameShare(t, m, id, f.text)
			default:
				m.same(id, f.text, 0)
			}
		}
	}
	for kind := range devices {
		if !kinds[kind] {
			t.Errorf("tc shows no qdisc %s", kind)
		}
	}
	checkLost(t, m, devices)
	checkTotals(t, m)
}

// sameShare compares a probability, which tc prints as a fraction of 1.
func sameShare(t *testing.T, m *matcher, id ident, text string) {
	t.Helper()
	of := float64(math.MaxUint64) // pie
	if strings.HasPrefix(id.name, "sfb.") {
		of = math.MaxUint16
	}
	want, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	low, high := float64(m.before[id])/of, float64(m.after[id])/of
	const rounding = 1e-5
	if want < min(low, high)-rounding || want > max(low, high)+rounding {
		t.Errorf("%+v: between %v and %v, tc says %v", id, low, high, want)
	}
	m.used[id] = true
}

// deviceNames are the devices of the namespace.
func deviceNames(t *testing.T, ns *netlab.Namespace) map[string]uint32 {
	t.Helper()
	links, err := ns.Links().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]uint32{}
	for _, l := range links {
		names[l.Attrs().Name] = uint32(l.Attrs().Index)
	}
	return names
}

// checkLost holds that every kind lost something, so that equal zeros are not
// all that was compared.
func checkLost(t *testing.T, m *matcher, devices map[string]uint32) {
	t.Helper()
	for _, s := range append(anywhere(), elsewhere()...) {
		index, ok := devices[s.kind]
		for _, name := range s.lost {
			above := false
			for id, v := range m.after {
				above = above || id.device == index && id.name == name && v > 0
			}
			if ok && !above {
				t.Errorf("%s: %s is 0", s.kind, name)
			}
		}
	}
}

// checkTotals holds that the total of a counter that only one kind has is the
// sum of its parts.
func checkTotals(t *testing.T, m *matcher) {
	t.Helper()
	sums := map[ident]uint64{}
	for id, v := range m.after {
		if strings.HasPrefix(id.object, "qdisc ") {
			sums[ident{id.device, id.name, ""}] += v
		}
	}
	compared := 0
	for id, v := range m.after {
		table, _, _ := strings.Cut(id.name, ".")
		if id.object != "" || slices.Contains([]string{"link", "qdisc", "clsact"}, table) {
			continue
		}
		if compared++; sums[id] != v {
			t.Errorf("%+v = %d, its parts %d", id, v, sums[id])
		}
	}
	if compared == 0 {
		t.Error("no totals")
	}
}
