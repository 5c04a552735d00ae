package filter

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// split cuts a filter into words and the signs ( ) ! && ||, which need no space
// around them.
func split(text string) []string {
	var out []string
	for _, word := range strings.Fields(text) {
		from := 0
		cut := func(i, n int) {
			if i > from {
				out = append(out, word[from:i])
			}
			if n > 0 {
				out = append(out, word[i:i+n])
			}
			from = i + n
		}
		for i := 0; i < len(word); i++ {
			switch {
			case i < from:
			case word[i] == '(', word[i] == ')', word[i] == '!' && !strings.HasPrefix(word[i:], "!="):
				cut(i, 1)
			case strings.HasPrefix(word[i:], "&&"), strings.HasPrefix(word[i:], "||"):
				cut(i, 2)
			}
		}
		cut(len(word), 0)
	}
	return out
}

// maxDepth bounds parentheses and negations within each other.
const maxDepth = 64

// kind is what an id stands for.
type kind string

const (
	kindHost      kind = "host"
	kindNet       kind = "net"
	kindPort      kind = "port"
	kindPortRange kind = "portrange"
	kindProto     kind = "proto"
)

// quals are the words before an id. "port 80 or 443" means "port 80 or port 443":
// an id alone has those of the one before.
type quals struct {
	proto string
	side  side
	kind  kind
}

// parser reads tokens by recursive descent.
type parser struct {
	tokens []string
	at     int
	depth  int
	last   quals
}

// The words that were expected, for errors.
const (
	wantPrimitive = `host, net, port, portrange, proto, src, dst, a protocol such as tcp, "not" or "("`
	wantJoint     = `"and", "or" or the end`
)

// fail is an error about the word at i.
func (p *parser) fail(i int, want string) error {
	if i >= len(p.tokens) {
		return fmt.Errorf("filter: ends too early: want %s", want)
	}
	word := p.tokens[i]
	small := strings.ToLower(word)
	unknown := want == wantPrimitive || want == wantJoint
	switch {
	case isRefused(word):
		return fmt.Errorf("filter: word %d, %q: pcap-filter has it, whydrop has not; want %s", i+1, word, want)
	case unknown && strings.ContainsAny(word, "[]<>=&|+*^%"):
		return fmt.Errorf("filter: word %d, %q: pcap-filter's comparisons of bytes and numbers are not supported; want %s", i+1, word, want)
	case unknown && small != word && isWord(small):
		return fmt.Errorf("filter: word %d, %q: write %q, in small letters", i+1, word, small)
	}
	return fmt.Errorf("filter: word %d, %q: want %s", i+1, word, want)
}

// peek is the next token, empty at the end.
func (p *parser) peek() string {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return ""
}

// accept passes over the next token if it is one of these.
func (p *parser) accept(words ...string) bool {
	if p.at < len(p.tokens) && slices.Contains(words, p.tokens[p.at]) {
		p.at++
		return true
	}
	return false
}

// filter reads all of it.
func (p *parser) filter() (node, error) {
	n, err := p.joined()
	if err != nil {
		return nil, err
	}
	if p.at < len(p.tokens) {
		return nil, p.fail(p.at, wantJoint)
	}
	return n, nil
}

// joined reads terms between and and or, which bind equally and to the left, as
// in pcap-filter.
func (p *parser) joined() (node, error) {
	n, err := p.term()
	for err == nil {
		var next node
		switch {
		case p.accept("and", "&&"):
			next, err = p.term()
			n = both{n, next}
		case p.accept("or", "||"):
			next, err = p.term()
			n = either{n, next}
		default:
			return n, nil
		}
	}
	return nil, err
}

// term reads a primitive, a negation, or what is in parentheses.
func (p *parser) term() (node, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("filter: word %d: more than %d parentheses and negations within each other", p.at+1, maxDepth)
	}
	defer func() { p.depth-- }()
	switch {
	case p.accept("not", "!"):
		n, err := p.term()
		return negated{n}, err
	case p.accept("("):
		n, err := p.joined()
		if err == nil && !p.accept(")") {
			err = p.fail(p.at, `"and", "or" or ")"`)
		}
		return n, err
	case p.accept("vlan"):
		return p.vlan()
	}
	return p.primitive()
}

func (p *parser) vlan() (node, error) {
	const most = 4095 // twelve bits of IEEE 802.1Q
	word := p.peek()
	if word == "" || word[0] < '0' || word[0] > '9' {
		return ofVLAN{any: true}, nil
	}
	id, ok := number(word, most)
	if !ok {
		return nil, p.fail(p.at, "the number of a VLAN, 0 to 4095")
	}
	p.at++
	return ofVLAN{id: uint16(id)}, nil
}

