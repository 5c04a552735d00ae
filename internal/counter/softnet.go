package counter

import (
	"bytes"
	"fmt"
	"strconv"
)

// softnetCPU is what /proc/net/softnet_stat says of one CPU since boot, in
// packets unless said otherwise. The kernel counts with 32 bits.
type softnetCPU struct {
	// cpu is its number, or -1 where the kernel does not say: the file has no
	// line for a CPU that is offline, so the line does not tell.
	cpu int
	// processed were taken from a device or a backlog.
	processed uint64
	// dropped found the CPU's backlog full.
	dropped uint64
	// timeSqueeze are the times that a softirq ended with work left.
	timeSqueeze uint64
	// receivedRPS are the interrupts by other CPUs that gave it packets.
	receivedRPS uint64
	// flowLimit were dropped by the flow limit; they are in dropped too.
	flowLimit uint64
	// columns is how many the kernel's line has.
	columns int
}

// The columns of a line, from 0 (net/core/net-procfs.c, softnet_seq_show).
// 3 to 8 are no longer used. What comes behind the CPU are lengths of queues,
// and what a kernel may add there has no name.
const (
	softnetProcessed   = 0
	softnetDropped     = 1
	softnetTimeSqueeze = 2
	softnetOldest      = 9  // columns before 2.6.35
	softnetReceivedRPS = 9  // since 2.6.35
	softnetFlowLimit   = 10 // since 3.11
	softnetCPUNumber   = 12 // since 5.10, behind the length of the backlog
)

// parseSoftnet parses /proc/net/softnet_stat: a line of hexadecimal numbers
// for each CPU that is online.
func parseSoftnet(text []byte, source string) ([]softnetCPU, error) {
	var cpus []softnetCPU
	var cut error
	for line := range lines(text, &cut) {
		c, err := parseSoftnetLine(line)
		if err != nil {
			return nil, parseError(source, err)
		}
		if len(cpus) > 0 && cpus[0].columns != c.columns {
			return nil, parseError(source, fmt.Errorf("lines of %d and of %d columns", cpus[0].columns, c.columns))
		}
		cpus = append(cpus, c)
	}
	if cut != nil {
		return nil, parseError(source, cut) // a sum without a CPU is no number
	}
	return cpus, nil
}

func parseSoftnetLine(line []byte) (softnetCPU, error) {
	f := bytes.Fields(line)
	if len(f) < softnetOldest {
		return softnetCPU{}, fmt.Errorf("line %q: %d columns, want at least %d", clip(line), len(f), softnetOldest)
	}
	column := make([]uint64, len(f))
	for i := range f {
		var err error
		// %08x of an unsigned int.
		if column[i], err = strconv.ParseUint(string(f[i]), 16, 32); err != nil {
			return softnetCPU{}, fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	c := softnetCPU{
		cpu:       -1,
		processed: column[softnetProcessed], dropped: column[softnetDropped],
		timeSqueeze: column[softnetTimeSqueeze], columns: len(f),
	}
	if len(f) > softnetReceivedRPS {
		c.receivedRPS = column[softnetReceivedRPS]
	}
	if len(f) > softnetFlowLimit {
		c.flowLimit = column[softnetFlowLimit]
	}
	if len(f) > softnetCPUNumber {
		c.cpu = int(column[softnetCPUNumber])
	}
	return c, nil
}

// parseSoftnetValues makes counters of /proc/net/softnet_stat, each the sum
// of all CPUs.
func parseSoftnetValues(text []byte, source string) ([]Value, error) {
	cpus, err := parseSoftnet(text, source)
	if err != nil || len(cpus) == 0 {
		return nil, err
	}
	var sum softnetCPU
	for _, c := range cpus { // 32 bits each: no sum of them overflows
		sum.processed += c.processed
		sum.dropped += c.dropped
		sum.timeSqueeze += c.timeSqueeze
		sum.receivedRPS += c.receivedRPS
		sum.flowLimit += c.flowLimit
	}
	value := func(field string, v uint64) Value {
		return Value{Name: "softnet." + field, Value: v, Source: source, Command: "cat " + source}
	}
	values := []Value{
		value("processed", sum.processed), value("dropped", sum.dropped), value("time_squeeze", sum.timeSqueeze),
	}
	if cpus[0].columns > softnetReceivedRPS {
		values = append(values, value("received_rps", sum.receivedRPS))
	}
	if cpus[0].columns > softnetFlowLimit {
		values = append(values, value("flow_limit_count", sum.flowLimit))
	}
	return values, nil
}
