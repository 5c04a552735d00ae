//go:build root

package fact

import (
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// toolQdisc is a qdisc of tc -j -d qdisc in the words of the fact.
func toolQdisc(t *testing.T, v map[string]any) object {
	t.Helper()
	o := object{}
	for k, s := range flat(v) {
		o[strings.TrimPrefix(strings.TrimPrefix(k, "options"), "_")] = s
	}
	delete(o, "") // no options
	if _, ok := o["root"]; ok {
		delete(o, "root")
		o["parent"] = "root"
	}
	if o["parent"] == "ffff:fff1" {
		o["parent"] = "ingress"
	}
	kind := o["kind"]
	delete(o, "multiqueue") // of prio: no kernel since 2.6.27 gives it
	if o["priomap "] != "" {
		rename(o, "priomap ", "priomap")
	}
	rename(o, "weights ", "weights")
	switch kind {
	case "fq":
		if o["pacing"] == "" {
			o["pacing"] = "1"
		}
		o["horizon_drop"] = bit(o["horizon_drop"] != "")
		delete(o, "horizon_cap")
	case "fq_codel", "codel":
		if o["ecn"] == "" {
			o["ecn"] = "0"
		}
	case "cake":
		if o["memlimit"] == "" {
			o["memlimit"] = "0"
		}
		o["limit"] = o["memlimit"]
		if o["atm"] == "" {
			o["atm"] = "noatm"
		}
		if o["autorate"] == "autorate-ingress" {
			o["autorate"] = "1"
		}
		if o["bandwidth"] == "unlimited" {
			o["bandwidth"] = "0"
		}
		if o["autorate"] == "" {
			o["autorate"] = "0"
		}
		if o["raw"] == "0" {
			delete(o, "raw")
		}
		if o["fwmark"] == "0" {
			o["fwmark"] = "0x0"
		}
	case "htb":
		o["limit"] = o["direct_qlen"]
		delete(o, "ver")
	case "sfq":
		for _, flag := range []string{"ecn", "harddrop", "adaptive", "nodrop"} {
			if o[flag] == "0" {
				delete(o, flag)
			}
		}
	case "netem":
		toolNetem(t, o)
	}
	return o
}

// toolNetem turns seconds into microseconds, and gives parts names of one
// level.
func toolNetem(t *testing.T, o object) {
	t.Helper()
	for from, to := range map[string]string{
		"delay_delay": "delay", "delay_jitter": "jitter", "delay_correlation": "delay_corr", "loss-random_loss": "loss", "loss-random_correlation": "loss_corr",
		"duplicate_duplicate": "duplicate", "duplicate_correlation": "duplicate_corr", "reorder_reorder": "reorder", "reorder_correlation": "reorder_corr",
		"corrupt_corrupt": "corrupt", "corrupt_correlation": "corrupt_corr", "rate_rate": "rate", "rate_packetoverhead": "packetoverhead",
		"rate_cellsize": "cellsize", "rate_celloverhead": "celloverhead", "slot_min-delay": "slot_min_delay", "slot_max-delay": "slot_max_delay",
	} {
		rename(o, from, to)
	}
	for k, v := range o {
		for _, model := range []string{"loss-state_", "loss-gemodel_"} {
			if rest, ok := strings.CutPrefix(k, model); ok {
				delete(o, k)
				o["loss_"+rest] = v
			}
		}
	}
	for _, k := range []string{"delay", "jitter", "slot_min_delay", "slot_max_delay"} {
		if v, err := strconv.ParseFloat(o[k], 64); err == nil {
			o[k] = micro(uint64(math.Round(v * 1e9)))
		}
	}
	for k, v := range o {
		if v == "0" && k != "ecn" && k != "gap" && k != "limit" {
			delete(o, k)
		}
	}
	if o["ecn"] == "" || o["ecn"] == "0" {
		delete(o, "ecn")
	}
}

// moreOfTC is what tc tells and the fact does not, or not so.
var moreOfTC = map[string]string{
	"lat": "the time that limit is, by rate and burst; compared apart", "refcnt": "no parameter: how many use the qdisc",
	"burst": "compared apart: tc reckons with whole microseconds", "minburst": "likewise",
}

// moreThanTC is what the fact has and tc -j -d qdisc has not.
var moreThanTC = map[string]string{
	"qlen": "of tc -s", "backlog": "of tc -s", "burst": "compared apart", "minburst": "compared apart",
	"peakrate": "of tbf: tc has it only in its text", "linklayer": "of tbf: tc -d, which has no number of burst",
	// Newer than the tc of these tests.
	"offload_horizon": "came to tc with 6.14", "bands": "of fq: came to tc with 6.7", "weights": "came to tc with 6.7",
	"seed":   "came to tc with 6.6",
	"target": "of cake: tc shows only rtt",
}

// schedOption is the option that a kind of qdisc needs.
func schedOption(kind string) string {
	switch kind {
	case "pfifo", "bfifo", "pfifo_fast", "pfifo_head_drop", "mq", "noqueue":
		return "CONFIG_NET_SCHED"
	}
	return "CONFIG_NET_SCH_" + strings.ToUpper(kind)
}

// TestQdiscsMatchTC compares all at once, each on a device of its own: a process
// for each would take minutes in an emulated machine.
func TestQdiscsMatchTC(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		var links, queues, set []string // set is what is compared, of device x0, x1, …
		add := func(what, command string) {
			i := len(set)
			links = append(links, fmt.Sprintf("ip link add x%d numtxqueues 4 numrxqueues 2 txqueuelen 333 type veth peer y%d", i, i),
				fmt.Sprintf("ip link set x%d up", i), fmt.Sprintf("ip link set y%d up", i))
			queues = append(queues, fmt.Sprintf("tc qdisc add dev x%d %s", i, command))
			set = append(set, what)
		}
		for _, options := range []string{
			"pfifo limit 77", "bfifo limit 77777", "pfifo_fast", "pfifo_head_drop limit 78", "mq", "noqueue",
			"tbf rate 1mbit burst 15k limit 30k", "tbf rate 50gbit burst 1m latency 50ms peakrate 60gbit minburst 2000 mpu 64 overhead 4 linklayer atm",
			"htb default 0x30 r2q 20 direct_qlen 55",
			"fq", "fq limit 1000 flow_limit 50 quantum 3000 initial_quantum 15000 maxrate 1gbit buckets 512 orphan_mask 511 low_rate_threshold 1mbit ce_threshold 4ms refill_delay 50ms timer_slack 20us horizon 5s horizon_cap nopacing",
			"fq_codel", "fq_codel limit 555 flows 64 target 3ms interval 60ms quantum 900 ecn ce_threshold 2ms memory_limit 4Mb drop_batch 17", "fq_codel noecn",
			"codel limit 66 target 4ms interval 80ms ecn ce_threshold 3ms",
			"cake", "cake bandwidth 20mbit diffserv4 dual-srchost nat wash ingress ack-filter split-gso rtt 50ms overhead 18 mpu 64 memlimit 3Mb fwmark 0xf atm autorate-ingress", "cake besteffort raw flowblind ack-filter-aggressive no-split-gso",
			"red limit 400000 min 30000 max 90000 avpkt 1000 burst 55 ecn adaptive bandwidth 10Mbit", "red limit 400000 min 30000 max 90000 avpkt 1000 burst 55 probability 0.1 harddrop ecn nodrop",
			"sfq", "sfq limit 100 perturb 10 quantum 2000 divisor 512 flows 32 depth 20 headdrop", "sfq limit 3000 flows 512 divisor 16384 redflowlimit 100000 min 8000 max 60000 probability 0.20 ecn headdrop",
			"prio bands 4 priomap 1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 3",
			"netem limit 500 delay 100ms 10ms 25% loss 1% 30% duplicate 2% 10% corrupt 0.5% 5% reorder 25% 50% gap 5 rate 5mbit 20 100 5",
			"netem loss state 1% 90% 10% 20% 2%", "netem loss gemodel 1% 10% 70% 0.1% ecn", "netem delay 50us slot 800us 900us packets 10 bytes 2000", "netem rate 50gbit",
		} {
			if kind, _, _ := strings.Cut(options, " "); testkit.Wants(t, schedOption(kind)) {
				add(options, "root handle 10: "+options)
			}
		}
		if len(set) < 8 {
			t.Errorf("only %d compared", len(set))
		}
		rooted := len(set)
		add("ingress", "ingress")
		add("clsact", "clsact")
		add("clsact with blocks", "ingress_block 21 egress_block 22 clsact")
		sh(t, append(links, queues...)...)
		shown := qdiscsOfTC(t)
		for i, what := range set {
			dev := fmt.Sprint("x", i)
			compareQdiscs(t, what, dev, shown)
			kind, _, _ := strings.Cut(what, " ")
			if f := facts(t, "qdiscs", dev); i < rooted && f[0].Value != kind {
				t.Errorf("%s: %+v", what, f)
			}
		}
	})
}

