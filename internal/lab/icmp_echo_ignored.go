package lab

// icmpEchoIgnored pings the host, which was told not to answer. The kernel
// frees the request as if it had been used: there is no drop event.
func icmpEchoIgnored() Scenario {
	return Scenario{
		Name:   "icmp-echo-ignored",
		Title:  "pings that the host does not answer: icmp_echo_ignore_all=1",
		Silent: true,
		build:  buildEchoIgnored,
	}
}

func buildEchoIgnored(t *topology) (*rig, error) {
	if err := t.host.Sysctl("net.ipv4.icmp_echo_ignore_all", "1"); err != nil {
		return nil, err
	}
	return unansweredPings(t)
}

// unansweredPings sends pings to the host, and counts those that it took and did
// not answer.
func unansweredPings(t *topology) (*rig, error) {
	r := newRig(t)
	r.flow = flow(protoICMP, peerNet.Addr(), hostNet.Addr())
	if err := r.sendPacket(t, newPacket(r.flow)); err != nil {
		return nil, err
	}
	asked, err := t.table("snmp", "Icmp", "InEchos")
	if err != nil {
		return nil, err
	}
	answered, err := t.table("snmp", "Icmp", "OutEchoReps")
	if err != nil {
		return nil, err
	}
	r.count(difference(asked, answered), "Icmp.InEchos - Icmp.OutEchoReps", "/proc/net/snmp",
		"nstat -az IcmpInEchos IcmpOutEchoReps")
	return r, nil
}
