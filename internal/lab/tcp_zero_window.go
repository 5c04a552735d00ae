package lab

import "errors"

// tcpZeroWindow sends on to a socket that is not read, after its window was
// closed.
func tcpZeroWindow() Scenario {
	return Scenario{
		Name:  "tcp-zero-window",
		Title: "TCP segments for a socket that is not read and has closed its window",
		build: buildZeroWindow,
	}
}

func buildZeroWindow(t *topology) (*rig, error) {
	// The least that SO_RCVBUF gives (net/core/sock.c, SOCK_MIN_RCVBUF): one
	// segment takes it all, so the host does not announce more.
	const window, rcvbuf = 1000, 1
	r, e, err := newEstablished(t, connection{port: srcPort, window: window, rcvbuf: rcvbuf})
	if err != nil {
		return nil, err
	}
	full, err := e.segment(theirSeq, window, nil)
	if err != nil {
		return nil, err
	}
	if err := r.sendFrame(t, full); err != nil {
		return nil, err
	}
	arrived, err := t.table("snmp", "Ip", "InDelivers")
	if err != nil {
		return nil, err
	}
	before, err := arrived()
	if err := errors.Join(err, t.peer.Do(r.emit), await(arrived, before+1, r.patience)); err != nil {
		return nil, err
	}
	frame, err := e.segment(theirSeq+window, payload, nil)
	if err != nil {
		return nil, err
	}
	r.countDropped(e)
	r.repair = func() error {
		if err := e.read(window, r.patience); err != nil {
			return err
		}
		return r.sendInOrder(t, e, theirSeq+window)
	}
	return r, r.sendFrame(t, frame)
}
