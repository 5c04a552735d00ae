package filter

import "slices"

// transports are the protocols that a filter names, with IANA's numbers.
var transports = map[string]uint8{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51,
	"icmp6": 58, "pim": 103, "vrrp": 112, "sctp": 132, "udplite": 136,
}

// alone are those that stand alone, as in pcap-filter; the others are known
// behind proto.
var alone = []string{"icmp", "igmp", "tcp", "udp", "esp", "ah", "icmp6", "pim", "vrrp", "sctp"}

// withPorts are those that qualify a port.
var withPorts = []string{"tcp", "udp", "sctp"}

// links are the EtherTypes that a filter names.
var links = map[string]uint16{"ip": etherIPv4, "arp": etherARP, "ip6": etherIPv6}

// services are the names of ports that engineers write by heart, as
// /etc/services has them: a filter must mean the same on every host.
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67,
	"bootpc": 68, "tftp": 69, "http": 80, "kerberos": 88, "pop3": 110, "ntp": 123, "imap2": 143,
	"snmp": 161, "snmp-trap": 162, "bgp": 179, "ldap": 389, "https": 443, "syslog": 514,
	"ldaps": 636, "imaps": 993, "pop3s": 995, "openvpn": 1194, "radius": 1812, "nfs": 2049,
	"mysql": 3306, "ms-wbt-server": 3389, "sip": 5060, "postgresql": 5432, "amqp": 5672, "redis": 6379,
}

// refused are the words of pcap-filter(7) that are not supported.
var refused = []string{
	"aarp", "action", "addr1", "addr2", "addr3", "addr4", "address1", "address2", "address3", "address4",
	"atalk", "broadcast", "carp", "clnp", "decnet", "dir", "direction", "ether", "fddi", "gateway",
	"geneve", "greater", "ifname", "igrp", "inbound", "ipx", "isis", "iso", "l1", "l2", "lane", "lat", "len",
	"less", "link", "llc", "moprc", "mopdl", "mpls", "multicast", "netbeui", "on", "outbound",
	"ppp", "pppoed", "pppoes", "protochain", "ra", "radio", "rarp", "reason", "rnr", "rset", "rulenum", "ruleset",
	"sca", "slip", "srnr", "stp", "subrulenum", "subtype", "ta", "tr", "type", "vpi", "vci", "vxlan", "wlan",
}

// isRefused says whether pcap-filter has a word and this package has not.
func isRefused(word string) bool { return slices.Contains(refused, word) }
