package counter

import (
	"bytes"
	"fmt"
)

// parseTables makes values of /proc/net/snmp or /proc/net/netstat.
func parseTables(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, command: nstat(source)}
	err := scanTables(&s, text)
	return s.all(), err
}

// nstat is the command that shows a counter of a file that nstat reads. It
// leaves out the levels of Ip and Tcp (iproute2, misc/nstat.c,
// useless_numbers).
func nstat(source string) func(table, field string, level bool) string {
	return func(table, field string, level bool) string {
		if level && (table == "Ip" || table == "Tcp") {
			return "grep " + table + ": " + source
		}
		name := table + field
		for i := range len(name) {
			if !isWordByte(name[i]) {
				return "nstat -az " + quote(name)
			}
		}
		return "nstat -az " + name
	}
}

// scanTables parses a line of names and a line of numbers for each table,
// both beginning with the table's name and a colon (net/ipv4/proc.c). A table
// may come several times: IcmpMsg has at most 16 columns at once.
func scanTables(s *sheet, text []byte) error {
	s.begin(text)
	var cut error
	var errs []error
	var table, names []byte
	for line := range lines(text, &cut) {
		if w, _ := word(line); len(w) == 0 {
			continue
		}
		colon := bytes.IndexByte(line, ':')
		switch {
		case colon <= 0:
			errs = append(errs, fmt.Errorf("line %q names no table", clip(line)))
		case table != nil && bytes.Equal(table, line[:colon]):
			if err := s.tableRow(table, names, line[colon+1:]); err != nil {
				errs = append(errs, err)
			}
			table = nil
		default:
			if table != nil {
				errs = append(errs, orphan(table))
			}
			table, names = line[:colon], line[colon+1:]
		}
	}
	if table != nil {
		errs = append(errs, orphan(table))
	}
	return parseErrors(s.source, errs, cut)
}

func orphan(table []byte) error {
	return fmt.Errorf("table %q has names but no values", clip(table))
}

// tableRow adds the values of one table: all of them, but those that are no
// numbers, or none.
func (s *sheet) tableRow(table, names, numbers []byte) error {
	begin, n, v := s.n, names, numbers
	var failed error
	for {
		var name, number []byte
		name, n = word(n)
		number, v = word(v)
		if len(name) == 0 || len(number) == 0 {
			if len(name) != len(number) {
				s.n = begin
				return fmt.Errorf("table %q: %d names but %d values", clip(table), countWords(names), countWords(numbers))
			}
			return failed
		}
		if err := s.number(table, name, number); err != nil && failed == nil {
			failed = err
		}
	}
}

// number adds a value, unless it is below 0.
func (s *sheet) number(table, field, text []byte) error {
	v, ok := decimal(text)
	if ok {
		s.put(table, field, whole, v)
		return nil
	}
	if err := decimalError(text); err != nil {
		return fmt.Errorf("counter %q: %w", string(clip(table))+"."+string(clip(field)), err)
	}
	return nil
}
