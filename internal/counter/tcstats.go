package counter

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink/nl"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// tcStats are the statistics that a qdisc, a class or an action has
// (include/uapi/linux/gen_stats.h; net/core/gen_stats.c). Drops, requeues,
// overlimits, qlen and backlog have 32 bits in the kernel.
type tcStats struct {
	hasBasic, hasQueue, hasHW, hasRate bool

	bytes, packets, drops, requeues, overlimits uint64
	qlen, backlog                               uint64 // levels: packets and bytes that wait
	hwBytes, hwPackets                          uint64 // the part that a device did
	bps, pps                                    uint64 // levels, where an estimator is set up: bytes and packets a second
	// app is what only the kind has.
	app []byte
}

// parseTCStats parses TCA_STATS2 or TCA_ACT_STATS.
func parseTCStats(b []byte) (s tcStats, err error) {
	var basic, hw, queue, packets64, rate, rate64 []byte
	err = kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case nl.TCA_STATS_BASIC:
			basic = content
		case nl.TCA_STATS_BASIC_HW:
			hw = content
		case nl.TCA_STATS_QUEUE:
			queue = content
		case nl.TCA_STATS_PKT64:
			packets64 = content
		case nl.TCA_STATS_RATE_EST:
			rate = content
		case nl.TCA_STATS_RATE_EST64:
			rate64 = content
		case nl.TCA_STATS_APP:
			s.app = content
		}
	})
	if err != nil {
		return tcStats{}, err
	}
	const sizeBasic, sizeQueue = 12, 20
	if basic != nil && len(basic) < sizeBasic || queue != nil && len(queue) < sizeQueue {
		return tcStats{}, fmt.Errorf("statistics of %d and %d bytes: %w", len(basic), len(queue), kernelnet.ErrShort)
	}
	s.bytes, s.hasBasic = u64(basic, 0)
	s.packets, _ = u32(basic, 8)
	// Since 5.5, and only where the number is above 32 bits.
	if v, ok := u64(packets64, 0); ok {
		s.packets = v
	}
	s.hwBytes, _ = u64(hw, 0)
	s.hwPackets, s.hasHW = u32(hw, 8)
	s.qlen, s.hasQueue = u32(queue, 0)
	s.backlog, _ = u32(queue, 4)
	s.drops, _ = u32(queue, 8)
	s.requeues, _ = u32(queue, 12)
	s.overlimits, _ = u32(queue, 16)
	s.bps, _ = u32(rate, 0)
	s.pps, s.hasRate = u32(rate, 4)
	if v, ok := u64(rate64, 8); ok {
		s.bps, _ = u64(rate64, 0)
		s.pps, s.hasRate = v, true
	}
	return s, nil
}

// tcNames are the names of these statistics in one table.
type tcNames struct {
	bytes, packets, drops, requeues, overlimits, backlog, qlen, bps, pps, hwBytes, hwPackets string
}

func newTCNames(table string) tcNames {
	return tcNames{
		bytes: table + ".bytes", packets: table + ".packets", drops: table + ".drops",
		requeues: table + ".requeues", overlimits: table + ".overlimits",
		backlog: table + ".backlog", qlen: table + ".qlen", bps: table + ".bps", pps: table + ".pps",
		hwBytes: table + ".hw_bytes", hwPackets: table + ".hw_packets",
	}
}

// add adds as many of the statistics as there are.
func (n *tcNames) add(a *adder, object string, s *tcStats) {
	if s.hasBasic {
		a.count(n.bytes, object, s.bytes)
		a.count(n.packets, object, s.packets)
	}
	if s.hasQueue {
		a.count(n.drops, object, s.drops)
		a.count(n.requeues, object, s.requeues)
		a.count(n.overlimits, object, s.overlimits)
		a.level(n.backlog, object, s.backlog)
		a.level(n.qlen, object, s.qlen)
	}
	if s.hasHW {
		a.count(n.hwBytes, object, s.hwBytes)
		a.count(n.hwPackets, object, s.hwPackets)
	}
	if s.hasRate {
		a.level(n.bps, object, s.bps)
		a.level(n.pps, object, s.pps)
	}
}

// handle writes a handle as tc does: 10:, 1:10, or :1 for a class of a qdisc
// that has no handle.
func handle(h uint32) string {
	major, minor := "", ""
	if h>>16 != 0 {
		major = strconv.FormatUint(uint64(h>>16), 16)
	}
	if h&0xffff != 0 {
		minor = strconv.FormatUint(uint64(h&0xffff), 16)
	}
	if major == "" && minor == "" {
		return "0:"
	}
	return major + ":" + minor
}
