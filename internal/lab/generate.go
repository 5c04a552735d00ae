package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// payload is the length of a generated datagram in bytes, if nothing else is
// said.
const payload = 64

// sender is a socket that sends to one place.
type sender struct {
	fd int
	to unix.Sockaddr
}

// open makes a socket in the namespace that goes away with the topology. What
// blocks in it fails after the patience that the rig has with a batch.
func (t *topology) open(ns *netlab.Namespace, domain, kind int) (fd int, err error) {
	err = ns.Do(func() error {
		fd, err = socket(domain, kind)
		return err
	})
	if err != nil {
		return -1, err
	}
	t.onClose(func() error { return unix.Close(fd) })
	return fd, nil
}

// socket opens one in the namespace of the calling thread.
func socket(domain, kind int) (fd int, err error) {
	if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("open generator's socket: %w", err)
	}
	limit := unix.NsecToTimeval(defaultPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return -1, errors.Join(fmt.Errorf("limit the time of the generator's socket: %w", err), unix.Close(fd))
	}
	return fd, nil
}

// send sends once more when a signal of the Go runtime interrupts it: a socket
// with a time limit is not restarted by the kernel (signal(7)).
func (s sender) send(data []byte) error {
	for {
		err := unix.Sendto(s.fd, data, 0, s.to)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// udpSender is a UDP socket on src that sends to dst.
func (t *topology) udpSender(ns *netlab.Namespace, src, dst netip.AddrPort) (sender, error) {
	fd, err := t.open(ns, unix.AF_INET, unix.SOCK_DGRAM)
	if err != nil {
		return sender{}, err
	}
	if err := unix.Bind(fd, sockaddr(src)); err != nil {
		return sender{}, fmt.Errorf("bind generator's socket to %s: %w", src, err)
	}
	return sender{fd, sockaddr(dst)}, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// datagrams returns a function that sends one datagram of that many bytes.
func (s sender) datagrams(size int) func() error {
	data := make([]byte, size)
	return func() error {
		if err := s.send(data); err != nil {
			return fmt.Errorf("send datagram: %w", err)
		}
		return nil
	}
}

// sendUDP makes a UDP socket in the namespace ns the generator. It sends from
// an address of the namespace to one that it has a route to.
func (r *rig) sendUDP(t *topology, ns *netlab.Namespace, src, dst netip.Addr) error {
	r.from, r.flow = ns, flow(protoUDP, src, dst)
	s, err := t.udpSender(ns, r.flow.Src, r.flow.Dst)
	if err != nil {
		return err
	}
	r.emit = s.datagrams(payload)
	return nil
}

// sendFrame makes a packet socket on the peer's device the generator. It sends
// that Ethernet frame, whatever it holds.
func (r *rig) sendFrame(t *topology, frame []byte) error {
	send, err := t.frames()
	if err != nil {
		return err
	}
	r.emit = func() error { return send(frame) }
	return nil
}

// frames returns a function that sends an Ethernet frame from the peer to the
// host.
func (t *topology) frames() (send func(frame []byte) error, err error) {
	// Protocol 0: it receives nothing (packet(7)).
	fd, err := t.open(t.peer, unix.AF_PACKET, unix.SOCK_RAW)
	if err != nil {
		return nil, err
	}
	link, err := t.peer.Link(peerDevice)
	if err != nil {
		return nil, err
	}
	s := sender{fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}}
	return func(frame []byte) error {
		if err := s.send(frame); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		return nil
	}, nil
}

// connectTCP makes connects of the peer's kernel the generator. The host is
// expected to refuse each.
func (r *rig) connectTCP(src, dst netip.Addr) {
	r.flow = flow(protoTCP, src, dst)
	r.emit = func() error {
		fd, err := socket(unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		return errors.Join(refused(fd, r.flow.Src, r.flow.Dst), abort(fd), unix.Close(fd))
	}
}

// refused returns nil if the connection is refused.
func refused(fd int, src, dst netip.AddrPort) error {
	err := dial(fd, src, dst)
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return nil
	case err == nil:
		return fmt.Errorf("connect to %s: it was not refused: %w", dst, errNotLost)
	}
	return fmt.Errorf("connect to %s: %w", dst, err)
}

// dial binds a TCP socket to src and connects it to dst.
func dial(fd int, src, dst netip.AddrPort) error {
	if err := unix.Bind(fd, sockaddr(src)); err != nil {
		return fmt.Errorf("bind generator's socket to %s: %w", src, err)
	}
	err := unix.Connect(fd, sockaddr(dst))
	// The kernel goes on with a connect that was interrupted (connect(2)).
	for errors.Is(err, unix.EINTR) || errors.Is(err, unix.EALREADY) {
		err = unix.Connect(fd, sockaddr(dst))
	}
	return err
}
