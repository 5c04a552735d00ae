package lab

import (
	"errors"
	"fmt"
)

// tcpRcvBufPrune sends small segments with a hole before each, so that none can
// be read, to a socket whose buffer may not grow.
func tcpRcvBufPrune() Scenario {
	return Scenario{
		Name:  "tcp-rcvbuf-prune",
		Title: "TCP segments out of order that find the receive buffer full",
		build: buildRcvBufPrune,
	}
}

func buildRcvBufPrune(t *topology) (*rig, error) {
	// All segments together stay within the window, and need far more memory:
	// what is charged is the buffer and not the byte in it (skb->truesize).
	const window, rcvbuf = 1 << 20, "16384"
	if err := t.host.Sysctl("net.ipv4.tcp_rmem", "4096 "+rcvbuf+" "+rcvbuf); err != nil {
		return nil, err
	}
	// 1: a socket may grow up to the greatest size, as on most hosts.
	if err := t.host.Sysctl("net.ipv4.tcp_moderate_rcvbuf", "1"); err != nil {
		return nil, err
	}
	r, e, err := newEstablished(t, connection{port: srcPort, window: window})
	if err != nil {
		return nil, err
	}
	if err := r.sendHoles(t, e, 1); err != nil {
		return nil, err
	}
	if err := r.countIn(t, "netstat", "TcpExt", "TCPOFODrop", "TcpExtTCPOFODrop"); err != nil {
		return nil, err
	}
	return r, r.fill(t, 1000)
}

// sendHoles makes segments of that many bytes the generator, each behind a
// hole: the host can neither hand them on nor join them.
func (r *rig) sendHoles(t *topology, e *established, size uint32) error {
	send, err := t.frames()
	if err != nil {
		return err
	}
	seq := uint32(theirSeq + 1)
	r.emit = func() error {
		frame, err := e.segment(seq, int(size), nil)
		if err != nil {
			return err
		}
		seq += size + 1
		return send(frame)
	}
	return nil
}

// fill sends until packets are lost, and about that many at most.
func (r *rig) fill(t *topology, most int) error {
	before, err := r.lost()
	if err != nil {
		return err
	}
	arrived, err := t.table("snmp", "Ip", "InDelivers")
	if err != nil {
		return err
	}
	for sent := 0; sent < most; sent += int(batch) {
		count, err := arrived()
		if err != nil {
			return err
		}
		err = t.peer.Do(func() error {
			for range batch {
				if err := r.emit(); err != nil {
					return err
				}
			}
			return nil
		})
		if err := errors.Join(err, await(arrived, count+batch, r.patience)); err != nil {
			return fmt.Errorf("fill receive buffer: %w", err)
		}
		if now, err := r.lost(); err != nil || now > before {
			return errors.Join(err, r.settle())
		}
	}
	return fmt.Errorf("fill receive buffer: %d segments do not fill it", most)
}
