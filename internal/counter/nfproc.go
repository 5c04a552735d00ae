package counter

import (
	"bytes"
	"fmt"
	"strconv"
)

// readNetfilterFiles adds the counters that parts of netfilter have below
// /proc/net. A part that is not loaded has no file; reading loads nothing.
func (s *Snapshot) readNetfilterFiles() {
	s.readFiles(thread, []file{
		{name: "netfilter/nfnetlink_queue", parse: parseNfqueue},
		{name: "netfilter/nfnetlink_log", parse: parseNflog},
		{name: "stat/synproxy", parse: parsePerCPU},
		{name: "ip_vs_stats", parse: parseIPVS},
	})
}

// nfColumn is a column of numbers of a file; what has no name is not reported.
type nfColumn struct {
	name  string
	level bool
}

// parseNfqueue makes counters of /proc/net/netfilter/nfnetlink_queue, with the
// sums of all queues (net/netfilter/nfnetlink_queue.c, seq_show; 2.6.32 to
// 7.2). The columns that are left out are the netlink port of the program that
// reads the queue, how much of a packet it wants, and a one. A queue that a
// program binds begins at 0.
func parseNfqueue(text []byte, source string) ([]Value, error) {
	values, err := parseColumns(text, source, "nfqueue", "queue", []nfColumn{
		{}, {}, {"queue_total", true}, {}, {}, {"queue_dropped", false}, {"user_dropped", false}, {"id_sequence", false},
	})
	return append(sumColumns(values), values...), err
}

// parseNflog makes values of /proc/net/netfilter/nfnetlink_log
// (net/netfilter/nfnetlink_log.c, seq_show; 2.6.32 to 7.2). It has no counter
// of loss: what the program does not read in time its socket counts.
func parseNflog(text []byte, source string) ([]Value, error) {
	return parseColumns(text, source, "nflog", "group", []nfColumn{{}, {}, {"qlen", true}})
}

// parseColumns makes values of lines of numbers, of which the first says what
// the line is of.
func parseColumns(text []byte, source, table, object string, columns []nfColumn) ([]Value, error) {
	var values []Value
	var cut error
	var errs []error
	for line := range lines(text, &cut) {
		f := bytes.Fields(line)
		if len(f) < len(columns) {
			errs = append(errs, fmt.Errorf("line %q: %d numbers, want %d", clip(line), len(f), len(columns)))
			continue
		}
		for i, c := range columns {
			if c.name == "" && i > 0 {
				continue
			}
			v, err := strconv.ParseUint(string(f[i]), 10, 64)
			if err != nil {
				errs = append(errs, fmt.Errorf("line %q: %w", clip(line), err))
				break
			}
			if i > 0 {
				values = append(values, Value{
					Name: table + "." + c.name, Object: object + " " + string(f[0]), Level: c.level, Value: v,
					Source: source, Command: "cat " + source,
				})
			}
		}
	}
	return values, parseError(source, append(errs, cut)...)
}

// sumColumns adds up the counters of all objects, in their order. They have 32
// bits each.
func sumColumns(values []Value) []Value {
	var sums []Value
	at := map[string]int{}
	for _, v := range values {
		if v.Level {
			continue
		}
		i, ok := at[v.Name]
		if !ok {
			i = len(sums)
			at[v.Name] = i
			sums = append(sums, Value{Name: v.Name, Source: v.Source, Command: v.Command})
		}
		sums[i].Value += v.Value
	}
	return sums
}

// parseIPVS makes counters of /proc/net/ip_vs_stats: two lines of titles, one
// of hexadecimal numbers, and the same again for rates, which are left out
// (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_stats_show; 2.6.32 to 7.2). The names
// are those of struct ip_vs_kstats.
func parseIPVS(text []byte, source string) ([]Value, error) {
	names := []string{"conns", "inpkts", "outpkts", "inbytes", "outbytes"}
	var cut error
	number := 0
	for line := range lines(text, &cut) {
		if number++; number < 3 {
			continue
		}
		f := bytes.Fields(line)
		if len(f) != len(names) {
			return nil, parseError(source, fmt.Errorf("line %q: %d numbers, want %d", clip(line), len(f), len(names)))
		}
		values := make([]Value, len(names))
		for i, name := range names {
			v, err := strconv.ParseUint(string(f[i]), 16, 64)
			if err != nil {
				return nil, parseError(source, fmt.Errorf("line %q: %w", clip(line), err))
			}
			values[i] = Value{Name: "ip_vs." + name, Value: v, Source: source, Command: "ipvsadm -L --stats --exact"}
		}
		return values, nil
	}
	return nil, parseError(source, fmt.Errorf("%d lines, want more than 2", number), cut)
}
