package counter

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

const classSource = "rtnetlink RTM_GETTCLASS"

// classless are the kinds of qdiscs that have no classes, or classes without
// statistics. The kernel is asked about the others, also those to come.
func classless() []string {
	return []string{
		"noqueue", "noop", "blackhole", "pfifo_fast", "pfifo", "bfifo", "pfifo_head_drop", "fq", "tbf", "netem",
		"codel", "red", "pie", "fq_pie", "choke", "hhf", "gred", "etf", "cbs", "plug", "sfb",
		"ingress", "clsact",
	}
}

// flowKinds are the kinds whose classes are flows, which the kernel lists only
// while they hold packets (net/sched/sch_fq_codel.c, fq_codel_walk; sch_cake.c,
// cake_walk; sch_sfq.c, sfq_walk).
func flowKinds() []string { return []string{"fq_codel", "cake", "cake_mq", "sfq"} }

// readClasses reads the classes of the devices that have a classful qdisc.
func readClasses(a *asker, qdiscs []qdisc) ([][]byte, error) {
	without := classless()
	var messages [][]byte
	seen := map[uint32]bool{}
	for _, q := range qdiscs {
		if seen[q.device] || slices.Contains(without, q.kind) {
			continue
		}
		seen[q.device] = true
		m, err := a.dumpOf(unix.RTM_NEWTCLASS, trafficRequest(unix.RTM_GETTCLASS, nl.TcMsg{Ifindex: int32(q.device)}))
		messages = append(messages, m...)
		if err != nil {
			return messages, fmt.Errorf("classes of device %d: %w", q.device, err)
		}
	}
	return messages, nil
}

// class is a class of a qdisc, or one of its flows, with its counters.
type class struct {
	device         uint32
	handle, parent uint32
	kind           string
	stats          tcStats
	extra          []xvalue
}

// parseClasses makes counters of RTM_NEWTCLASS messages. names are those of
// the devices.
func parseClasses(messages [][]byte, names map[uint32]string) ([]Value, error) {
	classes, err := decodeClasses(messages)
	values, over := classValues(classes, names)
	if err == nil {
		err = parseError(classSource, over)
	}
	return values, err
}

// decodeClasses decodes RTM_NEWTCLASS messages, in their order.
func decodeClasses(messages [][]byte) ([]class, error) {
	x := newXparser()
	classes := make([]class, 0, len(messages))
	var errs []error
	for _, m := range messages {
		c, err := decodeClass(m, x)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		classes = append(classes, c)
	}
	return classes, parseError(classSource, errs...)
}

// decodeClass decodes one message (net/sched/sch_api.c, tc_fill_tclass). A
// class may have only some of the statistics: a flow of fq_codel or cake has
// no bytes and packets.
func decodeClass(m []byte, x *xparser) (class, error) {
	if len(m) < nl.SizeofTcMsg {
		return class{}, fmt.Errorf("message of a class: %d bytes: %w", len(m), kernelnet.ErrShort)
	}
	index, _ := u32(m, 4)
	handle, _ := u32(m, 8)
	parent, _ := u32(m, 12)
	c := class{device: uint32(index), handle: uint32(handle), parent: uint32(parent)}
	var stats []byte
	err := kernelnet.Attributes(m, nl.SizeofTcMsg, func(kind int, content []byte) {
		switch kind {
		case nl.TCA_KIND:
			c.kind = unix.ByteSliceToString(content)
		case nl.TCA_STATS2:
			stats = content
		}
	})
	if err == nil {
		c.stats, err = parseTCStats(stats)
	}
	if err == nil {
		c.extra, err = x.ofClass(c.kind, c.stats.app)
	}
	if err != nil {
		return class{}, fmt.Errorf("class %q %x:%x of device %d: %w", clip([]byte(c.kind)), handle>>16, handle&0xffff, index, err)
	}
	return c, nil
}

// classValues makes counters of classes. The error says what was left out.
//
// Flows of qdiscs without a handle, as mq hangs them below itself, may have
// the same name. Nothing tells them apart, so those have no counters.
func classValues(classes []class, names map[uint32]string) ([]Value, error) {
	type id struct{ device, handle uint32 }
	same := make(map[id]int, len(classes))
	for _, c := range classes {
		same[id{c.device, c.handle}]++
	}
	b := bound{what: "classes"}
	flows := flowKinds()
	table := newTCNames("class")
	var values []Value
	for i := range classes {
		c := &classes[i]
		if same[id{c.device, c.handle}] > 1 || !b.another() {
			continue
		}
		a := adder{
			values: values, device: record.Device{Index: c.device, Name: names[c.device]},
			source: classSource, command: "tc -s class show",
		}
		if a.device.Name != "" {
			a.command += " dev " + quote(a.device.Name)
		}
		object := "class " + handle(c.handle)
		if !slices.Contains(flows, c.kind) {
			a.id = idOf(object, c.kind)
		}
		table.add(&a, object, &c.stats)
		for _, x := range c.extra {
			a.add(object, x)
		}
		values = a.values
	}
	return values, b.err()
}