// qdiscsOfTC are all qdiscs of the namespace, by device, in the words of the fact.
func qdiscsOfTC(t *testing.T) map[string][]object {
	t.Helper()
	list := map[string][]object{}
	for _, detail := range []bool{true, false} {
		line := "tc -j qdisc show"
		if detail {
			line = "tc -j -d qdisc show"
		}
		for _, v := range objects(t, line) {
			if detail == (v["kind"] == "tbf") { // with it its burst is a text
				continue
			}
			dev, _ := v["dev"].(string)
			delete(v, "dev")
			list[dev] = append(list[dev], toolQdisc(t, v))
		}
	}
	return list
}

// compareQdiscs holds each qdisc of a device against tc.
func compareQdiscs(t *testing.T, what, dev string, shown map[string][]object) {
	t.Helper()
	want := map[string]object{}
	for _, o := range shown[dev] {
		want[o["kind"]+" "+o["handle"]+" "+o["parent"]] = o
	}
	list := facts(t, "qdiscs", dev)
	if len(list) != len(want) {
		t.Errorf("%s: %d qdiscs, tc has %v", what, len(list), want)
	}
	for _, f := range list {
		whole := want[f.Fields["kind"]+" "+f.Fields["handle"]+" "+f.Fields["parent"]]
		got := without(f.Fields, moreThanTC)
		if f.Value == "pfifo_fast" {
			if got["limit"] != "333" {
				t.Errorf("%s: %v", what, got)
			}
			delete(got, "limit")
		}
		if f.Value == "tbf" {
			compareTBF(t, what, whole, f.Fields)
			for _, k := range []string{"limit", "linklayer", "mpu"} {
				delete(got, k)
				delete(whole, k)
			}
		}
		for _, k := range []string{"bands", "target"} { // only of fq and cake tc lacks them
			if _, ok := whole[k]; ok && f.Fields[k] != "" {
				got[k] = f.Fields[k]
			}
		}
		if f.Value == "fq" {
			delete(got, "priomap") // came to tc with 6.7
		}
		if d, err := strconv.ParseFloat(got["delay"], 64); err == nil { // tc rounds it off
			got["delay"] = decimal(uint64(d))
		}
		if d := gocmp.Diff(without(whole, moreOfTC), got); d != "" {
			t.Errorf("%s: - tc, + whydrop\n%s", what, d)
		}
	}
}

