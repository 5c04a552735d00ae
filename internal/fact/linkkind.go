package fact

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// The numbers of this file are those of IFLA_* of include/uapi/linux/if_link.h
// and if_tun.h, the names those of ip -j -d link. Times are in hundredths of a
// second as there, those of bonds in milliseconds.

// kindParams are the parameters that a kind of device has.
var kindParams = map[string][]param{
	"vlan": {
		{1, "id", asNumber},
		{2, "flags", vlanFlags},
		{5, "protocol", asEtherProto},
	},
	"bond":   bondParams,
	"bridge": bridgeParams,
	"vxlan":  vxlanParams,
	"geneve": {
		{1, "id", asNumber},
		{2, "remote", asSomeIP},
		{3, "ttl", asNumber},
		{4, "tos", asNonzeroHex},
		{5, "port", asNetwork},
		{6, "external", asFlag},
		{7, "remote", asSomeIP},
		{8, "udp_csum", asBool},
		{9, "udp_zero_csum6_tx", asBool},
		{10, "udp_zero_csum6_rx", asBool},
		{13, "df", asName("unset", "set", "inherit")},
	},
	"macvlan": macvlanParams,
	"macvtap": macvlanParams,
	"ipvlan":  {{1, "mode", asName("l2", "l3", "l3s")}, {2, "flags", ipvlanFlags}},
	"ipvtap":  {{1, "mode", asName("l2", "l3", "l3s")}, {2, "flags", ipvlanFlags}},
	"tun": {
		{1, "user", asNumber},
		{2, "group", asNumber},
		{3, "type", asName("", "tun", "tap")},
		{4, "pi", asBool},
		{5, "vnet_hdr", asBool},
		{6, "persist", asBool},
		{7, "multi_queue", asBool},
		{8, "numqueues", asNumber},
		{9, "numdisabled", asNumber},
	},
	"netkit": {
		{2, "type", asName("peer", "primary")},
		{3, "policy", netkitPolicy},
		{4, "peer_policy", netkitPolicy},
		{5, "mode", asName("l2", "l3")},
		{6, "scrub", asName("none", "default")},
		{7, "peer_scrub", asName("none", "default")},
	},
	"vrf": {{1, "table", asNumber}},
}

var macvlanParams = []param{
	{1, "mode", macvlanMode},
	{2, "nopromisc", flagBit(1)},
	{2, "nodst", flagBit(2)},
	{4, "macaddr", asMAC},
	{6, "macaddr_count", asNumber},
	{7, "bcqueuelen", asNumber},
	{8, "usedbcqueuelen", asNumber},
	{9, "bclim", asSigned},
}

var bondParams = []param{
	{1, "mode", asName("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")},
	{2, "active_slave", asNumber},
	{3, "miimon", asNumber},
	{4, "updelay", asNumber},
	{5, "downdelay", asNumber},
	{6, "use_carrier", asNumber},
	{7, "arp_interval", asNumber},
	{8, "arp_ip_target", addressList},
	{9, "arp_validate", asName(None, "active", "backup", "all", "filter", "filter_active", "filter_backup")},
	{10, "arp_all_targets", asName("any", "all")},
	{11, "primary", asNumber},
	{12, "primary_reselect", asName("always", "better", "failure")},
	{13, "fail_over_mac", asName(None, "active", "follow")},
	{14, "xmit_hash_policy", asName("layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac")},
	{15, "resend_igmp", asNumber},
	{16, "num_peer_notif", asNumber},
	{17, "all_slaves_active", asNumber},
	{18, "min_links", asNumber},
	{19, "lp_interval", asNumber},
	{20, "packets_per_slave", asNumber},
	{21, "ad_lacp_rate", asName("slow", "fast")},
	{22, "ad_select", asName("stable", "bandwidth", "count", "actor_port_prio")},
	{23, "ad_info_aggregator", inside(1, asNumber)},
	{23, "ad_info_num_ports", inside(2, asNumber)},
	{23, "ad_info_actor_key", inside(3, asNumber)},
	{23, "ad_info_partner_key", inside(4, asNumber)},
	{23, "ad_info_partner_mac", inside(5, asMAC)},
	{24, "ad_actor_sys_prio", asNumber},
	{25, "ad_user_port_key", asNumber},
	{26, "ad_actor_system", asMAC},
	{27, "tlb_dynamic_lb", asNumber},
	{28, "peer_notify_delay", asNumber},
	{29, "ad_lacp_active", asName("off", "on")},
	{30, "arp_missed_max", asNumber},
	{31, "ns_ip6_target", addressList},
	{32, "coupled_control", asBool},
	{33, "broadcast_neighbor", asBool},
}

