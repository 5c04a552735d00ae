package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// tcpAcceptQueue opens connections to a listener that accepts none. The kernel
// frees the SYN as if it had been used: there is no drop event
// (net/ipv4/tcp_input.c, tcp_conn_request, 5.10 to 7.2).
func tcpAcceptQueue() Scenario {
	return Scenario{
		Name:   "tcp-accept-queue",
		Title:  "SYNs to a listener whose application accepts too slowly: its accept queue is full",
		Silent: true,
		build:  buildAcceptQueue,
	}
}

// buildAcceptQueue fills the queue with connections of the peer's kernel, and
// sends the SYNs that get lost as frames: nobody sends those again.
func buildAcceptQueue(t *topology) (*rig, error) {
	// With 0 the queue for SYNs would be full first (include/net/inet_connection_sock.h,
	// inet_csk_reqsk_queue_is_full); with 1 there is room for one more than that
	// (include/net/sock.h, sk_acceptq_is_full).
	const backlog = 1
	r := newRig(t)
	r.flow = flow(protoTCP, peerNet.Addr(), hostNet.Addr())
	listener, err := t.listenTCP(r.flow.Dst.Port(), backlog)
	if err != nil {
		return nil, err
	}
	for i := range backlog + 1 {
		if err := t.connect(netip.AddrPortFrom(r.flow.Src.Addr(), srcPort+1+uint16(i)), r.flow.Dst); err != nil {
			return nil, err
		}
	}
	// The peer has its connection a moment before the host has.
	if err := await(waiting(listener), backlog+1, r.patience); err != nil {
		return nil, fmt.Errorf("fill accept queue: %w", err)
	}
	if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
		return nil, err
	}
	r.repair = func() error { // the application asks for a longer queue, and accepts
		if err := unix.Listen(listener, 128); err != nil {
			return fmt.Errorf("listen with a longer queue: %w", err)
		}
		return t.acceptAll(listener)
	}
	return r, r.countIn(t, "netstat", "TcpExt", "ListenOverflows", "TcpExtListenOverflows")
}

// listenTCP is a socket of the host that listens on a port.
func (t *topology) listenTCP(port uint16, backlog int) (fd int, err error) {
	if fd, err = t.open(t.host, unix.AF_INET, unix.SOCK_STREAM); err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(port)})
	if err = errors.Join(err, unix.Listen(fd, backlog)); err != nil {
		return -1, fmt.Errorf("listen on port %d: %w", port, err)
	}
	return fd, nil
}

// connect opens a connection of the peer that lasts as long as the topology.
func (t *topology) connect(src, dst netip.AddrPort) error {
	fd, err := t.open(t.peer, unix.AF_INET, unix.SOCK_STREAM)
	if err != nil {
		return err
	}
	if err := dial(fd, src, dst); err != nil {
		return fmt.Errorf("connect to %s: %w", dst, err)
	}
	return nil
}

// waiting counts the connections that a listener has not accepted yet, which
// is what TCP_INFO of one says there (net/ipv4/tcp.c, tcp_get_info).
func waiting(listener int) counter {
	return func() (uint64, error) {
		info, err := unix.GetsockoptTCPInfo(listener, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("read accept queue: %w", err)
		}
		return uint64(info.Unacked), nil
	}
}
