package lab

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// tcpMem sends to a socket that has room while all TCP sockets of the host
// together have none left.
func tcpMem() Scenario {
	return Scenario{
		Name:  "tcp-mem",
		Title: "TCP segments while all TCP sockets of the host together use more memory than tcp_mem allows",
		build: buildTCPMem,
	}
}

func buildTCPMem(t *topology) (*rig, error) {
	// Pages. Each CPU holds back up to 256 of them before they are counted
	// (net.core.mem_pcpu_rsv, 6.0 and later), so far more must be sent.
	if err := t.hostSysctl("net/ipv4/tcp_mem", "16 24 32"); err != nil {
		return nil, err
	}
	// A socket may have the first of these in any case (net/core/sock.c,
	// __sk_mem_raise_allocated).
	if err := t.host.Sysctl("net.ipv4.tcp_rmem", "4096 33554432 33554432"); err != nil {
		return nil, err
	}
	const window, size = 1 << 29, 1400
	r, e, err := newEstablished(t, connection{port: srcPort, window: window})
	if err != nil {
		return nil, err
	}
	// The buffer of the socket is not what is full.
	if err := unix.SetsockoptInt(e.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return nil, fmt.Errorf("set receive buffer: %w", err)
	}
	if err := r.sendHoles(t, e, size); err != nil {
		return nil, err
	}
	if err := r.countIn(t, "netstat", "TcpExt", "TCPOFODrop", "TcpExtTCPOFODrop"); err != nil {
		return nil, err
	}
	return r, r.fill(t, 20_000)
}

// hostSysctl changes a setting that all namespaces share. What it was comes
// back when the topology is closed. So such a scenario is for machines only.
func (t *topology) hostSysctl(name, value string) error {
	path := "/proc/sys/" + name
	old, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	set := func(value string) error {
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	}
	t.onClose(func() error { return set(strings.TrimSpace(string(old))) })
	return set(value)
}
