package counter

import (
	"strconv"
	"strings"
)

// gstrings are the strings of a set.
type gstrings struct {
	answer []byte // of the kernel
	names  []string
	// stats are what of made of them, nil where that depends on the numbers too.
	stats []stat
	sums  wholes // to use again
}

// of is what the strings say about numbers; table begins the counters' names.
func (d *gstrings) of(table string, numbers []uint64) []stat {
	if d.stats != nil {
		return d.stats
	}
	stats := statNames(d.names, numbers)
	fixed := true
	for i := range stats {
		stats[i].counter = table + stats[i].name
		fixed = fixed && !stats[i].header
	}
	if fixed {
		d.stats = stats
	}
	return stats
}

// stat is a driver's statistic by its string.
type stat struct {
	name, object string
	// counter is the name behind its table.
	counter string
	// level is set for what is no counter.
	level bool
	// header is set for a string whose number only says of which queue the
	// next ones are.
	header bool
}

// queueForm is a string with the number of a queue in it.
type queueForm struct {
	name   string // without the number
	kind   string // rx-, tx-, or empty before the number in the object
	number string
	// cpu is set where the number is that of a processor.
	cpu bool
	// sure is set for a form that nothing else has. Others are numbers of
	// queues only where there is a queue 0: rx_64_bytes counts frames by size.
	sure bool
}

func (f queueForm) object() string {
	if f.cpu {
		return "cpu " + f.number
	}
	return "queue " + f.kind + f.number
}

// statNames gives each of a device's strings its name and object; values are
// the numbers that belong to them.
func statNames(strs []string, values []uint64) []stat {
	forms := make([]queueForm, len(strs))
	zero := map[string]bool{}
	for i, s := range strs {
		f, ok := queueNumber(s)
		if !ok {
			continue
		}
		forms[i] = f
		if f.number == "0" {
			zero[f.kind+f.name] = true
		}
	}
	stats := make([]stat, len(strs))
	section := "" // vmxnet3's
	for i, s := range strs {
		f := forms[i]
		st := stat{name: strings.TrimSpace(s)}
		kind, header := queueHeader(s)
		switch {
		case header && i < len(values):
			st.header, section = true, "queue "+kind+strconv.FormatUint(values[i], 10)
		case f.number != "" && (f.sure || zero[f.kind+f.name]):
			st.name, st.object = f.name, f.object()
		case strings.HasPrefix(s, "  "):
			st.object = section
		default:
			section = ""
		}
		st.level = statLevel(st.name)
		stats[i] = st
	}
	return uniqueStats(stats)
}

// uniqueStats tells strings apart that a driver has more than once, by their
// place in the list.
func uniqueStats(stats []stat) []stat {
	type id struct{ name, object string }
	seen := make(map[id]int, len(stats))
	for _, s := range stats {
		seen[id{s.name, s.object}]++
	}
	for i, s := range stats {
		if seen[id{s.name, s.object}] > 1 {
			stats[i].object = strings.TrimSpace(s.object + " string " + strconv.Itoa(i))
		}
	}
	return stats
}

// queueHeader recognises the line above the statistics of each queue
// (drivers/net/vmxnet3/vmxnet3_ethtool.c: "Tx Queue#").
func queueHeader(s string) (kind string, ok bool) {
	kind, ok = strings.CutSuffix(strings.ToLower(s), " queue#")
	return kind + "-", ok && (kind == "rx" || kind == "tx")
}

// statLevel says whether a statistic is no counter: where a driver stands in
// its ring (gve), a state (i40e), a share of the time (mlx5, ena), or which
// device is the peer of a veth.
func statLevel(name string) bool {
	name = strings.TrimSuffix(name, ".nic")
	for _, end := range []string{
		"_ifindex", "_posted_desc", "_completed_desc", "_consumed_desc", "_status", "_pci_stalled_rd", "_pci_stalled_wr",
		"_srd_mode", "_resource_utilization",
	} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// queueNumber finds the number of a queue, channel or processor in a string.
// Drivers write rx_queue_0_drops, rx0_drops, rx-0.packets, rxq0: bytes,
// queue_0_rx_cnt, ch0_events, [0]: rx_discards, Queue[0] InPackets,
// rx_posted_desc[0], cpu0_rx_packets.
func queueNumber(s string) (f queueForm, ok bool) {
	for at := 0; at < len(s); {
		begin := strings.IndexAny(s[at:], "0123456789")
		if begin < 0 {
			return f, false
		}
		begin += at
		end := begin
		for end < len(s) && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		if f, ok = queueAt(s, begin, end); ok {
			return f, true
		}
		at = end
	}
	return f, false
}

// queueAt says whether s[begin:end] is the number of a queue.
func queueAt(s string, begin, end int) (f queueForm, ok bool) {
	f.number = s[begin:end]
	if len(f.number) > 5 || len(f.number) > 1 && f.number[0] == '0' {
		return f, false
	}
	before, after := s[:begin], s[end:]
	bracket := strings.HasSuffix(before, "[") && strings.HasPrefix(after, "]")
	if bracket {
		before, after = before[:begin-1], after[1:]
	}
	before = strings.TrimRight(before, "_-# ")
	if before == "" { // [0]: rx_discards of bnxt, 0: rcv_pkts of qede
		rest, ok := strings.CutPrefix(after, ": ")
		if !ok || rest == "" {
			return f, false
		}
		f.name, f.kind, f.sure = rest, direction(rest), bracket
		return f, true
	}
	if strings.HasPrefix(after, "_to_") || strings.HasPrefix(after, "to") {
		return f, false
	}
	word := lastWord(before)
	switch {
	case after == "":
		// The queue at the end and what is counted before it.
		if f.kind = direction(s); !bracket || f.kind == "" {
			return f, false
		}
	case word == "cpu":
		f.cpu = true
	case isQueueWord(word):
		if f.kind = direction(word); f.kind == "" {
			f.kind = direction(before)
		}
		if f.kind == "" {
			f.kind = direction(after)
		}
	default:
		return f, false
	}
	f.name = before + after
	return f, true
}

// isQueueWord says whether the number behind a word is that of a queue.
func isQueueWord(word string) bool {
	switch word {
	case "rx", "tx", "rxq", "txq", "rq", "sq", "cq", "q", "queue", "ch", "ring", "rvec", "rxring", "txring":
		return true
	}
	return false
}

// lastWord is the last word of s in small letters.
func lastWord(s string) string {
	letter := func(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }
	return strings.ToLower(s[strings.LastIndexFunc(s, func(r rune) bool { return !letter(r) })+1:])
}

// direction is rx- or tx- where the first word of s that names one does.
func direction(s string) string {
	letter := func(r rune) bool { return !(r >= 'a' && r <= 'z') }
	for _, word := range strings.FieldsFunc(strings.ToLower(s), letter) {
		switch word {
		case "rx", "rxq", "rq", "rxring", "rcv":
			return "rx-"
		case "tx", "txq", "sq", "txring", "xmit":
			return "tx-"
		}
	}
	return ""
}
