package fact

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Handles of traffic control (include/uapi/linux/pkt_sched.h).
const (
	handleRoot    = 0xffffffff // TC_H_ROOT
	handleIngress = 0xfffffff1 // TC_H_INGRESS, TC_H_CLSACT
	sizeofTcmsg   = 20         // struct tcmsg of include/uapi/linux/rtnetlink.h
)

// tcmsg is struct tcmsg.
func tcmsg(index, parent uint32) message {
	return message{}.u8(unix.AF_UNSPEC, 0).u16(0).u32(index).u32(0).u32(parent).u32(0)
}

// qdisc is a queue of a device. limit is -1 where the kind has none or does
// not tell it.
type qdisc struct {
	index, handle, parent uint32
	kind                  string
	limit                 int64
	hasQueue              bool
	qlen, backlog         uint32
}

// qdiscsOf lists the qdiscs of a device. The kernel gives those of all.
func qdiscsOf(index uint32) ([]qdisc, error) {
	var list []qdisc
	err := dump(unix.NETLINK_ROUTE, unix.RTM_GETQDISC, unix.RTM_NEWQDISC, tcmsg(index, 0), func() { list = nil }, func(b []byte) error {
		q, err := parseQdisc(b)
		if q.index == index {
			list = append(list, q)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	return list, nil
}

// readQdiscs gives each qdisc of a device. The limit is in packets, but in
// bytes with bfifo, tbf, red and cake.
func readQdiscs(q *query) error {
	q.source, q.command = "RTM_GETQDISC", "tc -s qdisc show dev "+shell(q.arg)
	d, err := deviceByName(q.arg)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := qdiscsOf(d.index)
	if err != nil {
		return err
	}
	for _, qd := range list {
		f := fields{"kind": qd.kind, "handle": handle(qd.handle), "parent": handle(qd.parent)}
		if qd.kind == "pfifo_fast" { // a ring for each band, as long as the device's queue
			qd.limit = int64(d.qlen)
		}
		if qd.limit >= 0 {
			f["limit"] = fmt.Sprint(qd.limit)
		}
		if qd.hasQueue {
			f["qlen"], f["backlog"] = decimal(qd.qlen), decimal(qd.backlog)
		}
		q.add(qd.kind+" "+f["handle"], qd.kind, f)
	}
	return nil
}

// handle prints a handle as tc does: 8001:, 1:10, root.
func handle(h uint32) string {
	major, minor := h>>16, h&0xffff
	switch {
	case h == handleRoot:
		return "root"
	case h == handleIngress:
		return "ingress"
	case minor == 0:
		return fmt.Sprintf("%x:", major)
	case major == 0:
		return fmt.Sprintf(":%x", minor)
	}
	return fmt.Sprintf("%x:%x", major, minor)
}

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

// parseQdisc reads struct tcmsg and the attributes of a qdisc.
func parseQdisc(b []byte) (qdisc, error) {
	if len(b) < sizeofTcmsg {
		return qdisc{}, errShort
	}
	q := qdisc{index: native.Uint32(b[4:]), handle: native.Uint32(b[8:]), parent: native.Uint32(b[12:]), limit: -1}
	var options, stats []byte
	err := eachAttr(b, sizeofTcmsg, func(t int, v []byte) {
		switch t {
		case nl.TCA_KIND:
			q.kind = text(v)
		case nl.TCA_OPTIONS:
			options = v
		case nl.TCA_STATS2:
			stats = v
		}
	})
	if err != nil {
		return q, err
	}
	if l, ok := limits[q.kind]; ok {
		if err := limit(options, l.attr, l.at, &q.limit); err != nil {
			return q, err
		}
	}
	return q, eachAttr(stats, 0, func(t int, v []byte) {
		if t == nl.TCA_STATS_QUEUE && len(v) >= 8 { // struct gnet_stats_queue
			q.hasQueue, q.qlen, q.backlog = true, native.Uint32(v), native.Uint32(v[4:])
		}
	})
}

// limit reads a number from an attribute of options, or from their start.
func limit(options []byte, attr, at int, v *int64) error {
	if attr == 0 {
		if len(options) >= at+4 {
			*v = int64(native.Uint32(options[at:]))
		}
		return nil
	}
	return eachAttr(options, 0, func(t int, b []byte) {
		if t == attr && len(b) >= at+4 {
			*v = int64(native.Uint32(b[at:]))
		}
	})
}
