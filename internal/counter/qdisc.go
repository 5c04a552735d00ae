package counter

import (
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

const qdiscSource = "rtnetlink RTM_GETQDISC"

// readQdiscs reads the qdiscs of all devices of the calling thread's
// namespace. It makes no qdisc and loads no module: the kernel hands out what
// is there (net/sched/sch_api.c, tc_dump_qdisc).
func readQdiscs(a *asker) ([][]byte, error) {
	return a.dump(unix.RTM_NEWQDISC, trafficRequest(unix.RTM_GETQDISC, nl.TcMsg{Family: unix.AF_UNSPEC}))
}

// The handles of include/uapi/linux/pkt_sched.h. A parent is the handle of a
// qdisc with the number of a class in the lower half.
const (
	handleRoot    = 0xffffffff
	handleIngress = 0xfffffff1 // TC_H_INGRESS, the parent of ingress and clsact
	handleQdisc   = 0xffff0000
)

// qdisc is one queue of a device with its counters.
type qdisc struct {
	device         uint32
	handle, parent uint32
	kind           string
	stats          tcStats
	// extra is what only its kind has.
	extra []xvalue
	// ingressBlock and egressBlock are the numbers of blocks of filters that
	// it shares with others, and blocks those that only red has; 0 is none.
	ingressBlock, egressBlock uint32
	blocks                    []uint32
}

// filters says whether it is ingress or clsact: no queue, only filters.
func (q *qdisc) filters() bool { return q.parent == handleIngress }

// object names it among the qdiscs of its device. Those that the kernel hangs
// below a mq by itself have no handle.
func (q *qdisc) object() string {
	if q.handle == 0 && q.parent != handleRoot {
		return "qdisc 0: parent " + handle(q.parent)
	}
	return "qdisc " + handle(q.handle)
}

// parseQdiscs makes counters of RTM_NEWQDISC messages. names are those of the
// devices.
func parseQdiscs(messages [][]byte, names map[uint32]string) ([]Value, error) {
	qdiscs, err := decodeQdiscs(messages)
	values, over := qdiscValues(qdiscs, names)
	if err == nil {
		err = parseError(qdiscSource, over)
	}
	return values, err
}

// qdiscPlace is where a qdisc hangs that has values.
type qdiscPlace struct {
	device, handle, parent uint32
	object                 string
}

// placesOf are those of qdiscs, in their order.
func placesOf(qdiscs []qdisc) []qdiscPlace {
	queues := make([]qdiscPlace, 0, len(qdiscs))
	for i := range qdiscs {
		if q := &qdiscs[i]; !q.filters() {
			queues = append(queues, qdiscPlace{q.device, q.handle, q.parent, q.object()})
		}
	}
	return queues
}

// decodeQdiscs decodes RTM_NEWQDISC messages, in their order.
func decodeQdiscs(messages [][]byte) ([]qdisc, error) {
	x := newXparser()
	qdiscs := make([]qdisc, 0, len(messages))
	var errs []error
	for _, m := range messages {
		q, err := decodeQdisc(m, x)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		qdiscs = append(qdiscs, q)
	}
	return qdiscs, parseError(qdiscSource, errs...)
}

// qdiscValues makes counters of qdiscs: one of each name for a device, which
// is the whole, and those of each qdisc. The error says what was left out.
func qdiscValues(qdiscs []qdisc, names map[uint32]string) ([]Value, error) {
	var devices []uint32
	byDevice := map[uint32][]qdisc{}
	for _, q := range qdiscs {
		if _, ok := byDevice[q.device]; !ok {
			devices = append(devices, q.device)
		}
		byDevice[q.device] = append(byDevice[q.device], q)
	}
	b := bound{what: "qdiscs"}
	queues, filters := newTCNames("qdisc"), newTCNames("clsact")
	const common = 7 // numbers that every qdisc has
	size := 2 * common * len(devices)
	for _, q := range qdiscs {
		size += common + 2*len(q.extra)
	}
	values := make([]Value, 0, size)
	for _, index := range devices {
		a := adder{
			values: values, device: record.Device{Index: index, Name: names[index]},
			source: qdiscSource, command: "tc -s qdisc show",
		}
		if a.device.Name != "" {
			a.command += " dev " + quote(a.device.Name)
		}
		deviceQdiscs(&a, byDevice[index], &queues, &filters, &b)
		values = a.values
	}
	return values, b.err()
}

// deviceQdiscs makes counters of all qdiscs of a device: the whole first.
func deviceQdiscs(a *adder, qdiscs []qdisc, queueNames, filterNames *tcNames, b *bound) {
	var filters tcStats
	var queues []qdisc
	for _, q := range qdiscs {
		if q.filters() {
			filters.sum(&q.stats)
		} else {
			queues = append(queues, q)
		}
	}
	if len(queues) > 0 {
		sum := tree(queues)
		queueNames.add(a, "", &sum)
	}
	// A device has one of these at most, and so no parts.
	filterNames.add(a, "", &filters)
	for _, x := range sumCounters(queues) {
		a.add("", x)
	}
	for i := range queues {
		q := &queues[i]
		if !b.another() {
			continue
		}
		object := q.object()
		a.id = idOf(object, q.kind)
		queueNames.add(a, object, &q.stats)
		for _, x := range q.extra {
			if x.part != "" {
				a.id = idOf(object, q.kind, x.part)
				a.add(object+" "+x.part, x)
			} else {
				a.add(object, x)
			}
		}
		a.id = 0
	}
}

// decodeQdisc decodes one RTM_NEWQDISC message (net/sched/sch_api.c,
// tc_fill_qdisc).
func decodeQdisc(m []byte, x *xparser) (qdisc, error) {
	if len(m) < nl.SizeofTcMsg {
		return qdisc{}, fmt.Errorf("message of a qdisc: %d bytes: %w", len(m), kernelnet.ErrShort)
	}
	index, _ := u32(m, 4)
	handle, _ := u32(m, 8)
	parent, _ := u32(m, 12)
	q := qdisc{device: uint32(index), handle: uint32(handle), parent: uint32(parent)}
	var stats, options []byte
	err := kernelnet.Attributes(m, nl.SizeofTcMsg, func(kind int, content []byte) {
		switch kind {
		case nl.TCA_KIND:
			q.kind = unix.ByteSliceToString(content)
		case nl.TCA_OPTIONS:
			options = content
		case nl.TCA_STATS2:
			stats = content
		case tcaIngressBlock:
			v, _ := u32(content, 0)
			q.ingressBlock = uint32(v)
		case tcaEgressBlock:
			v, _ := u32(content, 0)
			q.egressBlock = uint32(v)
		}
	})
	if err == nil {
		q.stats, err = parseTCStats(stats)
	}
	if err == nil && (!q.stats.hasBasic || !q.stats.hasQueue) {
		err = fmt.Errorf("statistics of %d bytes: %w", len(stats), kernelnet.ErrShort)
	}
	if err == nil {
		q.extra, err = x.ofQdisc(q.kind, q.stats.app, options)
	}
	if err != nil {
		return qdisc{}, fmt.Errorf("qdisc %q %x: of device %d: %w", clip([]byte(q.kind)), handle>>16, index, err)
	}
	if q.kind == "red" {
		q.blocks = redBlocks(options)
	}
	return q, nil
}

// The attributes of a qdisc that shares a block of filters
// (include/uapi/linux/rtnetlink.h, since 4.16).
const tcaIngressBlock, tcaEgressBlock = 13, 14
