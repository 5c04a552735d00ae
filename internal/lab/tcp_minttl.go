package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// tcpMinTTL opens connections from further away than the listener allows.
func tcpMinTTL() Scenario {
	return Scenario{
		Name:  "tcp-minttl",
		Title: "SYNs whose TTL is below what the listener demands (GTSM, as BGP uses it)",
		build: buildMinTTL,
	}
}

func buildMinTTL(t *topology) (*rig, error) {
	r, listener, err := newListener(t)
	if err != nil {
		return nil, err
	}
	if err := demandTTL(listener, 255); err != nil {
		return nil, err
	}
	r.repair = func() error { return errors.Join(demandTTL(listener, 1), r.sendSYNs(t)) }
	return r, r.countIn(t, "netstat", "TcpExt", "TCPMinTTLDrop", "TcpExtTCPMinTTLDrop")
}

func demandTTL(listener, ttl int) error {
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_IP, unix.IP_MINTTL, ttl); err != nil {
		return fmt.Errorf("demand a TTL of %d: %w", ttl, err)
	}
	return nil
}
