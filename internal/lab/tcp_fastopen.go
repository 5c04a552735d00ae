package lab

import (
	"errors"
	"fmt"

	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// tcpFastOpen opens connections with data in the SYN while as many of them wait
// for the end of their handshake as the application allows. The kernel takes
// the SYN without its data: there is no drop event, and the client sends the
// data again (net/ipv4/tcp_fastopen.c, tcp_fastopen_queue_check).
func tcpFastOpen() Scenario {
	return Scenario{
		Name:   "tcp-fastopen",
		Title:  "SYNs with data while the queue of TCP Fast Open is full",
		Silent: true,
		build:  buildFastOpen,
	}
}

func buildFastOpen(t *topology) (*rig, error) {
	if err := t.strangers(); err != nil {
		return nil, err
	}
	for name, value := range map[string]string{
		"net.ipv4.tcp_fastopen":        "514", // a server that asks for no cookie: 0x2 and 0x200
		"net.ipv4.tcp_syncookies":      "0",
		"net.ipv4.tcp_max_syn_backlog": "65535",
		"net.ipv4.tcp_synack_retries":  "255", // what waits stays there as long as the topology
		"net.core.somaxconn":           "65535",
	} {
		if err := t.host.Sysctl(name, value); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	r.flow = fromPort(flow(protoTCP, synSource, hostNet.Addr()), 0)
	listener, err := t.listenTCP(r.flow.Dst.Port(), 65535)
	if err != nil {
		return nil, err
	}
	if err := fastOpen(listener, 1); err != nil {
		return nil, err
	}
	if err := r.sendSYNData(t); err != nil {
		return nil, err
	}
	taken, err := t.table("netstat", "TcpExt", "TCPFastOpenPassive")
	if err != nil {
		return nil, err
	}
	before, err := taken()
	if err := errors.Join(err, t.peer.Do(r.emit), await(taken, before+1, r.patience)); err != nil {
		return nil, fmt.Errorf("fill queue of Fast Open: %w", err)
	}
	r.repair = func() error { return fastOpen(listener, 65535) }
	return r, r.countIn(t, "netstat", "TcpExt", "TCPFastOpenListenOverflow", "TcpExtTCPFastOpenListenOverflow")
}

// fastOpen lets that many connections of the listener be used before their
// handshake is complete.
func fastOpen(listener, queue int) error {
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, queue); err != nil {
		return fmt.Errorf("set queue of Fast Open to %d: %w", queue, err)
	}
	return nil
}

// fastOpenOption is TCP Fast Open of RFC 7413; one without a cookie asks for it.
const fastOpenOption = 34

// sendSYNData makes SYNs with data the generator, each from another port.
func (r *rig) sendSYNData(t *topology) error {
	send, err := t.frames()
	if err != nil {
		return err
	}
	ports := peerPorts()
	r.emit = func() error {
		p := newPacket(fromPort(r.flow, ports()))
		if tcp, ok := p.transport.(*layers.TCP); ok {
			tcp.Options = []layers.TCPOption{{OptionType: fastOpenOption, OptionLength: 2}}
		}
		p.payload = make([]byte, payload)
		frame, err := p.bytes()
		if err != nil {
			return err
		}
		return send(frame)
	}
	return nil
}
