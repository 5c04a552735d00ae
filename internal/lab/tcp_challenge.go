package lab

import "github.com/gopacket/gopacket/layers"

// tcpChallenge sends a SYN for a connection that exists, as a peer does that
// was restarted, or a middlebox that lost its state.
func tcpChallenge() Scenario {
	return Scenario{
		Name:  "tcp-challenge",
		Title: "SYNs for a connection that is established",
		build: buildChallenge,
	}
}

func buildChallenge(t *topology) (*rig, error) {
	r, e, err := newEstablished(t, connection{port: srcPort, window: 1 << 15})
	if err != nil {
		return nil, err
	}
	frame, err := e.segment(theirSeq, 0, func(tcp *layers.TCP) { tcp.SYN, tcp.ACK, tcp.Ack = true, false, 0 })
	if err != nil {
		return nil, err
	}
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	r.repair = func() error { return r.sendInOrder(t, e, theirSeq) }
	return r, r.countIn(t, "netstat", "TcpExt", "TCPSYNChallenge", "TcpExtTCPSYNChallenge")
}
