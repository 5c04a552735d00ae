package fact

// Where a load takes its bytes from (enum nft_payload_bases).
const (
	baseLink = iota
	baseNetwork
	baseTransport
	baseInner
)

// headerField is a field of a header: where it begins and how long it is, in
// bits.
type headerField struct {
	name      string
	at, width int
	kind      nftType
}

// nftPorts are the first fields of most headers of layer 4.
func nftPorts(more ...headerField) []headerField {
	return append([]headerField{{"sport", 0, 16, typePort}, {"dport", 16, 16, typePort}}, more...)
}

// nftHeaders are the fields of each header that nft(8) has names for.
var nftHeaders = map[string][]headerField{
	"ether": {{"daddr", 0, 48, typeEther}, {"saddr", 48, 48, typeEther}, {"type", 96, 16, typeEtherType}},
	// Behind the addresses of Ethernet, as the program sees it.
	"vlan": {{"pcp", 112, 3, typeNumber}, {"dei", 115, 1, typeNumber}, {"id", 116, 12, typeNumber}, {"type", 128, 16, typeEtherType}},
	"ip": {
		{"version", 0, 4, typeNumber},
		{"hdrlength", 4, 4, typeNumber},
		{"dscp", 8, 6, typeDSCP},
		{"ecn", 14, 2, typeECN},
		{"length", 16, 16, typeNumber},
		{"id", 32, 16, typeNumber},
		{"frag-off", 48, 16, typeNumber},
		{"ttl", 64, 8, typeNumber},
		{"protocol", 72, 8, typeProto},
		{"checksum", 80, 16, typeNumber},
		{"saddr", 96, 32, typeIPv4},
		{"daddr", 128, 32, typeIPv4},
	},
	"ip6": {
		{"version", 0, 4, typeNumber},
		{"dscp", 4, 6, typeDSCP},
		{"ecn", 10, 2, typeECN},
		{"flowlabel", 12, 20, typeNumber},
		{"length", 32, 16, typeNumber},
		{"nexthdr", 48, 8, typeProto},
		{"hoplimit", 56, 8, typeNumber},
		{"saddr", 64, 128, typeIPv6},
		{"daddr", 192, 128, typeIPv6},
	},
	"arp": {
		{"htype", 0, 16, typeNumber},
		{"ptype", 16, 16, typeEtherType},
		{"hlen", 32, 8, typeNumber},
		{"plen", 40, 8, typeNumber},
		{"operation", 48, 16, typeARP},
		{"saddr ether", 64, 48, typeEther},
		{"saddr ip", 112, 32, typeIPv4},
		{"daddr ether", 144, 48, typeEther},
		{"daddr ip", 192, 32, typeIPv4},
	},
	"tcp": nftPorts(
		headerField{"sequence", 32, 32, typeNumber}, headerField{"ackseq", 64, 32, typeNumber}, headerField{"doff", 96, 4, typeNumber},
		headerField{"reserved", 100, 4, typeNumber}, headerField{"flags", 104, 8, typeTCPFlags}, headerField{"window", 112, 16, typeNumber},
		headerField{"checksum", 128, 16, typeNumber}, headerField{"urgptr", 144, 16, typeNumber},
	),
	"udp":     nftPorts(headerField{"length", 32, 16, typeNumber}, headerField{"checksum", 48, 16, typeNumber}),
	"udplite": nftPorts(headerField{"csumcov", 32, 16, typeNumber}, headerField{"checksum", 48, 16, typeNumber}),
	"sctp":    nftPorts(headerField{"vtag", 32, 32, typeNumber}, headerField{"checksum", 64, 32, typeNumber}),
	"dccp":    nftPorts(headerField{"type", 67, 4, typeDCCP}),
	"th":      nftPorts(),
	"icmp": {
		{"type", 0, 8, typeICMP},
		{"code", 8, 8, typeICMPCode},
		{"checksum", 16, 16, typeNumber},
		{"id", 32, 16, typeNumber},
		{"sequence", 48, 16, typeNumber},
		{"gateway", 32, 32, typeNumber},
	},
	"icmpv6": {
		{"type", 0, 8, typeICMPv6},
		{"code", 8, 8, typeICMPv6Code},
		{"checksum", 16, 16, typeNumber},
		{"parameter-problem", 32, 32, typeNumber},
		{"id", 32, 16, typeNumber},
		{"sequence", 48, 16, typeNumber},
	},
	"igmp": {{"type", 0, 8, typeIGMP}, {"mrt", 8, 8, typeNumber}, {"checksum", 16, 16, typeNumber}, {"group", 32, 32, typeNumber}},
	"esp":  {{"spi", 0, 32, typeNumber}, {"sequence", 32, 32, typeNumber}},
	"ah": {
		{"nexthdr", 0, 8, typeProto}, {"hdrlength", 8, 8, typeNumber}, {"reserved", 16, 16, typeNumber}, {"spi", 32, 32, typeNumber}, {"sequence", 64, 32, typeNumber},
	},
	"comp": {{"nexthdr", 0, 8, typeProto}, {"flags", 8, 8, typeHex}, {"cpi", 16, 16, typeNumber}},

	// The extension headers of IPv6, and the options of TCP and IPv4.
	"hbh":                  {{"nexthdr", 0, 8, typeProto}, {"hdrlength", 8, 8, typeNumber}},
	"dst":                  {{"nexthdr", 0, 8, typeProto}, {"hdrlength", 8, 8, typeNumber}},
	"rt":                   {{"nexthdr", 0, 8, typeProto}, {"hdrlength", 8, 8, typeNumber}, {"type", 16, 8, typeNumber}, {"seg-left", 24, 8, typeNumber}},
	"frag":                 {{"nexthdr", 0, 8, typeProto}, {"reserved", 8, 8, typeNumber}, {"frag-off", 16, 13, typeNumber}, {"reserved2", 29, 2, typeNumber}, {"more-fragments", 31, 1, typeNumber}, {"id", 32, 32, typeNumber}},
	"mh":                   {{"nexthdr", 0, 8, typeProto}, {"hdrlength", 8, 8, typeNumber}, {"type", 16, 8, typeMH}, {"reserved", 24, 8, typeNumber}, {"checksum", 32, 16, typeNumber}},
	"tcp option maxseg":    {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"size", 16, 16, typeNumber}},
	"tcp option window":    {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"count", 16, 8, typeNumber}},
	"tcp option sack":      {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"left", 16, 32, typeNumber}, {"right", 48, 32, typeNumber}},
	"tcp option timestamp": {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"tsval", 16, 32, typeNumber}, {"tsecr", 48, 32, typeNumber}},
	"tcp option sack-perm": {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}},
	"tcp option md5sig":    {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}},
	"tcp option fastopen":  {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}},
	"tcp option mptcp":     {{"kind", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"subtype", 16, 4, typeNumber}},
	"ip option ra":         {{"type", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"value", 16, 16, typeNumber}},
	"ip option rr":         {{"type", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"ptr", 16, 8, typeNumber}, {"addr", 24, 32, typeIPv4}},
	"ip option lsrr":       {{"type", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"ptr", 16, 8, typeNumber}, {"addr", 24, 32, typeIPv4}},
	"ip option ssrr":       {{"type", 0, 8, typeNumber}, {"length", 8, 8, typeNumber}, {"ptr", 16, 8, typeNumber}, {"addr", 24, 32, typeIPv4}},
	"sctp chunk":           {{"type", 0, 8, typeNumber}, {"flags", 8, 8, typeNumber}, {"length", 16, 16, typeNumber}},
}

