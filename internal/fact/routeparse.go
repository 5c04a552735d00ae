package fact

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// rtaNHID is RTA_NH_ID of include/uapi/linux/rtnetlink.h.
const rtaNHID = 30

// routeTypes are the names of RTN_* (include/uapi/linux/rtnetlink.h).
var routeTypes = []string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast",
	unix.RTN_ANYCAST: "anycast", unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole",
	unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// routeType is the name of a type, or its number.
func routeType(t uint8) string {
	s, _ := asName(routeTypes...)([]byte{t})
	return s
}

// routeTable is the name of a table that has one everywhere, or its number.
func routeTable(n uint32) string {
	switch n {
	case unix.RT_TABLE_DEFAULT:
		return "default"
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	}
	return decimal(n)
}

// routeProtocols are RTPROT_*, as in /usr/share/iproute2/rt_protos.
var routeProtocols = map[uint8]string{
	0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 8: "gated", 9: "ra", 10: "mrt", 11: "zebra",
	12: "bird", 13: "dnrouted", 14: "xorp", 15: "ntk", 16: "dhcp", 17: "mrouted", 18: "keepalived", 42: "babel",
	84: "ovn", 99: "openr", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip", 192: "eigrp",
}

func routeProtocol(p uint8) string {
	if s := routeProtocols[p]; s != "" {
		return s
	}
	return decimal(p)
}

func routeScope(s uint8) string {
	switch s {
	case unix.RT_SCOPE_UNIVERSE:
		return "global"
	case unix.RT_SCOPE_SITE:
		return "site"
	case unix.RT_SCOPE_LINK:
		return "link"
	case unix.RT_SCOPE_HOST:
		return "host"
	case unix.RT_SCOPE_NOWHERE:
		return "nowhere"
	}
	return decimal(s)
}

// routeFlags are RTNH_F_* and RTM_F_*.
var routeFlags = map[uint32]string{
	1: "dead", 2: "pervasive", 4: "onlink", 8: "offload", 16: "linkdown", 32: "unresolved", 64: "trap",
	0x4000: "rt_offload", 0x8000: "rt_trap", 0x20000000: "rt_offload_failed",
}

// encapTypes are LWTUNNEL_ENCAP_* (include/uapi/linux/lwtunnel.h).
var encapTypes = []string{1: "mpls", "ip", "ila", "ip6", "seg6", "bpf", "seg6local", "rpl", "ioam6", "xfrm"}

// routeMetrics are RTAX_*. Times are in milliseconds.
var routeMetrics = []param{
	{2, "mtu", asNumber},
	{3, "window", asNumber},
	{4, "rtt", divided(8)},
	{5, "rttvar", divided(4)},
	{6, "ssthresh", asNumber},
	{7, "cwnd", asNumber},
	{8, "advmss", asNumber},
	{9, "reordering", asNumber},
	{10, "hoplimit", asNumberBut(0xffffffff)},
	{11, "initcwnd", asNumber},
	{12, "features", asHex},
	{13, "rto_min", asNumber},
	{14, "initrwnd", asNumber},
	{15, "quickack", asNumber},
	{16, "congestion", asText},
	{17, "fastopen_no_cookie", asNumber},
}

func divided(by uint64) reader {
	return func(b []byte) (string, bool) {
		n, ok := numeral(b)
		return decimal(n / by), ok
	}
}

// routeParams are those of RTA_* that need no more than their number.
var routeParams = []param{
	{unix.RTA_PREFSRC, "src", asIP},
	{unix.RTA_PRIORITY, "metric", asNumber},
	{unix.RTA_MARK, "mark", asNonzero},
	{unix.RTA_UID, "uid", asNumber},
	{rtaNHID, "nhid", asNumber},
	{unix.RTA_PREF, "pref", asName("medium", "high", "", "low")}, // ICMPV6_ROUTER_PREF_*
	{unix.RTA_ENCAP_TYPE, "encap", asName(encapTypes...)},
	{unix.RTA_TTL_PROPAGATE, "ttl_propagate", asNumber},
}