var bridgeParams = []param{
	{1, "forward_delay", asNumber},
	{2, "hello_time", asNumber},
	{3, "max_age", asNumber},
	{4, "ageing_time", asNumber},
	{5, "stp_state", asNumber},
	{6, "priority", asNumber},
	{7, "vlan_filtering", asNumber},
	{8, "vlan_protocol", asEtherProto},
	{9, "group_fwd_mask", asHex},
	{10, "root_id", bridgeID},
	{11, "bridge_id", bridgeID},
	{12, "root_port", asNumber},
	{13, "root_path_cost", asNumber},
	{14, "topology_change", asNumber},
	{15, "topology_change_detected", asNumber},
	{20, "group_addr", asMAC},
	{22, "mcast_router", asNumber},
	{23, "mcast_snooping", asNumber},
	{24, "mcast_query_use_ifaddr", asNumber},
	{25, "mcast_querier", asNumber},
	{26, "mcast_hash_elasticity", asNumber},
	{27, "mcast_hash_max", asNumber},
	{28, "mcast_last_member_cnt", asNumber},
	{29, "mcast_startup_query_cnt", asNumber},
	{30, "mcast_last_member_intvl", asNumber},
	{31, "mcast_membership_intvl", asNumber},
	{32, "mcast_querier_intvl", asNumber},
	{33, "mcast_query_intvl", asNumber},
	{34, "mcast_query_response_intvl", asNumber},
	{35, "mcast_startup_query_intvl", asNumber},
	{36, "nf_call_iptables", asNumber},
	{37, "nf_call_ip6tables", asNumber},
	{38, "nf_call_arptables", asNumber},
	{39, "vlan_default_pvid", asNumber},
	{41, "vlan_stats_enabled", asNumber},
	{42, "mcast_stats_enabled", asNumber},
	{43, "mcast_igmp_version", asNumber},
	{44, "mcast_mld_version", asNumber},
	{45, "vlan_stats_per_port", asNumber},
	{46, "no_linklocal_learn", optBit(0)},
	{46, "mcast_vlan_snooping", optBit(1)},
	{46, "mst_enabled", optBit(2)},
	{48, "fdb_n_learned", asNumber},
	{49, "fdb_max_learned", asNumber},
}

var vxlanParams = []param{
	{1, "id", asNumber},
	{2, "group", asSomeIP},
	{3, "link", asNumber},
	{4, "local", asSomeIP},
	{5, "ttl", asNumber},
	{6, "tos", asNonzeroHex},
	{7, "learning", asBool},
	{8, "ageing", asNumber},
	{9, "limit", asNonzero},
	{10, "port_range_low", at(0, 2, asNetwork)},
	{10, "port_range_high", at(2, 2, asNetwork)},
	{11, "proxy", asBool},
	{12, "rsc", asBool},
	{13, "l2miss", asBool},
	{14, "l3miss", asBool},
	{15, "port", asNetwork},
	{16, "group", asSomeIP},
	{17, "local", asSomeIP},
	{18, "udp_csum", asBool},
	{19, "udp_zero_csum6_tx", asBool},
	{20, "udp_zero_csum6_rx", asBool},
	{21, "remcsum_tx", asBool},
	{22, "remcsum_rx", asBool},
	{23, "gbp", asFlag},
	{25, "external", asBool},
	{26, "label", asNonzeroNetworkHex},
	{27, "gpe", asFlag},
	{28, "ttl_inherit", asBool},
	{29, "df", asName("unset", "set", "inherit")},
	{30, "vnifilter", asBool},
	{31, "localbypass", asBool},
}

