package fact

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// rule is a rule of policy routing.
type rule struct {
	priority uint32
	action   string
	fields   fields
}

// maxRules is how many rules of a family are given.
const maxRules = 1000

// readRules gives the rules of policy routing in the kernel's order, IPv4 and
// IPv6.
func readRules(q *query) error {
	q.source, q.command = "RTM_GETRULE", "ip -d rule show; ip -6 -d rule show"
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := listRules(fam)
		if err != nil {
			return err
		}
		shown := min(len(list), maxRules)
		same := map[uint32]int{}
		for _, r := range list[:shown] {
			name := fmt.Sprintf("%s %d", r.fields["family"], r.priority)
			if same[r.priority]++; same[r.priority] > 1 {
				name += fmt.Sprintf(" #%d", same[r.priority])
			}
			q.add(name, r.action, r.fields)
		}
		q.left(len(list)-shown, familyName(fam)+" rules")
	}
	return nil
}

// listRules lists the rules of a family; a kernel without them has none.
func listRules(fam uint8) ([]rule, error) {
	var list []rule
	m := message{}.U8(fam, 0, 0, 0, 0, 0, 0, 0).U32(0)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETRULE, unix.RTM_NEWRULE, m, func() { list = nil }, func(b []byte) error {
		r, err := parseFibRule(b)
		if err == nil && b[0] == fam {
			list = append(list, r)
		}
		return err
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return list, nil
}

// ruleActions are FR_ACT_* (include/uapi/linux/fib_rules.h).
var ruleActions = []string{1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}

// ruleFlags are FIB_RULE_*.
var ruleFlags = map[uint32]string{1: "permanent", 2: "not", 4: "unresolved", 8: "iif_detached", 16: "oif_detached"}

// ruleParams are FRA_*. Ranges are two numbers of the same size.
var ruleParams = []param{
	{3, "iif", asText},
	{4, "goto", asNumber},
	{10, "fwmark", asHex},
	{12, "tun_id", asNetwork64},
	{13, "suppress_ifgroup", asNumberBut(0xffffffff)},
	{14, "suppress_prefixlen", asNumberBut(0xffffffff)},
	{16, "fwmask", asHexBut(0xffffffff)},
	{17, "oif", asText},
	{19, "l3mdev", asNonzero},
	{20, "uid_start", at(0, 4, asNumber)},
	{20, "uid_end", at(4, 4, asNumber)},
	{21, "protocol", asRouteProtocol},
	{22, "ipproto", asNumber},
	{23, "sport_start", at(0, 2, asNumber)},
	{23, "sport_end", at(2, 2, asNumber)},
	{24, "dport_start", at(0, 2, asNumber)},
	{24, "dport_end", at(2, 2, asNumber)},
	{25, "dscp", asNumber},
	{26, "flowlabel", asNetworkHex},
	{27, "flowlabel_mask", asNetworkHex},
	{28, "sport_mask", asHexBut(0xffff)},
	{29, "dport_mask", asHexBut(0xffff)},
	{30, "dscp_mask", asHex},
}

func asRouteProtocol(b []byte) (string, bool) {
	if len(b) != 1 {
		return "", false
	}
	return routeProtocol(b[0]), true
}

// parseFibRule reads struct fib_rule_hdr and its attributes.
func parseFibRule(b []byte) (rule, error) {
	const (
		sizeofFibRuleHdr = 12

		fraDst, fraSrc, fraPriority, fraFlow, fraTable = 1, 2, 6, 11, 15
	)
	if len(b) < sizeofFibRuleHdr {
		return rule{}, kernelnet.ErrShort
	}
	r := rule{fields: fields{"family": familyName(b[0]), "src": "all"}}
	r.action, _ = asName(ruleActions...)(b[7:8])
	if b[3] != 0 {
		r.fields["tos"] = fmt.Sprintf("%#x", b[3])
	}
	if s, ok := bitNames(native.Uint32(b[8:]), ruleFlags); ok {
		r.fields["flags"] = s
	}
	table := uint32(b[4])
	var dst, src netip.Addr
	err := kernelnet.Attributes(b, sizeofFibRuleHdr, func(t int, v []byte) {
		switch t {
		case fraDst:
			dst = address(v)
		case fraSrc:
			src = address(v)
		case fraPriority:
			r.priority, _ = u32(v)
		case fraTable:
			if n, ok := u32(v); ok {
				table = n
			}
		case fraFlow:
			if n, ok := u32(v); ok {
				r.fields["realms"] = fmt.Sprintf("%d/%d", n>>16, n&0xffff)
			}
		}
	})
	r.fields["priority"] = decimal(r.priority)
	if src.IsValid() || b[2] != 0 {
		r.fields["src"] = prefix(b[0], src, b[2]).String()
	}
	if dst.IsValid() || b[1] != 0 {
		r.fields["dst"] = prefix(b[0], dst, b[1]).String()
	}
	if table != 0 {
		r.fields["table"] = routeTable(table)
	}
	err = errors.Join(err, decode(b, sizeofFibRuleHdr, ruleParams, "", r.fields))
	if r.fields["fwmask"] != "" && r.fields["fwmark"] == "" {
		r.fields["fwmark"] = "0x0"
	}
	return r, err
}
