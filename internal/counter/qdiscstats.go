package counter

// xstat is a counter that only one kind of qdisc has, and where it stands in
// the kind's own statistics (TCA_STATS_APP).
type xstat struct {
	name         string
	offset, size int
}

// xvalue is what was read of one.
type xvalue struct {
	name  string
	value uint64
}

// xstats are the counters of a kind, by the structures of
// include/uapi/linux/pkt_sched.h. Levels are left out, and kinds whose
// structure was changed other than by adding to its end (pie).
func xstats(kind string) []xstat {
	switch kind {
	case "fq": // struct tc_fq_qd_stats; ce_mark 4.20, horizon 5.8, fastpath and bands 6.7
		return []xstat{
			{"fq.gc_flows", 0, 8},
			{"fq.highprio_packets", 8, 8},
			{"fq.tcp_retrans", 16, 8},
			{"fq.throttled", 24, 8},
			{"fq.flows_plimit", 32, 8},
			{"fq.pkts_too_long", 40, 8},
			{"fq.allocation_errors", 48, 8},
			{"fq.ce_mark", 80, 8},
			{"fq.horizon_drops", 88, 8},
			{"fq.horizon_caps", 96, 8},
			{"fq.fastpath_packets", 104, 8},
			{"fq.band0_drops", 112, 8},
			{"fq.band1_drops", 120, 8},
			{"fq.band2_drops", 128, 8},
		}
	case "fq_codel": // struct tc_fq_codel_xstats, behind its type
		return []xstat{
			{"fq_codel.drop_overlimit", 8, 4},
			{"fq_codel.ecn_mark", 12, 4},
			{"fq_codel.new_flow_count", 16, 4},
			{"fq_codel.ce_mark", 28, 4},
			{"fq_codel.drop_overmemory", 36, 4},
		}
	case "codel": // struct tc_codel_xstats
		return []xstat{
			{"codel.drop_overlimit", 20, 4},
			{"codel.ecn_mark", 24, 4},
			{"codel.ce_mark", 32, 4},
		}
	case "red": // struct tc_red_xstats
		return []xstat{
			{"red.early", 0, 4},
			{"red.pdrop", 4, 4},
			{"red.other", 8, 4},
			{"red.marked", 12, 4},
		}
	}
	return nil
}

// parseExtra parses as many of the counters of a kind as the kernel has.
func parseExtra(kind string, b []byte) []xvalue {
	var values []xvalue
	for _, x := range xstats(kind) {
		read := u64
		if x.size == 4 {
			read = u32
		}
		if v, ok := read(b, x.offset); ok {
			values = append(values, xvalue{x.name, v})
		}
	}
	return values
}

// sumExtra adds up the counters of qdiscs of the same kind, as mq has one for
// each queue of the device.
func sumExtra(qdiscs []qdisc) []xvalue {
	var values []xvalue
	at := map[string]int{}
	for _, q := range qdiscs {
		for _, x := range q.extra {
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
