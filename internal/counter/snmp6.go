package counter

import "bytes"

// parseSNMP6 makes values of /proc/net/snmp6.
func parseSNMP6(text []byte, source string) ([]Value, error) {
	s := sheet{source: source, table: []byte("snmp6"), command: nstat(source)}
	err := scanSNMP6(&s, text)
	return s.all(), err
}

// scanSNMP6 parses a line for each counter, whose name begins with its table
// (net/ipv6/proc.c): Ip6, Icmp6, Udp6, UdpLite6, or whatever else ends with
// the first 6.
func scanSNMP6(s *sheet, text []byte) error {
	return scanPairs(s, text, func(s *sheet, name []byte) (table, field []byte) {
		i := bytes.IndexByte(name, '6')
		if i <= 0 || i == len(name)-1 {
			return s.table, name
		}
		return name[:i+1], name[i+1:]
	})
}
