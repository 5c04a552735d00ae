package counter

import (
	"bytes"
	"fmt"
)

// parseTables makes counters of /proc/net/snmp or /proc/net/netstat
// (net/ipv4/proc.c): a line of names and a line of numbers for each table,
// both beginning with the table's name and a colon. A table may come several
// times: IcmpMsg has at most 16 columns at once.
func parseTables(text []byte, source string) ([]Value, error) {
	// A host of today has about 300.
	values := make([]Value, 0, 320)
	var cut error
	var errs []error
	var table, names []byte
	orphan := func() {
		if table != nil {
			errs = append(errs, fmt.Errorf("table %q has names but no values", clip(table)))
		}
	}
	for line := range lines(text, &cut) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		prefix, rest, ok := bytes.Cut(line, []byte{':'})
		switch {
		case !ok || len(prefix) == 0:
			errs = append(errs, fmt.Errorf("line %q names no table", clip(line)))
		case table != nil && bytes.Equal(table, prefix):
			var err error
			values, err = appendTable(values, string(table), names, rest, source)
			errs = append(errs, err)
			table = nil
		default:
			orphan()
			table, names = prefix, rest
		}
	}
	orphan()
	return values, parseError(source, append(errs, cut)...)
}

// appendTable adds the counters of one table.
func appendTable(values []Value, table string, names, numbers []byte, source string) ([]Value, error) {
	n, v := bytes.Fields(names), bytes.Fields(numbers)
	if len(n) != len(v) {
		return values, fmt.Errorf("table %q: %d names but %d values", clip([]byte(table)), len(n), len(v))
	}
	var errs []error
	for i := range n {
		field := string(n[i])
		if isLevel(table, field) {
			continue
		}
		count, ok, err := parseCount(v[i])
		if err != nil {
			errs = append(errs, fmt.Errorf("counter %s.%s: %w", table, field, err))
		}
		if ok {
			values = append(values, Value{
				Name: table + "." + field, Value: count, Source: source,
				Command: "nstat -az " + quote(table+field),
			})
		}
	}
	if len(errs) > 0 {
		return values, errs[0]
	}
	return values, nil
}

// isLevel says whether a column of the two-line tables is no counter: a
// setting, or a number of connections now (net/ipv4/proc.c, snmp_seq_show and
// snmp4_tcp_list; net/mptcp/mib.c).
func isLevel(table, field string) bool {
	switch table {
	case "Ip":
		return field == "Forwarding" || field == "DefaultTTL"
	case "Tcp":
		switch field {
		case "RtoAlgorithm", "RtoMin", "RtoMax", "MaxConn", "CurrEstab":
			return true
		}
	case "MPTcpExt":
		return field == "MPCurrEstab"
	}
	return false
}