// nftTransports are the headers of layer 4 by their number.
var nftTransports = map[uint64]string{
	1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 50: "esp", 51: "ah", 58: "icmpv6", 108: "comp", 132: "sctp", 136: "udplite",
}

// nftNetworks are the headers of layer 3 by their number in Ethernet, and by that
// of their family in netfilter.
var (
	nftNetworks        = map[uint64]string{0x0800: "ip", 0x86dd: "ip6", 0x0806: "arp", 0x8100: "vlan", 0x88a8: "vlan"}
	nftNetworkFamilies = map[uint64]string{2: "ip", 10: "ip6"}
)

// The headers and options that an exthdr looks for (enum nft_exthdr_op).
var (
	nftExtensions = map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 60: "dst", 135: "mh"}
	nftTCPOptions = map[uint8]string{
		0: "eol", 1: "nop", 2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp", 19: "md5sig", 30: "mptcp", 34: "fastopen",
	}
	nftIPOptions = map[uint8]string{7: "rr", 131: "lsrr", 137: "ssrr", 148: "ra"}
	nftChunks    = map[uint8]string{
		0: "data", 1: "init", 2: "init-ack", 3: "sack", 4: "heartbeat", 5: "heartbeat-ack", 6: "abort", 7: "shutdown", 8: "shutdown-ack", 9: "error",
		10: "cookie-echo", 11: "cookie-ack", 12: "ecne", 13: "cwr", 14: "shutdown-complete", 0xc1: "asconf", 0x80: "asconf-ack", 0xc0: "forward-tsn",
	}
)

// icmpField is a field that a message of ICMP has only with a certain type.
func icmpField(header string, kind, at, width int) (headerField, bool) {
	var f headerField
	switch {
	case header == "icmp" && kind == 3:
		f = headerField{"mtu", 48, 16, typeNumber}
	case header == "icmp" && kind == 5:
		f = headerField{"gateway", 32, 32, typeNumber}
	case header == "icmpv6" && kind == 2:
		f = headerField{"mtu", 32, 32, typeNumber}
	case header == "icmpv6" && kind == 4:
		f = headerField{"parameter-problem", 32, 32, typeNumber}
	}
	return f, f.name != "" && f.at == at && f.width == width
}

// headerFieldAt is the field of a header at exactly these bits.
func headerFieldAt(header string, at, width int) (headerField, bool) {
	for _, f := range nftHeaders[header] {
		if f.at == at && f.width == width {
			return f, true
		}
	}
	return headerField{}, false
}

// headerFieldsIn are the fields that together are exactly these bits.
func headerFieldsIn(header string, at, width int) []headerField {
	var list []headerField
	for end := at + width; at < end; {
		i := -1
		for j, f := range nftHeaders[header] {
			if f.at == at && f.at+f.width <= end && f.width%8 == 0 {
				i = j
				break
			}
		}
		if i < 0 {
			return nil
		}
		list = append(list, nftHeaders[header][i])
		at += nftHeaders[header][i].width
	}
	return list
}
