package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// udpSndBufNoBufs sends datagrams whose fragments do not fit into the send
// buffer.
func udpSndBufNoBufs() Scenario {
	return Scenario{
		Name:  "udp-sndbuf-enobufs",
		Title: "datagrams whose fragments take more than twice the send buffer: ENOBUFS, and the fragments made so far are freed",
		build: buildSndBufNoBufs,
	}
}

// buildSndBufNoBufs makes fragments so long that the smallest send buffer
// takes one, as it always does, and not a second (net/ipv4/ip_output.c,
// __ip_append_data): so each datagram loses one packet.
func buildSndBufNoBufs(t *topology) (*rig, error) {
	const mtu, size = 9000, 10000
	if err := setMTU(t.host, hostDevice, mtu); err != nil {
		return nil, err
	}
	if err := setMTU(t.peer, peerDevice, mtu); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.from, r.flow = t.host, flow(protoUDP, hostNet.Addr(), peerNet.Addr())
	s, err := t.udpSender(t.host, r.flow.Src, r.flow.Dst)
	if err != nil {
		return nil, err
	}
	if err := s.setBuffer(1); err != nil { // the kernel takes the least that it allows
		return nil, err
	}
	data := make([]byte, size)
	r.emit = func() error { return refusedSend(s.send(data), unix.ENOBUFS) }
	r.repair = func() error {
		if err := s.setBuffer(sinkBuffer); err != nil {
			return err
		}
		_, err := t.sink(t.peer, dstPort)
		return err
	}
	return r, r.countIn(t, "snmp", "Udp", "SndbufErrors", "UdpSndbufErrors")
}

// setBuffer sets the send buffer of the generator in bytes, as SO_SNDBUF does.
func (s sender) setBuffer(bytes int) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes); err != nil {
		return fmt.Errorf("set send buffer to %d: %w", bytes, err)
	}
	return nil
}

// refusedSend is nil where a send was refused with one of those errors, and
// errNotLost where it was not refused.
func refusedSend(err error, with ...error) error {
	if err == nil {
		return errNotLost
	}
	for _, w := range with {
		if errors.Is(err, w) {
			return nil
		}
	}
	return fmt.Errorf("send datagram: %w", err)
}

func setMTU(ns *netlab.Namespace, device string, mtu int) error {
	link, err := ns.Link(device)
	if err != nil {
		return err
	}
	if err := ns.Links().LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU %d of %s: %w", mtu, device, err)
	}
	return nil
}
