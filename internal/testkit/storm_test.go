package testkit

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func TestStormPackets(t *testing.T) {
	const n = 64000
	seen := make(map[[2]int]bool)
	packets := StormPackets(n)
	for i, p := range packets {
		key := [2]int{int(binary.BigEndian.Uint16(p[12:])), -1}
		switch key[0] {
		case unix.ETH_P_IP:
			key[1] = int(p[14+9])
		case unix.ETH_P_IPV6:
			key[1] = int(p[14+6])
		}
		if seen[key] {
			t.Fatalf("packet %d: ethertype %#x, protocol %d once more", i, key[0], key[1])
		}
		seen[key] = true
		if key[0] < 0x600 || len(p) <= stormMTU+18 { // with a VLAN tag it would still pass
			t.Fatalf("packet %d: ethertype %#x, %d bytes", i, key[0], len(p))
		}
	}
	if len(packets) != n {
		t.Errorf("%d packets, want %d", len(packets), n)
	}
}
