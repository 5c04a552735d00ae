package counter

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

const qdiscSource = "rtnetlink RTM_GETQDISC"

// readQdiscs reads the qdiscs of all devices of the calling thread's
// namespace. It makes no qdisc and loads no module: the kernel hands out what
// is there (net/sched/sch_api.c, tc_dump_qdisc).
func readQdiscs() ([][]byte, error) {
	return dump(unix.RTM_NEWQDISC, func() *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
		req.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC})
		return req
	})
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
	queue          queueStats
	// extra are counters that only its kind has, in the order of xstats.
	extra []xvalue
}

// queueStats are what every qdisc counts. Drops, requeues and overlimits have
// 32 bits in the kernel.
type queueStats struct {
	bytes, packets, drops, requeues, overlimits uint64
}

// parseQdiscs makes counters of RTM_NEWQDISC messages, one of each name for a
// device. names are those of the devices.
func parseQdiscs(messages [][]byte, names map[uint32]string) ([]Value, error) {
	var devices []uint32
	byDevice := map[uint32][]qdisc{}
	var errs []error
	for _, m := range messages {
		q, err := parseQdisc(m)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, ok := byDevice[q.device]; !ok {
			devices = append(devices, q.device)
		}
		byDevice[q.device] = append(byDevice[q.device], q)
	}
	var values []Value
	for _, index := range devices {
		d := record.Device{Index: index, Name: names[index]}
		values = append(values, deviceQdiscs(d, byDevice[index])...)
	}
	return values, parseError(qdiscSource, errs...)
}

// deviceQdiscs makes counters of all qdiscs of a device.
func deviceQdiscs(d record.Device, qdiscs []qdisc) []Value {
	command := "tc -s qdisc show"
	if d.Name != "" {
		command += " dev " + quote(d.Name)
	}
	var values []Value
	value := func(name string, v uint64) {
		values = append(values, Value{Name: name, Device: d, Value: v, Source: qdiscSource, Command: command})
	}
	var filters []qdisc // ingress or clsact: no queue, only filters
	var queues []qdisc
	for _, q := range qdiscs {
		if q.parent == handleIngress {
			filters = append(filters, q)
		} else {
			queues = append(queues, q)
		}
	}
	if len(queues) > 0 {
		sum := tree(queues)
		value("qdisc.bytes", sum.bytes)
		value("qdisc.packets", sum.packets)
		value("qdisc.drops", sum.drops)
		value("qdisc.requeues", sum.requeues)
		value("qdisc.overlimits", sum.overlimits)
	}
	if len(filters) > 0 {
		var drops uint64
		for _, q := range filters {
			drops += q.queue.drops
		}
		value("clsact.drops", drops)
	}
	for _, x := range sumExtra(queues) {
		value(x.name, x.value)
	}
	return values
}

// tree adds up the qdiscs of a device so that a packet counts once. A drop in
// a leaf is repeated by every ancestor, when it is refused (the parent's
// enqueue function) as when it is thrown out later (net/sched/sch_api.c,
// qdisc_tree_reduce_backlog); and a parent has drops of its own, such as htb
// for packets without a class. So of a qdisc and of the sum of its children
// the greater number holds: the leaves alone would miss the parent's own
// drops, and all together would count the others several times.
func tree(qdiscs []qdisc) queueStats {
	root := slices.IndexFunc(qdiscs, func(q qdisc) bool { return q.parent == handleRoot })
	children := make(map[int][]int, len(qdiscs))
	for i := range qdiscs {
		p := parentOf(qdiscs, i, root)
		children[p] = append(children[p], i)
	}
	// Each has one parent, so what hangs on none is free of circles, whatever
	// a message says.
	var sum queueStats
	for _, i := range children[noParent] {
		sum.add(subtree(qdiscs, children, i))
	}
	return sum
}

// noParent is the parent of a root, and of a qdisc whose parent is not there.
const noParent = -1

// parentOf finds the qdisc that one hangs on, or noParent. The children of a root
// without a handle, such as the mq that the kernel itself sets up, name it by
// 0.
func parentOf(qdiscs []qdisc, i, root int) int {
	parent := qdiscs[i].parent
	if parent == handleRoot {
		return noParent
	}
	major := parent & handleQdisc
	if major == 0 {
		return root // noParent where there is none
	}
	return slices.IndexFunc(qdiscs, func(p qdisc) bool { return p.handle == major })
}

// subtree adds up a qdisc and all below it.
func subtree(qdiscs []qdisc, children map[int][]int, i int) queueStats {
	var below queueStats
	for _, c := range children[i] {
		below.add(subtree(qdiscs, children, c))
	}
	own := qdiscs[i].queue
	return queueStats{
		bytes: max(own.bytes, below.bytes), packets: max(own.packets, below.packets),
		drops: max(own.drops, below.drops), requeues: max(own.requeues, below.requeues),
		overlimits: max(own.overlimits, below.overlimits),
	}
}

func (s *queueStats) add(o queueStats) {
	s.bytes += o.bytes
	s.packets += o.packets
	s.drops += o.drops
	s.requeues += o.requeues
	s.overlimits += o.overlimits
}

// parseQdisc parses one RTM_NEWQDISC message (net/sched/sch_api.c,
// tc_fill_qdisc).
func parseQdisc(m []byte) (qdisc, error) {
	if len(m) < nl.SizeofTcMsg {
		return qdisc{}, fmt.Errorf("message of a qdisc: %d bytes: %w", len(m), errShort)
	}
	index, _ := u32(m, 4)
	handle, _ := u32(m, 8)
	parent, _ := u32(m, 12)
	q := qdisc{device: uint32(index), handle: uint32(handle), parent: uint32(parent)}
	var stats []byte
	err := attributes(m[nl.SizeofTcMsg:], func(kind uint16, content []byte) {
		switch kind {
		case nl.TCA_KIND:
			q.kind = unix.ByteSliceToString(content)
		case nl.TCA_STATS2:
			stats = content
		}
	})
	if err == nil {
		err = q.parseStats(stats)
	}
	if err != nil {
		return qdisc{}, fmt.Errorf("qdisc %q %x: of device %d: %w", clip([]byte(q.kind)), handle>>16, index, err)
	}
	return q, nil
}

// parseStats parses TCA_STATS2 (include/uapi/linux/gen_stats.h: struct
// gnet_stats_basic, struct gnet_stats_queue; net/core/gen_stats.c).
func (q *qdisc) parseStats(b []byte) error {
	var basic, queue, packets64, app []byte
	err := attributes(b, func(kind uint16, content []byte) {
		switch kind {
		case nl.TCA_STATS_BASIC:
			basic = content
		case nl.TCA_STATS_QUEUE:
			queue = content
		case nl.TCA_STATS_PKT64:
			packets64 = content
		case nl.TCA_STATS_APP:
			app = content
		}
	})
	if err != nil {
		return err
	}
	const sizeBasic, sizeQueue = 12, 20
	if len(basic) < sizeBasic || len(queue) < sizeQueue {
		return fmt.Errorf("statistics of %d and %d bytes: %w", len(basic), len(queue), errShort)
	}
	q.queue.bytes, _ = u64(basic, 0)
	q.queue.packets, _ = u32(basic, 8)
	// Since 5.5, and only where the number is above 32 bits.
	if v, ok := u64(packets64, 0); ok {
		q.queue.packets = v
	}
	q.queue.drops, _ = u32(queue, 8)
	q.queue.requeues, _ = u32(queue, 12)
	q.queue.overlimits, _ = u32(queue, 16)
	q.extra = parseExtra(q.kind, app)
	return nil
}
