package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// State is one of three answers to whether the kernel supports something.
type State string

// The answers. StateNo is only given when it is certain.
const (
	StateYes     State = "yes"
	StateNo      State = "no"
	StateUnknown State = "unknown"
)

// Answer says whether something works on this host.
type Answer struct {
	State State `json:"state"`
	// Why is the version or option that is missing, or the error that kept
	// the answer unknown; empty for yes.
	Why string `json:"why,omitempty"`
	// Fix is what would change a no; empty when nothing does.
	Fix string `json:"fix,omitempty"`
	// Detail is what was seen.
	Detail string `json:"detail,omitempty"`
}

// Check is one question to the host, and its answer.
type Check struct {
	// Name identifies the check for ever.
	Name  string `json:"name"`
	Title string `json:"title"`
	Answer
	// NeededFor is what does not work without it.
	NeededFor string `json:"needed_for,omitempty"`
}

func yes(detail string) Answer       { return Answer{State: StateYes, Detail: detail} }
func no(why, fix string) Answer      { return Answer{State: StateNo, Why: why, Fix: fix} }
func unknown(why error) Answer       { return Answer{State: StateUnknown, Why: why.Error()} }
func (a Answer) see(d string) Answer { a.Detail = d; return a }

// checker holds what several checks need.
type checker struct {
	host       Host
	release    string
	version    Version
	versionErr error
	btf        *BTF
	btfErr     error
	args       int
	argsErr    error
	reasons    *Reasons
	status     procStatus
	statusErr  error
	// Asking the kernel for programs and maps; tests answer themselves.
	tryTracing, tryRawTracepoint, tryRingBuffer, tryProbeRead func() error
}

// Checks asks the host everything that decides what whydrop can see, in the
// order in which a person would. It changes nothing: eBPF programs and one map
// are created, used for nothing, and closed at once. When ctx ends, the checks
// that are left answer unknown.
func (h Host) Checks(ctx context.Context) []Check {
	return h.newChecker().run(ctx)
}

func (h Host) newChecker() *checker {
	c := &checker{host: h}
	if c.release, c.versionErr = h.Release(); c.versionErr == nil {
		c.version, c.versionErr = ParseVersion(c.release)
	}
	c.btf, c.btfErr = h.LoadBTF()
	c.argsErr = c.btfErr
	if c.btfErr == nil {
		c.args, c.argsErr = KfreeSkbArgs(c.btf.Spec)
	}
	c.reasons = h.LoadReasons(c.btf)
	c.status, c.statusErr = h.procStatus()
	c.tryTracing = c.loadTracing
	c.tryRawTracepoint = func() error { return features.HaveProgramType(ebpf.RawTracepoint) }
	c.tryRingBuffer = func() error { return features.HaveMapType(ebpf.RingBuf) }
	c.tryProbeRead = func() error { return features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnProbeReadKernel) }
	return c
}

