package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// rpsFlowLimit sends a burst of one flow to a CPU that was told to cut flows
// that take too much of its input queue.
func rpsFlowLimit() Scenario {
	return Scenario{
		Name:  "rps-flow-limit",
		Title: "a burst of one flow that the flow limit of the CPU cuts",
		build: buildFlowLimit,
	}
}

const (
	flowLimitFile = "/proc/sys/net/core/flow_limit_cpu_bitmap"
	// flowLimitHalf packets of one flow, among the last 128, is what the limit
	// lets through: net/core/dev.c, skb_flow_limit, 5.10 to 7.2.
	flowLimitHalf = 64
)

func buildFlowLimit(t *topology) (*rig, error) {
	limit, err := maxBacklog()
	if err != nil {
		return nil, err
	}
	// A queue that is less than half full takes everything.
	room := limit / 2
	if room+held > maxBurst {
		return nil, fmt.Errorf("net.core.netdev_max_backlog is %d: the lab cannot half fill such a queue", limit)
	}
	r := newRig(t)
	b, err := newBurst(t, r)
	if err != nil {
		return nil, err
	}
	if b.cpu, err = anyCPU(); err != nil {
		return nil, err
	}
	if err := t.limitFlows(b.cpu); err != nil {
		return nil, err
	}
	r.count(t.rxDropped(hostDevice), hostDevice+" rx_dropped", "rtnetlink", "ip -s link show dev "+hostDevice)
	// The CPU has seen nothing of the flow yet: now as much as it lets through.
	if _, err := b.once(r, room+flowLimitHalf, maxBurst); err != nil {
		return nil, err
	}
	b.read = 0
	// Without the limit the burst still has to find room in the queue.
	b.overflow(r, room, room)
	return r, nil
}

// anyCPU is one that the program may run on.
func anyCPU() (int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, fmt.Errorf("read CPUs of the program: %w", err)
	}
	for cpu := range len(set) * 64 {
		if set.IsSet(cpu) {
			return cpu, nil
		}
	}
	return 0, errors.New("read CPUs of the program: there is none")
}

// limitFlows has that CPU cut flows. The setting is of the whole host; the CPU
// forgets the flows that it has seen when it changes.
func (t *topology) limitFlows(cpu int) error {
	before, err := os.ReadFile(flowLimitFile)
	if err != nil {
		return fmt.Errorf("read net.core.flow_limit_cpu_bitmap: %w", err)
	}
	// A group of 32 CPUs a word, the last group first: lib/bitmap.c, bitmap_parse.
	mask := fmt.Sprintf("%x", 1<<(cpu%32)) + strings.Repeat(",00000000", cpu/32)
	t.onClose(func() error { return setFlowLimit(string(bytes.TrimSpace(before))) })
	return errors.Join(setFlowLimit("0"), setFlowLimit(mask))
}

func setFlowLimit(mask string) error {
	f, err := os.OpenFile(flowLimitFile, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set net.core.flow_limit_cpu_bitmap: %w", err)
	}
	_, err = f.WriteString(mask)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set net.core.flow_limit_cpu_bitmap=%s: %w", mask, err)
	}
	return nil
}
