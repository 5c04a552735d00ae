package filter_test

import (
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/filter"
	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

// reference is what libpcap 1.10.3 answers: pcap_compile with each filter, then
// pcap_offline_filter with each packet, an Ethernet frame in hexadecimal.
type reference struct {
	Packets map[string]string   `json:"packets"`
	Filters map[string][]string `json:"filters"`
}

func readReference(tb testing.TB) reference {
	tb.Helper()
	b, err := os.ReadFile("testdata/libpcap.json")
	if err != nil {
		tb.Fatal(err)
	}
	var r reference
	if err := json.Unmarshal(b, &r); err != nil {
		tb.Fatal(err)
	}
	if len(r.Packets) < 10 || len(r.Filters) < 50 {
		tb.Fatalf("%d packets and %d filters", len(r.Packets), len(r.Filters))
	}
	return r
}

func drop(tb testing.TB, frame string) *record.Drop {
	tb.Helper()
	b, err := hex.DecodeString(frame)
	if err != nil {
		tb.Fatal(err)
	}
	var h packet.Headers
	if err := h.Decode(b, packet.StartEthernet, 0); err != nil {
		tb.Fatalf("%s: %v", frame, err)
	}
	return &record.Drop{Packet: h.Record()}
}

// Filters mean what they mean to libpcap.
func TestAsLibpcap(t *testing.T) {
	r := readReference(t)
	for text, want := range r.Filters {
		f, err := filter.Parse(strings.Fields(text)...)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if f.String() != text {
			t.Errorf("%q is called %q", text, f)
		}
		for name, frame := range r.Packets {
			if got := f.Match(drop(t, frame)); got != slices.Contains(want, name) {
				t.Errorf("%s: %s matches: %v, with libpcap %v", text, name, got, !got)
			}
		}
	}
}

func parse(t *testing.T, text string) *filter.Filter {
	t.Helper()
	f, err := filter.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func flow(proto uint8, src, dst string) record.Flow {
	return record.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// What differs from libpcap on purpose.
func TestBeyondLibpcap(t *testing.T) {
	inner := &record.Packet{Flow: flow(6, "10.0.0.1:40000", "10.0.0.2:80")}
	tunnel := &record.Drop{Packet: &record.Packet{
		EtherType: 0x800, Flow: flow(17, "192.168.0.1:5555", "192.168.0.2:4789"), Tunnel: "vxlan", Inner: inner,
	}}
	undecoded := &record.Drop{Key: record.Key{EtherType: 0x800, IPProto: 6}}
	tagged := &record.Drop{Packet: &record.Packet{EtherType: 0x800, VLANs: []uint16{5, 7}, Flow: inner.Flow}}
	mapped := &record.Drop{Packet: &record.Packet{Flow: flow(6, "[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.2]:2")}}
	arp := &record.Drop{Packet: &record.Packet{EtherType: 0x806, ARP: "op 3 from 10.0.0.1 for 10.0.0.2"}}
	for _, c := range []struct {
		text string
		d    *record.Drop
		want bool
	}{
		{"tcp port 80", tunnel, true},
		{"host 192.168.0.1", tunnel, true},
		{"host 10.0.0.1", tunnel, true},
		{"not port 80", tunnel, false},
		{"tcp", undecoded, true},
		{"udp", undecoded, false},
		{"ip", undecoded, true},
		{"ip6", undecoded, false},
		{"icmp", undecoded, false},
		{"host 10.0.0.1", undecoded, false},
		{"not host 10.0.0.1", undecoded, true},
		{"port 80", undecoded, false},
		{"vlan", undecoded, false},
		{"vlan", tagged, true},
		{"vlan 7 and port 80", tagged, true},
		{"vlan 6", tagged, false},
		{"host 10.0.0.2 and ip", mapped, true},
		{"10.0.0.2", mapped, true},
		{"icmp or 10.0.0.1", mapped, true},
		{"host ::ffff:10.0.0.1", mapped, true},
		{"arp src host 10.0.0.1", arp, true},
		{"arp src host 10.0.0.2", arp, false},
		{"ip host 10.0.0.2", arp, false},
		{"host 10.0.0.1", &record.Drop{Packet: &record.Packet{ARP: "who-has"}}, false},
	} {
		if got := parse(t, c.text).Match(c.d); got != c.want {
			t.Errorf("%s of %+v: %v", c.text, c.d.Packet, got)
		}
	}
}

// Errors name the word and what was expected; nothing is passed over.
func TestRefused(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                  {"ends too early", "host"},
		"host":                              {"ends too early", "an address"},
		"host example.org":                  {`word 2, "example.org"`, "names are not resolved"},
		"host 10.0.0.0/8":                   {`word 2`, `behind "net"`},
		"host fe80::1%eth0":                 {"without a zone"},
		"10":                                {`word 1, "10"`, "host"},
		"port":                              {"ends too early", "a port"},
		"port 65536":                        {`word 2, "65536"`, "65535"},
		"port -1":                           {`word 2, "-1"`},
		"port gopher-ng":                    {`"gopher-ng"`, "such as domain"},
		"portrange 1":                       {"8000-8010"},
		"portrange 1-x":                     {"8000-8010"},
		"net 10.0.0.1/8":                    {"without bits behind its mask: 10.0.0.0/8"},
		"net 10.0.0.0/33":                   {"10.0.0.0/8"},
		"net 1.2.3.4.5":                     {"10.0.0.0/8"},
		"net 300":                           {"10.0.0.0/8"},
		"net ::ffff:10.0.0.0/104":           {"a prefix of IPv4"},
		"host 10.0.0.1%eth0":                {`"10.0.0.1%eth0": want an address without a zone`},
		"port 80+1":                         {`"80+1": want a port`},
		"TCP":                               {`write "tcp", in small letters`},
		"udp AND port 53":                   {`write "and", in small letters`},
		"host TCP":                          {"names are not resolved"},
		"net 10.0.0.0 mask 255.0.255.0":     {`word 4`, "mask"},
		"net 10.0.0.1 mask 255.0.0.0":       {"mask"},
		"net 10.0.0.0 mask":                 {"ends too early", "mask"},
		"vlan 4096":                         {"4095"},
		"proto 256":                         {"IP protocol"},
		"proto":                             {"ends too early"},
		"tcp proto 6":                       {"before proto"},
		"src proto 6":                       {"src and dst"},
		"icmp port 7":                       {"before a port"},
		"ip port 7":                         {"before a port"},
		"tcp host 10.0.0.1":                 {"tcp and host"},
		"tcp 80":                            {`word 2, "80"`, `"and"`},
		"host 10.0.0.1 port 80":             {`word 3, "port"`, `"and"`},
		"host 10.0.0.1 and":                 {"ends too early"},
		"and host 10.0.0.1":                 {`word 1, "and"`},
		"(udp":                              {"ends too early", `")"`},
		"udp)":                              {`word 2, ")"`},
		"not":                               {"ends too early"},
		"src":                               {"ends too early"},
		"src tcp":                           {`word 2, "tcp"`},
		"port 80 or tcp 443":                {`"443"`},
		"broadcast":                         {`"broadcast"`, "pcap-filter has it, whydrop has not"},
		"ether host 02:00:00:00:00:01":      {`"ether"`, "pcap-filter has it"},
		"udp and inbound":                   {`word 3, "inbound"`, "pcap-filter has it"},
		"gateway 10.0.0.1":                  {"pcap-filter has it"},
		"tcp[13] & 2 != 0":                  {`word 1, "tcp[13]"`, "comparisons"},
		"udp and ip[8] < 5":                 {`"ip[8]"`, "comparisons"},
		"len <= 100":                        {`"len"`, "pcap-filter has it"},
		"udp or host 10.0.0.1 or foo":       {`word 6, "foo"`, "an address"},
		strings.Repeat("not ", 100) + "udp": {"64"},
		strings.Repeat("(", 5000):           {"64"},
		strings.Repeat("x", 20_000):         {"16384"},
	} {
		f, err := filter.Parse(text)
		if err == nil {
			t.Errorf("%s: taken as %v", text, f)
			continue
		}
		for _, w := range append(want, "filter: ") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q, want %q", text, err, w)
			}
		}
	}
}

