package lab

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// udpMsgSize sends datagrams that the kernel is to cut into segments, which are
// longer than the MTU.
func udpMsgSize() Scenario {
	return Scenario{
		Name:  "udp-emsgsize",
		Title: "sends of a UDP socket whose segments (UDP_SEGMENT) are longer than the MTU: EMSGSIZE",
		build: buildMsgSize,
	}
}

func buildMsgSize(t *topology) (*rig, error) {
	const long, short, size = 1600, 1200, 3200
	r := newRig(t)
	r.from, r.flow = t.host, flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	s, err := t.udpSender(t.host, r.flow.Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	if err := s.setSegment(long); err != nil {
		return nil, err
	}
	data, refused := make([]byte, size), new(atomic.Uint64)
	r.emit = func() error {
		// EINVAL on older kernels (net/ipv4/udp.c, udp_send_skb).
		err := refusedSend(s.send(data), unix.EMSGSIZE, unix.EINVAL)
		if err == nil {
			refused.Add(1)
		}
		return err
	}
	r.repair = func() error {
		if err := s.setSegment(short); err != nil {
			return err
		}
		_, err := t.sink(t.peer, dstPort)
		return err
	}
	r.count(fromSends(refused), "sends that the kernel refused", "sendto(2)", "strace -e sendto,sendmsg")
	return r, nil
}

// fromSends counts what a generator itself was told, where the kernel has no
// counter.
func fromSends(n *atomic.Uint64) counter {
	return func() (uint64, error) { return n.Load(), nil }
}

// setSegment has the kernel cut what the generator sends into datagrams of so
// many bytes.
func (s sender) setSegment(bytes int) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT, bytes); err != nil {
		return fmt.Errorf("set UDP_SEGMENT to %d: %w", bytes, err)
	}
	return nil
}
