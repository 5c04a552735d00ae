package diagnose_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// key is a drop's key of which only reason and function are known.
func key(reason, symbol string) record.Key {
	return record.Key{
		Reason:   record.Reason{Name: reason, Subsystem: "core"},
		Location: record.Location{Symbol: symbol, Offset: 0x10, Address: 0xffffffff81000010},
	}
}

// frames makes a stack of function names, the innermost first.
func frames(symbols ...string) []record.Location {
	out := make([]record.Location, len(symbols))
	for i, s := range symbols {
		out[i] = record.Location{Symbol: s}
	}
	return out
}

const noReason = "" // a kernel before 5.17

// TestClassify holds what was measured on kernels 5.10 to 7.2: the reason and
// function of a loss, and what it is.
func TestClassify(t *testing.T) {
	k := load(t)
	for _, c := range []struct {
		what, reason, symbol string
		class                record.Class
		station              record.Station
	}{
		{"UDP receive buffer full, 6.1 to 7.2", "SOCKET_RCVBUFF", "udp_queue_rcv_one_skb", record.ClassCapacity, record.StationSocket},
		{"UDP receive buffer full, 5.10", noReason, "udp_queue_rcv_one_skb", record.ClassCapacity, record.StationSocket},
		{"UDP receive buffer full, 3.10", noReason, "udp_queue_rcv_skb", record.ClassCapacity, record.StationSocket},
		{"UDP closed port, 6.1 to 6.18", "NO_SOCKET", "__udp4_lib_rcv", record.ClassFault, record.StationTransport},
		{"UDP closed port, 7.2", "NO_SOCKET", "udp_rcv", record.ClassFault, record.StationTransport},
		{"UDP closed port, IPv6", "NO_SOCKET", "__udp6_lib_rcv", record.ClassFault, record.StationTransport},
		{"UDP closed port or checksum, 5.10", noReason, "__udp4_lib_rcv", record.ClassFault, record.StationTransport},
		{"UDP checksum", "UDP_CSUM", "__udp4_lib_rcv", record.ClassFault, record.StationTransport},
		{"udp_mem", "PROTO_MEM", "udp_queue_rcv_one_skb", record.ClassCapacity, record.StationSocket},
		{"nft drop, 6.12 to 7.2", "NETFILTER_DROP", "nft_do_chain", record.ClassPolicy, record.StationNetfilter},
		{"nft drop, 6.1", "NETFILTER_DROP", "nf_hook_slow", record.ClassPolicy, record.StationNetfilter},
		{"nft drop, 5.10", noReason, "nf_hook_slow", record.ClassPolicy, record.StationNetfilter},
		{"NFQUEUE without a program", "NOT_SPECIFIED", "nf_queue", record.ClassFault, record.StationNetfilter},
		{"rp_filter", "IP_RPFILTER", "ip_rcv_finish_core", record.ClassPolicy, record.StationRouting},
		{"rp_filter, 5.10", noReason, "ip_rcv_finish_core", record.ClassFault, record.StationRouting},
		{"martian, 6.1 and 6.12", "NOT_SPECIFIED", "ip_rcv_finish_core", record.ClassFault, record.StationRouting},
		{"martian, 6.18", "IP_LOCALNET", "ip_rcv_finish_core", record.ClassFault, record.StationRouting},
		{"not ours", "IP_INADDRERRORS", "ip_error", record.ClassFault, record.StationRouting},
		{"not ours, 5.10", noReason, "ip_error", record.ClassFault, record.StationRouting},
		{"blackhole route", "NOT_SPECIFIED", "ip_error", record.ClassPolicy, record.StationRouting},
		{"TTL", "IP_INHDR", "ip_forward", record.ClassFault, record.StationRouting},
		{"IP header", "IP_INHDR", "ip_rcv_core", record.ClassFault, record.StationIP},
		{"unknown protocol, 5.10", noReason, "ip_local_deliver_finish", record.ClassFault, record.StationIP},
		{"ARP failed", "NEIGH_FAILED", "neigh_invalidate", record.ClassFault, record.StationNeigh},
		{"ND failed", "NOT_SPECIFIED", "neigh_invalidate", record.ClassFault, record.StationNeigh},
		{"qdisc limit, 5.10", noReason, "kfree_skb_list", record.ClassCapacity, record.StationQdisc},
		{"qdisc limit, 6.12 and 6.18", "QDISC_DROP", "__dev_queue_xmit", record.ClassCapacity, record.StationQdisc},
		{"fq_codel, 5.10", noReason, "fq_codel_dequeue", record.ClassCapacity, record.StationQdisc},
		{"fq_codel, 6.12", "NOT_SPECIFIED", "__fq_codel_dequeue", record.ClassCapacity, record.StationQdisc},
		{"fq_codel, 7.2", "QDISC_DROP_CONGESTED", "__fq_codel_dequeue", record.ClassCapacity, record.StationQdisc},
		{"backlog", "CPU_BACKLOG", "enqueue_to_backlog", record.ClassCapacity, record.StationBacklog},
		{"XDP, generic mode", "NOT_SPECIFIED", "do_xdp_generic", record.ClassPolicy, record.StationXDP},
		{"XDP, veth", "NOT_SPECIFIED", "veth_xdp_rcv_skb", record.ClassPolicy, record.StationXDP},
		{"tc ingress", "TC_INGRESS", "__netif_receive_skb_core.constprop.0", record.ClassPolicy, record.StationTCIngress},
		{"veth peer's MTU", "NOT_SPECIFIED", "__dev_forward_skb2", record.ClassFault, record.StationDriverTX},
		{"VXLAN without fdb", "NO_TX_TARGET", "vxlan_xmit", record.ClassFault, record.StationTunnel},
		{"bridge without a port for unicast", "NO_TX_TARGET", "br_handle_frame_finish", record.ClassFault, record.StationBridge},
		{"accept queue", "TCP_LISTEN_OVERFLOW", "tcp_v4_rcv", record.ClassCapacity, record.StationSocket},
		{"accept queue with SYN cookies", "NO_SOCKET", "cookie_v4_check", record.ClassCapacity, record.StationSocket},
		{"TCP receive buffer", "PROTO_MEM", "tcp_data_queue", record.ClassCapacity, record.StationSocket},
		{"no route for a unicast packet", "IP_INNOROUTES", "ip6_pkt_discard", record.ClassFault, record.StationRouting},
		{"IPv6 option", "UNHANDLED_PROTO", "ip6_tlvopt_unknown", record.ClassFault, record.StationIP},
	} {
		v := k.Classify(key(c.reason, c.symbol), nil)
		if v.Class != c.class || v.Station != c.station || !v.Known {
			t.Errorf("%s (%s@%s): %s at %s, known %v; want %s at %s", c.what, c.reason, c.symbol, v.Class, v.Station, v.Known, c.class, c.station)
		}
	}
}

