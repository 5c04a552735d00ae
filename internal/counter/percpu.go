package counter

import (
	"bytes"
	"fmt"
	"path"
	"strconv"
)

// parsePerCPU makes counters of a file of /proc/net/stat: a line of names,
// then one of hexadecimal numbers for each possible CPU. Each counter is the
// sum of all CPUs, and the file's name is its table (net/ipv4/route.c,
// rt_cpu_seq_show; net/core/neighbour.c, neigh_stat_seq_show).
func parsePerCPU(text []byte, source string) ([]Value, error) {
	table := path.Base(source)
	// Without an interval of one second lnstat divides the first line by it.
	return parseStat(text, source, table, "lnstat -c1 -i1 -f "+table)
}

// parseConntrack makes counters of /proc/net/stat/nf_conntrack
// (net/netfilter/nf_conntrack_standalone.c, ct_cpu_seq_show).
func parseConntrack(text []byte, source string) ([]Value, error) {
	return parseStat(text, source, "nf_conntrack", "conntrack -S")
}

func parseStat(text []byte, source, table, command string) ([]Value, error) {
	var cut, err error
	var names [][]byte
	var sums []uint64
	for line := range lines(text, &cut) {
		columns := bytes.Fields(line)
		if names == nil {
			if len(columns) == 0 {
				return nil, parseError(source, fmt.Errorf("the first line names no column"))
			}
			names, sums = columns, make([]uint64, len(columns))
			continue
		}
		if err = addRow(sums, columns); err != nil {
			break
		}
	}
	if err != nil || cut != nil {
		return nil, parseError(source, err, cut) // a sum without a CPU is no number
	}
	var values []Value
	for i, name := range names {
		// How many entries there are now, the same in every line.
		if string(name) == "entries" {
			continue
		}
		values = append(values, Value{Name: table + "." + string(name), Value: sums[i], Source: source, Command: command})
	}
	return values, nil
}

// addRow adds the numbers of one CPU. Numbers without a name are left out.
func addRow(sums []uint64, columns [][]byte) error {
	if len(columns) < len(sums) {
		return fmt.Errorf("%d names but %d values", len(sums), len(columns))
	}
	for i := range sums {
		v, err := strconv.ParseUint(string(columns[i]), 16, 64)
		if err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
		if sums[i], err = add(sums[i], v); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}
