package observe

import (
	"errors"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/kernel"
	"github.com/whydrop/whydrop/record"
)

// Generic devlink traps (Documentation/networking/devlink/devlink-trap.rst, 7.2)
// by their type. Those of the type exception only go on into the kernel.
var (
	exceptionTraps = []string{
		"decap_error", "ipv4_lpm_miss", "ipv6_lpm_miss", "mc_reverse_path_forwarding", "mtu_value_is_too_small",
		"reject_route", "ttl_value_is_too_small", "unresolved_neigh",
	}
	dropTraps = []string{
		"arp_parsing", "blackhole_nexthop", "blackhole_route", "dccp_parsing", "dip_is_loopback_address",
		"dmac_filter", "early_drop", "egress_flow_action_drop", "esp_parsing", "gre_parsing", "gtp_parsing",
		"ingress_flow_action_drop", "ingress_spanning_tree_filter", "ingress_vlan_filter", "ip_1_parsing",
		"ip_header_corrupted", "ip_n_parsing", "ipsec_parsing", "ipv4_sip_is_limited_bc",
		"ipv6_mc_dip_interface_local_scope", "ipv6_mc_dip_reserved_scope", "llc_snap_parsing", "locked_port",
		"mpls_parsing", "non_ip", "non_routable_packet", "overlay_smac_is_mc", "port_list_is_empty",
		"port_loopback_filter", "pppoe_ppp_parsing", "sctp_parsing", "sip_is_loopback_address", "sip_is_mc",
		"source_mac_is_multicast", "tail_drop", "tcp_parsing", "uc_dip_over_mc_dmac", "udp_parsing",
		"vlan_parsing", "vlan_tag_mismatch", "vxlan_parsing",
	}
)

// trapReason is the reason of a drop by hardware.
func trapReason(name, group string) record.Reason {
	return record.Reason{Name: name, Subsystem: record.SubsystemDevlink, Group: group}
}

// askedTrap is the trap that a person means by a name that is none of the
// kernel's reasons, as err says. Drivers name theirs as they like, in lower
// case, so one that looks like a reason's is taken for that, written wrong.
func askedTrap(name string, err error) (trap string, ok bool) {
	var unknown *kernel.UnknownReasonError
	if !errors.As(err, &unknown) {
		return "", false
	}
	lower := strings.ToLower(name)
	if slices.Contains(exceptionTraps, lower) || slices.Contains(dropTraps, lower) {
		return lower, true
	}
	return name, unknown.Why == nil && len(unknown.Nearest) == 0 &&
		name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == ""
}