// TestClassifyBenignPatterns holds the free that each of the catalogue's
// benign patterns is made by.
func TestClassifyBenignPatterns(t *testing.T) {
	k := load(t)
	for _, c := range []struct {
		pattern, reason, symbol string
		stack                   []string
	}{
		{"n-tcp-close-purge", "QUEUE_PURGE", "sk_stream_kill_queues", nil},
		{"n-tcp-close-purge", "QUEUE_PURGE", "tcp_disconnect", []string{"inet_child_forget", "inet_csk_listen_stop"}},
		{"n-tcp-close-purge, 6.1", "NOT_SPECIFIED", "sk_stream_kill_queues", nil},
		{"n-tcp-close-purge, 5.10", noReason, "sk_stream_kill_queues", nil},
		{"n-tcp-close-purge, write queue", "NOT_SPECIFIED", "skb_rbtree_purge", nil},
		{"n-udp-close-purge", "NOT_SPECIFIED", "udp_destruct_common", nil},
		{"n-udp-close-purge, 5.10", noReason, "udp_destruct_common", nil},
		{"n-ping-reply, 6.18", "NO_SOCKET", "ping_rcv", []string{"icmp_rcv"}},
		{"n-ping-reply, 6.1", "NO_SOCKET", "icmp_rcv", nil},
		{"n-ping-reply, 5.10", noReason, "icmp_rcv", nil},
		{"n-packet-close", "QUEUE_PURGE", "skb_queue_purge_reason", []string{"packet_release", "sock_close"}},
		{"n-packet-close, netlink", "QUEUE_PURGE", "skb_queue_purge_reason", []string{"netlink_sock_destruct", "__sk_destruct"}},
		{"n-packet-close, 5.10", noReason, "skb_queue_purge", nil},
		{"n-unix-close", "SOCKET_CLOSE", "unix_release_sock", nil},
		{"n-unix-close, 6.1", "NOT_SPECIFIED", "unix_release_sock", nil},
		{"n-unix-close", "UNIX_DISCONNECT", "unix_dgram_disconnected", nil},
		{"n-unix-close", "UNIX_SKIP_OOB", "manage_oob", nil},
		{"n-vsock", "NOT_SPECIFIED", "virtio_transport_recv_pkt", nil},
		{"n-unhandled-l2", "UNHANDLED_PROTO", "__netif_receive_skb_core.constprop.0", nil},
		{"n-stp-bpdu", "NOT_SPECIFIED", "stp_pdu_rcv", []string{"llc_rcv"}},
		{"n-stp-bpdu", "NOT_SPECIFIED", "llc_rcv", nil},
		{"n-bond-backup", "UNHANDLED_PROTO", "__netif_receive_skb_core", nil},
		{"n-otherhost-promisc", "OTHERHOST", "ip_rcv_core", nil},
		{"n-mcast-chatter", "NOT_SPECIFIED", "ip6_mc_input", nil},
		{"n-mcast-chatter, broadcast", "NOT_SPECIFIED", "__udp4_lib_rcv", nil},
		{"n-mcast-chatter, broadcast, 7.2", "NOT_SPECIFIED", "udp_rcv", nil},
		{"n-ndisc-otherhost", "IPV6_NDISC_NS_OTHERHOST", "icmpv6_rcv", nil},
		{"n-pause-frames", "MAC_IEEE_MAC_CONTROL", "br_handle_frame", nil},
		{"n-tcp-dup", "TCP_OLD_DATA", "tcp_data_queue", nil},
		{"n-tcp-dup", "TCP_OFOMERGE", "tcp_data_queue_ofo", nil},
		{"n-tcp-dup", "TCP_OLD_SEQUENCE", "tcp_validate_incoming", nil},
		{"n-tcp-dup", "TCP_OLD_ACK", "tcp_rcv_established", nil},
		{"n-tcp-dup", "TCP_TOO_OLD_ACK", "tcp_v4_do_rcv", nil},
		{"n-tcp-dup", "TCP_RFC7323_PAWS_ACK", "tcp_validate_incoming", nil},
		{"n-tcp-timewait", "NOT_SPECIFIED", "tcp_v4_rcv", nil},
		{"n-tcp-timewait, IPv6", "NOT_SPECIFIED", "tcp_v6_rcv", nil},
		{"n-tcp-timewait, 5.10", noReason, "tcp_v4_rcv", nil},
		{"n-tcp-abort", "TCP_ABORT_ON_DATA", "tcp_v4_do_rcv", nil},
		{"n-tcp-abort", "NO_SOCKET", "tcp_v4_rcv", nil},
		{"n-tcp-abort", "TCP_RESET", "tcp_validate_incoming", nil},
		{"n-tcp-abort", "TCP_CLOSE", "tcp_rcv_state_process", nil},
		{"n-net-tx-action", noReason, "net_tx_action", nil},
		{"n-old-nodejs", noReason, "init_dummy_netdev", nil},
		{"n-old-nodejs", noReason, "icmp_sk_init", nil},
		{"n-old-nodejs", noReason, "netlink_unicast", nil},
		{"n-gso-parent", "NOT_SPECIFIED", "tbf_enqueue", nil},
		{"n-nfqueue-twin", "NOT_SPECIFIED", "__nfqnl_enqueue_packet", nil},
		{"n-bpf-testrun", "NOT_SPECIFIED", "__dev_forward_skb2", []string{"dev_forward_skb_nomtu", "bpf_clone_redirect", "bpf_prog_9499dabb2c705fbd", "bpf_test_run", "bpf_prog_test_run_skb"}},
		{"n-bpf-testrun, its own packet", "NOT_SPECIFIED", "bpf_prog_test_run_skb", nil},
		{"route query", "NOT_SPECIFIED", "inet_rtm_getroute", nil},
		{"broadcast ping", "INVALID_PROTO", "icmp_rcv", nil},
	} {
		v := k.Classify(key(c.reason, c.symbol), frames(c.stack...))
		if v.Class.Shown() || !v.Known {
			t.Errorf("%s (%s@%s): %s, known %v", c.pattern, c.reason, c.symbol, v.Class, v.Known)
		}
	}
}

