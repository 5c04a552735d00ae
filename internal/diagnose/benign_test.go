package diagnose_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/record"
)

// TestBenignPatterns holds the patterns of drops that are no loss: each is
// counted and not shown.
func TestBenignPatterns(t *testing.T) {
	k := load(t)
	tcp := func(flags uint16) *record.Packet {
		return &record.Packet{EtherType: 0x0800, TCPFlags: flags, TTL: 64, Flow: record.Flow{
			Proto: 6, Src: netip.MustParseAddrPort("10.0.0.9:4000"), Dst: netip.MustParseAddrPort("10.0.0.1:80"),
		}}
	}
	probe := udp("10.0.0.9:4000", "10.9.0.1:33434")
	probe.TTL = 1
	group := udp("10.0.0.9:5353", "224.0.0.251:5353")
	everybody := udp("10.0.0.9:137", "255.255.255.255:137")
	const ack, rst = 16, 4
	for _, c := range []struct {
		id             string
		reason, symbol string
		stack          string
		packet         *record.Packet
		ethertype      uint16
	}{
		{id: "n-tcp-close-purge", reason: "QUEUE_PURGE", symbol: "sk_stream_kill_queues"},
		{id: "n-tcp-close-purge", reason: "NOT_SPECIFIED", symbol: "sk_stream_kill_queues"},
		{id: "n-tcp-close-purge", reason: "QUEUE_PURGE", symbol: "inet_csk_listen_stop"},
		{id: "n-udp-close-purge", reason: "NOT_SPECIFIED", symbol: "udp_destruct_common"},
		{id: "n-ping-reply", reason: "NO_SOCKET", symbol: "ping_rcv"},
		{id: "n-ping-reply", reason: "NO_SOCKET", symbol: "icmp_rcv"},
		{id: "n-ping-reply", symbol: "icmp_rcv"},
		{id: "n-packet-close", reason: "QUEUE_PURGE", symbol: "skb_queue_purge_reason", stack: "packet_release"},
		{id: "n-packet-close", reason: "NOT_SPECIFIED", symbol: "skb_queue_purge"},
		{id: "n-unix-close", reason: "SOCKET_CLOSE", symbol: "unix_release_sock"},
		{id: "n-unix-close", reason: "UNIX_DISCONNECT", symbol: "unix_dgram_disconnected"},
		{id: "n-vsock", reason: "NOT_SPECIFIED", symbol: "virtio_transport_recv_pkt"},
		{id: "n-unhandled-l2", reason: "UNHANDLED_PROTO", symbol: "__netif_receive_skb_core", ethertype: 0x88cc},
		{id: "n-stp-bpdu", reason: "NOT_SPECIFIED", symbol: "stp_pdu_rcv", ethertype: 4},
		{id: "n-stp-bpdu", reason: "NOT_SPECIFIED", symbol: "llc_rcv", ethertype: 4},
		{id: "n-bond-backup", reason: "UNHANDLED_PROTO", symbol: "__netif_receive_skb_core", ethertype: 0x0800},
		{id: "n-otherhost-promisc", reason: "OTHERHOST", symbol: "ip_rcv_core", packet: udp("10.0.0.9:1", "10.0.0.77:2")},
		{id: "n-mcast-chatter", reason: "NOT_SPECIFIED", symbol: "ip_rcv_finish_core", packet: group},
		{id: "n-mcast-chatter", reason: "NOT_SPECIFIED", symbol: "ip6_mc_input", ethertype: 0x86dd},
		{id: "n-mcast-chatter", reason: "NOT_SPECIFIED", symbol: "udp_rcv", packet: everybody},
		{id: "n-ndisc-otherhost", reason: "IPV6_NDISC_NS_OTHERHOST", symbol: "icmpv6_rcv"},
		{id: "n-pause-frames", reason: "MAC_IEEE_MAC_CONTROL", symbol: "br_handle_frame"},
		{id: "n-tcp-dup", reason: "TCP_OLD_DATA", symbol: "tcp_data_queue"},
		{id: "n-tcp-dup", reason: "TCP_OLD_SEQUENCE", symbol: "tcp_validate_incoming"},
		{id: "n-tcp-dup", reason: "TCP_OLD_ACK", symbol: "tcp_rcv_established"},
		{id: "n-tcp-dup", reason: "TCP_RFC7323_PAWS_ACK", symbol: "tcp_validate_incoming"},
		{id: "n-tcp-timewait", reason: "NOT_SPECIFIED", symbol: "tcp_v4_rcv", packet: tcp(ack)},
		{id: "n-tcp-defer-accept", reason: "NOT_SPECIFIED", symbol: "tcp_v4_rcv", packet: tcp(ack)},
		{id: "n-tcp-abort", reason: "TCP_ABORT_ON_DATA", symbol: "tcp_v4_do_rcv"},
		{id: "n-tcp-abort", reason: "NO_SOCKET", symbol: "tcp_v4_rcv", packet: tcp(ack | rst)},
		{id: "n-traceroute", reason: "IP_INHDR", symbol: "ip_forward", packet: probe},
		{id: "n-net-tx-action", symbol: "net_tx_action"},
		{id: "n-old-nodejs", symbol: "init_dummy_netdev"},
		{id: "n-gso-parent", reason: "NOT_SPECIFIED", symbol: "tbf_enqueue"},
		{id: "n-nfqueue-twin", reason: "NOT_SPECIFIED", symbol: "__nfqnl_enqueue_packet"},
		{id: "n-bpf-testrun", reason: "NOT_SPECIFIED", symbol: "__dev_forward_skb2", stack: "bpf_prog_test_run_skb"},
	} {
		n := count(c.reason, c.symbol, 3)
		n.EtherType = c.ethertype
		d := record.Drop{Key: n.Key, Packet: c.packet}
		if c.stack != "" {
			d.Stack = []record.Location{{Symbol: c.stack}}
		}
		o := &record.Observation{
			Window: record.Window{Duration: 10 * time.Second}, Counts: []record.Count{n}, Samples: []record.Drop{d},
			Facts: []record.Fact{{Kind: "addresses", Name: "10.0.0.1", Value: "eth0"}},
		}
		got := diagnose.Run(o, k, diagnose.Options{})
		if a := got.Accounting; len(got.Findings) > 0 || a.DropsHiddenBenign+a.DropsHiddenExpected != 3 {
			t.Errorf("%s: %s@%s: %s, %d hidden; want nothing found and 3 hidden", c.id, c.reason, c.symbol,
				found(got), a.DropsHiddenBenign+a.DropsHiddenExpected)
		}
	}
}