func (c *checker) run(ctx context.Context) []Check {
	const watching = "watching drops"
	list := []struct {
		name, title, neededFor string
		ask                    func() Answer
	}{
		{"kernel", "kernel release", "", c.kernel},
		{"btf", "kernel types (BTF)", watching, c.haveBTF},
		{"tracepoint", "tracepoint skb:kfree_skb", watching, c.tracepoint},
		{"reason", "drop reasons", "why a packet was dropped", c.reason},
		{"rx_sk", "receiving socket in the tracepoint", "whose a received packet was", c.rxSk},
		{"reason_names", "names of drop reasons", "why a packet was dropped", c.reasonNames},
		{"subsystems", "subsystems of drop reasons", "reasons of Open vSwitch, Wi-Fi, qdiscs", c.subsystems},
		{"tp_btf", "eBPF program type tp_btf", watching, c.tracing},
		{"raw_tracepoint", "eBPF program type raw_tracepoint", "watching drops where tp_btf is missing", c.rawTracepoint},
		{"ringbuf", "eBPF ring buffer", "samples of single drops", c.ringBuffer},
		{"recursion_misses", "count of nested drops", "saying how many drops could not be seen", c.recursionMisses},
		{"recursion_guard", "guard against nested programs", "", c.recursionGuard},
		{"qdisc_drop", "tracepoint qdisc:qdisc_drop", "which limit of a qdisc a packet met", c.qdiscDrop},
		{"hardware_drops", "tracepoint devlink:devlink_trap_report", "drops by network cards", c.hardwareDrops},
		{"xdp_exception", "tracepoints xdp:xdp_exception and xdp:xdp_redirect_err", "telling XDP programs that fail from those that drop on purpose", c.xdpException},
		{"net_dm", "drop monitor (NET_DM)", "watching without eBPF, hardware drops", c.netDM},
		{"user_namespace", "initial user namespace", "every capability below", c.userNamespace},
		{"cap_bpf", "CAP_BPF", watching, c.capability(unix.CAP_BPF)},
		{"cap_perfmon", "CAP_PERFMON", watching, c.capability(unix.CAP_PERFMON)},
		{"cap_syslog", "CAP_SYSLOG", "names of functions", c.capability(unix.CAP_SYSLOG)},
		{"cap_net_admin", "CAP_NET_ADMIN", "firewall rules, control of NET_DM", c.capability(unix.CAP_NET_ADMIN)},
		{"cap_sys_admin", "CAP_SYS_ADMIN", "counters of other network namespaces, alerts of NET_DM", c.capability(unix.CAP_SYS_ADMIN)},
		{"cap_sys_ptrace", "CAP_SYS_PTRACE", "which process of another user owns a socket", c.capability(unix.CAP_SYS_PTRACE)},
		{"memlock", "locked memory", watching, c.memlock},
		{"lockdown", "kernel lockdown", "reading packets from eBPF", c.lockdown},
		{"kptr_restrict", "kernel addresses", "names of functions", c.kernelAddresses},
		{"perf_event_paranoid", "kernel.perf_event_paranoid", "", c.sysctl("/proc/sys/kernel/perf_event_paranoid")},
		{"unprivileged_bpf", "kernel.unprivileged_bpf_disabled", "", c.sysctl("/proc/sys/kernel/unprivileged_bpf_disabled")},
		{"tracefs", "tracefs", "names of drop reasons where BTF lacks them", c.tracefs},
		{"netns", "initial network namespace", "NET_DM, settings that exist only there", c.netns},
		{"run_netns", "named network namespaces", "names of network namespaces", c.runNetns},
	}
	checks := make([]Check, 0, len(list))
	for _, l := range list {
		check := Check{Name: l.name, Title: l.title, NeededFor: l.neededFor}
		if err := ctx.Err(); err != nil {
			check.Answer = unknown(err)
		} else {
			check.Answer = l.ask()
		}
		checks = append(checks, check)
	}
	return checks
}

func (c *checker) kernel() Answer {
	if c.versionErr != nil {
		return unknown(c.versionErr)
	}
	return yes(c.release)
}

func (c *checker) haveBTF() Answer {
	if errors.Is(c.btfErr, ErrNoBTF) {
		fix := "a kernel built with CONFIG_DEBUG_INFO_BTF=y"
		if c.versionErr == nil && !c.version.AtLeast(5, 4) {
			fix = "Linux 5.4 or newer, built with CONFIG_DEBUG_INFO_BTF=y"
		}
		return no(c.btfErr.Error(), fix)
	}
	if c.btfErr != nil {
		return unknown(c.btfErr)
	}
	return yes(c.host.path(vmlinuxBTF))
}

// tracepointAnswer answers whether the tracepoint has at least so many
// arguments.
func (c *checker) tracepointAnswer(args int, missing Answer) Answer {
	switch {
	case c.argsErr == nil && c.args >= args:
		return yes(fmt.Sprintf("skb:kfree_skb has %d arguments", c.args))
	case c.argsErr == nil:
		return missing.see(fmt.Sprintf("skb:kfree_skb has %d arguments", c.args))
	case errors.Is(c.argsErr, ErrNoTracepoint):
		return no(c.argsErr.Error(), "a kernel built with CONFIG_BPF_EVENTS=y")
	}
	return unknown(c.argsErr)
}

func (c *checker) tracepoint() Answer {
	return c.tracepointAnswer(2, Answer{})
}

func (c *checker) reason() Answer {
	if c.argsErr != nil && c.reasons.From() == FromTracefs {
		return yes("by the tracepoint's format in tracefs")
	}
	return c.tracepointAnswer(3, no("the tracepoint has no argument reason", "Linux 5.17 or newer"))
}

func (c *checker) rxSk() Answer {
	return c.tracepointAnswer(4, no("the tracepoint has no argument rx_sk", "Linux 6.11 or newer"))
}

func (c *checker) reasonNames() Answer {
	if c.reasons.From() != FromNone {
		return yes(fmt.Sprintf("%d names from %s", len(c.reasons.Names()), c.reasons.From()))
	}
	why := c.reasons.Why()
	if !c.reasons.given {
		return no(why.Error(), "Linux 5.17 or newer")
	}
	return unknown(why)
}

func (c *checker) subsystems() Answer {
	names := c.reasons.Subsystems()
	switch {
	case len(names) > 1:
		return yes(strings.Join(names, ", "))
	case c.reasons.From() == FromBTF:
		return no("the kernel has no reasons but those of core", "Linux 6.4 or newer")
	case !c.reasons.given:
		return no(c.reasons.Why().Error(), "Linux 6.4 or newer")
	}
	return unknown(errors.New("only BTF names the subsystems"))
}

