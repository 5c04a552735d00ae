package lab

import "github.com/gopacket/gopacket/layers"

// tcpPAWS sends data with a timestamp that is older than the last one, as it
// comes from behind a NAT that gives several clients one address and port.
func tcpPAWS() Scenario {
	return Scenario{
		Name:  "tcp-paws",
		Title: "TCP segments whose timestamp is older than the last one of their connection",
		build: buildPAWS,
	}
}

func buildPAWS(t *topology) (*rig, error) {
	const now, before = 5_000_000, 4_000_000
	r, e, err := newEstablished(t, connection{port: srcPort, window: 1 << 15, timestamps: true})
	if err != nil {
		return nil, err
	}
	if err := r.sendInOrder(t, e, theirSeq, timestamp(now)); err != nil {
		return nil, err
	}
	inOrder := r.emit
	if err := t.peer.Do(inOrder); err != nil { // the timestamp that the host remembers
		return nil, err
	}
	frame, err := e.segment(theirSeq+payload, payload, func(tcp *layers.TCP) {
		tcp.Options = []layers.TCPOption{timestamp(before)}
	})
	if err != nil {
		return nil, err
	}
	if err := r.sendFrame(t, frame); err != nil {
		return nil, err
	}
	r.repair = func() error { r.emit = inOrder; return nil }
	return r, r.countIn(t, "netstat", "TcpExt", "PAWSEstab", "TcpExtPAWSEstab")
}
