package counter

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// classifier says where a kind of filter has its actions and its counters,
// by the numbers of the attributes; 0 where it has none
// (include/uapi/linux/pkt_cls.h).
type classifier struct {
	actions, police, hits, mark int
	// hitNames are the numbers in hits; of u32 a number for each key follows.
	hitNames []string
}

func classifiers() map[string]classifier {
	looked := []string{"tc_filter.rcnt", "tc_filter.rhit"}
	return map[string]classifier{
		"u32":      {actions: 7, police: 6, hits: 9, mark: 10, hitNames: looked},
		"basic":    {actions: 3, police: 4, hits: 5, hitNames: looked},
		"matchall": {actions: 2, hits: 4, hitNames: looked[1:]},
		"flower":   {actions: 3},
		"bpf":      {actions: 1, police: 2},
		"fw":       {actions: 4, police: 2},
		"flow":     {actions: 9, police: 10},
		"cgroup":   {actions: 1, police: 2},
		"route":    {actions: 6, police: 5},
		"rsvp":     {actions: 6, police: 5},
		"rsvp6":    {actions: 6, police: 5},
		"tcindex":  {actions: 7, police: 6},
	}
}

// hits adds how often a filter was looked at and how often it matched, where
// the kernel counts that (struct tc_u32_pcnt, which CONFIG_CLS_U32_PERF adds,
// tc_basic_pcnt and tc_matchall_pcnt).
func (p *filterParser) hits(kind classifier, object string, b []byte) {
	if !p.bound.another() {
		return
	}
	for i, name := range kind.hitNames {
		if v, ok := u64(b, 8*i); ok {
			p.count(name, object, v)
		}
	}
	if kind.mark == 0 { // not u32
		return
	}
	const most = 255 // keys: the kernel counts them in 8 bits
	for i := range most {
		v, ok := u64(b, 8*(len(kind.hitNames)+i))
		if !ok {
			return
		}
		p.count("tc_filter.kcnt", object+" key "+strconv.Itoa(i), v)
	}
}

// mark adds how often the packet's mark was the one of the filter (struct
// tc_u32_mark).
func (p *filterParser) mark(object string, b []byte) {
	if v, ok := u32(b, 8); ok {
		p.count("tc_filter.mark_success", object, v)
	}
}

// actionList adds the actions of a filter, in their order.
func (p *filterParser) actionList(object string, b []byte) error {
	var failed error
	err := kernelnet.Attributes(b, 0, func(_ int, content []byte) {
		if failed == nil {
			failed = p.action(object, content)
		}
	})
	if err == nil {
		err = failed
	}
	return err
}

// action adds the counters of one action (net/sched/act_api.c,
// tcf_action_dump_1).
func (p *filterParser) action(object string, b []byte) error {
	var kind string
	var options, stats []byte
	err := kernelnet.Attributes(b, 0, func(attr int, content []byte) {
		switch attr {
		case nl.TCA_ACT_KIND:
			kind = unix.ByteSliceToString(content)
		case nl.TCA_ACT_OPTIONS:
			options = content
		case nl.TCA_ACT_STATS:
			stats = content
		}
	})
	if err != nil {
		return fmt.Errorf("action %q: %w", clip([]byte(kind)), err)
	}
	s, err := parseTCStats(stats)
	if err != nil {
		return fmt.Errorf("action %q: %w", clip([]byte(kind)), err)
	}
	index, own, err := parseAction(kind, options)
	if err != nil {
		return fmt.Errorf("action %q: %w", clip([]byte(kind)), err)
	}
	if !p.bound.another() {
		return nil
	}
	object += " action " + kind + index
	p.actions.add(&p.adder, object, &s)
	for _, x := range own {
		p.add(object, x)
	}
	return nil
}

// actionIndex is the attribute of an action's options that begins with its
// index: struct tc_gen or one that begins like it, struct tc_police, or the
// index alone (include/uapi/linux/pkt_cls.h, tc_act/*.h). pedit has one of
// two.
func actionIndex(kind string, attr int) bool {
	switch kind {
	case "police", "connmark", "csum", "ct", "ife", "nat":
		return attr == 1
	case "gact", "mirred", "bpf", "simple", "gate", "mpls", "sample", "skbedit", "skbmod", "tunnel_key", "vlan":
		return attr == 2
	case "pedit":
		return attr == 2 || attr == 4
	case "ctinfo", "ipt", "xt":
		return attr == 3
	}
	return false
}

// ctinfoCounters are the counters that ctinfo has in its options
// (include/uapi/linux/tc_act/tc_ctinfo.h, TCA_CTINFO_STATS_).
func ctinfoCounters() map[int]string {
	return map[int]string{8: "tc_action.dscp_set", 9: "tc_action.dscp_error", 10: "tc_action.cpmark_set"}
}

// parseAction finds the index of an action, with a space before it, and what
// only its kind counts.
func parseAction(kind string, options []byte) (index string, own []xvalue, err error) {
	err = kernelnet.Attributes(options, 0, func(attr int, content []byte) {
		if actionIndex(kind, attr) {
			if v, ok := u32(content, 0); ok {
				index = " " + strconv.FormatUint(v, 10)
			}
		}
		if kind != "ctinfo" {
			return
		}
		if name, ok := ctinfoCounters()[attr]; ok {
			if v, ok := u64(content, 0); ok {
				own = append(own, xvalue{name: name, value: v})
			}
		}
	})
	return index, own, err
}

// oldPolice adds a policer that was set up in the way from before actions.
// Its statistics stand beside the filter's options (struct tc_stats;
// net/sched/cls_api.c, tcf_exts_dump_stats).
func (p *filterParser) oldPolice(object string, police, stats []byte) error {
	const size = 36
	if len(stats) < size {
		return fmt.Errorf("statistics of %d bytes: %w", len(stats), kernelnet.ErrShort)
	}
	index, _, err := parseAction("police", police)
	if err != nil {
		return fmt.Errorf("action police: %w", err)
	}
	if !p.bound.another() {
		return nil
	}
	s := tcStats{hasBasic: true, hasQueue: true}
	s.bytes, _ = u64(stats, 0)
	s.packets, _ = u32(stats, 8)
	s.drops, _ = u32(stats, 12)
	s.overlimits, _ = u32(stats, 16)
	s.qlen, _ = u32(stats, 28)
	s.backlog, _ = u32(stats, 32)
	p.actions.add(&p.adder, object+" action police"+index, &s)
	return nil
}