// hop is one way that a route leads.
type hop struct {
	gateway, encap string
	oif            uint32
	weight         int
	flags          uint32
	dev            string
}

func (h *hop) String() string {
	var w []string
	if h.gateway != "" {
		w = append(w, "via "+h.gateway)
	}
	if h.encap != "" {
		w = append(w, "encap "+h.encap)
	}
	w = append(w, "dev "+h.dev, fmt.Sprintf("weight %d", h.weight))
	if s, ok := bitNames(h.flags, routeFlags); ok {
		w = append(w, s)
	}
	return strings.Join(w, " ")
}

// routeAnswer is a route that the kernel gave.
type routeAnswer struct {
	kind     string
	dst      netip.Prefix
	iif, oif uint32
	nhid     uint32
	// cloned is set for a cached exception, such as a path MTU.
	cloned bool
	hops   []hop
	fields fields
}

// parseRoute reads struct rtmsg and its attributes.
func parseRoute(b []byte) (routeAnswer, error) {
	if len(b) < unix.SizeofRtMsg {
		return routeAnswer{}, kernelnet.ErrShort
	}
	flags := native.Uint32(b[8:])
	r := routeAnswer{kind: routeType(b[7]), cloned: flags&unix.RTM_F_CLONED != 0, fields: fields{
		"family": familyName(b[0]), "protocol": routeProtocol(b[5]), "scope": routeScope(b[6]),
	}}
	if s, ok := bitNames(flags, routeFlags); ok {
		r.fields["flags"] = s
	}
	if b[3] != 0 {
		r.fields["tos"] = decimal(b[3])
	}
	table := uint32(b[4])
	var dst, src netip.Addr
	var bad error
	err := kernelnet.Attributes(b, unix.SizeofRtMsg, func(t int, v []byte) {
		switch t {
		case unix.RTA_TABLE:
			if n, ok := u32(v); ok {
				table = n
			}
		case unix.RTA_DST:
			dst = address(v)
		case unix.RTA_SRC:
			src = address(v)
		case unix.RTA_IIF:
			r.iif, _ = u32(v)
		case unix.RTA_OIF:
			r.oif, _ = u32(v)
		case rtaNHID:
			r.nhid, _ = u32(v)
		case unix.RTA_FLOW:
			if n, ok := u32(v); ok {
				r.fields["realms"] = fmt.Sprintf("%d/%d", n>>16, n&0xffff)
			}
		case unix.RTA_METRICS:
			bad = errors.Join(bad, r.metrics(v))
		case unix.RTA_CACHEINFO:
			r.cache(v)
		case unix.RTA_MULTIPATH:
			bad = errors.Join(bad, r.multipath(v))
		default:
			r.gateway(t, v)
		}
	})
	r.fields["table"] = routeTable(table)
	r.dst = prefix(b[0], dst, b[1])
	r.fields["dst"] = prefixName(r.dst)
	if b[2] != 0 {
		r.fields["from"] = prefixName(prefix(b[0], src, b[2]))
	}
	return r, errors.Join(err, bad, decode(b[unix.SizeofRtMsg:], 0, routeParams, "", r.fields))
}

// gateway reads RTA_GATEWAY, or RTA_VIA: struct rtvia, a family and its
// address.
func (r *routeAnswer) gateway(t int, v []byte) {
	if g, ok := gateway(t, v); ok {
		r.fields["gateway"] = g
	}
}

func gateway(t int, v []byte) (string, bool) {
	switch {
	case t == unix.RTA_GATEWAY:
		return asIP(v)
	case t == unix.RTA_VIA && len(v) > 2:
		return asIP(v[2:])
	}
	return "", false
}

