package lab

// icmpRateLimit pings a host that counts its answers against its limit of
// ICMP messages.
func icmpRateLimit() Scenario {
	return Scenario{
		Name:   "icmp-ratelimit",
		Title:  "pings whose answers the host's own limit of ICMP messages holds back: icmp_ratemask has echo replies",
		Silent: true,
		build:  buildICMPRateLimit,
	}
}

// buildICMPRateLimit sets a limit of one answer an hour. A peer that was not heard
// of before has collected a minute (net/ipv4/inetpeer.c, inet_getpeer), so not
// even the first is sent.
func buildICMPRateLimit(t *topology) (*rig, error) {
	for _, s := range [...][2]string{
		{"icmp_ratelimit", "3600000"},
		{"icmp_ratemask", "6169"}, // 6168 is the default; 1 is echo replies, type 0
	} {
		if err := t.host.Sysctl("net.ipv4."+s[0], s[1]); err != nil {
			return nil, err
		}
	}
	return unansweredPings(t)
}
