package counter

import (
	"bytes"
	"strings"
)

// announcement is a kind of lines of the kernel's log that tell of loss.
type announcement struct {
	name string
	// lines are the forms that it has, over the kernels: each the parts that a
	// line has in this order. A program can have its name of 15 bytes in a line
	// of the kernel, and a rule of a firewall a text of its own, so together
	// they are longer, or more is asked.
	lines [][]string
	// also is what must hold besides, where it is set.
	also func(text []byte) bool
}

func one(parts ...string) [][]string { return [][]string{parts} }

// announcements are compared in this order; the first that fits counts. The
// files say where the line is written, the kernels where it was found there;
// 2.6.32, 3.10, 4.19, 5.10, 6.1, 6.12 and 7.2 were looked at.
var announcements = [...]announcement{
	// net/netfilter/nf_conntrack_core.c, __nf_conntrack_alloc; all.
	{name: "nf_conntrack_table_full", lines: one("nf_conntrack: table full")},
	// net/netfilter/nf_conntrack_expect.c, __nf_ct_expect_check; all.
	{name: "nf_conntrack_expect_full", lines: one("nf_conntrack: expectation table full")},
	// net/core/neighbour.c, neigh_alloc; since 4.19. Before, net/ipv4/route.c and
	// net/ipv6/route.c; 2.6.32.
	{name: "neigh_table_overflow", lines: [][]string{{": neighbor table overflow!"}, {"Neighbour table overflow."}}},
	// net/ipv4/tcp_input.c, tcp_syn_flood_action (before 4.19 tcp_ipv4.c); all.
	{name: "syn_flood_cookies", lines: one("ossible SYN flooding on port", "Sending cookies")},
	{name: "syn_flood_drops", lines: one("ossible SYN flooding on port", "Dropping request")},
	// net/ipv4/tcp_input.c, tcp_conn_request (before 4.19 tcp_ipv4.c), where
	// debugging is on; all.
	{name: "tcp_open_request_drops", lines: one("drop open request from ")},
	// net/ipv4/tcp.c, tcp_check_oom; since 3.10. Before, net/ipv4/tcp_timer.c,
	// tcp_out_of_resources; 2.6.32.
	{name: "tcp_out_of_memory", lines: [][]string{{"out of memory -- consider tuning tcp_mem"}, {"Out of socket memory"}}},
	{name: "tcp_orphans", lines: [][]string{{"too many orphaned sockets"}, {"too many of orphaned sockets"}}},
	// net/ipv4/tcp_ipv4.c, tcp_v4_inbound_md5_hash, net/ipv6/tcp_ipv6.c; 2.6.32
	// to 6.1.
	{name: "tcp_md5_failures", lines: [][]string{{"MD5 Hash failed for "}, {"MD5 Hash mismatch for "}}},
	// net/sched/sch_generic.c, dev_watchdog; all. Until 5.10 only the first
	// since boot (WARN_ONCE).
	{name: "tx_timeouts", lines: one("NETDEV WATCHDOG: ", "transmit queue ", " timed out")},
	// mm/page_alloc.c, warn_alloc; all.
	{name: "atomic_allocation_failures", lines: one(": page allocation failure", "order:", "mode:0x"), also: isAtomic},
	// net/ipv4/route.c, rt_garbage_collect; 2.6.32. net/core/dst.c, dst_alloc;
	// between 4.19 and 6.1.
	{name: "dst_cache_overflow", lines: [][]string{{"dst cache overflow"}, {"Route cache is full: consider increasing"}}},
	// drivers/net: phy/phy.c, phy_print_status, and each driver in words of its
	// own; 7.2.
	{name: "link_down", lines: one(""), also: isLinkDown},
	// drivers/net/bonding/bond_main.c, bond_miimon_commit; all.
	{name: "bond_link_down", lines: one("link status definitely down")},
	// The same, bond_change_active_slave, bond_select_active_slave; all.
	{name: "bond_no_link", lines: one("now running without any active interface")},
	// net/ipv4/route.c, ip_handle_martian_source and ip_route_input_slow, with
	// net.ipv4.conf.*.log_martians; all.
	{name: "martian_source", lines: one("martian source ", "dev")},
	{name: "martian_destination", lines: one("martian destination ", "dev")},
	// net/ipv4/udp.c, __udp4_lib_rcv, net/ipv6/udp.c, where debugging is on; all.
	{name: "udp_bad_checksum", lines: one("UDP", ": bad checksum. From ")},
	{name: "udp_short_packet", lines: one("UDP", ": short packet: ")},
	// net/ipv4/ip_fragment.c, ip_frag_reasm; all.
	{name: "ip_oversized", lines: one("Oversized IP packet from ")},
	// net/ipv4/ip_fragment.c, ip_frag_create, where debugging is on; 2.6.32.
	// net/ipv4/inet_fragment.c, inet_frag_maybe_warn_overflow; 3.10.
	{name: "frag_limit", lines: [][]string{{"ip_frag_create: no memory left"}, {"inet_frag_find: Fragment hash bucket"}}},
	// net/core/dev.c, __dev_queue_xmit; all. net/ipv4/ip_tunnel_core.c,
	// iptunnel_xmit; since 6.12.
	{name: "virtual_device_loop", lines: one("Dead loop on virtual device ")},
	{name: "virtual_device_queue", lines: one("Virtual device ", " asks to queue packet!")},
	// net/core/dev.c, netdev_rx_csum_fault; all.
	{name: "hw_csum_failure", lines: one(": hw csum failure")},
	// net/core/gro.c, napi_reuse_skb's caller (before 6.1 dev.c); since 4.19.
	{name: "gro_impossible_skb", lines: one(": dropping impossible skb from ")},
	// net/core/dev.c, sk_validate_xmit_skb; 7.2.
	{name: "tls_unencrypted", lines: one("unencrypted skb with no associated socket - dropping")},
	// net/netfilter/nfnetlink_queue.c, __nfqnl_enqueue_packet; all.
	{name: "nfqueue_full", lines: one("nf_queue: full at ", "dropping packets(s)")},
	// net/netfilter/xt_hashlimit.c, dsthash_alloc_init; all.
	{name: "hashlimit_full", lines: one("xt_hashlimit: max count of ", " reached")},
	// net/netfilter/ipvs/ip_vs_sched.c, ip_vs_scheduler_err; all.
	{name: "ipvs_no_destination", lines: one("IPVS: ", "no destination available")},
	// net/bridge/br_fdb.c, br_fdb_update; all.
	{name: "bridge_own_address", lines: one("own address as source address")},
	// net/openvswitch/vport.c, ovs_vport_send; since 3.10.
	{name: "ovs_over_mtu", lines: one(": dropped over-mtu packet: ")},
	// net/openvswitch/actions.c, clone_execute, ovs_execute_actions; since 4.19.
	{name: "ovs_limit", lines: [][]string{{"ovs: recursion limit reached on datapath"}, {": deferred action limit reached, drop "}}},
	// net/core/filter.c, __bpf_tx_skb; since 4.19.
	{name: "bpf_recursion", lines: one("bpf: recursion limit reached on datapath")},
	// net/core/filter.c, bpf_warn_invalid_xdp_action; since 4.19, only the first
	// since boot.
	{name: "xdp_action", lines: one(" XDP return value ", "expect packet loss!")},
	// net/sched/cls_api.c, tcf_classify; since 4.19.
	{name: "tc_reclassify_loop", lines: one(": reclassify loop, rule prio ")},
	// net/sched/sch_hfsc.c, hfsc_classify; since 6.1. sch_htb.c, htb_classify; 7.2.
	{name: "qdisc_classify_loop", lines: [][]string{{"hfsc: classify hop budget exhausted"}, {"htb: classify loop detected"}}},
	// net/sched/act_mirred.c; all, the second since 5.10.
	{name: "mirred_down", lines: one("mirred to Houston: device ")},
	{name: "mirred_recursion", lines: one("Packet exceeded mirred recursion limit")},
	// net/ipv6/ip6_tunnel.c, ip6_tnl_xmit_ctl; all, the second since 3.10.
	{name: "tunnel_no_address", lines: one(" xmit: Local address not yet configured!")},
	// The same, ip6_tnl_xmit; net/xfrm/xfrm_interface_core.c; all.
	{name: "tunnel_loop", lines: [][]string{{" xmit: Routing loop! Remote address found"}, {": Local routing loop detected!"}}},
	// net/ipv4/ipmr.c, ipmr_cache_report, net/ipv6/ip6mr.c; all.
	{name: "mroute_queue_full", lines: one("pending queue full, dropping entries")},
}

