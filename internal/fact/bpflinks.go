package fact

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// netfilter adds the programs on hooks of netfilter (since 6.4), which only
// their links tell of. A link does not say in which namespace it is; the list
// of hooks of the namespace does, where the kernel has that loaded
// (net/netfilter/nfnetlink_hook.c).
func (p *programs) netfilter() error {
	p.source, p.command = "BPF_LINK_GET_NEXT_ID", "bpftool link show; nft list hooks"
	var list []linkInfo
	for _, l := range p.links {
		if l.kind == linkNetfilter {
			list = append(list, l)
		}
	}
	if len(list) == 0 {
		return nil
	}
	hooks := map[[2]uint32][]hookProgram{}
	known := true
	for _, l := range list {
		place := [2]uint32{l.family, l.hook}
		if _, ok := hooks[place]; ok || !known {
			continue
		}
		var err error
		if hooks[place], known, err = p.hookPrograms(uint8(l.family), l.hook); err != nil {
			p.note("netfilter hooks", err)
			known = false
		}
	}
	for _, l := range list {
		f := fields{
			"hook": "netfilter", "attach": kernelnet.NftFamily(nfprotoOf(l.family)) + " " + nftHook(nfprotoOf(l.family), l.hook),
			"priority": decimal(l.priority), "link": decimal(l.id), "namespace": "this",
		}
		if !known {
			f["namespace"] = "unknown"
		} else if !slices.Contains(hooks[[2]uint32{l.family, l.hook}], hookProgram{l.priority, l.prog}) {
			continue // of another namespace
		}
		p.program(fmt.Sprintf("netfilter %s %d link %d", f["attach"], l.priority, l.id), l.prog, f)
	}
	return nil
}

func nfprotoOf(family uint32) uint8 { return uint8(min(family, 255)) }

// hookProgram is a program on a hook.
type hookProgram struct {
	priority int32
	id       uint32
}

// hookPrograms lists the programs on a hook of this namespace; known is false
// where the kernel cannot tell without loading a module.
func (p *programs) hookPrograms(family uint8, hook uint32) (list []hookProgram, known bool, err error) {
	if there, err := p.has("nfnetlink_hook"); err != nil || !there {
		return nil, false, nil
	}
	const (
		subsystem = 12 // NFNL_SUBSYS_HOOK
		hookNum   = 1  // NFNLA_HOOK_HOOKNUM
	)
	m := message{}.U8(family, unix.NFNETLINK_V0).U8(0, 0).Attr(hookNum, binaryBig(hook))
	err = kernelnet.Ask(unix.NETLINK_NETFILTER, subsystem<<8, subsystem<<8, unix.NLM_F_DUMP, m, func(b []byte) error {
		h, err := parseHook(b)
		if err == nil && h.id != 0 {
			list = append(list, h)
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, false, nil // built without it
	}
	if err != nil {
		return nil, false, kernelnet.NeedsCap(err, "CAP_NET_ADMIN")
	}
	return list, true, nil
}

// parseHook reads struct nfgenmsg and the attributes of a hook, of which those
// that are programs have a number (nfnl_hook_put_bpf_prog_info of
// net/netfilter/nfnetlink_hook.c, since 6.4).
func parseHook(b []byte) (h hookProgram, err error) {
	const (
		priority, chainInfo = 2, 6 // NFNLA_HOOK_*
		infoDesc, infoType  = 1, 2 // NFNLA_HOOK_INFO_*
		typeBPF, bpfID      = 2, 1 // NFNL_HOOK_TYPE_BPF, NFNLA_HOOK_BPF_ID
	)
	var info []byte
	err = kernelnet.Attributes(b, kernelnet.SizeofNfgen, func(t int, v []byte) {
		switch t {
		case priority:
			n, _ := be32(v)
			h.priority = int32(n)
		case chainInfo:
			info = v
		}
	})
	if err != nil {
		return h, err
	}
	var desc []byte
	isProgram := false
	err = kernelnet.Attributes(info, 0, func(t int, v []byte) {
		switch t {
		case infoDesc:
			desc = v
		case infoType:
			n, _ := be32(v)
			isProgram = n == typeBPF
		}
	})
	if err != nil || !isProgram {
		return h, err
	}
	return h, kernelnet.Attributes(desc, 0, func(t int, v []byte) {
		if t == bpfID {
			h.id, _ = be32(v)
		}
	})
}

func binaryBig(v uint32) []byte { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }

// actions adds the programs that are actions of tc. A kernel that has none of
// the kind loaded lists none, and loads nothing (tc_dump_action of
// net/sched/act_api.c).
func (p *programs) actions() error {
	p.source, p.command = "RTM_GETACTION", "tc actions list action bpf"
	const actTab = 1
	kind := message{}.Attr(1, message{}.Text(nl.TCA_ACT_KIND, "bpf"))
	m := message{}.U8(unix.AF_UNSPEC, 0, 0, 0).Attr(actTab, kind)
	var list []bpfAction
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETACTION, 0, m, func() { list = nil }, func(b []byte) error {
		found, err := parseActions(b)
		list = append(list, found...)
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list actions: %w", err)
	}
	for _, a := range list {
		if a.id != 0 {
			p.program(fmt.Sprintf("action bpf %d", a.index), a.id, fields{"hook": "action", "handle": decimal(a.index)})
		}
	}
	return nil
}

// bpfAction is an action of tc that runs a program.
type bpfAction struct{ index, id uint32 }

// parseActions reads struct tcamsg and its list of actions.
func parseActions(b []byte) (list []bpfAction, err error) {
	const (
		sizeofTcamsg, actTab  = 4, 1
		actOptions            = 2    // TCA_ACT_OPTIONS
		bpfParms, bpfActionID = 2, 9 // TCA_ACT_BPF_*
	)
	var bad error
	err = kernelnet.Attributes(b, sizeofTcamsg, func(t int, tab []byte) {
		if t != actTab {
			return
		}
		bad = errors.Join(bad, kernelnet.Attributes(tab, 0, func(_ int, action []byte) {
			var a bpfAction
			bad = errors.Join(bad, kernelnet.Attributes(action, 0, func(t int, options []byte) {
				if t != actOptions {
					return
				}
				bad = errors.Join(bad, kernelnet.Attributes(options, 0, func(t int, v []byte) {
					switch {
					case t == bpfParms && len(v) >= 4: // tc_gen: its index first
						a.index = native.Uint32(v)
					case t == bpfActionID:
						a.id, _ = u32(v)
					}
				}))
			}))
			list = append(list, a)
		}))
	})
	return list, errors.Join(err, bad)
}
