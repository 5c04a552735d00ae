package lab

import "github.com/gopacket/gopacket/layers"

// fragOverlap sends datagrams in two fragments that both have some of the same
// bytes.
func fragOverlap() Scenario {
	return Scenario{
		Name:  "frag-overlap",
		Title: "fragments that overlap one of the same datagram that came before",
		build: buildFragOverlap,
	}
}

func buildFragOverlap(t *topology) (*rig, error) {
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	send, err := t.frames()
	if err != nil {
		return nil, err
	}
	// Each datagram is one of its own: the kernel gives up the first fragment
	// with the second, silently (net/ipv4/ip_fragment.c, ip_frag_queue).
	first, second := firstFragment(r), firstFragment(r)
	second.ip.FragOffset = 1 // 8 bytes behind the start of the first
	r.emit = func() error {
		first.ip.Id++
		second.ip.Id = first.ip.Id
		for _, p := range []*packet{first, second} {
			frame, err := p.bytes()
			if err != nil {
				return err
			}
			if err := send(frame); err != nil {
				return err
			}
		}
		return nil
	}
	r.repair = func() error { // the second begins where the first ends
		second.ip.FragOffset = (udpLen + payload) / 8
		second.ip.Flags &^= layers.IPv4MoreFragments
		_, err := t.sink(t.host, dstPort)
		return err
	}
	return r, r.countIn(t, "netstat", "IpExt", "ReasmOverlaps", "IpExtReasmOverlaps")
}