// What an idle host gets from its link: only the packet tells that nobody
// waits for it, so only a sample hides it.
func TestClassifyMulticast(t *testing.T) {
	k := load(t)
	to := func(dst, mac string) *record.Packet {
		p := &record.Packet{DstMAC: mac}
		if dst != "" {
			p.Flow = record.Flow{
				Proto: 58,
				Src:   netip.MustParseAddrPort("[fe80::1]:0"),
				Dst:   netip.AddrPortFrom(netip.MustParseAddr(dst), 0),
			}
		}
		return p
	}
	for _, c := range []struct {
		reason, symbol string
		packet         *record.Packet
		hidden         bool
	}{
		{"IP_INNOROUTES", "ip6_pkt_discard", to("ff02::16", ""), true}, // MLD on a device that comes up
		{"IP_INNOROUTES", "ip6_pkt_discard", to("2001:db8::1", ""), false},
		{"IP_INNOROUTES", "ip6_pkt_discard", nil, false},
		{"NOT_SPECIFIED", "ip_rcv_finish_core", to("224.0.0.22", ""), true}, // IGMP
		{"NOT_SPECIFIED", "ip_rcv_finish_core", to("127.0.0.1", ""), false},
		{"NOT_SPECIFIED", "ip_rcv_finish_core", to("::ffff:224.0.0.22", ""), true},
		{"IP_NOPROTO", "ip_protocol_deliver_rcu", to("224.0.0.18", ""), true}, // VRRP
		{"NO_TX_TARGET", "br_dev_xmit", to("ff02::16", ""), true},             // MLD of an empty bridge
		{"NO_TX_TARGET", "br_dev_xmit", to("10.0.0.2", "02:00:00:00:00:01"), false},
		{"", "__udp4_lib_rcv", to("255.255.255.255", ""), true},
		{"", "__udp4_lib_rcv", to("10.0.0.255", "ff:ff:ff:ff:ff:ff"), true},
		{"", "__udp4_lib_rcv", to("10.0.0.2", "02:00:00:00:00:01"), false},
		{"", "__udp4_lib_rcv", to("10.0.0.2", "no MAC"), false},
		{"IP_RPFILTER", "ip_rcv_finish_core", to("224.0.0.22", ""), false}, // a reason of its own stays
	} {
		v := k.ClassifyDrop(&record.Drop{Key: key(c.reason, c.symbol), Packet: c.packet})
		if v.Class.Shown() == c.hidden || !v.Known {
			t.Errorf("%s@%s %+v: %s, known %v", c.reason, c.symbol, c.packet, v.Class, v.Known)
		}
	}
}

