package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf/btf"
)

// vmlinuxBTF is where the kernel publishes its own types (kernel/bpf/sysfs_btf.c,
// 5.4); modules have a file each beside it since 5.11.
const vmlinuxBTF = "/sys/kernel/btf/vmlinux"

var (
	// ErrNoBTF says that the kernel publishes no types.
	ErrNoBTF = errors.New("kernel has no BTF")
	// ErrNoTracepoint says that the kernel has no tracepoint skb:kfree_skb.
	ErrNoTracepoint = errors.New("kernel has no tracepoint skb:kfree_skb")
)

// BTF is the kernel's description of its own types. Types stay in memory once
// they were looked up, so walking all of them is not for the hot path: it
// takes 40 MB and 150 ms, a look-up by name microseconds.
type BTF struct {
	Spec *btf.Spec
	// Cache holds Spec: give it to ebpf.CollectionOptions, so that loading
	// programs does not decode the kernel's BTF again.
	Cache *btf.Cache
}

// sharedBTF is what this process has read of the running kernel's types, which
// never change. It may miss the modules that came since; no probe needs theirs.
var sharedBTF = btf.NewCache()

// LoadBTF reads /sys/kernel/btf/vmlinux and nothing else. An error wraps
// ErrNoBTF where the kernel has none and says which option brings it.
func (h Host) LoadBTF() (*BTF, error) {
	path := h.path(vmlinuxBTF)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(h.path("/sys/kernel")); err != nil {
			return nil, fmt.Errorf("load BTF: sysfs is not mounted on /sys: %w", err)
		}
		return nil, fmt.Errorf("load BTF: %w: no %s: Linux 5.4 or newer built with CONFIG_DEBUG_INFO_BTF=y has it", ErrNoBTF, path)
	}
	if err != nil {
		return nil, fmt.Errorf("load BTF: %w", err)
	}
	defer f.Close()

	b := &BTF{}
	if h.Root == "" {
		// The cache maps the file where the kernel allows it (6.16) and
		// shares it with the program loader.
		b.Cache = sharedBTF
		b.Spec, err = b.Cache.Kernel()
	} else {
		b.Cache = btf.NewCache()
		b.Spec, err = btf.LoadSpecFromReader(f)
	}
	if err != nil {
		return nil, fmt.Errorf("load BTF %s: %w", path, err)
	}
	return b, nil
}

// KfreeSkbArgs counts the arguments of the tracepoint skb:kfree_skb. They were
// only ever appended: skb and location (5.10), reason (5.17), rx_sk (6.11). An
// error wraps ErrNoTracepoint where the kernel's BTF does not know it.
func KfreeSkbArgs(spec *btf.Spec) (int, error) {
	// include/trace/bpf_probe.h makes one btf_trace_NAME for each tracepoint:
	// a pointer to a function of void *data and then the arguments.
	const name = "btf_trace_kfree_skb"
	var typedef *btf.Typedef
	err := spec.TypeByName(name, &typedef)
	if errors.Is(err, btf.ErrNotFound) {
		return 0, fmt.Errorf("look up BTF type %s: %w", name, ErrNoTracepoint)
	}
	if err != nil {
		return 0, fmt.Errorf("look up BTF type %s: %w", name, err)
	}
	pointer, ok := btf.As[*btf.Pointer](typedef.Type)
	if !ok {
		return 0, fmt.Errorf("BTF type %s is a %T, want a pointer to a function", name, typedef.Type)
	}
	proto, ok := btf.As[*btf.FuncProto](pointer.Target)
	if !ok {
		return 0, fmt.Errorf("BTF type %s points to a %T, want a function", name, pointer.Target)
	}
	if len(proto.Params) < 3 {
		return 0, fmt.Errorf("BTF type %s has %d parameters, want at least void *, skb, location", name, len(proto.Params))
	}
	return len(proto.Params) - 1, nil
}

// HasFunc says whether the kernel has a function of that name that BPF may
// know of. An error means that it could not be told.
func (b *BTF) HasFunc(name string) (bool, error) {
	var fn *btf.Func
	err := b.Spec.TypeByName(name, &fn)
	if errors.Is(err, btf.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up BTF function %s: %w", name, err)
	}
	return true, nil
}

// GuardsRecursion says whether the kernel keeps a raw tracepoint's program
// from running inside itself on a CPU. Commit 05b24ff9b2cf brought that, in
// 6.1 and backported, and made this function (kernel/bpf/syscall.c).
func (b *BTF) GuardsRecursion() (bool, error) { return b.HasFunc("bpf_prog_inc_misses_counter") }

// HasQdiscDrop says whether the kernel has the tracepoint qdisc:qdisc_drop with
// the arguments qdisc, txq, dev, skb and reason (7.2), by which a qdisc tells
// which of its limits a packet met.
func (b *BTF) HasQdiscDrop() (bool, error) {
	args, err := b.tracepointArgs("qdisc_drop")
	if err != nil || len(args) != 5 {
		return false, err
	}
	reason, _ := btf.As[*btf.Enum](args[4].Type)
	return pointsTo(args[3], "sk_buff") && reason != nil && reason.Name == "qdisc_drop_reason", nil
}

// HasTrapReport says whether the kernel has the tracepoint
// devlink:devlink_trap_report with the arguments devlink, skb and metadata (5.10),
// by which a network card tells what it dropped.
func (b *BTF) HasTrapReport() (bool, error) {
	args, err := b.tracepointArgs("devlink_trap_report")
	if err != nil || len(args) != 3 {
		return false, err
	}
	return pointsTo(args[1], "sk_buff") && pointsTo(args[2], "devlink_trap_metadata"), nil
}

// tracepointArgs returns the arguments of a tracepoint; none where the kernel
// does not have it.
func (b *BTF) tracepointArgs(tracepoint string) ([]btf.FuncParam, error) {
	name := "btf_trace_" + tracepoint
	var typedef *btf.Typedef
	err := b.Spec.TypeByName(name, &typedef)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up BTF type %s: %w", name, err)
	}
	pointer, _ := btf.As[*btf.Pointer](typedef.Type)
	if pointer == nil {
		return nil, fmt.Errorf("BTF type %s is a %T, want a pointer to a function", name, typedef.Type)
	}
	proto, _ := btf.As[*btf.FuncProto](pointer.Target)
	if proto == nil || len(proto.Params) == 0 {
		return nil, nil
	}
	// The first parameter is the data of whoever attached.
	return proto.Params[1:], nil
}

// pointsTo says whether a parameter points to that struct.
func pointsTo(p btf.FuncParam, name string) bool {
	pointer, _ := btf.As[*btf.Pointer](p.Type)
	if pointer == nil {
		return false
	}
	to, _ := btf.As[*btf.Struct](pointer.Target)
	return to != nil && to.Name == name
}

// enumValues returns the values of the enum with that name, and nil if the
// kernel has none.
func enumValues(spec *btf.Spec, name string) ([]enumValue, error) {
	var enum *btf.Enum
	err := spec.TypeByName(name, &enum)
	if errors.Is(err, btf.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up BTF enum %s: %w", name, err)
	}
	values := make([]enumValue, 0, len(enum.Values))
	for _, v := range enum.Values {
		values = append(values, enumValue{v.Name, uint32(v.Value)})
	}
	return values, nil
}
