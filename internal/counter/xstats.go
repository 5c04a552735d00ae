package counter

import "maps"

// xfield is a number that only one kind of qdisc or class has, and where it
// stands in the kind's own structure.
type xfield struct {
	name         string
	offset, size int // size is 4 or 8
	level        bool
	// signed says that the number may be negative. Then its amount is in a
	// second level whose name ends in _below_0, and it is 0 itself.
	signed bool
}

// xvalue is what was read of one.
type xvalue struct {
	name string
	// part is set where the qdisc has several, such as "tin 0" of cake.
	part  string
	value uint64
	level bool
}

// read adds the number, if b has it.
func (f xfield) read(values []xvalue, b []byte) []xvalue {
	number := u64
	if f.size == 4 {
		number = u32
	}
	v, ok := number(b, f.offset)
	if !ok {
		return values
	}
	if f.signed {
		n := int64(v)
		if f.size == 4 {
			n = int64(int32(v))
		}
		if n < 0 {
			below := xvalue{name: f.name + "_below_0", value: -uint64(n), level: f.level}
			return append(values, xvalue{name: f.name, level: f.level}, below)
		}
	}
	return append(values, xvalue{name: f.name, value: v, level: f.level})
}

// parseFields parses as many of the fields as the kernel has.
func parseFields(fields []xfield, b []byte) []xvalue {
	if len(b) == 0 {
		return nil
	}
	values := make([]xvalue, 0, len(fields))
	for _, f := range fields {
		values = f.read(values, b)
	}
	return values
}

// counters and levels make fields of the same size that follow each other.
func counters(table string, offset, size int, names ...string) []xfield {
	fields := make([]xfield, len(names))
	for i, n := range names {
		fields[i] = xfield{name: table + "." + n, offset: offset + i*size, size: size}
	}
	return fields
}

func levels(table string, offset, size int, names ...string) []xfield {
	fields := counters(table, offset, size, names...)
	for i := range fields {
		fields[i].level = true
	}
	return fields
}

// balance makes a level that may be negative.
func balance(table string, offset, size int, name string) []xfield {
	return []xfield{{name: table + "." + name, offset: offset, size: size, level: true, signed: true}}
}

func layout(parts ...[]xfield) []xfield {
	var fields []xfield
	for _, p := range parts {
		fields = append(fields, p...)
	}
	return fields
}

// xlayouts are the structures of the kinds, by their names. Each has only
// grown at its end since it has the fields that are here, except pie.
type xlayouts map[string][]xfield

// qdiscLayouts are what the kinds give for a qdisc in TCA_STATS_APP
// (include/uapi/linux/pkt_sched.h).
func qdiscLayouts() xlayouts {
	all := dropperLayouts()
	maps.Copy(all, xlayouts{
		// struct tc_fq_qd_stats; ce_mark 4.20, horizon 5.8, fastpath and bands 6.7
		"fq": layout(
			counters("fq", 0, 8, "gc_flows", "highprio_packets", "tcp_retrans", "throttled", "flows_plimit", "pkts_too_long", "allocation_errors"),
			balance("fq", 56, 8, "time_next_delayed_flow"),
			levels("fq", 64, 4, "flows", "inactive_flows", "throttled_flows", "unthrottle_latency_ns"),
			counters("fq", 80, 8, "ce_mark", "horizon_drops", "horizon_caps", "fastpath_packets", "band0_drops", "band1_drops", "band2_drops"),
			levels("fq", 136, 4, "band0_pkt_count", "band1_pkt_count", "band2_pkt_count"),
		),
		// struct tc_fq_codel_xstats, behind its type
		"fq_codel": layout(
			levels("fq_codel", 4, 4, "maxpacket"),
			counters("fq_codel", 8, 4, "drop_overlimit", "ecn_mark", "new_flow_count"),
			levels("fq_codel", 20, 4, "new_flows_len", "old_flows_len"),
			counters("fq_codel", 28, 4, "ce_mark"),
			levels("fq_codel", 32, 4, "memory_usage"),
			counters("fq_codel", 36, 4, "drop_overmemory"),
		),
		// struct tc_codel_xstats
		"codel": layout(
			levels("codel", 0, 4, "maxpacket", "count", "lastcount", "ldelay"),
			balance("codel", 16, 4, "drop_next"),
			counters("codel", 20, 4, "drop_overlimit", "ecn_mark"),
			levels("codel", 28, 4, "dropping"),
			counters("codel", 32, 4, "ce_mark"),
		),
	})
	return all
}

