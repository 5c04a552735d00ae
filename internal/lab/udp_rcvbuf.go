package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// udpRcvBuf sends to a socket whose application does not read.
func udpRcvBuf() Scenario {
	return Scenario{
		Name:  "udp-rcvbuf",
		Title: "UDP datagrams to a socket that is not read and whose receive buffer is full",
		build: buildRcvBuf,
	}
}

// The receive buffer is filled while it is roomy and then made small, so that
// it takes no further datagram and none was lost before. Were it just small
// from the start, how many datagrams fit would depend on the kernel (up to
// 6.12 one more than on 6.18), and a single one would not be lost at all.
//
// The kernel doubles what SO_RCVBUF asks for, and charges a datagram with more
// than its length (net/core/sock.c, __sock_set_rcvbuf; 2,304 bytes for 1,000
// on 6.18): 128 KiB hold the fillers, 8 KiB do not.
const (
	roomyRcvBuf = 64 << 10
	smallRcvBuf = 4 << 10
	fillers     = 12
	fillerBytes = 1000
)

func buildRcvBuf(t *topology) (*rig, error) {
	r := newRig(t)
	if err := r.sendUDP(t, t.peer, peerNet.Addr(), hostNet.Addr()); err != nil {
		return nil, err
	}
	if err := r.countIn(t, "snmp", "Udp", "RcvbufErrors", "UdpRcvbufErrors"); err != nil {
		return nil, err
	}
	// Counted after the socket took the datagram: net/ipv4/ip_input.c,
	// ip_protocol_deliver_rcu.
	delivered, err := t.table("snmp", "Ip", "InDelivers")
	if err != nil {
		return nil, err
	}
	filler, err := t.udpSender(t.peer, netip.AddrPortFrom(peerNet.Addr(), srcPort+1), r.flow.Dst)
	if err != nil {
		return nil, err
	}
	s, err := listen(t.host, r.flow.Dst.Port())
	if err != nil {
		return nil, err
	}
	t.onClose(s.close)
	r.arm = func(ctx context.Context) (uint64, error) {
		if err := s.setBuffer(roomyRcvBuf); err != nil {
			return 0, err
		}
		sent, err := r.send(ctx, fillers, filler.datagrams(fillerBytes), delivered)
		return sent, errors.Join(err, s.setBuffer(smallRcvBuf))
	}
	r.disarm = s.drain
	r.repair = func() error { // the application asks for more, and reads
		if err := s.setBuffer(sinkBuffer); err != nil {
			return err
		}
		return t.read(s)
	}
	return r, nil
}

// lazySocket is a bound UDP socket that is read by drain alone.
type lazySocket struct{ fd int }

func listen(ns *netlab.Namespace, port uint16) (*lazySocket, error) {
	s := new(lazySocket)
	err := ns.Do(func() error {
		var err error
		s.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open receiver's socket: %w", err)
	}
	if err := unix.Bind(s.fd, &unix.SockaddrInet4{Port: int(port)}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind receiver's socket to port %d: %w", port, err), unix.Close(s.fd))
	}
	return s, nil
}

func (s *lazySocket) setBuffer(bytes int) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes); err != nil {
		return fmt.Errorf("set receive buffer to %d: %w", bytes, err)
	}
	return nil
}

// drain reads all that is queued and returns how many datagrams it was.
func (s *lazySocket) drain() (read uint64, err error) {
	var buf [fillerBytes]byte
	for {
		_, _, err := unix.Recvfrom(s.fd, buf[:], unix.MSG_DONTWAIT)
		switch {
		case err == nil:
			read++
		case errors.Is(err, unix.EAGAIN):
			return read, nil
		case !errors.Is(err, unix.EINTR):
			return read, fmt.Errorf("drain receiver's socket: %w", err)
		}
	}
}

// close reads what is left first: unread datagrams of a closed socket are
// freed as if they had been dropped.
func (s *lazySocket) close() error {
	_, err := s.drain()
	return errors.Join(err, unix.Close(s.fd))
}
