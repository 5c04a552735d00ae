package fact

import (
	"strconv"
	"strings"
)

// combination says how the kernel makes one setting of that of a device and
// that of conf/all.
type combination struct {
	name   string
	result func(all, dev int) int
}

var (
	greater = combination{"max", func(all, dev int) int { return max(all, dev) }}
	smaller = combination{"min", func(all, dev int) int { return min(all, dev) }}
	either  = combination{"or", func(all, dev int) int { return truth(all != 0 || dev != 0) }}
	both    = combination{"and", func(all, dev int) int { return truth(all != 0 && dev != 0) }}
	onlyAll = combination{"all", func(all, _ int) int { return all }}
	onlyDev = combination{"device", func(_, dev int) int { return dev }}
	first   = combination{"all, else device", func(all, dev int) int {
		if all != 0 {
			return all
		}
		return dev
	}}
)

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// effectiveRule is a combination and where the kernel has it.
type effectiveRule struct {
	combination
	source string
}

// inetdevice is where IPv4 has them; the macros are the same from 5.10 on.
func inetdevice(c combination, macro string) effectiveRule {
	return effectiveRule{c, macro + " of include/linux/inetdevice.h"}
}

// effective4 are the settings of net/ipv4/conf. Those that are left out exist
// for each device alone, or changed their rule between kernels
// (disable_policy, disable_xfrm).
var effective4 = map[string]effectiveRule{
	"accept_local":                 inetdevice(either, "IN_DEV_ACCEPT_LOCAL"),
	"accept_source_route":          inetdevice(both, "IN_DEV_SOURCE_ROUTE"),
	"arp_accept":                   inetdevice(greater, "IN_DEV_ARP_ACCEPT"),
	"arp_announce":                 inetdevice(greater, "IN_DEV_ARP_ANNOUNCE"),
	"arp_evict_nocarrier":          inetdevice(both, "IN_DEV_ARP_EVICT_NOCARRIER"),
	"arp_filter":                   inetdevice(either, "IN_DEV_ARPFILTER"),
	"arp_ignore":                   inetdevice(greater, "IN_DEV_ARP_IGNORE"),
	"arp_notify":                   inetdevice(greater, "IN_DEV_ARP_NOTIFY"),
	"bc_forwarding":                inetdevice(both, "IN_DEV_BFORWARD"),
	"bootp_relay":                  inetdevice(both, "IN_DEV_BOOTP_RELAY"),
	"drop_gratuitous_arp":          {either, "arp_process of net/ipv4/arp.c"},
	"drop_unicast_in_l2_multicast": {either, "ip_rcv_finish_core of net/ipv4/ip_input.c"},
	// Writing all, or ip_forward, sets it for every device.
	"forwarding":                  inetdevice(onlyDev, "IN_DEV_FORWARD"),
	"ignore_routes_with_linkdown": inetdevice(either, "IN_DEV_IGNORE_ROUTES_WITH_LINKDOWN"),
	"log_martians":                inetdevice(either, "IN_DEV_LOG_MARTIANS"),
	"mc_forwarding":               inetdevice(both, "IN_DEV_MFORWARD"),
	"promote_secondaries":         inetdevice(either, "IN_DEV_PROMOTE_SECONDARIES"),
	"proxy_arp":                   inetdevice(either, "IN_DEV_PROXY_ARP"),
	"proxy_arp_pvlan":             inetdevice(either, "IN_DEV_PROXY_ARP_PVLAN"),
	"route_localnet":              inetdevice(either, "IN_DEV_ROUTE_LOCALNET"),
	"rp_filter":                   inetdevice(greater, "IN_DEV_RPFILTER"),
	"secure_redirects":            inetdevice(either, "IN_DEV_SEC_REDIRECTS"),
	"send_redirects":              inetdevice(either, "IN_DEV_TX_REDIRECTS"),
	"shared_media":                inetdevice(either, "IN_DEV_SHARED_MEDIA"),
	"src_valid_mark":              inetdevice(either, "IN_DEV_SRC_VMARK"),
}

// effective6 are those of net/ipv6/conf. IPv6 asks the device alone for most.
var effective6 = map[string]effectiveRule{
	"accept_dad":            {greater, "addrconf_dad_begin of net/ipv6/addrconf.c"},
	"accept_source_route":   {smaller, "ipv6_rthdr_rcv of net/ipv6/exthdrs.c"},
	"force_mld_version":     {first, "mld_force_mld_version of net/ipv6/mcast.c"},
	"forwarding":            {onlyAll, "ip6_forward of net/ipv6/ip6_output.c"},
	"keep_addr_on_down":     {first, "addrconf_ifdown of net/ipv6/addrconf.c"},
	"ndisc_evict_nocarrier": {both, "ndisc_netdev_event of net/ipv6/ndisc.c"},
	"ndisc_notify":          {either, "ndisc_netdev_event of net/ipv6/ndisc.c"},
	"optimistic_dad":        {either, "ipv6_allow_optimistic_dad of net/ipv6/addrconf.c"},
	"seg6_enabled":          {smaller, "ipv6_srh_rcv of net/ipv6/exthdrs.c"},
	"use_optimistic":        {either, "ipv6_use_optimistic_addr of net/ipv6/addrconf.c"},
}

// effective adds what holds for a device where the kernel looks at conf/all
// too. read reads a setting of the same namespace.
func effective(name, value string, read func(name string) (string, error), f fields) {
	part := strings.Split(name, "/")
	if !perDevice(name) || part[2] != "conf" {
		return
	}
	rules := map[string]map[string]effectiveRule{"ipv4": effective4, "ipv6": effective6}[part[1]]
	setting := part[len(part)-1]
	rule, ok := rules[setting]
	if !ok && !(part[1] == "ipv4" && setting == "accept_redirects") {
		return
	}
	base := "net/" + part[1] + "/conf/"
	device := strings.TrimSuffix(strings.TrimPrefix(name, base), "/"+setting)
	number := func(name string) (int, bool) {
		s, err := read(name)
		n, err2 := strconv.Atoi(strings.TrimSpace(s))
		return n, err == nil && err2 == nil
	}
	dev, err := strconv.Atoi(value)
	all, known := number(base + "all/" + setting)
	if err != nil || !known {
		return
	}
	switch {
	case setting == "accept_redirects": // IPv4: a router is stricter than a host
		forwarding, known := number(base + device + "/forwarding")
		if !known {
			return
		}
		rule = inetdevice(either, "IN_DEV_RX_REDIRECTS")
		if forwarding != 0 {
			rule = inetdevice(both, "IN_DEV_RX_REDIRECTS")
		}
	case part[1] == "ipv6" && setting == "forwarding":
		// Since 6.17 a device can forward on its own.
		if force, known := number(base + device + "/force_forwarding"); known && force != 0 {
			rule = effectiveRule{combination{"all or force_forwarding", func(int, int) int { return 1 }}, rule.source}
		}
	}
	f["device"], f["all"] = value, strconv.Itoa(all)
	f["effective"], f["rule"], f["rule_source"] = strconv.Itoa(rule.result(all, dev)), rule.name, rule.source
}