// metrics reads RTA_METRICS; the bits of RTAX_LOCK are the numbers of those
// that the kernel must not change.
func (r *routeAnswer) metrics(b []byte) error {
	var locked []string
	err := kernelnet.Attributes(b, 0, func(t int, v []byte) {
		n, _ := u32(v)
		for _, m := range routeMetrics {
			if t == unix.RTAX_LOCK && n&(1<<m.attr) != 0 {
				locked = append(locked, m.name)
			}
		}
	})
	if len(locked) > 0 {
		r.fields["lock"] = strings.Join(locked, ",")
	}
	return errors.Join(err, decode(b, 0, routeMetrics, "", r.fields))
}

// cache reads struct rta_cacheinfo. Its times are in hundredths of a second
// (USER_HZ).
func (r *routeAnswer) cache(b []byte) {
	const expires, rtError = 8, 12
	if len(b) < rtError+4 {
		return
	}
	if n := int32(native.Uint32(b[expires:])); n != 0 {
		r.fields["expires"] = decimal(n / 100)
	}
	// Of an IPv6 route it is negative (rt6_fill_node of net/ipv6/route.c).
	if n := int32(native.Uint32(b[rtError:])); n != 0 {
		r.fields["error"] = errno(unix.Errno(max(n, -n)))
	}
}

// multipath reads RTA_MULTIPATH: a list of struct rtnexthop with attributes.
func (r *routeAnswer) multipath(b []byte) error {
	const size = unix.SizeofRtNexthop
	for len(b) > 0 {
		if len(b) < size {
			return kernelnet.ErrShort
		}
		n := int(native.Uint16(b))
		if n < size || n > len(b) {
			return kernelnet.ErrShort
		}
		h := hop{flags: uint32(b[2]), weight: int(b[3]) + 1, oif: native.Uint32(b[4:])}
		err := kernelnet.Attributes(b[:n], size, func(t int, v []byte) {
			if g, ok := gateway(t, v); ok {
				h.gateway = g
			}
			if t == unix.RTA_ENCAP_TYPE {
				h.encap, _ = asName(encapTypes...)(v)
			}
		})
		if err != nil {
			return err
		}
		r.hops = append(r.hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

// names fills in the names of devices, and the list of ways.
func (r *routeAnswer) names(devices deviceNames) {
	if r.oif != 0 {
		r.fields["dev"] = devices.of(r.oif)
	}
	if r.iif != 0 {
		r.fields["iif"] = devices.of(r.iif)
	}
	if len(r.hops) == 0 {
		return
	}
	var list []string
	for i := range r.hops {
		if r.hops[i].oif != 0 {
			r.hops[i].dev = devices.of(r.hops[i].oif)
		}
		list = append(list, r.hops[i].String())
	}
	r.fields["paths"], r.fields["nexthops"] = decimal(len(r.hops)), strings.Join(list, "; ")
}

// prefix is that of an address which is left out where the length is 0.
func prefix(fam uint8, a netip.Addr, bits uint8) netip.Prefix {
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
		if fam == unix.AF_INET6 {
			a = netip.IPv6Unspecified()
		}
	}
	return netip.PrefixFrom(a, int(bits))
}

func prefixName(p netip.Prefix) string {
	if p.Bits() == 0 {
		return "default"
	}
	return p.String()
}

func familyName(f uint8) string {
	switch f {
	case unix.AF_INET:
		return "ip"
	case unix.AF_INET6:
		return "ip6"
	}
	return decimal(f)
}

// name tells routes apart.
func (r *routeAnswer) name() string {
	w := []string{r.fields["table"], r.fields["dst"]}
	for _, f := range []string{"from", "dev", "tos", "metric"} {
		if v := r.fields[f]; v != "" {
			w = append(w, f, v)
		}
	}
	if r.cloned {
		w = append(w, "exception")
	}
	return strings.Join(w, " ")
}

// nexthopWeight is that of struct nexthop_grp, whose high byte is used since
// 6.12 (include/uapi/linux/nexthop.h).
func nexthopWeight(b []byte) int { return int(binary.LittleEndian.Uint16(b[4:6])) + 1 }
