package packet_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/whydrop/whydrop/internal/packet"
)

// FuzzDecode decodes arbitrary bytes. cut shortens them for a second decoding,
// which may report less, but nothing else.
func FuzzDecode(f *testing.F) {
	for i, c := range decodeCases() {
		f.Add(unhex(c.hex), c.start == packet.StartEthernet, c.etherType, uint16(i))
	}
	f.Fuzz(func(t *testing.T, b []byte, ethernet bool, etherType, cut uint16) {
		s := sample{b: b, start: packet.StartNetwork, etherType: etherType}
		if ethernet {
			s.start = packet.StartEthernet
		}
		before := slices.Clone(b)
		var h packet.Headers
		err := h.Decode(b, s.start, etherType)
		if !slices.Equal(b, before) {
			t.Fatalf("the packet was changed: %x, before %x", b, before)
		}

		// Again into a used value, with other bytes behind the packet.
		again := h
		poisoned := append(slices.Clone(b), slices.Repeat([]byte{0xa5}, 64)...)
		againErr := again.Decode(poisoned[:len(b)], s.start, etherType)
		if again != h || !errors.Is(againErr, err) {
			t.Fatalf("decoded twice: %+v (%v), then %+v (%v)", h, err, again, againErr)
		}

		checkPrefix(t, s, len(b), &h, err)
		checkPrefix(t, s, int(cut)%(len(b)+1), &h, err)
	})
}
