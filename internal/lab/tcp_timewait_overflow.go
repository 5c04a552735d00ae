package lab

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// tcpTimeWaitOverflow closes more connections than may wait in TIME_WAIT. No
// packet is dropped: the connection ends at once, and what comes for it later
// is answered with a reset.
func tcpTimeWaitOverflow() Scenario {
	return Scenario{
		Name:   "tcp-timewait-overflow",
		Title:  "closed TCP connections for which the table of TIME_WAIT has no room",
		Silent: true,
		build:  buildTimeWaitOverflow,
	}
}

func buildTimeWaitOverflow(t *topology) (*rig, error) {
	if err := t.strangers(); err != nil {
		return nil, err
	}
	// The time in FIN_WAIT2 may be as long as that in TIME_WAIT: then the
	// kernel keeps it there too (net/ipv4/tcp_input.c, tcp_rcv_state_process).
	for name, value := range map[string]string{"tcp_max_tw_buckets": "0", "tcp_fin_timeout": "60"} {
		if err := t.host.Sysctl("net.ipv4."+name, value); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	r.from = t.host
	r.flow = flow(protoTCP, synSource, hostNet.Addr())
	r.flow = fromPort(r.flow, 0)
	send, err := t.frames()
	if err != nil {
		return nil, err
	}
	ports := peerPorts()
	r.emit = func() error {
		e, err := t.restored(connection{port: ports(), window: 1 << 15})
		if err != nil {
			return err
		}
		// The host ends it, and the other end acknowledges that.
		frame, err := e.segment(theirSeq, 0, e.ackFIN)
		if err := errors.Join(err, unix.Close(e.fd)); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
		return send(frame)
	}
	return r, r.countIn(t, "netstat", "TcpExt", "TCPTimeWaitOverflow", "TcpExtTCPTimeWaitOverflow")
}