// primitive reads [PROTO] [src|dst] [KIND] ID, or a protocol alone.
func (p *parser) primitive() (node, error) {
	begin := p.at
	q := quals{proto: p.protocol()}
	known := p.at > begin
	var sided bool
	q.side, sided = p.side()
	kinded := p.at
	for _, k := range []kind{kindHost, kindNet, kindPort, kindPortRange, kindProto} {
		if p.accept(string(k)) {
			q.kind = k
			break
		}
	}
	switch {
	case q.kind != "":
	case known && !sided && !p.atAddress():
		p.last = quals{}
		return ofProtocol{protocolOf(q.proto)}, nil
	case known || sided:
		q.kind = kindHost
		if !p.atAddress() {
			return nil, p.fail(p.at, "host, net, port, portrange or an address")
		}
	case p.last.kind != "" && p.at > 0 && !isWord(p.peek()):
		q = p.last
	default:
		if !p.atAddress() {
			return nil, p.fail(p.at, wantPrimitive)
		}
		q.kind = kindHost
	}
	if why := q.clash(); why != "" {
		return nil, p.fail(kinded, why)
	}
	p.last = q
	return p.id(q)
}

// protocol passes over the name of a protocol.
func (p *parser) protocol() string {
	word := p.peek()
	if _, ok := links[word]; ok || slices.Contains(alone, word) {
		p.at++
		return word
	}
	return ""
}

// side passes over src, dst, "src or dst" and "src and dst".
func (p *parser) side() (s side, there bool) {
	switch {
	case p.accept("src"):
		s = sideSrc
	case p.accept("dst"):
		s = sideDst
	default:
		return sideAny, false
	}
	other := map[side]string{sideSrc: "dst", sideDst: "src"}[s]
	if p.at+1 < len(p.tokens) && p.tokens[p.at+1] == other {
		switch p.tokens[p.at] {
		case "or", "||":
			p.at += 2
			return sideAny, true
		case "and", "&&":
			p.at += 2
			return sideBoth, true
		}
	}
	return s, true
}

// atAddress says whether the next word looks like an address.
func (p *parser) atAddress() bool { return strings.ContainsAny(p.peek(), ".:/") }

// isWord says whether a token means something of its own.
func isWord(token string) bool {
	_, link := links[token]
	return token == "" || link || isRefused(token) || slices.Contains(alone, token) || slices.Contains([]string{
		"(", ")", "!", "&&", "||", "and", "or", "not", "vlan", "mask", "src", "dst",
		"host", "net", "port", "portrange", "proto",
	}, token)
}

// clash says what is wanted where the words before an id do not go together.
func (q quals) clash() string {
	_, link := links[q.proto]
	switch {
	case q.kind == kindProto && q.side != sideAny:
		return "host, net, port or portrange behind src and dst"
	case q.kind == kindProto && (q.proto != "" && q.proto != "ip" && q.proto != "ip6"):
		return "ip, ip6 or nothing before proto"
	case (q.kind == kindPort || q.kind == kindPortRange) && q.proto != "" && !slices.Contains(withPorts, q.proto):
		return "tcp, udp, sctp or nothing before a port"
	case (q.kind == kindHost || q.kind == kindNet) && q.proto != "" && !link:
		return fmt.Sprintf("ip, ip6, arp or nothing before an address (say \"%s and %s ...\")", q.proto, q.kind)
	}
	return ""
}

func protocolOf(name string) protocol {
	if ether, ok := links[name]; ok {
		return protocol{ether: ether}
	}
	if ip, ok := transports[name]; ok {
		c := protocol{ip: ip, hasIP: true}
		switch name { // the other family has one of its own
		case "icmp", "igmp":
			c.ether = etherIPv4
		case "icmp6":
			c.ether = etherIPv6
		}
		return c
	}
	return protocol{}
}

