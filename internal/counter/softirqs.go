package counter

import (
	"bytes"
	"errors"
	"fmt"
)

// parseSoftirqs makes counters of /proc/softirqs.
func parseSoftirqs(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("softirqs")}
	err := scanSoftirqs(&s, text)
	return s.all(), err
}

var errNoCPUs = errors.New("the first line names no CPU")

// scanSoftirqs parses a line of the CPUs, then one for each kind of softirqs
// with a number for each (fs/proc/softirqs.c, show_softirqs; since 2.6.31).
// Those of networks are kept, first the sum and then each CPU. The kernel counts
// with 32 bits.
func scanSoftirqs(s *sheet, text []byte) error {
	s.begin(text)
	s.rows = s.rows[:0]
	var cut error
	cpus := -1
	for line := range lines(text, &cut) {
		if cpus < 0 {
			var err error
			if cpus, err = s.cpuNames(line); err != nil {
				return parseError(s.source, err)
			}
			continue
		}
		name, rest := word(line)
		if !bytes.Equal(name, []byte("NET_TX:")) && !bytes.Equal(name, []byte("NET_RX:")) {
			continue
		}
		if err := s.softirqRow(name[:len(name)-1], rest, cpus); err != nil {
			s.reset()
			return parseError(s.source, err)
		}
	}
	if cut != nil {
		s.reset()
		return parseError(s.source, cut)
	}
	return tooManyCPUs(s.source, cpus)
}

// cpuNames keeps the numbers of the CPUs of a line such as "CPU0 CPU2".
func (s *sheet) cpuNames(line []byte) (cpus int, err error) {
	for w, rest := word(line); len(w) > 0; w, rest = word(rest) {
		const n = len("CPU")
		if len(w) <= n || !bytes.HasPrefix(w, []byte("CPU")) {
			return 0, errNoCPUs
		}
		v, ok := decimal(w[n:])
		if !ok || v > 1<<20 {
			return 0, errNoCPUs
		}
		s.rows = append(s.rows, v)
		cpus++
	}
	if cpus == 0 {
		return 0, errNoCPUs
	}
	return cpus, nil
}

// softirqRow adds the sum of a line and its numbers.
func (s *sheet) softirqRow(name, numbers []byte, cpus int) error {
	var sum uint64
	rest := numbers
	s.rows = s.rows[:cpus]
	for w, more := word(rest); len(w) > 0; w, more = word(more) {
		v, ok := decimal(w)
		if !ok {
			return fmt.Errorf("%s: %w", clip(name), decimalError(w))
		}
		var err error
		if sum, err = add(sum, v); err != nil {
			return fmt.Errorf("%s: %w", clip(name), err)
		}
		s.rows = append(s.rows, v)
	}
	if n := len(s.rows) - cpus; n != cpus {
		return fmt.Errorf("%s: %d CPUs but %d numbers", clip(name), cpus, n)
	}
	s.put(s.table, name, whole, sum)
	for i := range min(cpus, maxCPUs) {
		s.put(s.table, name, int(s.rows[i]), s.rows[cpus+i])
	}
	return nil
}
