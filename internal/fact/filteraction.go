package fact

import (
	"errors"
	"strings"

	"github.com/vishvananda/netlink/nl"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// filterActions is the attribute with the actions of a kind of filter
// (TCA_U32_ACT and so on of include/uapi/linux/pkt_cls.h).
var filterActions = map[string]int{
	"u32": 7, "basic": 3, "matchall": 2, "flower": 3, "bpf": 1, "fw": 4, "flow": 9, "cgroup": 1, "route": 6, "tcindex": 7,
}

// action is what a filter does with the packets that it matches.
type action struct {
	kind string
	// of mirred: what it does and with which device, 0 for one that is gone.
	mirred string
	index  uint32
	// overlimits is how many packets it could not hand on, since it was made.
	overlimits uint32
}

// mirredActs are the names of TCA_EGRESS_REDIR … (include/uapi/linux/tc_act/tc_mirred.h).
var mirredActs = []string{"", "egress redirect", "egress mirror", "ingress redirect", "ingress mirror"}

// redirects says whether the packet itself goes elsewhere, and not a copy.
func (a *action) redirects() bool { return strings.HasSuffix(a.mirred, "redirect") }

// parseFilterActions reads the actions of a filter, in their order.
func parseFilterActions(kind string, options []byte) (list []action, err error) {
	attr, ok := filterActions[kind]
	if !ok {
		return nil, nil
	}
	var bad error
	err = kernelnet.Attributes(options, 0, func(t int, actions []byte) {
		if t != attr {
			return
		}
		bad = errors.Join(bad, kernelnet.Attributes(actions, 0, func(_ int, v []byte) {
			a, err := parseFilterAction(v)
			bad = errors.Join(bad, err)
			if a.kind != "" {
				list = append(list, a)
			}
		}))
	})
	return list, errors.Join(err, bad)
}

// parseFilterAction reads an action with its statistics (tcf_action_dump_1 of
// net/sched/act_api.c).
func parseFilterAction(b []byte) (a action, err error) {
	const (
		mirredParms  = 2      // TCA_MIRRED_PARMS
		eaction, dev = 20, 24 // within struct tc_mirred
		statsQueue   = 3      // TCA_STATS_QUEUE
		overlimits   = 16     // within struct gnet_stats_queue
	)
	var options, stats []byte
	err = kernelnet.Attributes(b, 0, func(t int, v []byte) {
		switch t {
		case nl.TCA_ACT_KIND:
			a.kind = text(v)
		case nl.TCA_ACT_OPTIONS:
			options = v
		case nl.TCA_ACT_STATS:
			stats = v
		}
	})
	serr := kernelnet.Attributes(stats, 0, func(t int, v []byte) {
		if t == statsQueue && len(v) >= overlimits+4 {
			a.overlimits = native.Uint32(v[overlimits:])
		}
	})
	if a.kind != "mirred" {
		return a, errors.Join(err, serr)
	}
	return a, errors.Join(err, serr, kernelnet.Attributes(options, 0, func(t int, v []byte) {
		if t != mirredParms || len(v) < dev+4 {
			return
		}
		if n := native.Uint32(v[eaction:]); n < uint32(len(mirredActs)) {
			a.mirred = mirredActs[n]
		}
		a.index = native.Uint32(v[dev:])
	}))
}

// addActions adds the fields about a filter's actions. The first redirection
// is the one that decides about the packet.
func (f *filter) addActions(out fields) error {
	var words []string
	redirected := false
	for i := range f.actions {
		a := &f.actions[i]
		word := a.kind
		if a.mirred != "" {
			word += " " + a.mirred
		}
		words = append(words, word)
		if redirected || !a.redirects() {
			continue
		}
		redirected = true
		out["redirect"], out["redirect_overlimits"] = None, decimal(a.overlimits)
		if a.index == 0 {
			continue // the device is gone
		}
		d, err := getDevice(a.index, nil)
		if err != nil {
			return err
		}
		out["redirect"], out["redirect_up"] = d.name, d.fields["up"]
		if c, ok := d.fields["carrier"]; ok {
			out["redirect_carrier"] = c
		}
	}
	if len(words) > 0 {
		out["actions"] = strings.Join(words, ", ")
	}
	return nil
}
