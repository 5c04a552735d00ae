package counter

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strconv"
)

// parsePerCPU makes values of a file of /proc/net/stat, whose name is its
// table.
func parsePerCPU(text []byte, source string) ([]Value, error) {
	table := path.Base(source)
	return parseStat(text, source, table, lnstat(table))
}

// lnstat is the command that shows a file of /proc/net/stat. Without an
// interval of one second lnstat divides the first line by it.
func lnstat(table string) string { return "lnstat -c1 -i1 -f " + quote(table) }

// parseConntrack makes values of /proc/net/stat/nf_conntrack
// (net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show).
func parseConntrack(text []byte, source string) ([]Value, error) {
	return parseStat(text, source, "nf_conntrack", "conntrack -S")
}

func parseStat(text []byte, source, table, command string) ([]Value, error) {
	s := sheet{
		source: source, table: []byte(table),
		command: func(_, _ string, _ bool) string { return command },
	}
	err := scanStat(&s, text)
	return s.all(), err
}

// scanStat parses a line of names, then one of hexadecimal numbers for each
// possible CPU. Each value is the sum of all CPUs, but for entries, a level
// that is the same in every line (net/ipv4/route.c, rt_cpu_seq_show;
// net/core/neighbour.c, neigh_stat_seq_show).
func scanStat(s *sheet, text []byte) error {
	return s.scanColumns(text, func(sum uint64, text []byte) (uint64, error) {
		v, ok := hexadecimal(text, 64)
		if !ok {
			return 0, hexadecimalError(text, 64)
		}
		return add(sum, v)
	})
}

// scanFlowtable parses /proc/net/stat/nf_flowtable, which has the form of the
// others but decimal numbers. They are work that waits to be done; a CPU that
// finishes what another began is below 0 (net/netfilter/nf_flow_table_procfs.c;
// net/netfilter/nf_flow_table_offload.c; since 6.0).
func scanFlowtable(s *sheet, text []byte) error {
	return s.scanColumns(text, func(sum uint64, text []byte) (uint64, error) {
		v, err := strconv.ParseInt(string(text), 10, 32)
		// Two's complement: the sum of all is right.
		return sum + uint64(v), err
	})
}

var errNoColumns = errors.New("the first line names no column")

// scanColumns adds up the columns of a file of /proc/net/stat.
func (s *sheet) scanColumns(text []byte, plus func(sum uint64, text []byte) (uint64, error)) error {
	s.begin(text)
	var cut error
	var names []byte
	for line := range lines(text, &cut) {
		if names == nil {
			if names = line; countWords(names) == 0 {
				return parseError(s.source, errNoColumns)
			}
			s.rows = append(s.rows[:0], make([]uint64, countWords(names))...)
			continue
		}
		if err := s.addRow(names, line, plus); err != nil {
			return parseError(s.source, err) // a sum without a CPU is no number
		}
	}
	if cut != nil {
		return parseError(s.source, cut)
	}
	for i, rest := 0, names; i < len(s.rows) && names != nil; i++ {
		var name []byte
		name, rest = word(rest)
		s.put(s.table, name, whole, s.rows[i])
	}
	return nil
}

// addRow adds the numbers of one CPU. Numbers without a name are left out.
func (s *sheet) addRow(names, numbers []byte, plus func(sum uint64, text []byte) (uint64, error)) error {
	for i, rest := 0, numbers; i < len(s.rows); i++ {
		var name, number []byte
		name, names = word(names)
		if number, rest = word(rest); len(number) == 0 {
			return fmt.Errorf("%d names but %d values", len(s.rows), i)
		}
		sum := s.rows[i]
		if bytes.Equal(name, []byte("entries")) {
			sum = 0
		}
		var err error
		if s.rows[i], err = plus(sum, number); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}
