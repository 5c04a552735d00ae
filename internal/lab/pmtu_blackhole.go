package lab

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/whydrop/whydrop/record"
)

// pmtuBlackhole has the host's firewall drop what a router behind it tells a
// sender: that a packet was too big.
func pmtuBlackhole() Scenario {
	return Scenario{
		Name:  "pmtu-blackhole",
		Title: `"fragmentation needed" messages of a router that the host's firewall does not let pass to the sender`,
		build: buildPMTUBlackhole,
	}
}

// nextMTU is the MTU that the router tells, in bytes.
const nextMTU = 1300

func buildPMTUBlackhole(t *topology) (*rig, error) {
	if err := t.addFar(); err != nil {
		return nil, err
	}
	chain, err := t.chain(nftables.TableFamilyIPv4, nftables.Chain{
		Name: "forward", Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoICMP, peerNet.Addr(), farNet.Addr())
	p, err := tooBig(r.flow)
	if err != nil {
		return nil, err
	}
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	return r, r.dropRule(chain, "ip", toProto(protoICMP)...)
}

// toProto is the match "meta l4proto N".
func toProto(proto uint8) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
	}
}

// tooBig is what a router says about a TCP segment from f's destination, which
// it could not pass on to elsewhere: the segment's IP header and 8 bytes more
// (RFC 792; the MTU: RFC 1191, 4).
func tooBig(f record.Flow) (*packet, error) {
	p := newPacket(f)
	lost := newPacket(flow(protoTCP, f.Dst.Addr(), elsewhere))
	lost.ip.Flags = layers.IPv4DontFragment
	lost.ip.Length = 1500
	tcp := lost.transport.(*layers.TCP)
	tcp.SYN, tcp.ACK = false, true
	frame, err := lost.bytes()
	if err != nil {
		return nil, err
	}
	p.transport = &layers.ICMPv4{
		TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded),
		Seq:      nextMTU,
	}
	p.payload = gopacket.Payload(frame[etherLen : etherLen+ipv4Len+8])
	return p, nil
}
