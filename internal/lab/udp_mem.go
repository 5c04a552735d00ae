package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// udpMem sends to a socket that has room while all UDP sockets of the host
// together have none left.
func udpMem() Scenario {
	return Scenario{
		Name:  "udp-mem",
		Title: "UDP datagrams while all UDP sockets of the host together use more memory than udp_mem allows",
		build: buildUDPMem,
	}
}

func buildUDPMem(t *topology) (*rig, error) {
	// Pages. UDP has no pressure to react to, so the first number is the limit of
	// a socket that holds anything (net/core/sock.c, __sk_mem_raise_allocated).
	// Each CPU holds back up to 256 pages before they are counted
	// (net.core.mem_pcpu_rsv, 6.0 and later), so far more must be sent.
	if err := t.hostSysctl("net/ipv4/udp_mem", "16 24 32"); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	s, err := t.udpSender(t.peer, fromPort(r.flow, srcPort+1).Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	r.flow.Src = fromPort(r.flow, srcPort+1).Src
	r.emit = s.datagrams(fillerBytes)
	full, err := listen(t.host, dstPort)
	if err != nil {
		return nil, err
	}
	t.onClose(full.close)
	// The buffer of the socket is not what is full.
	if err := unix.SetsockoptInt(full.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return nil, fmt.Errorf("set receive buffer: %w", err)
	}
	if err := r.countIn(t, "snmp", "Udp", "MemErrors", "UdpMemErrors"); err != nil {
		return nil, err
	}
	if _, err := r.lost(); errors.Is(err, errNoCounter) { // before 5.11
		if err := r.countIn(t, "snmp", "Udp", "InErrors", "UdpInErrors"); err != nil {
			return nil, err
		}
	}
	return r, r.fill(t, 20_000)
}
