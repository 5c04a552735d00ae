package lab

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
)

// cpuBacklog sends more packets at once than the input queue of a CPU holds.
func cpuBacklog() Scenario {
	return Scenario{
		Name:  "cpu-backlog",
		Title: "a burst of packets to a veth device that the input queue of the CPU cannot hold",
		build: buildCPUBacklog,
	}
}

func buildCPUBacklog(t *topology) (*rig, error) {
	limit, err := maxBacklog()
	if err != nil {
		return nil, err
	}
	// It takes one more than it says: net/core/dev.c, enqueue_to_backlog, 5.10 to 7.2.
	room := limit + 1
	if room+held > maxBurst {
		return nil, fmt.Errorf("net.core.netdev_max_backlog is %d: the lab cannot fill a queue of more than %d packets", limit, maxBurst-held-1)
	}
	r := newRig(t)
	b, err := newBurst(t, r)
	if err != nil {
		return nil, err
	}
	b.overflow(r, room, held)
	r.count(t.rxDropped(hostDevice), hostDevice+" rx_dropped", "rtnetlink", "ip -s link show dev "+hostDevice)
	return r, nil
}

// cpuBacklogSqueezed does the same to a host that takes so long over each packet
// that its CPU cannot empty the queue in one go: softnet time_squeeze grows.
func cpuBacklogSqueezed() Scenario {
	return Scenario{
		Name:  "cpu-backlog-squeezed",
		Title: "a burst that the input queue of the CPU cannot hold, and a CPU that ends its receive work early",
		build: func(t *topology) (*rig, error) {
			r, err := buildCPUBacklog(t)
			if err != nil {
				return nil, err
			}
			link, err := t.host.Link(hostDevice)
			if err != nil {
				return nil, err
			}
			return r, addFilter(t.host, link, netlink.HANDLE_MIN_INGRESS, slowly())
		},
	}
}

// slowly lets every packet pass and takes as long over it as a very long list of
// rules would. A device is polled for 64 packets at a time (net.core.dev_weight);
// so many take longer than net.core.netdev_budget_usecs, 8 ms.
func slowly() asm.Instructions {
	const rounds = 20_000
	const tcActOK = 0 // include/uapi/linux/pkt_cls.h
	const again = "again"
	return asm.Instructions{
		asm.Mov.Imm(asm.R6, rounds),
		asm.FnGetPrandomU32.Call().WithSymbol(again),
		asm.Sub.Imm(asm.R6, 1),
		asm.JNE.Imm(asm.R6, 0, again),
		asm.Mov.Imm(asm.R0, tcActOK),
		asm.Return(),
	}
}

// maxBacklog reads how many packets wait for a CPU at most. The setting is of
// the whole host, and shows in its first network namespace only.
func maxBacklog() (uint64, error) {
	const file = "/proc/sys/net/core/netdev_max_backlog"
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, fmt.Errorf("read net.core.netdev_max_backlog: %w", err)
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("read net.core.netdev_max_backlog: %w", err)
	}
	return n, nil
}

// rxDropped counts what the host's kernel lost of what came in by a device.
func (t *topology) rxDropped(device string) counter {
	return t.linkCounter(device, "rx_dropped", func(s *netlink.LinkStatistics) uint64 { return s.RxDropped })
}
