package counter

import (
	"strconv"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// xattr is a number that a kind gives as an attribute of its own.
type xattr struct {
	name   string
	level  bool
	signed bool
	// ignore is set for what is no statistics.
	ignore bool
}

// readAttrs makes values of attributes. What the kernel has added since has
// the number of its attribute as name; it is taken for a level, since most
// are, and a level is never told as something that grew.
func readAttrs(table string, known map[int]xattr, part string, b []byte) ([]xvalue, error) {
	var values []xvalue
	err := kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		x, ok := known[kind]
		if x.ignore {
			return
		}
		if !ok {
			x = xattr{name: "stat_" + strconv.Itoa(int(kind)), level: true}
		}
		f := xfield{name: table + "." + x.name, size: len(content), level: x.level, signed: x.signed}
		if f.size != 4 && f.size != 8 {
			return
		}
		first := len(values)
		values = f.read(values, content)
		for i := range values[first:] {
			values[first+i].part = part
		}
	})
	return values, err
}

// The attributes of cake (include/uapi/linux/pkt_sched.h, TCA_CAKE_STATS_ and
// TCA_CAKE_TIN_STATS_).
const cakeTins = 10

func cakeAttrs() map[int]xattr {
	return map[int]xattr{
		1: {ignore: true}, // padding
		2: {name: "capacity_estimate64", level: true},
		3: {name: "memory_limit", level: true},
		4: {name: "memory_used", level: true},
		5: {name: "avg_netoff", level: true},
		6: {name: "min_netlen", level: true},
		7: {name: "max_netlen", level: true},
		8: {name: "min_adjlen", level: true},
		9: {name: "max_adjlen", level: true},
		// Of a class, which is a flow.
		cakeTins: {ignore: true}, // readCake
		11:       {name: "deficit", level: true, signed: true},
		12:       {name: "cobalt_count", level: true},
		13:       {name: "dropping", level: true},
		14:       {name: "drop_next_us", level: true, signed: true},
		15:       {name: "p_drop", level: true},
		16:       {name: "blue_timer_us", level: true, signed: true},
		17:       {name: "active_queues", level: true},
	}
}

func cakeTinAttrs() map[int]xattr {
	return map[int]xattr{
		1:  {ignore: true}, // padding
		2:  {name: "sent_packets"},
		3:  {name: "sent_bytes64"},
		4:  {name: "dropped_packets"},
		5:  {name: "dropped_bytes64"},
		6:  {name: "acks_dropped_packets"},
		7:  {name: "acks_dropped_bytes64"},
		8:  {name: "ecn_marked_packets"},
		9:  {name: "ecn_marked_bytes64"},
		10: {name: "backlog_packets", level: true},
		11: {name: "backlog_bytes", level: true},
		12: {name: "threshold_rate64", level: true},
		13: {name: "target_us", level: true},
		14: {name: "interval_us", level: true},
		15: {name: "way_indirect_hits"},
		16: {name: "way_misses"},
		17: {name: "way_collisions"},
		18: {name: "peak_delay_us", level: true},
		19: {name: "avg_delay_us", level: true},
		20: {name: "base_delay_us", level: true},
		21: {name: "sparse_flows", level: true},
		22: {name: "bulk_flows", level: true},
		23: {name: "unresponsive_flows", level: true},
		24: {name: "max_skblen", level: true},
		25: {name: "flow_quantum", level: true},
	}
}

// readCake parses TCA_STATS_APP of a qdisc or of a class of cake
// (net/sched/sch_cake.c, cake_dump_stats and cake_dump_class_stats). Tins are
// numbered from 0, as tc does; in the message they begin with 1.
func readCake(b []byte) ([]xvalue, error) {
	values, err := readAttrs("cake", cakeAttrs(), "", b)
	if err != nil {
		return nil, err
	}
	tinAttrs := cakeTinAttrs()
	var failed error
	err = pick(b, map[int]func([]byte){cakeTins: func(tins []byte) {
		failed = kernelnet.Attributes(tins, 0, func(number int, tin []byte) {
			if number == 0 || failed != nil {
				return
			}
			var v []xvalue
			v, failed = readAttrs("cake", tinAttrs, "tin "+strconv.Itoa(int(number)-1), tin)
			values = append(values, v...)
		})
	}})
	if err == nil {
		err = failed
	}
	return values, err
}