// id reads what the words before it speak of.
func (p *parser) id(q quals) (node, error) {
	c := protocolOf(q.proto)
	word := p.peek()
	at := p.at
	switch q.kind {
	case kindNet:
		net, want := p.prefix()
		if want != "" {
			return nil, p.fail(p.at-1, want)
		}
		return ofNet{c, q.side, net}, nil
	case kindPort:
		n, ok := port(word)
		if !ok {
			return nil, p.fail(at, "a port, 0 to 65535, or a name such as domain")
		}
		p.at++
		return ofPorts{c, q.side, n, n}, nil
	case kindPortRange:
		first, second, cut := strings.Cut(word, "-")
		lo, ok1 := port(first)
		hi, ok2 := port(second)
		if !cut || !ok1 || !ok2 {
			return nil, p.fail(at, "two ports such as 8000-8010")
		}
		p.at++
		return ofPorts{c, q.side, min(lo, hi), max(lo, hi)}, nil
	case kindProto:
		name := strings.TrimPrefix(word, `\`)
		n, ok := number(name, 255)
		if known, there := transports[name]; there {
			n, ok = uint64(known), true
		}
		if !ok {
			return nil, p.fail(at, "the number or name of an IP protocol, such as 47 or gre")
		}
		p.at++
		c.ip, c.hasIP = uint8(n), true
		return ofProtocol{c}, nil
	}
	addr, err := netip.ParseAddr(word)
	if err != nil || addr.Zone() != "" {
		return nil, p.fail(at, hostWant(word))
	}
	p.at++
	addr = addr.Unmap()
	return ofNet{c, q.side, netip.PrefixFrom(addr, addr.BitLen())}, nil
}

// hostWant says what is wanted instead of a word that is no address.
func hostWant(word string) string {
	_, isNumber := number(word, 1<<32)
	switch {
	case strings.Contains(word, "/"):
		return `an address; a prefix goes behind "net"`
	case isNumber:
		return `an address such as 10.0.0.1; a number goes behind "port" or "proto"`
	case strings.Contains(word, "%"):
		return "an address without a zone"
	}
	return "an address such as 10.0.0.1 or 2001:db8::1 (names are not resolved)"
}

const (
	wantNet  = "a prefix such as 10.0.0.0/8 or 2001:db8::/32"
	wantMask = "a mask such as 255.255.0.0"
)

// prefix reads a net: 10.0.0.0/8, 10.0.0.0 mask 255.0.0.0, 2001:db8::/32, or an
// IPv4 one of fewer bytes, such as 192.168. It says what is wanted if it is none.
func (p *parser) prefix() (net netip.Prefix, want string) {
	word := p.peek()
	p.at++
	if whole, err := netip.ParsePrefix(word); err == nil {
		if whole.Addr().Is4In6() {
			return net, "a prefix of IPv4, such as 10.0.0.0/8: packets have no mapped addresses"
		}
		if whole.Masked() != whole {
			return net, fmt.Sprintf("a prefix without bits behind its mask: %s", whole.Masked())
		}
		return whole, ""
	}
	addr, err := netip.ParseAddr(word)
	addr = addr.Unmap()
	switch {
	case err == nil && addr.Zone() != "":
		return net, wantNet
	case err == nil && p.accept("mask"):
		return p.masked(addr)
	case err == nil:
		return netip.PrefixFrom(addr, addr.BitLen()), ""
	}
	bytes := strings.Split(word, ".")
	if len(bytes) > 3 || strings.Contains(word, "/") {
		return net, wantNet
	}
	var b [4]byte
	for i, text := range bytes {
		n, ok := number(text, 255)
		if !ok {
			return net, wantNet
		}
		b[i] = byte(n)
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), 8*len(bytes)), ""
}

// masked reads the mask behind an address.
func (p *parser) masked(addr netip.Addr) (net netip.Prefix, want string) {
	m, err := netip.ParseAddr(p.peek())
	p.at++
	if err != nil || !m.Is4() || !addr.Is4() {
		return net, wantMask
	}
	b := m.As4()
	bits := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	length := 0
	for length < 32 && bits&(1<<(31-length)) != 0 {
		length++
	}
	net = netip.PrefixFrom(addr, length)
	if bits<<length != 0 && length < 32 || net.Masked() != net {
		return net, wantMask
	}
	return net, ""
}

// number reads a decimal number, or a hexadecimal one behind 0x.
func number(s string, most uint64) (uint64, bool) {
	base := 10
	if hex, ok := strings.CutPrefix(s, "0x"); ok {
		s, base = hex, 16
	}
	n, err := strconv.ParseUint(s, base, 64)
	return n, err == nil && n <= most
}

// port reads a port by its number or its service's name.
func port(s string) (uint16, bool) {
	if n, ok := services[s]; ok {
		return n, true
	}
	n, ok := number(s, 65535)
	return uint16(n), ok
}