// portParams are the parameters of a device as a port of such a kind.
var portParams = map[string][]param{
	"bridge": {
		{1, "state", asName("disabled", "listening", "learning", "forwarding", "blocking")},
		{2, "priority", asNumber},
		{3, "cost", asNumber},
		{4, "hairpin", asBool},
		{5, "guard", asBool},
		{6, "root_block", asBool},
		{7, "fastleave", asBool},
		{8, "learning", asBool},
		{9, "flood", asBool},
		{10, "proxy_arp", asBool},
		{12, "proxy_arp_wifi", asBool},
		{13, "root_id", bridgeID},
		{14, "bridge_id", bridgeID},
		{15, "designated_port", asNumber},
		{16, "designated_cost", asNumber},
		{17, "id", asHex},
		{18, "no", asHex},
		{25, "multicast_router", asNumber},
		{27, "mcast_flood", asBool},
		{28, "mcast_to_unicast", asBool},
		{29, "vlan_tunnel", asBool},
		{30, "bcast_flood", asBool},
		{31, "group_fwd_mask", asHex},
		{32, "neigh_suppress", asBool},
		{33, "isolated", asBool},
		{34, "backup_port", asNumber},
		{39, "locked", asBool},
		{40, "mab", asBool},
		{43, "neigh_vlan_suppress", asBool},
		{44, "backup_nhid", asNumber},
	},
	"bond": {
		{1, "state", asName("active", "backup")},
		{2, "mii_status", asName("up", "going_down", "down", "going_back")},
		{3, "link_failure_count", asNumber},
		{4, "perm_hwaddr", asMAC},
		{5, "queue_id", asNumber},
		{6, "ad_aggregator_id", asNumber},
		{7, "ad_actor_oper_port_state", asNumber},
		{8, "ad_partner_oper_port_state", asNumber},
		{9, "prio", asSigned},
	},
	"vrf": {{1, "table", asNumber}},
}

// kindDevices and portDevices are the parameters that are devices.
var (
	kindDevices = map[string][]string{
		"bond":  {"bond_active_slave", "bond_primary"},
		"vxlan": {"vxlan_link"},
	}
	portDevices = map[string][]string{"bridge": {"port_backup_port"}}
)

// flagBit is 1 where the bit of a number is set, and nothing else.
func flagBit(mask uint64) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		return "1", ok && n&mask != 0
	}
}

func asNonzeroHex(b []byte) (string, bool) {
	n, ok := numeral(b)
	return fmt.Sprintf("%#x", n), ok && n != 0
}

func asNonzeroNetworkHex(b []byte) (string, bool) {
	n, ok := be32(b)
	return fmt.Sprintf("%#x", n), ok && n != 0
}

// optBit is a bit of struct br_boolopt_multi: the values, and which of them
// the kernel knows.
func optBit(bitNumber int) reader {
	return func(b []byte) (string, bool) {
		if len(b) != 8 || native.Uint32(b[4:])&(1<<bitNumber) == 0 {
			return "", false
		}
		return bit(native.Uint32(b)&(1<<bitNumber) != 0), true
	}
}

// inside is an attribute within an attribute.
func inside(attr int, read reader) reader {
	return func(b []byte) (value string, ok bool) {
		err := kernelnet.Attributes(b, 0, func(t int, v []byte) {
			if t == attr {
				value, ok = read(v)
			}
		})
		return value, ok && err == nil
	}
}

// addressList are the addresses of a list of attributes, by spaces.
func addressList(b []byte) (string, bool) {
	var list []string
	err := kernelnet.Attributes(b, 0, func(_ int, v []byte) {
		if a, ok := netip.AddrFromSlice(v); ok && !a.IsUnspecified() {
			list = append(list, a.String())
		}
	})
	return strings.Join(list, " "), err == nil && len(list) > 0
}

// bridgeID is struct ifla_bridge_id as ip prints it.
func bridgeID(b []byte) (string, bool) {
	if len(b) != 8 {
		return "", false
	}
	return fmt.Sprintf("%04x.%x:%x:%x:%x:%x:%x", binary.BigEndian.Uint16(b), b[2], b[3], b[4], b[5], b[6], b[7]), true
}

// vlanFlags reads struct ifla_vlan_flags.
func vlanFlags(b []byte) (string, bool) {
	if len(b) != 8 {
		return "", false
	}
	return bitNames(native.Uint32(b), map[uint32]string{1: "REORDER_HDR", 2: "GVRP", 4: "LOOSE_BINDING", 8: "MVRP", 16: "BRIDGE_BINDING"})
}

func ipvlanFlags(b []byte) (string, bool) {
	n, ok := numeral(b)
	switch {
	case n&1 != 0:
		return "private", ok
	case n&2 != 0:
		return "vepa", ok
	}
	return "bridge", ok
}

// macvlanMode is one of MACVLAN_MODE_*, which are bits.
func macvlanMode(b []byte) (string, bool) {
	n, ok := numeral(b)
	modes := map[uint64]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
	if s := modes[n]; s != "" {
		return s, ok
	}
	return decimal(n), ok
}

// netkitPolicy is NETKIT_PASS or NETKIT_DROP, which are verdicts of tcx.
func netkitPolicy(b []byte) (string, bool) {
	n, ok := numeral(b)
	switch int32(n) {
	case 0:
		return "forward", ok
	case 2:
		return "blackhole", ok
	}
	return decimal(n), ok
}
