package diagnose

import (
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// traffic is counters that together count the traffic which a loss is a part of.
type traffic struct {
	counters []string
	// withLost: the packets that were lost are counted too.
	withLost bool
	// ofDevice: it is that of the finding's devices, else of its namespaces.
	ofDevice bool
	// ofHost: it is that of the whole host.
	ofHost bool
}

// The traffic by protocol. What a socket loses is not in InDatagrams, but in
// InErrors (net/ipv4/udp.c, __udp_queue_rcv_skb), and InSegs counts a segment
// before anything is looked at (net/ipv4/tcp_ipv4.c, tcp_v4_rcv; 6.18).
var (
	udpIn = traffic{counters: []string{
		"Udp.InDatagrams", "Udp.InErrors", "Udp.NoPorts", "Udp6.InDatagrams", "Udp6.InErrors", "Udp6.NoPorts",
	}, withLost: true}
	udpOut = traffic{counters: []string{"Udp.OutDatagrams", "Udp6.OutDatagrams"}}
	tcpIn  = traffic{counters: []string{"Tcp.InSegs"}, withLost: true}
	tcpOut = traffic{counters: []string{"Tcp.OutSegs"}}
	icmpIn = traffic{counters: []string{"Icmp.InMsgs", "Icmp6.InMsgs"}, withLost: true}
	// InReceives is counted first of all (net/ipv4/ip_input.c, ip_rcv_core).
	ipIn  = traffic{counters: []string{"Ip.InReceives", "Ip6.InReceives"}, withLost: true}
	ipOut = traffic{counters: []string{"Ip.OutRequests", "Ip6.OutRequests"}}
	// ForwDatagrams is counted behind all checks (net/ipv4/ip_forward.c,
	// ip_forward_finish).
	ipForward = traffic{counters: []string{"Ip.ForwDatagrams", "Ip6.OutForwDatagrams"}}
	softnetIn = traffic{counters: []string{"softnet.processed"}, ofHost: true}
	// A device counts what it hands on, in which there is what is lost later.
	deviceRX = traffic{counters: []string{"link.rx_packets"}, ofDevice: true}
	deviceTX = traffic{counters: []string{"link.tx_packets"}, ofDevice: true}
	queueOut = traffic{counters: []string{"qdisc.packets"}, ofDevice: true}
)

// trafficOf are the kinds of traffic that a finding can be measured against, the
// nearest to the loss first.
func trafficOf(f *record.Finding) []traffic {
	switch f.Station {
	case record.StationNIC, record.StationRing, record.StationXDP:
		return []traffic{deviceRX}
	case record.StationTCIngress, record.StationBridge:
		return []traffic{deviceRX.before()}
	case record.StationSoftirq, record.StationBacklog:
		return []traffic{softnetIn}
	case record.StationQdisc:
		return []traffic{queueOut, deviceTX}
	case record.StationDriverTX, record.StationNICTX:
		return []traffic{deviceTX, queueOut}
	}
	switch f.Direction {
	case record.DirectionForward:
		return []traffic{ipForward, ipIn}
	case record.DirectionTX:
		return trafficOut(f)
	}
	var list []traffic
	if t, ok := ofProtocol(protocolOf(f), false); ok {
		// What is lost before the transport is not in its counters.
		t.withLost = t.withLost && slices.Contains([]record.Station{record.StationTransport, record.StationSocket}, f.Station)
		list = append(list, t)
	}
	if len(f.Devices) > 0 {
		list = append(list, deviceRX.before())
	}
	return append(list, ipIn)
}

// trafficOut is that of a loss on the way out. TCP counts a segment before it hands
// it to IP, IP a packet before the firewall looks at it, UDP a datagram when IP has
// taken it, which a neighbour that is not known yet does not hinder
// (net/ipv4/tcp_output.c, __tcp_transmit_skb; net/ipv4/ip_output.c, __ip_local_out;
// net/ipv4/udp.c, udp_send_skb; 6.18).
func trafficOut(f *record.Finding) []traffic {
	protocol, ip := protocolOf(f), ipOut
	t, ok := ofProtocol(protocol, true)
	switch f.Station {
	case record.StationSocketTX, record.StationTransportTX:
	case record.StationRoutingTX:
		t.withLost = protocol == "tcp"
	case record.StationNetfilterTX:
		t.withLost, ip.withLost = protocol == "tcp", true
	default:
		t.withLost, ip.withLost = true, true
	}
	if !ok {
		return []traffic{ip}
	}
	return []traffic{t, ip}
}

// before is the traffic where what is lost was counted already.
func (t traffic) before() traffic {
	t.withLost = true
	return t
}

func ofProtocol(protocol string, out bool) (traffic, bool) {
	switch {
	case protocol == "udp" && out:
		return udpOut, true
	case protocol == "udp":
		return udpIn, true
	case protocol == "tcp" && out:
		return tcpOut, true
	case protocol == "tcp":
		return tcpIn, true
	case protocol == "icmp" && !out:
		return icmpIn, true
	}
	return traffic{}, false
}

// protocolOf is the one protocol that a finding is about: that of its flows, or
// of the counters that bear it; "" where there are several or none.
func protocolOf(f *record.Finding) string {
	found := ""
	for _, e := range f.Evidence {
		if e.Kind != "counter" || !e.Supports {
			continue
		}
		table, _, _ := strings.Cut(e.Name, ".")
		p := map[string]string{
			"Udp": "udp", "Udp6": "udp", "Tcp": "tcp", "TcpExt": "tcp", "Icmp": "icmp", "Icmp6": "icmp", "Icmp6Msg": "icmp", "IcmpMsg": "icmp",
		}[table]
		if p == "" || e.Name == "TcpExt.IPReversePathFilter" {
			continue
		}
		if found != "" && found != p {
			return ""
		}
		found = p
	}
	if found != "" {
		return found
	}
	for _, s := range f.Flows {
		p := record.ProtoName(s.Flow.Proto)
		if found != "" && found != p {
			return ""
		}
		found = p
	}
	return found
}

// in is how much of it flowed in an observation, where the finding was; false
// where none of the counters was read there.
func (t traffic) in(o *record.Observation, f *record.Finding) (uint64, bool) {
	var sum uint64
	found := false
	for i := range o.Counters {
		c := &o.Counters[i]
		if c.Object != "" || c.Level || !slices.Contains(t.counters, c.Name) || !t.of(c, f) {
			continue
		}
		found = true
		sum = plus(sum, c.Delta)
	}
	return sum, found
}

// of says whether a counter counts where the finding is.
func (t traffic) of(c *record.Counter, f *record.Finding) bool {
	if t.ofHost {
		return true
	}
	if t.ofDevice && len(f.Devices) > 0 {
		return slices.Contains(f.Devices, deviceLabel(c.Device, c.NetNS))
	}
	return len(f.NetNS) == 0 || slices.Contains(f.NetNS, netnsLabel(c.NetNS))
}

// with is the traffic with those of it that were lost.
func (t traffic) with(n, lost uint64) uint64 {
	if t.withLost {
		return max(n, lost)
	}
	return plus(n, lost)
}

// say names the counters and what they are of.
func (t traffic) say(f *record.Finding) string {
	s := strings.Join(t.shown(), " + ")
	switch {
	case t.ofHost:
		return s
	case t.ofDevice && len(f.Devices) > 0:
		return s + " of " + strings.Join(f.Devices, ", ")
	case len(f.NetNS) > 0 && !slices.Equal(f.NetNS, []string{hostNetNS}):
		return s + " of netns " + strings.Join(f.NetNS, ", ")
	}
	return s
}

// shown are the counters without those of IPv6, which are the same again.
func (t traffic) shown() []string {
	var out []string
	for _, c := range t.counters {
		if table, _, _ := strings.Cut(c, "."); !strings.HasSuffix(table, "6") {
			out = append(out, c)
		}
	}
	return out
}
