package lab

import "github.com/gopacket/gopacket/layers"

// tcpBeyondWindow sends data far behind the window that the host announced.
func tcpBeyondWindow() Scenario {
	return Scenario{
		Name:  "tcp-beyond-window",
		Title: "TCP segments that lie outside the receive window of their connection",
		build: buildBeyondWindow,
	}
}

func buildBeyondWindow(t *topology) (*rig, error) {
	const window = 1 << 15
	r, e, err := newEstablished(t, connection{port: srcPort, window: window})
	if err != nil {
		return nil, err
	}
	frame, err := e.segment(theirSeq+100*window, payload, nil)
	if err != nil {
		return nil, err
	}
	r.repair = func() error { return r.sendInOrder(t, e, theirSeq) }
	r.countDropped(e)
	return r, r.sendFrame(t, frame)
}

// newEstablished is a rig with such a connection, whose segments come from the
// peer.
func newEstablished(t *topology, c connection) (*rig, *established, error) {
	if err := t.strangers(); err != nil {
		return nil, nil, err
	}
	e, err := t.establish(c)
	if err != nil {
		return nil, nil, err
	}
	r := newRig(t)
	r.flow = e.flow
	return r, e, nil
}

// countDropped makes the segments that a connection's socket refused the loss.
func (r *rig) countDropped(e *established) {
	r.count(e.dropped, "drops of the socket", "SO_MEMINFO", "ss -tnm   # skmem: d")
}

// sendInOrder makes segments the generator that are as they should be, from
// that sequence number on. The host reads each.
func (r *rig) sendInOrder(t *topology, e *established, seq uint32, options ...layers.TCPOption) error {
	send, err := t.frames()
	if err != nil {
		return err
	}
	r.emit = func() error {
		frame, err := e.segment(seq, payload, func(tcp *layers.TCP) { tcp.Options = options })
		if err != nil {
			return err
		}
		seq += payload
		if err := send(frame); err != nil {
			return err
		}
		return e.read(payload, r.patience)
	}
	return nil
}
