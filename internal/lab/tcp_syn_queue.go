package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/record"
)

// tcpSynQueue opens more connections at once than the host keeps half open,
// without SYN cookies. As with tcpAcceptQueue there is no drop event.
func tcpSynQueue() Scenario {
	return Scenario{
		Name:   "tcp-syn-queue",
		Title:  "SYNs while the queue of half-open connections is full and SYN cookies are off",
		Silent: true,
		build:  buildSynQueue,
	}
}

// synSource is an address that the peer receives for and does not have, so
// that nobody answers a SYN-ACK to it.
var synSource = netip.MustParseAddr("192.0.2.50")

// buildSynQueue fills the queue with SYNs. They stay in it for as long as the
// topology exists: the host sends each SYN-ACK for hours.
func buildSynQueue(t *topology) (*rig, error) {
	// Without cookies a quarter of tcp_max_syn_backlog is for hosts that are
	// known, so 4 are room for as many as it takes to leave less than 1
	// (net/ipv4/tcp_input.c, tcp_conn_request).
	const room = 4
	for _, setting := range [][2]string{
		{"tcp_syncookies", "0"},
		{"tcp_max_syn_backlog", fmt.Sprint(room)},
		{"tcp_synack_retries", "255"},
	} {
		if err := t.host.Sysctl("net.ipv4."+setting[0], setting[1]); err != nil {
			return nil, err
		}
	}
	// A peer that forwards, as it does on a host that does, would answer that
	// there is no such host.
	if err := t.peer.Sysctl("net.ipv4.ip_forward", "0"); err != nil {
		return nil, err
	}
	if err := t.permanent(synSource, netlab.MAC(peerNet.Addr())); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.flow = flow(protoTCP, synSource, hostNet.Addr())
	if _, err := t.listenTCP(r.flow.Dst.Port(), 128); err != nil {
		return nil, err
	}
	if err := r.halfOpen(t, room); err != nil {
		return nil, err
	}
	if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
		return nil, err
	}
	drops, err := t.table("netstat", "TcpExt", "ListenDrops")
	if err != nil {
		return nil, err
	}
	overflows, err := t.table("netstat", "TcpExt", "ListenOverflows")
	if err != nil {
		return nil, err
	}
	r.count(difference(drops, overflows), "TcpExt.ListenDrops - TcpExt.ListenOverflows", "/proc/net/netstat",
		"nstat -az TcpExtListenDrops TcpExtListenOverflows")
	return r, nil
}

// halfOpen opens that many connections and completes none. It returns when the
// host has answered each, for then each has its place.
func (r *rig) halfOpen(t *topology, n int) error {
	answers, err := t.table("snmp", "Tcp", "OutSegs")
	if err != nil {
		return err
	}
	send, err := t.frames()
	if err != nil {
		return err
	}
	before, err := answers()
	if err != nil {
		return err
	}
	for i := range n {
		frame, err := newPacket(fromPort(r.flow, srcPort+1+uint16(i))).bytes()
		if err != nil {
			return err
		}
		if err := send(frame); err != nil {
			return err
		}
	}
	if err := await(answers, before+uint64(n), r.patience); err != nil {
		return fmt.Errorf("fill SYN queue: %w", err)
	}
	return nil
}

// fromPort is the same flow from another port.
func fromPort(f record.Flow, port uint16) record.Flow {
	f.Src = netip.AddrPortFrom(f.Src.Addr(), port)
	return f
}

// permanent makes the host know a neighbour on its device to the peer.
func (t *topology) permanent(addr netip.Addr, mac net.HardwareAddr) error {
	link, err := t.host.Link(hostDevice)
	if err != nil {
		return err
	}
	err = t.host.Links().NeighSet(&netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac,
	})
	if err != nil {
		return fmt.Errorf("set neighbour %s on %s: %w", addr, hostDevice, err)
	}
	return nil
}
