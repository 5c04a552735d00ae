package fact

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Handles of traffic control (include/uapi/linux/pkt_sched.h).
const (
	handleRoot    = 0xffffffff // TC_H_ROOT
	handleIngress = 0xfffffff1 // TC_H_INGRESS, TC_H_CLSACT
	sizeofTcmsg   = 20         // struct tcmsg of include/uapi/linux/rtnetlink.h
)

// Attributes of qdiscs that the library does not name.
const (
	tcaHWOffload    = 12
	tcaIngressBlock = 13
	tcaEgressBlock  = 14
)

// maxQdiscs is how many qdiscs, and how many classes, of a device are given.
const maxQdiscs = 1000

// tcmsg is struct tcmsg.
func tcmsg(index, parent uint32) message {
	return message{}.U8(unix.AF_UNSPEC, 0).U16(0).U32(index).U32(0).U32(parent).U32(0)
}

// qdisc is a queue of a device, or a class of one. limit is -1 where the kind
// has none or does not tell it.
type qdisc struct {
	index, handle, parent uint32
	// leaf is the handle of the qdisc in a class; of a qdisc it is how many use
	// it.
	leaf     uint32
	kind     string
	limit    int64
	hasQueue bool
	// qlen is in packets, backlog in bytes.
	qlen, backlog     uint32
	drops, overlimits uint32
	// fields are the parameters.
	fields fields
}

// allQdiscs lists the qdiscs of the devices for which want is true.
func allQdiscs(want func(index uint32) bool) ([]qdisc, error) {
	var list []qdisc
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETQDISC, unix.RTM_NEWQDISC, tcmsg(0, 0), func() { list = nil }, func(b []byte) error {
		if len(b) < sizeofTcmsg {
			return kernelnet.ErrShort
		}
		if !want(native.Uint32(b[4:])) {
			return nil
		}
		q, err := parseQdisc(b)
		list = append(list, q)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	return list, nil
}

// qdiscsOf lists the qdiscs of a device. The kernel gives those of all.
func qdiscsOf(index uint32) ([]qdisc, error) {
	return allQdiscs(func(i uint32) bool { return i == index })
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
	shown := min(len(list), maxQdiscs)
	for _, qd := range list[:shown] {
		f := qd.common()
		if qd.kind == "pfifo_fast" { // a ring for each band, as long as the device's queue
			qd.limit = int64(d.qlen)
		}
		if qd.limit >= 0 {
			f["limit"] = fmt.Sprint(qd.limit)
		}
		q.add(qd.kind+" "+f["handle"], qd.kind, f)
	}
	q.left(len(list)-shown, "qdiscs")
	return nil
}

// common are the fields that qdiscs and classes share.
func (qd *qdisc) common() fields {
	f := qd.fields
	f["kind"], f["handle"], f["parent"] = qd.kind, handle(qd.handle), handle(qd.parent)
	if qd.hasQueue {
		f["qlen"], f["backlog"] = decimal(qd.qlen), decimal(qd.backlog)
	}
	return f
}

// readClasses gives the classes of the qdiscs of a device; the value is the
// kind. Where not all can be given, those that dropped or hold packets come
// first.
func readClasses(q *query) error {
	q.source, q.command = "RTM_GETTCLASS", "tc -s class show dev "+shell(q.arg)
	d, err := deviceByName(q.arg)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	var list []qdisc
	total := 0
	err = kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETTCLASS, unix.RTM_NEWTCLASS, tcmsg(d.index, 0), func() { list, total = nil, 0 }, func(b []byte) error {
		c, err := parseClass(b)
		total++
		if list = append(list, c); len(list) > 2*maxQdiscs {
			list = mostLossy(list)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list classes of %s: %w", q.arg, err)
	}
	if total > maxQdiscs {
		list = mostLossy(list)
	}
	for _, c := range list {
		f := c.common()
		if c.leaf != 0 {
			f["leaf"] = handle(c.leaf)
		}
		if c.hasQueue {
			f["drops"], f["overlimits"] = decimal(c.drops), decimal(c.overlimits)
		}
		q.add(c.kind+" "+f["handle"], c.kind, f)
	}
	q.left(total-len(list), "classes")
	return nil
}

// mostLossy are the classes to be given first.
func mostLossy(list []qdisc) []qdisc {
	slices.SortStableFunc(list, func(a, b qdisc) int {
		return cmp.Or(cmp.Compare(b.drops, a.drops), cmp.Compare(b.qlen, a.qlen))
	})
	return slices.Delete(list, min(len(list), maxQdiscs), len(list))
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

// parseQdisc reads struct tcmsg and the attributes of a qdisc.
func parseQdisc(b []byte) (qdisc, error) {
	q, options, err := parseTraffic(b)
	if err != nil {
		return q, err
	}
	if l, ok := limits[q.kind]; ok {
		if err := limit(options, l.attr, l.at, &q.limit); err != nil {
			return q, err
		}
	}
	return q, q.options(qdiscOptions, options)
}

// parseClass reads struct tcmsg and the attributes of a class.
func parseClass(b []byte) (qdisc, error) {
	c, options, err := parseTraffic(b)
	if err != nil {
		return c, err
	}
	return c, c.options(classOptions, options)
}

// parseTraffic reads what qdiscs and classes have in common.
func parseTraffic(b []byte) (q qdisc, options []byte, err error) {
	if len(b) < sizeofTcmsg {
		return q, nil, kernelnet.ErrShort
	}
	q = qdisc{
		index: native.Uint32(b[4:]), handle: native.Uint32(b[8:]), parent: native.Uint32(b[12:]), leaf: native.Uint32(b[16:]),
		limit: -1, fields: fields{},
	}
	var stats []byte
	err = kernelnet.Attributes(b, sizeofTcmsg, func(t int, v []byte) {
		switch t {
		case nl.TCA_KIND:
			q.kind = text(v)
		case nl.TCA_OPTIONS:
			options = v
		case nl.TCA_STATS2:
			stats = v
		case tcaHWOffload:
			if s, ok := asBool(v); ok && s == "1" {
				q.fields["offloaded"] = s
			}
		case tcaIngressBlock:
			put32(q.fields, "ingress_block", v)
		case tcaEgressBlock:
			put32(q.fields, "egress_block", v)
		}
	})
	if err != nil {
		return q, nil, err
	}
	return q, options, kernelnet.Attributes(stats, 0, func(t int, v []byte) {
		if t == nl.TCA_STATS_QUEUE && len(v) >= 20 { // struct gnet_stats_queue
			q.hasQueue, q.qlen, q.backlog = true, native.Uint32(v), native.Uint32(v[4:])
			q.drops, q.overlimits = native.Uint32(v[8:]), native.Uint32(v[16:])
		}
	})
}
