package lab

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// tcpAuth opens connections without a signature to a listener that has a key
// for the peer, as between two routers of which one has none configured.
func tcpAuth() Scenario {
	return Scenario{
		Name:  "tcp-auth",
		Title: "SYNs without the TCP-MD5 signature that the listener demands of this peer",
		build: buildAuth,
	}
}

func buildAuth(t *topology) (*rig, error) {
	r, listener, err := newListener(t)
	if err != nil {
		return nil, err
	}
	if err := setMD5Key(listener, "secret"); err != nil {
		return nil, err
	}
	r.repair = func() error { return errors.Join(setMD5Key(listener, ""), r.sendSYNs(t)) }
	return r, r.countIn(t, "netstat", "TcpExt", "TCPMD5NotFound", "TcpExtTCPMD5NotFound")
}

// newListener is a rig with a listener of the host, to which SYNs are sent by
// nobody who would answer.
func newListener(t *topology) (*rig, int, error) {
	if err := t.strangers(); err != nil {
		return nil, -1, err
	}
	r := newRig(t)
	r.flow = flow(protoTCP, synSource, hostNet.Addr())
	listener, err := t.listenTCP(r.flow.Dst.Port(), 128)
	if err != nil {
		return nil, -1, err
	}
	return r, listener, r.sendPacket(t, newPacket(r.flow))
}

// sendSYNs makes SYNs from ports that were not used before the generator. The
// host takes them.
func (r *rig) sendSYNs(t *topology) error {
	send, err := t.frames()
	if err != nil {
		return err
	}
	ports := peerPorts()
	r.emit = func() error {
		frame, err := newPacket(fromPort(r.flow, ports())).bytes()
		if err != nil {
			return err
		}
		return send(frame)
	}
	return nil
}

// setMD5Key makes the listener demand a signature of synSource, or none any
// more where the key is empty (net/ipv4/tcp_ipv4.c, tcp_v4_parse_md5_keys).
func setMD5Key(listener int, key string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(key))}
	addr := synSource.As4()
	sig.Addr.Family = unix.AF_INET
	copy(sig.Addr.Data[:], append(binary.BigEndian.AppendUint16(nil, 0), addr[:]...))
	copy(sig.Key[:], key)
	if err := unix.SetsockoptTCPMD5Sig(listener, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig); err != nil {
		return fmt.Errorf("set TCP-MD5 key for %s: %w", synSource, err)
	}
	return nil
}