// Words may be given one by one, together, or without spaces at the signs.
func TestWords(t *testing.T) {
	d := drop(t, readReference(t).Packets["udp4"])
	for _, words := range [][]string{
		{"udp and (port 53 or port 80)"},
		{"udp", "and", "(", "port", "53", "or", "port", "80", ")"},
		{"udp", "and", "(port 53", "or port 80)"},
		{"udp&&(port 53||port 80)"},
		{"!tcp&&!(!udp)"},
		{"port 0x35"},
		{"net ::ffff:0.0.0.0 or udp"},
	} {
		f, err := filter.Parse(words...)
		if err != nil {
			t.Errorf("%q: %v", words, err)
		} else if !f.Match(d) {
			t.Errorf("%q does not match", words)
		}
	}
}

// FuzzParse: whatever the text, no panic; what is taken is taken again by its
// own name and then means the same; its negation means the opposite.
func FuzzParse(f *testing.F) {
	r := readReference(f)
	var drops []*record.Drop
	for _, frame := range r.Packets {
		drops = append(drops, drop(f, frame))
	}
	drops = append(drops, &record.Drop{}, &record.Drop{Packet: &record.Packet{}})
	for text := range r.Filters {
		f.Add(text)
	}
	f.Add("net 10.0.0.0 mask 255.255.255.0 or vlan 7&&!(tcp[13]&2!=0)")
	f.Add("src or dst and src")
	f.Fuzz(func(t *testing.T, text string) {
		one, err := filter.Parse(text)
		if err != nil {
			return
		}
		again, err := filter.Parse(one.String())
		if err != nil {
			t.Fatalf("%q is called %q: %v", text, one, err)
		}
		negated, err := filter.Parse("not", "(", text, ")")
		if err != nil && !strings.Contains(err.Error(), "64") && !strings.Contains(err.Error(), "16384") {
			t.Fatalf("not (%s): %v", text, err)
		}
		for _, d := range drops {
			if one.Match(d) != again.Match(d) {
				t.Fatalf("%q means something else as %q", text, one)
			}
			if negated != nil && one.Match(d) == negated.Match(d) {
				t.Fatalf("not (%s) means the same", text)
			}
		}
	})
}
