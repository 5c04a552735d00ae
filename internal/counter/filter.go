package counter

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

const filterSource = "rtnetlink RTM_GETTFILTER"

// Where filters hang (include/uapi/linux/pkt_sched.h, TC_H_MIN_INGRESS and
// TC_H_MIN_EGRESS), and the index that stands for a block that several qdiscs
// share (include/uapi/linux/rtnetlink.h, TCM_IFINDEX_MAGIC_BLOCK).
const (
	parentIngress = 0xfffffff2
	parentEgress  = 0xfffffff3
	indexOfBlock  = 0xffffffff
)

// filterless are the kinds of qdiscs that can have no filters. The kernel is
// asked about the others, also those to come.
func filterless() []string {
	return []string{
		"noqueue", "noop", "blackhole", "pfifo_fast", "pfifo", "bfifo", "pfifo_head_drop", "fq", "tbf", "netem",
		"codel", "red", "pie", "choke", "hhf", "gred", "etf", "cbs", "plug", "skbprio", "mq", "mqprio", "taprio",
	}
}

// filterPlace is where filters may hang: a parent of a device, or a block.
type filterPlace struct{ device, parent uint32 }

// filterPlaces are the places of filters on the qdiscs and classes, each once.
func filterPlaces(qdiscs []qdisc, classes []class) []filterPlace {
	var places []filterPlace
	seen := map[filterPlace]bool{}
	add := func(device, parent uint32) {
		p := filterPlace{device, parent}
		if !seen[p] {
			seen[p] = true
			places = append(places, p)
		}
	}
	block := func(number, device, parent uint32) {
		if number != 0 {
			add(indexOfBlock, number)
		} else {
			add(device, parent)
		}
	}
	without := filterless()
	for _, q := range qdiscs {
		for _, b := range q.blocks {
			add(indexOfBlock, b)
		}
		switch {
		case q.kind == "clsact":
			block(q.ingressBlock, q.device, parentIngress)
			block(q.egressBlock, q.device, parentEgress)
		case q.filters():
			block(q.ingressBlock, q.device, parentIngress)
		case slices.Contains(without, q.kind):
		case q.handle != 0:
			add(q.device, q.handle)
		case q.parent == handleRoot:
			add(q.device, 0) // the root, whatever its handle
		}
	}
	// Packets are classified again in a class that has classes of its own.
	for _, c := range classes {
		if c.parent != handleRoot && c.parent&^uint32(handleQdisc) != 0 && c.parent&handleQdisc != 0 {
			add(c.device, c.parent)
		}
	}
	return places
}

// readFilters reads the filters at those places with their actions. It changes
// nothing: a place without filters answers nothing (net/sched/cls_api.c,
// tc_dump_tfilter).
func readFilters(a *asker, places []filterPlace) ([][]byte, error) {
	var messages [][]byte
	for _, p := range places {
		m, err := a.dumpOf(unix.RTM_NEWTFILTER, trafficRequest(unix.RTM_GETTFILTER, nl.TcMsg{
			Ifindex: int32(p.device), Parent: p.parent,
		}))
		messages = append(messages, m...)
		if err != nil {
			return messages, fmt.Errorf("filters of device %d: %w", int32(p.device), err)
		}
	}
	return messages, nil
}

// filterParser makes counters of RTM_NEWTFILTER messages.
type filterParser struct {
	adder
	names   map[uint32]string
	actions tcNames
	kinds   map[string]classifier
	bound   bound
	errs    []error
}

// parseFilters makes counters of RTM_NEWTFILTER messages. names are those of
// the devices. An action that several filters share counts once for all of
// them, and the same number is in each.
func parseFilters(messages [][]byte, names map[uint32]string) ([]Value, error) {
	p := filterParser{
		names: names, actions: newTCNames("tc_action"), kinds: classifiers(),
		bound: bound{what: "filters and actions"},
	}
	p.source = filterSource
	for _, m := range messages {
		if err := p.message(m); err != nil {
			p.errs = append(p.errs, err)
		}
	}
	return p.values, parseError(filterSource, append(p.errs, p.bound.err())...)
}