// gredAttrs are TCA_GRED_VQ_: a virtual queue.
func gredAttrs() map[int]xattr {
	return map[int]xattr{
		1:  {ignore: true}, // padding
		2:  {ignore: true}, // its number
		3:  {name: "bytes"},
		4:  {name: "packets"},
		5:  {name: "backlog", level: true},
		6:  {name: "prob_drop"},
		7:  {name: "prob_mark"},
		8:  {name: "forced_drop"},
		9:  {name: "forced_mark"},
		10: {name: "pdrop"},
		11: {name: "other"},
		12: {ignore: true}, // flags
	}
}

// readGred parses the virtual queues in TCA_OPTIONS of gred
// (net/sched/sch_gred.c, gred_dump; since 5.0).
func readGred(options []byte) (values []xvalue, err error) {
	const list, entry, number = 6, 1, 2 // TCA_GRED_VQ_LIST, TCA_GRED_VQ_ENTRY, TCA_GRED_VQ_DP
	known := gredAttrs()
	var failed error
	fail := func(err error) {
		if failed == nil {
			failed = err
		}
	}
	queue := func(b []byte) {
		part := "vq"
		fail(pick(b, map[int]func([]byte){number: func(b []byte) {
			if n, ok := u32(b, 0); ok {
				part = "vq " + strconv.FormatUint(n, 10)
			}
		}}))
		v, err := readAttrs("gred", known, part, b)
		fail(err)
		values = append(values, v...)
	}
	fail(pick(options, map[int]func([]byte){list: func(b []byte) {
		fail(pick(b, map[int]func([]byte){entry: queue}))
	}}))
	return values, failed
}

// taprioAttrs are TCA_TAPRIO_OFFLOAD_STATS_, since 6.4.
func taprioAttrs() map[int]xattr {
	return map[int]xattr{1: {ignore: true}, 2: {name: "window_drops"}, 3: {name: "tx_overruns"}}
}

// xparser parses what only one kind of qdisc or class has.
type xparser struct{ qdiscs, classes, options xlayouts }

func newXparser() *xparser {
	return &xparser{qdiscs: qdiscLayouts(), classes: classLayouts(), options: optionLayouts()}
}

// ofQdisc parses TCA_STATS_APP and TCA_OPTIONS of a qdisc.
func (p *xparser) ofQdisc(kind string, app, options []byte) (values []xvalue, err error) {
	switch kind {
	case "cake", "cake_mq":
		return readCake(app)
	case "taprio":
		return readAttrs("taprio", taprioAttrs(), "", app)
	case "gred":
		return readGred(options)
	case "htb":
		const htbInit = 2 // TCA_HTB_INIT
		err = pick(options, map[int]func([]byte){htbInit: func(b []byte) {
			values = p.options.parse(kind, b, fqCodelQdisc)
		}})
		return values, err
	case "sfq":
		return p.options.parse(kind, options, fqCodelQdisc), nil
	}
	return p.qdiscs.parse(kind, app, fqCodelQdisc), nil
}

// ofClass parses TCA_STATS_APP of a class.
func (p *xparser) ofClass(kind string, app []byte) ([]xvalue, error) {
	if kind == "cake" {
		return readCake(app)
	}
	return p.classes.parse(kind, app, fqCodelClass), nil
}

// redBlocks are the blocks of filters that red runs for a packet that it drops
// early or marks (TCA_RED_EARLY_DROP_BLOCK, TCA_RED_MARK_BLOCK; since 5.9).
func redBlocks(options []byte) (blocks []uint32) {
	_ = pick(options, map[int]func([]byte){
		5: func(b []byte) { blocks = appendBlock(blocks, b) },
		6: func(b []byte) { blocks = appendBlock(blocks, b) },
	})
	return blocks
}

func appendBlock(blocks []uint32, b []byte) []uint32 {
	if v, ok := u32(b, 0); ok && v != 0 {
		return append(blocks, uint32(v))
	}
	return blocks
}
