package counter

import (
	"fmt"
	"os"
	"strconv"
)

// softnetColumn is a column of /proc/net/softnet_stat, from 0.
type softnetColumn struct {
	index int
	field string
	// most is the greatest number of columns that a line with it has, or 0.
	most int
}

// softnetColumns are the columns of a line (net/core/net-procfs.c,
// softnet_seq_show; before 3.12 net/core/dev.c), in packets unless said
// otherwise. Those from 3 to 7 are always 0: the last that was in use counted
// what the fast route took, before 2.6.32.
func softnetColumns() []softnetColumn {
	return []softnetColumn{
		{index: 0, field: "processed"},                       // taken from a device or a backlog
		{index: 1, field: "dropped"},                         // found the CPU's backlog full
		{index: 2, field: "time_squeeze"},                    // times that a softirq ended with work left
		{index: 8, field: "cpu_collision", most: 11},         // times that two CPUs wanted one device; 0 since 4.8
		{index: 9, field: "received_rps"},                    // interrupts by other CPUs; since 2.6.35
		{index: 10, field: "flow_limit_count"},               // dropped by the flow limit, also in dropped; since 3.11
		{index: 11, field: "backlog_len"},                    // wait now; since 5.10
		{index: softnetCPUNumber + 1, field: "input_qlen"},   // the part of them that no softirq has seen; since 6.5
		{index: softnetCPUNumber + 2, field: "process_qlen"}, // the part that one is at work on; since 6.5
	}
}

const (
	softnetOldest    = 9  // columns before 2.6.35
	softnetCPUNumber = 12 // since 5.10, behind the length of the backlog
	softnetNewest    = 15 // columns since 6.5
)

// parseSoftnetValues makes values of /proc/net/softnet_stat.
func parseSoftnetValues(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("softnet")}
	err := scanSoftnet(&s, text)
	return s.all(), err
}

// scanSoftnet parses a line of hexadecimal numbers of 32 bits for each CPU
// that is online. The sums of all CPUs come first, then each CPU.
func scanSoftnet(s *sheet, text []byte) error {
	s.begin(text)
	s.rows = s.rows[:0]
	var cut error
	width := 0
	for line := range lines(text, &cut) {
		n, err := s.softnetLine(line)
		switch {
		case err != nil:
			return parseError(s.source, err)
		case width != 0 && n != width:
			return parseError(s.source, fmt.Errorf("lines of %d and of %d columns", width, n))
		}
		width = n
	}
	if cut != nil {
		return parseError(s.source, cut) // a sum without a CPU is no number
	}
	if width == 0 {
		return nil
	}
	s.softnetPart(width, whole, 0, len(s.rows)/width)
	return s.softnetCPUs(width)
}

// softnetLine keeps the numbers of a line and says how many they are.
func (s *sheet) softnetLine(line []byte) (columns int, err error) {
	for w, rest := word(line); len(w) > 0; w, rest = word(rest) {
		v, ok := hexadecimal(w, 32) // %08x of an unsigned int
		if !ok {
			return 0, fmt.Errorf("column %d: %w", columns+1, hexadecimalError(w, 32))
		}
		s.rows = append(s.rows, v)
		columns++
	}
	if columns < softnetOldest {
		return 0, fmt.Errorf("line %q: %d columns, want at least %d", clip(line), columns, softnetOldest)
	}
	return columns, nil
}

// softnetCPUs adds the values of each CPU, as far as it is known which is
// which: the file has no line for a CPU that is offline.
func (s *sheet) softnetCPUs(width int) error {
	cpus := len(s.rows) / width
	var online []uint64
	if width <= softnetCPUNumber {
		if s.online == nil {
			return nil
		}
		if online = s.online(); len(online) != cpus {
			return nil
		}
	}
	for i := range min(cpus, maxCPUs) {
		if online == nil {
			s.softnetPart(width, int(s.rows[i*width+softnetCPUNumber]), i, i+1)
		} else {
			s.softnetPart(width, int(online[i]), i, i+1)
		}
	}
	return tooManyCPUs(s.source, cpus)
}

// tooManyCPUs says what maxCPUs left out, or is nil.
func tooManyCPUs(source string, cpus int) error {
	if cpus <= maxCPUs {
		return nil
	}
	return parseError(source, fmt.Errorf("%d of %d CPUs are only in the sums", cpus-maxCPUs, cpus))
}

// softnetPart adds the sums of the lines from one to another. What a kernel
// has added since has no name but its place.
func (s *sheet) softnetPart(width, cpu, from, to int) {
	sum := func(column int) (v uint64) {
		for i := from; i < to; i++ {
			v += s.rows[i*width+column] // 32 bits each: no sum of them overflows
		}
		return v
	}
	for _, c := range softnetColumns() {
		if c.index < width && (c.most == 0 || width <= c.most) {
			s.put(s.table, []byte(c.field), cpu, sum(c.index))
		}
	}
	for i := softnetNewest; i < width; i++ {
		s.put(s.table, strconv.AppendInt([]byte("column"), int64(i+1), 10), cpu, sum(i))
	}
}

// onlineCPUs are the numbers of the CPUs that are online, or nil.
func onlineCPUs() []uint64 {
	text, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil
	}
	return parseCPUList(text)
}

// parseCPUList parses a list such as 0-3,6 (lib/bitmap-str.c,
// bitmap_print_to_pagebuf), or is nil.
func parseCPUList(text []byte) []uint64 {
	var cpus []uint64
	for b := text; ; {
		first, rest, ok := leadingNumber(b)
		if !ok {
			return nil
		}
		last := first
		if len(rest) > 0 && rest[0] == '-' {
			if last, rest, ok = leadingNumber(rest[1:]); !ok {
				return nil
			}
		}
		for ; first <= last && len(cpus) <= maxCPUs; first++ {
			cpus = append(cpus, first)
		}
		if len(rest) == 0 || rest[0] != ',' {
			return cpus
		}
		b = rest[1:]
	}
}

func leadingNumber(b []byte) (v uint64, rest []byte, ok bool) {
	n := 0
	for n < len(b) && '0' <= b[n] && b[n] <= '9' {
		n++
	}
	v, ok = decimal(b[:n])
	return v, b[n:], ok
}
