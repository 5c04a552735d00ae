package packet_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/packet"
)

const generated = 20_000

func decode(t testing.TB, s sample) packet.Headers {
	t.Helper()
	var h packet.Headers
	if err := h.Decode(s.b, s.start, s.etherType); err != nil {
		t.Fatalf("decode %x: %v", s.b, err)
	}
	return h
}

// TestAgainstGopacket compares every field of generated packets with what
// gopacket finds.
func TestAgainstGopacket(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	g := newGenerator(t, 1)
	var seen coverage
	for i := range generated {
		s := g.sample()
		if i%10 == 0 {
			s = g.rawIP()
		}
		h := decode(t, s)
		seen.add(&h)
		got, want := h, reference(s)
		got.Truncated, got.Inner.Truncated = false, false
		if d := cmp.Diff(want, got, cmpAddr); d != "" {
			t.Fatalf("packet %d, start %d, ethertype %#04x: %x\n-gopacket +ours:\n%s", i, s.start, s.etherType, s.b, d)
		}
	}
	seen.check(t)
}

// coverage counts what was in the generated packets, so that the comparison
// cannot pass because something was never generated.
type coverage struct {
	parts, innerParts [16]int
	tunnels           [packet.Tunnel6in6 + 1]int
	vlans             [4]int
	ids, cut          int
}

func (c *coverage) add(h *packet.Headers) {
	for i := range c.parts {
		c.parts[i] += int(h.Parts >> i & 1)
		c.innerParts[i] += int(h.Inner.Parts >> i & 1)
	}
	c.tunnels[h.Tunnel]++
	c.vlans[h.VLANCount]++
	if h.HasTunnelID {
		c.ids++
	}
	if h.Truncated || h.Inner.Truncated {
		c.cut++
	}
}

func (c *coverage) check(t *testing.T) {
	const enough = generated / 2000
	for i := range c.parts {
		if packet.Part(1)<<i > packet.PartSourceRoute {
			break
		}
		if c.parts[i] < enough || c.innerParts[i] < enough {
			t.Errorf("part %#x: %d outer, %d inner", 1<<i, c.parts[i], c.innerParts[i])
		}
	}
	for tunnel, n := range c.tunnels {
		if n < enough {
			t.Errorf("tunnel %q: %d", packet.Tunnel(tunnel), n)
		}
	}
	if slices.Min(c.vlans[:3]) < enough || c.ids < enough || c.cut < enough {
		t.Errorf("vlans %v, tunnel ids %d, cut %d", c.vlans, c.ids, c.cut)
	}
}

// TestPrefixes decodes each prefix of generated and of hand-made packets:
// whatever it reports must be in it and equal what the whole packet says.
func TestPrefixes(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the package and this test have one goroutine, so the race detector has nothing to find")
	}
	g := newGenerator(t, 2)
	var samples []sample
	for range generated / 4 {
		samples = append(samples, g.sample())
	}
	for _, c := range decodeCases() {
		samples = append(samples, sample{b: unhex(c.hex), start: c.start, etherType: c.etherType})
	}
	for _, s := range samples {
		var full packet.Headers
		fullErr := full.Decode(s.b, s.start, s.etherType)
		for n := range len(s.b) + 1 {
			checkPrefix(t, s, n, &full, fullErr)
		}
	}
}