// matches says whether a line is of the kind.
func (a *announcement) matches(text []byte) bool {
	for _, parts := range a.lines {
		if containsAll(text, parts) {
			return a.also == nil || a.also(text)
		}
	}
	return false
}

func containsAll(text []byte, parts []string) bool {
	for _, part := range parts {
		i := bytes.Index(text, []byte(part))
		if i < 0 {
			return false
		}
		text = text[i+len(part):]
	}
	return true
}

// grep are the words behind grep that count such lines.
func (a *announcement) grep() string {
	if a.lines[0][0] == "" {
		return "-ci 'link is down'"
	}
	words := "-c"
	for _, parts := range a.lines {
		words += " -e " + quote(strings.Join(parts, ".*"))
	}
	return words
}

// isAtomic says whether an allocation was one that must not wait, as those of
// drivers and softirqs are. Since 4.6 the flags have names behind the number;
// before, one of them allowed to wait (include/linux/gfp.h, ___GFP_WAIT; 2.6.32
// to 4.3).
func isAtomic(text []byte) bool {
	const mayWait = 0x10
	_, mode, _ := bytes.Cut(text, []byte("mode:0x"))
	n := 0
	for n < len(mode) && n < 16 {
		if _, ok := hexadecimal(mode[n:n+1], 64); !ok {
			break
		}
		n++
	}
	v, ok := hexadecimal(mode[:n], 64)
	if names := mode[n:]; len(names) > 0 && names[0] == '(' {
		names, _, _ = bytes.Cut(names, []byte{')'})
		return bytes.Contains(names, []byte("GFP_ATOMIC"))
	}
	return ok && v&mayWait == 0
}

// isLinkDown says whether a line ends with what nearly every driver says of a
// link that was lost. Disks and slots of PCI have links too.
func isLinkDown(text []byte) bool {
	text = bytes.TrimRight(text, ". ")
	for _, end := range []string{"link is down", ": link down"} {
		if at := len(text) - len(end); at > 0 && bytes.EqualFold(text[at:], []byte(end)) {
			return !bytes.Contains(text, []byte("Slot("))
		}
	}
	return false
}

// isPacketLog says whether a line is one that a rule of a firewall wrote, whose
// beginning may be any text (net/netfilter/nf_log_syslog.c, dump_packet_log).
func isPacketLog(text []byte) bool {
	return containsAll(text, []string{"IN=", " OUT="})
}

// suppressed is how many messages a line says that net_ratelimit kept out of
// the log (lib/ratelimit.c, ___ratelimit). Which ones it does not say.
func suppressed(text []byte) uint64 {
	rest, ok := bytes.CutPrefix(text, []byte("net_ratelimit: "))
	if !ok {
		return 0
	}
	n, rest, ok := leadingNumber(rest)
	if !ok || !bytes.HasPrefix(rest, []byte(" callbacks suppressed")) || n > 1<<32 {
		return 0
	}
	return n
}
