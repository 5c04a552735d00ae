// Package filter understands a subset of the language of pcap-filter(7), as
// tcpdump takes it, and says of a sampled drop whether it is of the traffic that
// is asked for.
//
// It is pure: text and records in, an answer out. It must not look at a host,
// resolve a name, or judge a drop. Where it differs from pcap-filter: names of
// hosts are not resolved; of a packet in a tunnel, and of the packet that an ICMP
// error is about, the headers inside count as well as those outside; and what is
// not supported is refused by its name, never passed over.
package filter

import (
	"errors"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Syntax is what Parse takes, in a few indented lines for a help text.
const Syntax = `host ADDR, net PREFIX, port N, portrange N-M, each also behind src or dst
  tcp, udp, sctp, icmp, icmp6, igmp, esp, ah, ip, ip6, arp, vlan [ID], proto N
  and, or, not (&&, ||, !) and parentheses`

// Filter is a parsed filter. It is not changed after Parse and safe for use from
// several goroutines.
type Filter struct {
	text string
	root node
}

// maxText bounds a filter's length, in bytes.
const maxText = 16 << 10

// Parse reads a filter of the words of a command line. As with tcpdump, a word may
// hold several. An error names the word that is not understood and what was
// expected in its place.
func Parse(words ...string) (*Filter, error) {
	text := strings.Join(words, " ")
	if len(text) > maxText {
		return nil, errors.New("filter: longer than 16384 bytes")
	}
	p := parser{tokens: split(text)}
	root, err := p.filter()
	if err != nil {
		return nil, err
	}
	return &Filter{text: strings.Join(strings.Fields(text), " "), root: root}, nil
}

// String is the text that was parsed, with single spaces.
func (f *Filter) String() string { return f.text }

// Match says whether a drop is of the traffic that the filter asks for. As in
// pcap-filter a test of a header that the drop does not have is false: of an
// address where the headers were not sampled, of a port in a later fragment.
func (f *Filter) Match(d *record.Drop) bool { return f.root.match(d) }

// node is a part of a filter.
type node interface {
	match(d *record.Drop) bool
}

type both struct{ a, b node }

func (n both) match(d *record.Drop) bool { return n.a.match(d) && n.b.match(d) }

type either struct{ a, b node }

func (n either) match(d *record.Drop) bool { return n.a.match(d) || n.b.match(d) }

type negated struct{ n node }

func (n negated) match(d *record.Drop) bool { return !n.n.match(d) }