func TestClassifyEtherType(t *testing.T) {
	k := load(t)
	for _, c := range []struct {
		ethertype uint16
		want      record.Class
	}{
		{0x88cc, record.ClassExpected}, // LLDP
		{0x0800, record.ClassPolicy},   // IPv4: a filter on ingress
		{0x86dd, record.ClassPolicy},
		{0, record.ClassPolicy}, // not known
	} {
		d := key(noReason, "__netif_receive_skb_core")
		d.EtherType = c.ethertype
		if v := k.Classify(d, nil); v.Class != c.want {
			t.Errorf("ethertype %#04x on 5.10: %s, want %s", c.ethertype, v.Class, c.want)
		}
	}
}

// An unknown drop is a fault and shown: nothing is thrown away because the
// kernel gave no reason.
func TestClassifyUnknown(t *testing.T) {
	k := load(t)
	for _, c := range []struct{ reason, symbol, want string }{
		{"NOT_SPECIFIED", "my_driver_rx", "the kernel gave no reason, and nothing is known about drops at my_driver_rx"},
		{noReason, "my_driver_rx", "no reason was told, and nothing is known about drops at my_driver_rx"},
		{"REASON_OF_TOMORROW", "my_driver_rx", "reason REASON_OF_TOMORROW at my_driver_rx"},
		{"196611", "", "reason 196611 at an address that has no symbol"},
	} {
		v := k.Classify(key(c.reason, c.symbol), nil)
		if v.Class != record.ClassFault || v.Station != record.StationUnknown || v.Known {
			t.Errorf("%s@%s: %+v", c.reason, c.symbol, v)
		}
		if !strings.Contains(v.Sentence, c.want) || !strings.HasPrefix(v.Sentence, "Not known: ") {
			t.Errorf("%s@%s: sentence %q lacks %q", c.reason, c.symbol, v.Sentence, c.want)
		}
	}
}

