package lab

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// tcpOrphans closes connections while more of those that no program holds any
// more are there than the host may keep. Each is reset instead of being ended.
func tcpOrphans() Scenario {
	return Scenario{
		Name:   "tcp-orphans",
		Title:  "closed TCP connections that are reset because the host has too many that no program holds",
		Silent: true,
		build:  buildOrphans,
	}
}

func buildOrphans(t *topology) (*rig, error) {
	if err := t.strangers(); err != nil {
		return nil, err
	}
	r := newRig(t)
	r.from = t.host
	r.flow = fromPort(flow(protoTCP, synSource, hostNet.Addr()), 0)
	ports := peerPorts()
	if err := r.orphan(t, ports()); err != nil {
		return nil, err
	}
	if err := t.hostSysctl("net/ipv4/tcp_max_orphans", "0"); err != nil {
		return nil, err
	}
	r.emit = func() error {
		e, err := t.restored(connection{port: ports(), window: 1 << 15})
		if err != nil {
			return err
		}
		if err := unix.Close(e.fd); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
		return nil
	}
	if err := r.countIn(t, "netstat", "TcpExt", "TCPAbortOnMemory", "TcpExtTCPAbortOnMemory"); err != nil {
		return nil, err
	}
	// What the kernel knows of their number is up to 100 ms old
	// (net/ipv4/tcp.c, tcp_orphan_update, 5.16 and later).
	time.Sleep(300 * time.Millisecond)
	return r, nil
}

// orphan makes a connection that no program holds and that the other end has
// not ended yet. It stays for a minute, without a segment.
func (r *rig) orphan(t *topology, port uint16) error {
	e, err := t.restored(connection{port: port, window: 1 << 15})
	if err != nil {
		return err
	}
	frame, err := e.segment(theirSeq, 0, e.ackFIN)
	if err != nil {
		return errors.Join(err, unix.Close(e.fd))
	}
	send, err := t.frames()
	if err != nil {
		return errors.Join(err, unix.Close(e.fd))
	}
	const wait = 120 // s; those above 60 are no TIME_WAIT (net/ipv4/tcp.c, __tcp_close)
	err = errors.Join(
		unix.SetsockoptInt(e.fd, unix.IPPROTO_TCP, unix.TCP_LINGER2, wait),
		unix.Shutdown(e.fd, unix.SHUT_WR), send(frame))
	const finWait2 = 5
	state := func() (uint64, error) {
		info, err := unix.GetsockoptTCPInfo(e.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return 0, fmt.Errorf("read state of connection: %w", err)
		}
		return uint64(info.State), nil
	}
	return errors.Join(err, await(state, finWait2, r.patience), unix.Close(e.fd))
}