// filter is the message of a filter (net/sched/cls_api.c, tcf_fill_node).
type filter struct {
	device, handle, parent, info uint32
	kind                         string
	chain                        uint64
	options, oldStats            []byte
}

func decodeFilter(m []byte) (filter, error) {
	if len(m) < nl.SizeofTcMsg {
		return filter{}, fmt.Errorf("message of a filter: %d bytes: %w", len(m), kernelnet.ErrShort)
	}
	index, _ := u32(m, 4)
	handle, _ := u32(m, 8)
	parent, _ := u32(m, 12)
	info, _ := u32(m, 16)
	f := filter{device: uint32(index), handle: uint32(handle), parent: uint32(parent), info: uint32(info)}
	err := kernelnet.Attributes(m, nl.SizeofTcMsg, func(kind int, content []byte) {
		switch kind {
		case nl.TCA_KIND:
			f.kind = unix.ByteSliceToString(content)
		case nl.TCA_OPTIONS:
			f.options = content
		case nl.TCA_STATS:
			f.oldStats = content
		case nl.TCA_CHAIN:
			f.chain, _ = u32(content, 0)
		}
	})
	if err != nil {
		return filter{}, fmt.Errorf("filter %q of device %d: %w", clip([]byte(f.kind)), int32(f.device), err)
	}
	return f, nil
}

// object names it among the filters of its device, or of all blocks.
func (f *filter) object() string {
	where := handle(f.parent)
	switch {
	case f.device == indexOfBlock:
		where = "block " + strconv.FormatUint(uint64(f.parent), 10)
	case f.parent == parentIngress:
		where = "ingress"
	case f.parent == parentEgress:
		where = "egress"
	case f.parent == handleRoot:
		where = "root"
	}
	h := "0x" + strconv.FormatUint(uint64(f.handle), 16)
	if f.kind == "u32" {
		h = u32Handle(f.handle)
	}
	return "filter " + where + " chain " + strconv.FormatUint(f.chain, 10) +
		" pref " + strconv.FormatUint(uint64(f.info>>16), 10) + " handle " + h
}

// u32Handle writes the handle of a filter of u32 as tc does: the hash table,
// the bucket, the entry.
func u32Handle(h uint32) string {
	s := strconv.FormatUint(uint64(h>>20), 16) + ":"
	if bucket := h >> 12 & 0xff; bucket != 0 {
		s += strconv.FormatUint(uint64(bucket), 16)
	}
	s += ":"
	if entry := h & 0xfff; entry != 0 {
		s += strconv.FormatUint(uint64(entry), 16)
	}
	return s
}

// message adds the counters of one filter.
func (p *filterParser) message(m []byte) error {
	f, err := decodeFilter(m)
	if err != nil {
		return err
	}
	p.device = record.Device{}
	p.command = "tc -s filter show"
	switch {
	case f.device == indexOfBlock:
		p.command += " block " + strconv.FormatUint(uint64(f.parent), 10)
	default:
		p.device = record.Device{Index: f.device, Name: p.names[f.device]}
		if p.device.Name != "" {
			p.command += " dev " + quote(p.device.Name)
		}
		switch f.parent {
		case parentIngress:
			p.command += " ingress"
		case parentEgress:
			p.command += " egress"
		default:
			p.command += " parent " + handle(f.parent)
		}
	}
	object := f.object()
	if err := p.options(&f, object); err != nil {
		return fmt.Errorf("%s of device %d: %w", object, int32(f.device), err)
	}
	return nil
}

// options adds what the filter itself counts, and its actions.
func (p *filterParser) options(f *filter, object string) error {
	kind := p.kinds[f.kind]
	var police []byte
	var failed error
	err := kernelnet.Attributes(f.options, 0, func(attr int, content []byte) {
		switch {
		case failed != nil || attr == 0:
		case attr == kind.actions:
			failed = p.actionList(object, content)
		case attr == kind.police:
			police = content
		case attr == kind.hits:
			p.hits(kind, object, content)
		case attr == kind.mark:
			p.mark(object, content)
		}
	})
	if err == nil {
		err = failed
	}
	if err == nil && f.oldStats != nil {
		err = p.oldPolice(object, police, f.oldStats)
	}
	return err
}