// loadTracing loads a program for tp_btf/kfree_skb that returns at once.
func (c *checker) loadTracing() error {
	var cache *btf.Cache
	if c.btf != nil {
		cache = c.btf.Cache
	}
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"nothing": {
		Type:       ebpf.Tracing,
		AttachType: ebpf.AttachTraceRawTp,
		AttachTo:   "kfree_skb",
		License:    "GPL",
		Instructions: asm.Instructions{
			asm.LoadImm(asm.R0, 0, asm.DWord),
			asm.Return(),
		},
	}}}
	programs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: cache})
	if err != nil {
		return err
	}
	programs.Close()
	return nil
}

func (c *checker) tracing() Answer {
	if errors.Is(c.btfErr, ErrNoBTF) {
		return no(c.btfErr.Error(), "a kernel built with CONFIG_DEBUG_INFO_BTF=y")
	}
	return c.tried(c.tryTracing(), "Linux 5.5 or newer")
}

func (c *checker) rawTracepoint() Answer {
	return c.tried(c.tryRawTracepoint(), "Linux 4.17 or newer")
}

func (c *checker) ringBuffer() Answer {
	return c.tried(c.tryRingBuffer(), "Linux 5.8 or newer")
}

// tried turns what came of trying a feature into an answer. Only
// ErrNotSupported proves that the kernel lacks it.
func (c *checker) tried(err error, since string) Answer {
	switch {
	case err == nil:
		return yes("")
	case errors.Is(err, ebpf.ErrNotSupported):
		return no("the kernel does not support it: "+err.Error(), since)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		a := unknown(fmt.Errorf("not permitted to try: %w", err))
		a.Fix = "run as root, or with CAP_BPF and CAP_PERFMON"
		return a
	}
	return unknown(err)
}

// recursionMisses asks for the field of struct bpf_prog_info, which
// distributions backport.
func (c *checker) recursionMisses() Answer {
	const since = "Linux 5.12 or newer"
	if c.btfErr != nil {
		switch {
		case c.versionErr != nil:
			return unknown(c.versionErr)
		case c.version.AtLeast(5, 12):
			return yes("by the kernel's version")
		}
		return unknown(fmt.Errorf("%s has it; whether %s does, only BTF says", since, c.release))
	}
	var info *btf.Struct
	if err := c.btf.Spec.TypeByName("bpf_prog_info", &info); err != nil {
		return unknown(fmt.Errorf("look up BTF type bpf_prog_info: %w", err))
	}
	for _, m := range info.Members {
		if m.Name == "recursion_misses" {
			return yes("")
		}
	}
	return no("bpf_prog_info has no recursion_misses", since)
}

// recursionGuard: with the guard a nested drop is missed and counted; without
// it the program runs inside itself.
func (c *checker) recursionGuard() Answer {
	if c.btfErr != nil {
		return unknown(c.btfErr)
	}
	guarded, err := c.btf.GuardsRecursion()
	switch {
	case err != nil:
		return unknown(err)
	case guarded:
		return yes("nested drops are missed, and counted in recursion_misses")
	}
	return no("programs run nested on this kernel, and miss nothing", "")
}

func (c *checker) qdiscDrop() Answer {
	if c.btfErr != nil {
		return unknown(c.btfErr)
	}
	has, err := c.btf.HasQdiscDrop()
	switch {
	case err != nil:
		return unknown(err)
	case has:
		return yes("")
	}
	return no("the kernel has no such tracepoint, or one with other arguments", "Linux 7.2 or newer")
}

// hardwareDrops answers for the kernel. Which cards tell their drops, and whether
// that was asked of them, is theirs.
func (c *checker) hardwareDrops() Answer {
	if c.btfErr != nil {
		return unknown(c.btfErr)
	}
	has, err := c.btf.HasTrapReport()
	switch {
	case err != nil:
		return unknown(err)
	case has:
		return yes("of traps whose action is trap (devlink trap show), where the driver has any")
	}
	return no("the kernel has no such tracepoint", "Linux 5.10 or newer with CONFIG_NET_DEVLINK, which drivers of such cards bring")
}

func (c *checker) tracefs() Answer {
	dir, err := c.host.mountPoint("tracefs")
	if err != nil {
		return unknown(err)
	}
	if dir == "" {
		return no("tracefs is not mounted", "mount -t tracefs tracefs /sys/kernel/tracing")
	}
	return yes(dir)
}

// sysctl shows a setting that whydrop does not depend on, because with the
// capabilities it needs any value will do.
func (c *checker) sysctl(path string) func() Answer {
	return func() Answer {
		v, err := c.host.line(path)
		if errors.Is(err, os.ErrNotExist) {
			return no("the kernel has no such setting", "")
		}
		if err != nil {
			return unknown(err)
		}
		return yes(v)
	}
}
