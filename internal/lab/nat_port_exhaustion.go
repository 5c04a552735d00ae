package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// natPortExhaustion opens one connection more than there are source ports for
// it behind the host's address.
func natPortExhaustion() Scenario {
	return Scenario{
		Name:  "nat-port-exhaustion",
		Title: "packets of new connections when all source ports of a NAT rule are in use toward one destination",
		build: buildPortExhaustion,
	}
}

// Ports that the rule has: so few, for the kernel keeps an entry for each.
const firstPort, lastPort = 20000, 20009

func buildPortExhaustion(t *topology) (*rig, error) {
	if err := t.addFar(); err != nil {
		return nil, err
	}
	if err := t.reachFar(); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), farNet.Addr()); err != nil {
		return nil, err
	}
	read, err := t.sink(t.far, dstPort)
	if err != nil {
		return nil, err
	}
	if err := t.snat(firstPort, lastPort); err != nil {
		return nil, err
	}
	// An hour: a port is free again when its connection is forgotten.
	if err := t.host.Sysctl("net.netfilter.nf_conntrack_udp_timeout", "3600"); err != nil {
		return nil, err
	}
	if err := t.takePorts(r.flow.Dst); err != nil {
		return nil, err
	}
	if err := await(read, lastPort-firstPort+1, r.patience); err != nil {
		return nil, fmt.Errorf("use up the ports of the NAT rule: %w", err)
	}
	return r, r.countConntrack(t, "insert_failed")
}

// reachFar tells the peer that the host is its router.
func (t *topology) reachFar() error {
	_, dst, err := net.ParseCIDR(farNet.Masked().String())
	if err != nil {
		return err
	}
	if err := t.peer.Links().RouteAdd(&netlink.Route{Dst: dst, Gw: hostNet.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("add route to %s: %w", farNet.Masked(), err)
	}
	return nil
}

// takePorts sends a datagram from each of as many ports as the NAT rule has.
func (t *topology) takePorts(dst netip.AddrPort) error {
	for port := uint16(firstPort); port <= lastPort; port++ {
		s, err := t.udpSender(t.peer, netip.AddrPortFrom(peerNet.Addr(), port), dst)
		if err != nil {
			return err
		}
		if err := s.datagrams(payload)(); err != nil {
			return err
		}
	}
	return nil
}

// snat gives what leaves for the far namespace the host's address there, and
// one of those ports; with 0 any.
func (t *topology) snat(from, to uint16) error {
	c, err := t.chain(nftables.TableFamilyIPv4, nftables.Chain{
		Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	if err != nil {
		return err
	}
	rule := append(toPort(protoUDP, dstPort),
		&expr.Immediate{Register: 1, Data: wayOutNet.Addr().AsSlice()})
	nat := &expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1}
	if from != 0 {
		rule = append(rule,
			&expr.Immediate{Register: 2, Data: binaryutil.BigEndian.PutUint16(from)},
			&expr.Immediate{Register: 3, Data: binaryutil.BigEndian.PutUint16(to)})
		nat.RegProtoMin, nat.RegProtoMax, nat.Specified = 2, 3, true
	}
	return c.rule(append(rule, nat)...)
}

// countConntrack makes a column of /proc/net/stat/nf_conntrack of the host the
// loss.
func (r *rig) countConntrack(t *topology, column string) error {
	f, err := t.host.Open("stat/nf_conntrack")
	if err != nil {
		return fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	r.count(conntrackColumn(f, column), "nf_conntrack."+column, "/proc/net/stat/nf_conntrack", "conntrack -S")
	return nil
}
