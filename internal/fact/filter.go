package fact

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Parents of the filters of a qdisc clsact or ingress (TC_H_MIN_INGRESS and
// TC_H_MIN_EGRESS of include/uapi/linux/pkt_sched.h).
const (
	parentIngress = 0xfffffff2
	parentEgress  = 0xfffffff3
)

// readFilters gives each filter of a device: those of clsact or ingress, and
// those of the qdiscs that sort packets into classes. Programs attached with
// the newer tcx (6.6) are no filters: readPrograms gives them.
func readFilters(q *query) error {
	dev := shell(q.arg)
	q.source, q.command = "RTM_GETTFILTER", "tc filter show dev "+dev
	d, err := deviceByName(q.arg)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	qdiscs, err := qdiscsOf(d.index)
	if err != nil {
		return err
	}
	for i := range qdiscs {
		for _, place := range qdiscs[i].filterPlaces() {
			q.command = "tc filter show dev " + dev + " " + place.where
			list, err := listFilters(d.index, place.parent)
			if err != nil {
				return fmt.Errorf("%s: %w", q.arg, err)
			}
			shown := min(len(list), maxFilters)
			for _, f := range list[:shown] {
				given := f.fields(place.direction)
				if err := f.addActions(given); err != nil {
					return fmt.Errorf("filter of %s: %w", q.arg, err)
				}
				q.add(fmt.Sprintf("%s %d %s", place.direction, f.pref, f.kind), f.kind, given)
			}
			q.left(len(list)-shown, "filters of "+place.name)
		}
	}
	return nil
}

// maxFilters is how many filters of one place are given.
const maxFilters = 1000

// filterPlace is where a qdisc has filters.
type filterPlace struct {
	parent uint32
	// direction is ingress or egress; name tells the places of a device apart,
	// where is what tc calls it.
	direction, name, where string
}

// filterPlaces are where a qdisc may have filters.
func (qd *qdisc) filterPlaces() []filterPlace {
	ingress := filterPlace{parentIngress, "ingress", "ingress", "ingress"}
	switch qd.kind {
	case "clsact":
		return []filterPlace{ingress, {parentEgress, "egress", "egress", "egress"}}
	case "ingress":
		// It answers for any parent with the same filters
		// (ingress_tcf_block of net/sched/sch_ingress.c).
		return []filterPlace{ingress}
	case "noqueue", "mq", "pfifo_fast", "pfifo", "bfifo", "fq":
		return nil // they have no filters
	}
	h := handle(qd.handle)
	return []filterPlace{{qd.handle, "egress", h, "parent " + h}}
}

// listFilters lists the filters of one parent.
func listFilters(index, parent uint32) ([]filter, error) {
	var list []filter
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, tcmsg(index, parent), func() { list = nil }, func(b []byte) error {
		f, err := parseFilter(b)
		if f.real {
			list = append(list, f)
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil // a qdisc that takes no filters
	}
	if err != nil {
		return nil, fmt.Errorf("list filters: %w", err)
	}
	return list, nil
}

// filter is a classifier of traffic control.
type filter struct {
	kind   string
	handle uint32
	pref   uint16
	// prog and id are the name and number of a BPF program; direct is set where
	// it decides about the packet, and not only about its class.
	prog   string
	id     uint32
	direct bool
	// actions are what it does with the packets that it matches.
	actions []action
	// real is false for what only heads a list of filters.
	real bool
}

func (f *filter) fields(direction string) fields {
	out := fields{"direction": direction, "kind": f.kind, "pref": decimal(f.pref), "handle": fmt.Sprintf("0x%x", f.handle)}
	switch {
	case f.id != 0 && f.prog != "":
		out["prog"] = fmt.Sprintf("%s id %d", f.prog, f.id)
	case f.id != 0:
		out["prog"] = fmt.Sprintf("id %d", f.id)
	case f.prog != "":
		out["prog"] = f.prog
	}
	return out
}

// parseFilter reads struct tcmsg and the attributes of a filter. The kernel
// precedes the filters of a preference with an entry without options, and u32
// lists its hash tables too, whose number within themselves is 0
// (TC_U32_NODE of include/uapi/linux/pkt_cls.h).
func parseFilter(b []byte) (filter, error) {
	if len(b) < sizeofTcmsg {
		return filter{}, kernelnet.ErrShort
	}
	f := filter{handle: native.Uint32(b[8:]), pref: uint16(native.Uint32(b[16:]) >> 16)}
	var options []byte
	err := kernelnet.Attributes(b, sizeofTcmsg, func(t int, v []byte) {
		switch t {
		case nl.TCA_KIND:
			f.kind = text(v)
		case nl.TCA_OPTIONS:
			options, f.real = v, true
		}
	})
	if f.kind == "u32" && f.handle&0xfff == 0 {
		f.real = false
	}
	if err == nil {
		f.actions, err = parseFilterActions(f.kind, options)
	}
	if err != nil || f.kind != "bpf" {
		return f, err
	}
	return f, kernelnet.Attributes(options, 0, func(t int, v []byte) {
		switch t {
		case nl.TCA_BPF_NAME:
			f.prog = text(v)
		case nl.TCA_BPF_ID:
			f.id, _ = u32(v)
		case nl.TCA_BPF_FLAGS:
			n, _ := u32(v)
			f.direct = n&1 != 0 // TCA_BPF_FLAG_ACT_DIRECT
		}
	})
}
