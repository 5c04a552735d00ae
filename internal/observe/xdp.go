package observe

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/probe/xdpexception"
	"github.com/whydrop/whydrop/record"
)

// The tables of the counters that xdp gives.
const (
	tableException   = "xdp_exception."
	tableRedirectErr = "xdp_redirect_err."
)

// xdp counts the packets that XDP programs lose without wanting to. The kernel
// keeps no count of them: it tells of each by a tracepoint. They become counters of
// the device, because most such packets are no skb yet and make no drop event.
type xdp struct {
	probe   *xdpexception.Probe
	actions []string
	// why is why it does not count; nil where it does.
	why error
	// before are the counters where the record began, after those of the last read.
	before, after map[xdpCounter]uint64
}

// xdpCounter is what a counter is known by. Without a device it is of the host.
type xdpCounter struct {
	name, object string
	netns        uint32
	device       record.Device
}

// openXDP begins to count. It always works; what does not is in why.
func openXDP(types *kernel.BTF) *xdp {
	x := &xdp{}
	if x.actions, x.why = types.XDPActions(); x.why == nil {
		x.probe, x.why = xdpexception.Open(xdpexception.Options{Actions: len(x.actions), BTF: types.Cache})
	}
	return x
}

// names are the counters that a count adds to: that of the device, then the part.
func (x *xdp) names(c *xdpexception.Count) [2]xdpCounter {
	part := xdpCounter{netns: c.NetNS, device: record.Device{Index: c.Ifindex, Name: c.Device}}
	part.object = fmt.Sprintf("program %d", c.Prog)
	switch {
	case c.Errno != 0:
		part.name = tableRedirectErr + "err"
		if name := unix.ErrnoName(unix.Errno(c.Errno)); name != "" {
			part.object += ", " + name
		}
	case int(c.Action) < len(x.actions):
		part.name = tableException + x.actions[c.Action]
	default:
		part.name = tableException + "invalid"
	}
	total := part
	total.object = ""
	return [2]xdpCounter{total, part}
}

// read reads what was counted since the beginning.
func (x *xdp) read() error {
	missed, err := x.probe.Missed()
	if err != nil {
		return err
	}
	// It is there even where it is 0: without it nobody counted.
	x.after = map[xdpCounter]uint64{{name: tableException + "missed"}: missed}
	return x.probe.Counts(func(c xdpexception.Count) {
		for _, k := range x.names(&c) {
			x.after[k] += c.Packets
		}
	})
}

// counters reads, and returns the counters of the namespaces in only, which is nil
// for all, and those of the whole host.
func (x *xdp) counters(names *netns.Names, only map[uint32]bool) ([]record.Counter, error) {
	if x.why != nil {
		return nil, nil
	}
	if err := x.read(); err != nil {
		return nil, err
	}
	var list []record.Counter
	for k, n := range x.after {
		if k.netns != 0 && only != nil && !only[k.netns] {
			continue
		}
		c := record.Counter{
			Name: k.name, Object: k.object, Device: k.device, Before: x.before[k], After: n, Delta: n - min(n, x.before[k]),
		}
		if k.netns != 0 {
			c.NetNS = record.NetNS{Inode: k.netns, Name: names.Name(k.netns)}
		}
		c.Source, c.Command = "tracepoint xdp:xdp_exception", "bpftrace -e 'tracepoint:xdp:xdp_exception { @[args->ifindex, args->act] = count(); }'"
		if strings.HasPrefix(k.name, tableRedirectErr) {
			c.Source, c.Command = "tracepoint xdp:xdp_redirect_err", "bpftrace -e 'tracepoint:xdp:xdp_redirect_err { @[args->ifindex, args->err] = count(); }'"
		}
		list = append(list, c)
	}
	slices.SortFunc(list, byPlace)
	return list, nil
}

// byPlace orders counters: those of the host, then by namespace, device and name,
// a total before its parts.
func byPlace(a, b record.Counter) int {
	return cmp.Or(
		cmp.Compare(a.NetNS.Inode, b.NetNS.Inode), cmp.Compare(a.Device.Index, b.Device.Index),
		cmp.Compare(a.Name, b.Name), cmp.Compare(a.Object, b.Object),
	)
}

// roll makes the last read the beginning of the next record.
func (x *xdp) roll() { x.before = x.after }

// detach stops the counting; what was counted can still be read. It may be called
// more than once.
func (x *xdp) detach() error {
	if x == nil || x.probe == nil {
		return nil
	}
	return x.probe.Detach()
}

// close detaches and frees everything. It may be called more than once.
func (x *xdp) close() error {
	if x == nil || x.probe == nil {
		return nil
	}
	return x.probe.Close()
}