// compareTBF compares the sizes, which tc of this version rounds to what goes
// in whole microseconds, and the limit, of which it shows the time.
func compareTBF(t *testing.T, what string, tool, got object) {
	t.Helper()
	num := func(o object, k string) float64 {
		v, _ := strconv.ParseFloat(o[k], 64)
		return v
	}
	if rate := num(got, "rate"); math.Abs(num(tool, "burst")-num(got, "burst")) > rate/1e6 {
		t.Errorf("%s: burst %s, tc says %s", what, got["burst"], tool["burst"])
	}
	if rate := num(got, "peakrate"); math.Abs(num(tool, "minburst")-num(got, "minburst")) > rate/1e6 {
		t.Errorf("%s: minburst %s, tc says %s", what, got["minburst"], tool["minburst"])
	}
	if strings.Contains(what, "mpu 64") != (got["mpu"] == "64") || strings.Contains(what, "atm") != (got["linklayer"] == "atm") {
		t.Errorf("%s: %v", what, got)
	}
	if _, ok := tool["lat"]; !ok {
		if tool["limit"] != got["limit"] {
			t.Errorf("%s: limit %s, tc says %s", what, got["limit"], tool["limit"])
		}
		return
	}
	lat := (num(got, "limit") - num(got, "burst")) / num(got, "rate") * 1e6
	if math.Abs(lat-num(tool, "lat")) > 2 && got["peakrate"] == "" {
		t.Errorf("%s: limit %s is %f us, tc says %s", what, got["limit"], lat, tool["lat"])
	}
}

