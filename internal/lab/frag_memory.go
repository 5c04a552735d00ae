package lab

import "fmt"

// fragMemory sends fragments while all the memory that fragments may have is
// in use.
func fragMemory() Scenario {
	return Scenario{
		Name:  "frag-memory",
		Title: "fragments while those that wait for others fill ipfrag_high_thresh",
		build: buildFragMemory,
	}
}

func buildFragMemory(t *topology) (*rig, error) {
	// The first fragment is taken while no memory is in use, and holds more
	// than the limit for an hour (net/ipv4/inet_fragment.c, inet_frag_create).
	// With a limit of 0 no fragment would be taken, which is not a full memory.
	for _, setting := range [][2]string{{"low_thresh", "0"}, {"high_thresh", "1"}, {"time", "3600"}} {
		if err := t.host.Sysctl("net.ipv4.ipfrag_"+setting[0], setting[1]); err != nil {
			return nil, err
		}
	}
	r := newRig(t)
	r.flow = flow(protoUDP, peerNet.Addr(), hostNet.Addr())
	p := firstFragment(r)
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	taken, err := t.table("snmp", "Ip", "ReasmReqds")
	if err != nil {
		return nil, err
	}
	if err := r.emit(); err != nil {
		return nil, err
	}
	if err := await(taken, 1, r.patience); err != nil {
		return nil, fmt.Errorf("fill memory of fragments: %w", err)
	}
	if err := r.settle(); err != nil {
		return nil, err
	}
	p.ip.Id = 1 // those that get lost are of another datagram
	if err := r.sendPacket(t, p); err != nil {
		return nil, err
	}
	return r, r.countIn(t, "snmp", "Ip", "ReasmFails", "IpReasmFails")
}
