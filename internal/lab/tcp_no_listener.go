package lab

import "errors"

// tcpNoListener connects to a port where nothing listens. The host answers
// each SYN with a reset, which is what the kernel counts: nothing else in this
// namespace sends one.
func tcpNoListener() Scenario {
	return Scenario{
		Name:  "tcp-no-listener",
		Title: "TCP connections to a port that nothing listens on",
		build: func(t *topology) (*rig, error) {
			r := newRig(t)
			r.connectTCP(peerNet.Addr(), hostNet.Addr())
			r.repair = func() error {
				fd, err := t.listenTCP(dstPort, 128)
				return errors.Join(err, t.acceptAll(fd))
			}
			return r, r.countIn(t, "snmp", "Tcp", "OutRsts", "TcpOutRsts")
		},
	}
}