func TestClassesMatchTC(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		sh(t, "ip link add x0 numtxqueues 2 type veth peer y0", "ip link set x0 up", "ip link set y0 up")
		sh(t, each("tc",
			"qdisc add dev x0 root handle 1: htb default 20",
			"class add dev x0 parent 1: classid 1:1 htb rate 100mbit ceil 200mbit burst 20k cburst 30k",
			"class add dev x0 parent 1:1 classid 1:10 htb rate 10mbit ceil 50gbit burst 15k cburst 1600k prio 3 quantum 2000 overhead 24 mpu 64 linklayer atm",
			"class add dev x0 parent 1:1 classid 1:20 htb rate 40gbit burst 400k",
			"qdisc add dev x0 parent 1:10 handle 10: pfifo limit 9",
		)...)
		compareClasses(t, 3)
		if f := named(t, facts(t, "classes", "x0"), "htb 1:10"); f.Fields["leaf"] != "10:" || f.Fields["rate"] != "1250000" || f.Fields["prio"] != "3" || f.Fields["qlen"] != "0" || f.Fields["drops"] != "0" {
			t.Errorf("got %+v", f)
		}
		compareQdiscs(t, "htb with a leaf", "x0", qdiscsOfTC(t))
		sh(t, "tc qdisc del dev x0 root", "tc qdisc add dev x0 root handle 5: mq")
		compareClasses(t, 2)
		if f := one(t, "classes", "lo"); f.Value != None {
			t.Errorf("no classes: %+v", f)
		}
	})
}

// compareClasses holds each class of x0 against tc, which had no JSON of
// classes when these tests were made.
func compareClasses(t *testing.T, n int) {
	t.Helper()
	out, err := exec.Command("tc", "-d", "class", "show", "dev", "x0").Output()
	must(t, err)
	list := facts(t, "classes", "x0")
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(list) != n || len(lines) != n {
		t.Errorf("%d classes, tc has %v, want %d", len(list), lines, n)
	}
	stats := map[string]string{"qlen": "of tc -s", "backlog": "of tc -s", "drops": "of tc -s", "overlimits": "of tc -s"}
	for _, line := range lines {
		want, rates := toolClass(t, line)
		f := named(t, list, want["kind"]+" "+want["handle"])
		got := without(f.Fields, stats)
		for size, rate := range rates {
			w, _ := strconv.ParseFloat(want[size], 64)
			g, _ := strconv.ParseFloat(got[size], 64)
			r, _ := strconv.ParseFloat(got[rate], 64)
			if math.Abs(w-g) > r/1e6+1024 { // tc rounds to whole microseconds, and to Kb
				t.Errorf("%s: %s is %s, tc says %s", f.Name, size, got[size], want[size])
			}
			delete(want, size)
			delete(got, size)
		}
		if d := gocmp.Diff(want, got); d != "" {
			t.Errorf("%s: - tc, + whydrop\n%s", f.Name, d)
		}
	}
}

// toolClass is a line of tc -d class in the words of the fact, and which size
// belongs to which rate.
func toolClass(t *testing.T, line string) (o object, rates map[string]string) {
	t.Helper()
	words := strings.Fields(line)
	o = object{"kind": words[1], "handle": words[2]}
	rates = map[string]string{}
	for i := 3; i < len(words); i++ {
		if words[i] == "root" {
			o["parent"] = "root"
			continue
		}
		if i+1 == len(words) {
			t.Fatalf("class %q", line)
		}
		k, v := words[i], words[i+1]
		i++
		switch k {
		case "rate", "ceil":
			v = toolRate(t, v)
		case "burst", "cburst":
			v, _, _ = strings.Cut(v, "/")
			v = toolSize(t, v)
			rates[k] = map[string]string{"burst": "rate", "cburst": "ceil"}[k]
		case "mpu":
			v = toolSize(t, v)
			if v == "0" {
				continue
			}
		}
		o[k] = v
	}
	return o, rates
}

// toolRate is a rate of tc in bytes a second.
func toolRate(t *testing.T, s string) string {
	t.Helper()
	for unit, n := range map[string]float64{"Gbit": 1e9, "Mbit": 1e6, "Kbit": 1e3, "bit": 1} {
		if v, ok := strings.CutSuffix(s, unit); ok {
			if f, err := strconv.ParseFloat(v, 64); err == nil {
				return decimal(uint64(f * n / 8))
			}
		}
	}
	t.Fatalf("rate %q", s)
	return ""
}

// toolSize is a size of tc in bytes.
func toolSize(t *testing.T, s string) string {
	t.Helper()
	for unit, n := range map[string]float64{"Mb": 1 << 20, "Kb": 1 << 10, "b": 1} {
		if v, ok := strings.CutSuffix(s, unit); ok {
			if f, err := strconv.ParseFloat(v, 64); err == nil {
				return decimal(uint64(f * n))
			}
		}
	}
	t.Fatalf("size %q", s)
	return ""
}