func TestClassifyStripsCompilerSuffixes(t *testing.T) {
	k := load(t)
	want := k.Classify(key(noReason, "udp_queue_rcv_one_skb"), nil)
	for _, s := range []string{
		"udp_queue_rcv_one_skb.constprop.0", "udp_queue_rcv_one_skb.isra.12", "udp_queue_rcv_one_skb.part.0",
		"udp_queue_rcv_one_skb.cold", "udp_queue_rcv_one_skb.isra.0.cold", "udp_queue_rcv_one_skb.llvm.123",
	} {
		if v := k.Classify(key(noReason, s), nil); v != want {
			t.Errorf("%s: %+v, want %+v", s, v, want)
		}
	}
	if v := k.Classify(key(noReason, "udp_queue_rcv_one_skb_isra_0"), nil); v.Known {
		t.Errorf("another function is taken for udp_queue_rcv_one_skb: %+v", v)
	}
	if v := k.Classify(key("NOT_SPECIFIED", ".L1"), nil); v.Known {
		t.Errorf("a local label is known: %+v", v)
	}
}

// A datagram sent through veth is received in a softirq on top of its
// sender's stack. The receiver's firewall is not the sender's.
func TestClassifyStackEndsAtTheSoftirq(t *testing.T) {
	k := load(t)
	output := frames("nf_hook_slow", "__ip_local_out", "ip_send_skb", "udp_sendmsg")
	input := frames("nf_hook_slow", "ip_local_deliver", "__netif_receive_skb_one_core",
		"process_backlog", "__napi_poll", "net_rx_action", "handle_softirqs", "do_softirq",
		"__dev_queue_xmit", "ip_finish_output2", "ip_output", "__ip_local_out", "udp_sendmsg")
	drop := key("NETFILTER_DROP", "nft_do_chain")
	if v := k.Classify(drop, output); v.Station != record.StationNetfilterTX {
		t.Errorf("output: %+v", v)
	}
	if v := k.Classify(drop, input); v.Station != record.StationNetfilter {
		t.Errorf("input: %+v", v)
	}
}

func TestTheMoreSpecificRuleWins(t *testing.T) {
	const rules = `rules:
  - {id: any, reasons: [ANY], symbols: [f], class: benign, station: ip, sentence: any}
  - {id: prefix, reasons: [A], symbols: [f*], class: benign, station: ip, sentence: prefix}
  - {id: symbol, reasons: [A], symbols: [f], class: benign, station: ip, sentence: symbol}
  - {id: stack, reasons: [ANY], stack: [g], class: benign, station: ip, sentence: stack}
`
	k, err := diagnose.Load(base("reasons: {A: {class: fault, station: ip, sentence: reason}}", rules))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		reason, symbol, caller, want string
	}{
		{"A", "f", "g", "stack"},
		{"A", "f", "h", "prefix"}, // as many conditions as symbol: the first
		{"A", "ff", "h", "prefix"},
		{"A", "h", "h", "reason"},
		{"B", "f", "h", "any"},
		{"B", "f", "g", "stack"},
	} {
		if v := k.Classify(key(c.reason, c.symbol), frames(c.caller)); v.Sentence != c.want {
			t.Errorf("%s@%s from %s: rule %s, want %s", c.reason, c.symbol, c.caller, v.Sentence, c.want)
		}
	}
}

// One harmless sample must not hide the loss of a count.
func TestClassifyCountsTakesTheGravestSample(t *testing.T) {
	k := load(t)
	testrun := record.Drop{Key: key("NOT_SPECIFIED", "__dev_forward_skb2"), Stack: frames("bpf_test_run")}
	testrun.Device.Name = "named later"
	veth := record.Drop{Key: testrun.Key, Stack: frames("veth_xmit")}
	count := record.Count{Key: key("NOT_SPECIFIED", "__dev_forward_skb2"), Drops: 1000}
	other := record.Drop{Key: key("NOT_SPECIFIED", "ip6_mc_input")}
	for _, c := range []struct {
		name    string
		samples []record.Drop
		want    record.Class
	}{
		{"none", nil, record.ClassFault},
		{"all harmless", []record.Drop{testrun, testrun}, record.ClassBenign},
		{"one loss", []record.Drop{testrun, veth, testrun}, record.ClassFault},
		{"of another count", []record.Drop{other}, record.ClassFault},
	} {
		v := k.ClassifyCounts([]record.Count{count}, c.samples)
		if len(v) != 1 || v[0].Class != c.want {
			t.Errorf("samples %s: %+v, want %s", c.name, v, c.want)
		}
	}
}
