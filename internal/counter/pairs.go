package counter

import (
	"bytes"
	"fmt"
)

// scanPairs parses lines of a name and a number. split gives the name's table
// and field.
func scanPairs(s *sheet, text []byte, split func(s *sheet, name []byte) (table, field []byte)) error {
	s.begin(text)
	var cut error
	var errs []error
	for line := range lines(text, &cut) {
		name, rest := word(line)
		number, rest := word(rest)
		more, _ := word(rest)
		switch {
		case len(name) == 0:
		case len(number) == 0 || len(more) > 0:
			errs = append(errs, fmt.Errorf("line %q: %d words, want a name and a number", clip(line), countWords(line)))
		default:
			table, field := split(s, name)
			if err := s.number(table, field, number); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return parseErrors(s.source, errs, cut)
}

// inTable is the split of a file that is one table.
func inTable(s *sheet, name []byte) (table, field []byte) { return s.table, name }

// parseXfrm makes counters of /proc/net/xfrm_stat.
func parseXfrm(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("xfrm")}
	err := scanOneTable(&s, text)
	return s.all(), err
}

// scanOneTable parses a file of pairs that is one table: xfrm_stat, where the
// kernel has XFRM_STATISTICS (net/xfrm/xfrm_proc.c), and tls_stat, where its
// module is loaded (net/tls/tls_proc.c).
func scanOneTable(s *sheet, text []byte) error { return scanPairs(s, text, inTable) }

// parseSCTP makes values of /proc/net/sctp/snmp.
func parseSCTP(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("sctp"), command: nstat(source)}
	err := scanSCTP(&s, text)
	return s.all(), err
}

// scanSCTP parses /proc/net/sctp/snmp, where the module is loaded
// (net/sctp/proc.c): pairs whose names begin with Sctp.
func scanSCTP(s *sheet, text []byte) error {
	return scanPairs(s, text, func(s *sheet, name []byte) (table, field []byte) {
		const n = len("Sctp")
		if len(name) > n && bytes.HasPrefix(name, []byte("Sctp")) {
			return name[:n], name[n:]
		}
		return s.table, name
	})
}

// parseTLS makes values of /proc/net/tls_stat.
func parseTLS(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("tls")}
	err := scanOneTable(&s, text)
	return s.all(), err
}
