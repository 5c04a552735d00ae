package dropmon

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/packet"
	"github.com/whydrop/whydrop/record"
)

// TestLocation: a text of 39 bytes may have been cut there; what it lacks is not
// made up.
func TestLocation(t *testing.T) {
	const pc = 0xffffffff8149b113
	for _, tt := range []struct {
		text string
		want record.Location
	}{
		{"__udp4_lib_rcv+0x5b3/0xd90", record.Location{Symbol: "__udp4_lib_rcv", Offset: 0x5b3}},
		{"nft_do_chain+0x40e/0x8c0 [nf_tables]", record.Location{Symbol: "nft_do_chain", Offset: 0x40e, Module: "nf_tables"}},
		{"foo+0x0/0x1 [veth 0123456789abcdef]", record.Location{Symbol: "foo", Module: "veth"}},
		{"", record.Location{}},
		{"0xffffffffc0a01234", record.Location{}},
		{"foo", record.Location{}},
		{"foo+0x12", record.Location{}},
		{"foo+0xzz/0x10", record.Location{}},
		{"foo+0x/0x10", record.Location{}},
		{"+0x1/0x2", record.Location{}},
		{"two words+0x1/0x2", record.Location{}},
		{"foo+0x11223344556677889/0x1", record.Location{}},
		// Cut by the kernel at 39 bytes, ever earlier.
		{"__netif_receive_skb_list_p+0x123/0x1234", record.Location{Symbol: "__netif_receive_skb_list_p", Offset: 0x123}},
		{"nf_tables_of_a_long_name+0x12/0x123 [nf", record.Location{Symbol: "nf_tables_of_a_long_name", Offset: 0x12}},
		{"__netif_receive_skb_core.cons+0x1ab/0x1", record.Location{Symbol: "__netif_receive_skb_core.cons", Offset: 0x1ab}},
		{"__netif_receive_skb_core.const+0x1ab/0x", record.Location{Symbol: "__netif_receive_skb_core.const", Offset: 0x1ab}},
		{"__netif_receive_skb_core.constp+0x1ab/0", record.Location{Symbol: "__netif_receive_skb_core.constp", Offset: 0x1ab}},
		{"__netif_receive_skb_core.constpr+0x1ab/", record.Location{Symbol: "__netif_receive_skb_core.constpr", Offset: 0x1ab}},
		{"__netif_receive_skb_core.constpro+0x1ab", record.Location{Symbol: "__netif_receive_skb_core.constpro", OffsetCut: true}},
		{"__netif_receive_skb_core.constprop.0+0x", record.Location{Symbol: "__netif_receive_skb_core.constprop.0", OffsetCut: true}},
		{"__netif_receive_skb_core.constprop.12+0", record.Location{Symbol: "__netif_receive_skb_core.constprop.12", OffsetCut: true}},
		{"__netif_receive_skb_core.constprop.123+", record.Location{Symbol: "__netif_receive_skb_core.constprop.123", OffsetCut: true}},
		{"__netif_receive_skb_core.constprop.isra", record.Location{Symbol: "__netif_receive_skb_core.constprop.isra…", OffsetCut: true}},
	} {
		if cut := tt.want.OffsetCut; cut && len(tt.text) != symbolRoom {
			t.Errorf("%q has %d bytes: the kernel would not have cut it", tt.text, len(tt.text))
		}
		tt.want.Address = pc
		if d := cmp.Diff(tt.want, Location(pc, tt.text)); d != "" {
			t.Errorf("%q (-want +got):\n%s", tt.text, d)
		}
	}
}

// TestLocationOfEachLength cuts a text as the kernel would at any room: what is
// kept was in it, and an offset is the right one or none.
func TestLocationOfEachLength(t *testing.T) {
	const text = "a_function_with_a_name_of_34_bytes+0x4d/0x690 [module]"
	for n := range len(text) + 1 {
		if n < symbolRoom {
			continue // it is only cut there
		}
		l := Location(1, text[:n])
		if !strings.HasPrefix(text, strings.TrimSuffix(l.Symbol, "…")) || l.Symbol == "" {
			t.Errorf("%q: symbol %q", text[:n], l.Symbol)
		}
		if l.OffsetCut == (l.Offset == 0x4d) || !l.OffsetCut && l.Offset != 0x4d {
			t.Errorf("%q: offset %#x, cut %v", text[:n], l.Offset, l.OffsetCut)
		}
		if l.Module != "" && l.Module != "module" {
			t.Errorf("%q: module %q", text[:n], l.Module)
		}
	}
}

func FuzzLocation(f *testing.F) {
	for _, s := range []string{
		"", "tcp_v4_rcv+0x86/0xf60", "nft_do_chain+0x40e/0x8c0 [nf_tables]", "0xffffffffc0001234",
		"__netif_receive_skb_core.constprop.0+0x", "a_function_with_a_name_longer_than_39_b", "+0x/0x [", "f+0xffffffffffffffffff/0x1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l := Location(7, text)
		if l.Address != 7 || l.OffsetCut && l.Offset != 0 || l.Module != "" && l.Symbol == "" {
			t.Errorf("%q: %+v", text, l)
		}
		if name := strings.TrimSuffix(l.Symbol, "…"); !strings.HasPrefix(text, name) {
			t.Errorf("%q: symbol %q", text, l.Symbol)
		}
	})
}

// TestHeaders: an Ethernet header is believed where it fits what the kernel had
// noted.
func TestHeaders(t *testing.T) {
	ip := []byte{
		0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
		0, 7, 0, 53, 0, 8, 0, 0,
	}
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}
	macs := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	behind := func(of ...byte) []byte { return slices.Concat(macs, of) }
	for name, tt := range map[string]struct {
		payload  []byte
		protocol uint16
		start    packet.Start
		ok       bool
	}{
		"Ethernet":                  {behind(append([]byte{8, 0}, ip...)...), 0x800, packet.StartEthernet, true},
		"nothing noted":             {behind(append([]byte{8, 0}, ip...)...), 0, packet.StartEthernet, true},
		"a tag":                     {behind(append([]byte{0x81, 0, 0, 5, 8, 0}, ip...)...), 0x8100, packet.StartEthernet, true},
		"a tag, noted behind":       {behind(append([]byte{0x81, 0, 0, 5, 8, 0}, ip...)...), 0x800, packet.StartEthernet, true},
		"802.2":                     {behind(0, 3, 0x42, 0x42, 3), 4, packet.StartEthernet, true},
		"a protocol without reader": {behind(0x88, 0xcc, 1), 0x88cc, packet.StartEthernet, true},
		"no link header":            {ip, 0x800, packet.StartNetwork, true},
		"ARP, no link header":       {arp, 0x806, packet.StartNetwork, true},
		"another protocol":          {ip, 0x1234, packet.StartNetwork, false},
		"no packet":                 {[]byte{1, 2, 3}, 0x800, packet.StartNetwork, false},
		"nothing":                   {nil, 0, packet.StartNetwork, false},
	} {
		var h packet.Headers
		p := Packet{Payload: tt.payload, Protocol: tt.protocol}
		if start, ok := p.Headers(&h); start != tt.start || ok != tt.ok {
			t.Errorf("%s: start %d, %v", name, start, ok)
		}
	}
}
