package counter

import "strings"

// parseSNMP6 makes counters of /proc/net/snmp6 (net/ipv6/proc.c): a line for
// each, whose name begins with its table.
func parseSNMP6(text []byte, source string) ([]Value, error) {
	return parsePairs(text, source, func(name string) (string, string) {
		return splitSNMP6(name), "nstat -az " + quote(name)
	})
}

// splitSNMP6 puts a dot behind the name of the table: Ip6, Icmp6, Udp6,
// UdpLite6, or whatever else ends with the first 6.
func splitSNMP6(name string) string {
	i := strings.IndexByte(name, '6')
	if i <= 0 || i == len(name)-1 {
		return "snmp6." + name
	}
	return name[:i+1] + "." + name[i+1:]
}