// dropperLayouts are those of the kinds that drop early, and of netem.
func dropperLayouts() xlayouts {
	return xlayouts{
		// struct tc_red_xstats
		"red": counters("red", 0, 4, "early", "pdrop", "other", "marked"),
		// struct tc_choke_xstats
		"choke": counters("choke", 0, 4, "early", "pdrop", "other", "marked", "matched"),
		// struct tc_sfb_xstats
		"sfb": layout(
			counters("sfb", 0, 4, "earlydrop", "penaltydrop", "bucketdrop", "queuedrop", "childdrop", "marked"),
			levels("sfb", 24, 4, "maxqlen", "maxprob", "avgprob"),
		),
		// struct tc_hhf_xstats
		"hhf": layout(
			counters("hhf", 0, 4, "drop_overlimit", "hh_overlimit", "hh_tot_count"),
			levels("hhf", 12, 4, "hh_cur_count"),
		),
		// struct tc_pie_xstats, as it is since 5.6
		"pie": layout(
			levels("pie", 0, 8, "prob"),
			levels("pie", 8, 4, "delay", "avg_dq_rate", "dq_rate_estimating"),
			counters("pie", 20, 4, "packets_in", "dropped", "overlimit"),
			levels("pie", 32, 4, "maxq"),
			counters("pie", 36, 4, "ecn_mark"),
		),
		// struct tc_fq_pie_xstats
		"fq_pie": layout(
			counters("fq_pie", 0, 4, "packets_in", "dropped", "overlimit", "overmemory", "ecn_mark", "new_flow_count"),
			levels("fq_pie", 24, 4, "new_flows_len", "old_flows_len", "memory_usage"),
		),
		// struct tc_dualpi2_xstats, since 6.17
		"dualpi2": layout(
			levels("dualpi2", 0, 4, "prob", "delay_c", "delay_l"),
			counters("dualpi2", 12, 4, "packets_in_c", "packets_in_l"),
			levels("dualpi2", 20, 4, "maxq"),
			counters("dualpi2", 24, 4, "ecn_mark", "step_marks"),
			balance("dualpi2", 32, 4, "credit"),
			levels("dualpi2", 36, 4, "memory_used", "max_memory_used", "memory_limit"),
		),
		// struct tc_netem_xstats of iproute2 7.1
		"netem": counters("netem", 0, 8, "delayed", "dropped", "corrupted", "duplicated", "reordered", "ecn_marked", "allocation_errors"),
	}
}

// classLayouts are what the kinds give for a class in TCA_STATS_APP.
func classLayouts() xlayouts {
	return xlayouts{
		// struct tc_htb_xstats
		"htb": layout(
			counters("htb", 0, 4, "lends", "borrows", "giants"),
			balance("htb", 12, 4, "tokens"),
			balance("htb", 16, 4, "ctokens"),
		),
		// struct tc_hfsc_stats
		"hfsc": layout(counters("hfsc", 0, 8, "work", "rtwork"), levels("hfsc", 16, 4, "period", "level")),
		// struct tc_drr_stats
		"drr": levels("drr", 0, 4, "deficit"),
		// struct tc_sfq_xstats
		"sfq": balance("sfq", 0, 4, "allot"),
		// struct tc_fq_codel_xstats, behind its type
		"fq_codel": layout(
			balance("fq_codel", 4, 4, "deficit"),
			levels("fq_codel", 8, 4, "ldelay", "count", "lastcount", "dropping"),
			balance("fq_codel", 24, 4, "drop_next"),
		),
	}
}

// optionLayouts are counters that two kinds give in TCA_OPTIONS of a qdisc.
func optionLayouts() xlayouts {
	return xlayouts{
		// struct tc_htb_glob, in TCA_HTB_INIT
		"htb": counters("htb", 16, 4, "direct_pkts"),
		// struct tc_sfq_qopt_v1, of which the end is struct tc_sfqred_stats
		"sfq": counters("sfq", 48, 4, "prob_drop", "forced_drop", "prob_mark", "forced_mark", "prob_mark_head", "forced_mark_head"),
	}
}

// The types in struct tc_fq_codel_xstats: of a qdisc, of a class.
const fqCodelQdisc, fqCodelClass = 0, 1

// parse parses the structure of a kind: nothing where it has another form.
func (l xlayouts) parse(kind string, b []byte, fqCodelType uint64) []xvalue {
	switch kind {
	case "fq_codel":
		if t, ok := u32(b, 0); !ok || t != fqCodelType {
			return nil
		}
	case "pie":
		// Before 5.6 the probability had 32 bits: 36 bytes, and 32 before 5.5.
		const since5_6 = 40
		if len(b) < since5_6 {
			return nil
		}
	}
	return parseFields(l[kind], b)
}

// sumCounters adds up the counters of qdiscs of the same kind, as mq has one
// for each queue of the device. Levels of different queues make no sum.
func sumCounters(qdiscs []qdisc) []xvalue {
	var values []xvalue
	at := map[string]int{}
	for _, q := range qdiscs {
		for _, x := range q.extra {
			if x.level {
				continue
			}
			i, ok := at[x.name]
			if !ok {
				i = len(values)
				at[x.name] = i
				values = append(values, xvalue{name: x.name})
			}
			values[i].value += x.value
		}
	}
	return values
}
