package lab

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// udpSockFilter sends to a socket whose own filter refuses everything.
func udpSockFilter() Scenario {
	return Scenario{
		Name:  "udp-sockfilter",
		Title: "UDP datagrams that the filter of the receiving socket refuses",
		build: buildSockFilter,
	}
}

func buildSockFilter(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	s, err := listen(t.host, r.flow.Dst.Port())
	if err != nil {
		return nil, err
	}
	t.onClose(s.close)
	refuse := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := &unix.SockFprog{Len: uint16(len(refuse)), Filter: &refuse[0]}
	if err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return nil, fmt.Errorf("attach filter to receiver's socket: %w", err)
	}
	r.disarm = s.drain
	r.repair = func() error {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
			return fmt.Errorf("detach filter from receiver's socket: %w", err)
		}
		return t.read(s)
	}
	return r, r.countIn(t, "snmp", "Udp", "InErrors", "UdpInErrors")
}
