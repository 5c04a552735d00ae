package fact

import (
	"math"
	"strconv"

	"github.com/vishvananda/netlink/nl"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// limits say where a kind keeps its limit: in an attribute of TCA_OPTIONS, or
// (attr 0) in the options themselves, at that byte.
var limits = map[string]struct{ attr, at int }{
	"pfifo":           {0, 0},
	"bfifo":           {0, 0},
	"pfifo_head_drop": {0, 0},
	"netem":           {0, 4},                 // struct tc_netem_qopt
	"sfq":             {0, 8},                 // struct tc_sfq_qopt
	"tbf":             {nl.TCA_TBF_PARMS, 24}, // struct tc_tbf_qopt: two struct tc_ratespec of 12 bytes
	"red":             {1, 0},                 // TCA_RED_PARMS, struct tc_red_qopt
	"choke":           {1, 0},                 // TCA_CHOKE_PARMS, struct tc_red_qopt
	"sfb":             {1, 24},                // TCA_SFB_PARMS, struct tc_sfb_qopt
	"fq":              {nl.TCA_FQ_PLIMIT, 0},
	"fq_codel":        {nl.TCA_FQ_CODEL_LIMIT, 0},
	"codel":           {2, 0},  // TCA_CODEL_LIMIT
	"pie":             {2, 0},  // TCA_PIE_LIMIT
	"fq_pie":          {1, 0},  // TCA_FQ_PIE_LIMIT
	"hhf":             {1, 0},  // TCA_HHF_BACKLOG_LIMIT
	"cake":            {10, 0}, // TCA_CAKE_MEMORY
	"htb":             {nl.TCA_HTB_DIRECT_QLEN, 0},
	"dualpi2":         {1, 0}, // TCA_DUALPI2_LIMIT
}

// limit reads a number from an attribute of options, or from their start.
func limit(options []byte, attr, at int, v *int64) error {
	if attr == 0 {
		if len(options) >= at+4 {
			*v = int64(native.Uint32(options[at:]))
		}
		return nil
	}
	return kernelnet.Attributes(options, 0, func(t int, b []byte) {
		if t == attr && len(b) >= at+4 {
			*v = int64(native.Uint32(b[at:]))
		}
	})
}

// optionSet says how the options of a kind are read: a structure of skip
// bytes, then attributes, then what needs several of them.
type optionSet struct {
	skip   int
	params []param
	finish func(f fields)
}

// allOfIt is the skip of a kind whose options are a structure alone.
const allOfIt = math.MaxInt

// options fills in the parameters of a kind that is known.
func (q *qdisc) options(sets map[string]optionSet, b []byte) error {
	set, ok := sets[q.kind]
	if !ok || len(b) < set.skip && set.skip != allOfIt || b == nil {
		return nil
	}
	err := decode(b, min(set.skip, len(b)), set.params, "", q.fields)
	if set.finish != nil {
		set.finish(q.fields)
	}
	return err
}

// qdiscOptions are the parameters under the names of tc -j -d qdisc. The
// numbers are those of TCA_* of include/uapi/linux/pkt_sched.h. Rates are in
// bytes a second, times in microseconds, sizes in bytes, shares are parts of 1.
var qdiscOptions = map[string]optionSet{
	"fq":         {params: fqParams},
	"fq_codel":   {params: fqCodelParams},
	"codel":      {params: codelParams},
	"cake":       {params: cakeParams},
	"htb":        {params: htbParams},
	"tbf":        {params: tbfParams, finish: finishTBF},
	"netem":      {skip: 24, params: netemParams, finish: finishNetem},
	"red":        {params: redParams, finish: finishRED},
	"sfq":        {skip: allOfIt, params: sfqParams},
	"prio":       {skip: 20, params: prioParams},
	"pfifo_fast": {skip: 20, params: prioParams},
}

// classOptions are likewise those of classes.
var classOptions = map[string]optionSet{
	"htb": {params: htbClassParams, finish: finishHTB},
}

var fqParams = []param{
	{2, "flow_limit", asNumber},
	{3, "quantum", asNumber},
	{4, "initial_quantum", asNumber},
	{5, "pacing", asBool},
	{6, "defrate", asNonzero},
	{7, "maxrate", asNumberBut(math.MaxUint32)},
	{8, "buckets", asPower},
	{9, "refill_delay", asNumber},
	{10, "orphan_mask", asNumber},
	{11, "low_rate_threshold", asNonzero},
	{12, "ce_threshold", asNumberBut(math.MaxUint32)},
	{13, "timer_slack", asNumber}, // nanoseconds
	{14, "horizon", asNumber},
	{15, "horizon_drop", asBool},
	{16, "bands", at(0, 4, asNumber)},
	{16, "priomap", at(4, 16, asBytes)},
	{17, "weights", asWords},
	{18, "offload_horizon", asNumber},
}

var fqCodelParams = []param{
	{1, "target", asNumber},
	{3, "interval", asNumber},
	{4, "ecn", asBool},
	{5, "flows", asNumber},
	{6, "quantum", asNumber},
	{7, "ce_threshold", asNumber},
	{8, "drop_batch", asNonzero},
	{9, "memory_limit", asNumber},
	{10, "ce_threshold_selector", asNonzero},
	{11, "ce_threshold_mask", asNonzero},
}

var codelParams = []param{
	{1, "target", asNumber},
	{3, "interval", asNumber},
	{4, "ecn", asBool},
	{5, "ce_threshold", asNumber},
}

// cakeParams: a bandwidth of 0 is no limit.
var cakeParams = []param{
	{2, "bandwidth", asNumber},
	{3, "diffserv", asName("diffserv3", "diffserv4", "diffserv8", "besteffort", "precedence")},
	{4, "atm", asName("noatm", "atm", "ptm")},
	{5, "flowmode", asName("flowblind", "srchost", "dsthost", "hosts", "flows", "dual-srchost", "dual-dsthost", "triple-isolate")},
	{6, "overhead", asSigned},
	{7, "rtt", asNumber},
	{8, "target", asNumber},
	{9, "autorate", asBool},
	{10, "memlimit", asNumber},
	{11, "nat", asBool},
	{12, "raw", asFlag},
	{13, "wash", asBool},
	{14, "mpu", asNonzero},
	{15, "ingress", asBool},
	{16, "ack-filter", asName("disabled", "enabled", "aggressive")},
	{17, "split_gso", asBool},
	{18, "fwmark", asHex},
}

// htbParams reads struct tc_htb_glob, whose counter of packets that no class
// holds back is a counter of the qdisc too.
var htbParams = []param{
	{2, "r2q", at(4, 4, asNumber)},
	{2, "default", at(8, 4, asHex)},
	{2, "direct_packets_stat", at(16, 4, asNumber)},
	{5, "direct_qlen", asNumber},
	{9, "offload", asFlag},
}

// rateParams reads struct tc_ratespec from there on in an attribute.
func rateParams(attr, offset int, rate, prefix string) []param {
	return []param{
		{attr, prefix + "cell_log", at(offset, 1, asNumber)},
		{attr, prefix + "linklayer", at(offset+1, 1, linkLayer)},
		{attr, prefix + "overhead", at(offset+2, 2, asNonzero)},
		{attr, prefix + "mpu", at(offset+6, 2, asNonzero)},
		{attr, rate, at(offset+8, 4, asNumber)},
	}
}

// linkLayer is the lower half of the byte (TC_LINKLAYER_MASK).
func linkLayer(b []byte) (string, bool) {
	return asName("unspec", "ethernet", "atm")([]byte{b[0] & 0xf})
}

// htbClassParams reads struct tc_htb_opt.
var htbClassParams = append(append(rateParams(1, 0, "rate", ""), rateParams(1, 12, "ceil", "ceil_")...),
	param{1, "burst", at(24, 4, asNumber)},
	param{1, "cburst", at(28, 4, asNumber)},
	param{1, "quantum", at(32, 4, asNumber)},
	param{1, "level", at(36, 4, asNumber)},
	param{1, "prio", at(40, 4, asNumber)},
	param{6, "rate64", asNumber},
	param{7, "ceil64", asNumber},
	param{9, "offload", asFlag},
)

// finishHTB makes bytes of the bursts, which the kernel counts in time.
func finishHTB(f fields) {
	use64(f, "rate", "rate64")
	use64(f, "ceil", "ceil64")
	ticksToBytes(f, "burst", "rate")
	ticksToBytes(f, "cburst", "ceil")
	if f["level"] != "0" { // an inner class has no queue
		delete(f, "prio")
		delete(f, "quantum")
	}
	dropCells(f, "", "ceil_")
	delete(f, "ceil_linklayer")
	delete(f, "ceil_overhead")
	delete(f, "ceil_mpu")
}

// tbfParams reads struct tc_tbf_qopt.
var tbfParams = append(append(rateParams(1, 0, "rate", ""), rateParams(1, 12, "peakrate", "peak_")...),
	param{1, "burst", at(28, 4, asNumber)},
	param{1, "minburst", at(32, 4, asNumber)},
	param{4, "rate64", asNumber},
	param{5, "peakrate64", asNumber},
)

func finishTBF(f fields) {
	use64(f, "rate", "rate64")
	use64(f, "peakrate", "peakrate64")
	ticksToBytes(f, "burst", "rate")
	ticksToBytes(f, "minburst", "peakrate")
	if f["peakrate"] == "0" {
		delete(f, "peakrate")
		delete(f, "minburst")
	}
	dropCells(f, "", "peak_")
	delete(f, "peak_linklayer")
	delete(f, "peak_overhead")
	delete(f, "peak_mpu")
}

// dropCells takes away the cell size of tables that the kernel has not used
// since 3.8 (tc/tc_core.c of iproute2).
func dropCells(f fields, prefixes ...string) {
	for _, p := range prefixes {
		delete(f, p+"cell_log")
	}
}

// use64 takes the wide form of a number where there is one.
func use64(f fields, narrow, wide string) {
	if v, ok := f[wide]; ok {
		f[narrow] = v
		delete(f, wide)
	}
}

// ticksToBytes turns a time into the bytes that go in it at a rate. A tick is
// 64 ns (PSCHED_SHIFT of include/net/pkt_sched.h).
func ticksToBytes(f fields, size, rate string) {
	ticks, err := strconv.ParseUint(f[size], 10, 64)
	r, err2 := strconv.ParseUint(f[rate], 10, 64)
	if err != nil || err2 != nil {
		return
	}
	const ticksPerMicrosecond = 1000. / 64
	f[size] = decimal(uint64(float64(r) * (float64(ticks) / ticksPerMicrosecond) / 1e6))
}

// netemParams reads struct tc_netem_qopt, whose times are in ticks, and the
// attributes after it.
var netemParams = []param{
	{whole, "delay_ticks", at(0, 4, asNumber)},
	{whole, "loss", at(8, 4, asShare)},
	{whole, "gap", at(12, 4, asNumber)},
	{whole, "duplicate", at(16, 4, asShare)},
	{whole, "jitter_ticks", at(20, 4, asNumber)},
	{1, "delay_corr", at(0, 4, asShare)},
	{1, "loss_corr", at(4, 4, asShare)},
	{1, "duplicate_corr", at(8, 4, asShare)},
	{3, "reorder", at(0, 4, asShare)},
	{3, "reorder_corr", at(4, 4, asShare)},
	{4, "corrupt", at(0, 4, asShare)},
	{4, "corrupt_corr", at(4, 4, asShare)},
	{5, "loss_p13", inside(1, at(0, 4, asShare))},
	{5, "loss_p31", inside(1, at(4, 4, asShare))},
	{5, "loss_p32", inside(1, at(8, 4, asShare))},
	{5, "loss_p14", inside(1, at(12, 4, asShare))},
	{5, "loss_p23", inside(1, at(16, 4, asShare))},
	{5, "loss_p", inside(2, at(0, 4, asShare))},
	{5, "loss_r", inside(2, at(4, 4, asShare))},
	{5, "loss_1-h", inside(2, at(8, 4, asRest))},
	{5, "loss_1-k", inside(2, at(12, 4, asShare))},
	{6, "rate", at(0, 4, asNonzero)},
	{6, "packetoverhead", at(4, 4, asSignedNonzero)},
	{6, "cellsize", at(8, 4, asNonzero)},
	{6, "celloverhead", at(12, 4, asSignedNonzero)},
	{7, "ecn", asBool},
	{8, "rate64", asNonzero},
	{10, "delay", asNanoseconds},
	{11, "jitter", asNanoseconds},
	{12, "slot_min_delay", at(0, 8, asNanoseconds)},
	{12, "slot_max_delay", at(8, 8, asNanoseconds)},
	{12, "slot_packets", at(16, 4, asNonzero)},
	{12, "slot_bytes", at(20, 4, asNonzero)},
	{12, "slot_distribution", at(24, 8, asNanoseconds)},
	{12, "slot_jitter", at(32, 8, asNanoseconds)},
	{14, "seed", asNumber},
}

// finishNetem makes microseconds of the times of a kernel before 4.15, which
// has no other.
func finishNetem(f fields) {
	use64(f, "rate", "rate64")
	for _, name := range []string{"delay", "jitter"} {
		ticks, err := strconv.ParseUint(f[name+"_ticks"], 10, 64)
		if _, ok := f[name]; !ok && err == nil && ticks > 0 {
			f[name] = micro(ticks * 64)
		}
		delete(f, name+"_ticks")
	}
}

// asRest is what a share leaves of 1.
func asRest(b []byte) (string, bool) {
	n, ok := u32(b)
	return ratio(math.MaxUint32 - n), ok && n != math.MaxUint32
}

func asSignedNonzero(b []byte) (string, bool) {
	s, ok := asSigned(b)
	return s, ok && s != "0"
}

// redParams reads struct tc_red_qopt.
var redParams = []param{
	{1, "min", at(4, 4, asNumber)},
	{1, "max", at(8, 4, asNumber)},
	{1, "ewma", at(12, 1, asNumber)},
	{1, "Plog", at(13, 1, asNumber)},
	{1, "Scell_log", at(14, 1, asNumber)},
	{1, "ecn", at(15, 1, asBit(1))},
	{1, "harddrop", at(15, 1, asBit(2))},
	{1, "adaptive", at(15, 1, asBit(4))},
	{3, "probability", asProbability},
	// struct nla_bitfield32; it comes after the structure and holds more.
	{4, "ecn", at(0, 4, asBit(1))},
	{4, "harddrop", at(0, 4, asBit(2))},
	{4, "adaptive", at(0, 4, asBit(4))},
	{4, "nodrop", at(0, 4, asBit(8))},
	{5, "early_drop_block", asNonzero},
	{6, "mark_block", asNonzero},
}

// finishRED takes away the older form of the probability where there is the
// newer one (TCA_RED_MAX_P).
func finishRED(f fields) {
	if f["probability"] != "" {
		delete(f, "Plog")
	}
}

// asProbability is a fraction of 2^32 (TCA_RED_MAX_P).
func asProbability(b []byte) (string, bool) {
	n, ok := u32(b)
	return strconv.FormatFloat(float64(n)/(1<<32), 'g', 6, 64), ok && n != 0
}

// sfqParams reads struct tc_sfq_qopt and what struct tc_sfq_qopt_v1 adds.
var sfqParams = []param{
	{whole, "quantum", at(0, 4, asNumber)},
	{whole, "perturb", at(4, 4, asSignedNonzero)}, // seconds
	{whole, "divisor", at(12, 4, asNumber)},
	{whole, "flows", at(16, 4, asNumber)},
	{whole, "depth", at(20, 4, asNonzero)},
	{whole, "headdrop", at(24, 4, flagBit(math.MaxUint32))},
	{whole, "min", at(32, 4, asNonzero)},
	{whole, "max", at(36, 4, asNonzero)},
	{whole, "ewma", at(40, 1, asNonzero)},
	{whole, "ecn", at(43, 1, flagBit(1))},
	{whole, "harddrop", at(43, 1, flagBit(2))},
	{whole, "probability", at(44, 4, asProbability)},
}

// prioParams reads struct tc_prio_qopt.
var prioParams = []param{
	{whole, "bands", at(0, 4, asNumber)},
	{whole, "priomap", at(4, 16, asBytes)},
}
