package fact

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// chainID names a chain or set of nftables.
type chainID struct {
	family      uint8
	table, name string
}

// chain is a chain, and what its rules do.
type chain struct {
	id           chainID
	base         bool
	hook         uint32
	priority     int32
	policy       string
	rules, drops int
	jumps        []chainID
	// kind is filter, nat or route; devices are those of a chain of netdev.
	kind    string
	devices []string
	// counted says that the policy has a counter, as iptables-nft makes it.
	counted        bool
	packets, bytes uint64
}

// ruleset are the chains of a namespace; order is the kernel's.
type ruleset struct {
	chains map[chainID]*chain
	order  []chainID
	// lookups are the maps of verdicts that rules look into, and what is in
	// them.
	lookups map[chainID]*verdicts
	// pending are rules that depend on a map.
	pending []pendingRule
}

type pendingRule struct {
	chain *chain
	drops bool
	maps  []chainID
}

// verdicts say what a rule, or a map that it looks into, may do.
type verdicts struct {
	drops bool
	jumps []chainID
	maps  []chainID
}

// readNftChains gives each base chain of nftables. rules and drops count the
// rules of the chain and of all chains that it leads to, each once.
func readNftChains(q *query) error {
	q.source, q.command = "NFT_MSG_GETCHAIN, NFT_MSG_GETRULE", "nft list ruleset"
	// A question would have the kernel load nf_tables (nfnetlink_rcv_msg of
	// net/netfilter/nfnetlink.c), and without it there are no chains.
	p, err := q.modules("nf_tables")
	if p == absent {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell whether nf_tables is there without loading it: %w", err)
	}
	rs, err := readRuleset()
	if errors.Is(err, errNoNft) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list chains of nftables: %w", needsCap(err, "CAP_NET_ADMIN"))
	}
	for _, id := range rs.order {
		c := rs.chains[id]
		if !c.base {
			continue
		}
		family := nftFamily(id.family)
		rules, drops := rs.reach(c)
		q.command = fmt.Sprintf("nft list chain %s %s %s", family, shell(id.table), shell(id.name))
		q.add(family+" "+id.table+" "+id.name, c.policy, fields{
			"hook": nftHook(id.family, c.hook), "priority": decimal(c.priority), "policy": c.policy,
			"rules": decimal(rules), "drops": decimal(drops),
		})
	}
	return nil
}

// reach counts the rules of a chain and of those that it leads to.
func (rs *ruleset) reach(c *chain) (rules, drops int) {
	seen := map[*chain]bool{c: true}
	for todo := []*chain{c}; len(todo) > 0; {
		c, todo = todo[0], todo[1:]
		rules += c.rules
		drops += c.drops
		for _, id := range c.jumps {
			if next := rs.chains[id]; next != nil && !seen[next] {
				seen[next] = true
				todo = append(todo, next)
			}
		}
	}
	return rules, drops
}

// errNoNft is the error of a kernel without nf_tables, which has no chains.
var errNoNft = errors.New("the kernel has no nf_tables")

// readRuleset asks for all chains, all rules, and the maps of verdicts that
// rules use.
func readRuleset() (*ruleset, error) {
	var rs *ruleset
	err := nftDump(unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, unix.AF_UNSPEC, nil, func() {
		rs = &ruleset{chains: map[chainID]*chain{}, lookups: map[chainID]*verdicts{}}
	}, func(b []byte) error {
		c, err := parseChain(b)
		if err == nil && rs.chains[c.id] == nil {
			rs.chains[c.id] = c
			rs.order = append(rs.order, c.id)
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, errNoNft
	}
	if err != nil {
		return nil, err
	}
	err = nftDump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, unix.AF_UNSPEC, nil, rs.clearRules, func(b []byte) error {
		id, v, err := parseRule(b)
		if err == nil {
			rs.addRule(id, v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for id, v := range rs.lookups {
		m := message{}.text(unix.NFTA_SET_ELEM_LIST_TABLE, id.table).text(unix.NFTA_SET_ELEM_LIST_SET, id.name)
		err := nftDump(unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM, id.family, m, func() { *v = verdicts{} }, func(b []byte) error {
			return parseElements(b, id, v)
		})
		if err != nil && !errors.Is(err, unix.ENOENT) { // gone meanwhile
			return nil, err
		}
	}
	rs.resolve()
	return rs, nil
}

func (rs *ruleset) clearRules() {
	for _, c := range rs.chains {
		c.rules, c.drops, c.jumps = 0, 0, nil
	}
	rs.lookups, rs.pending = map[chainID]*verdicts{}, nil
}

func (rs *ruleset) addRule(id chainID, v verdicts) {
	c := rs.chains[id]
	if c == nil {
		return // made meanwhile
	}
	c.rules++
	c.jumps = append(c.jumps, v.jumps...)
	if len(v.maps) == 0 {
		if v.drops {
			c.drops++
		}
		return
	}
	for _, m := range v.maps {
		rs.lookups[m] = &verdicts{}
	}
	rs.pending = append(rs.pending, pendingRule{c, v.drops, v.maps})
}

// resolve adds to rules what the maps hold that they look into.
func (rs *ruleset) resolve() {
	for _, p := range rs.pending {
		drops := p.drops
		for _, id := range p.maps {
			v := rs.lookups[id]
			drops = drops || v.drops
			p.chain.jumps = append(p.chain.jumps, v.jumps...)
		}
		if drops {
			p.chain.drops++
		}
	}
}

// nftDump asks nf_tables for all objects of a family.
func nftDump(request, reply int, family uint8, attrs message, begin func(), each func(b []byte) error) error {
	const subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
	m := append(message{}.u8(family, 0, 0, 0), attrs...)
	return dump(unix.NETLINK_NETFILTER, subsystem|request, uint16(subsystem|reply), m, begin, each)
}

// nftFamily names NFPROTO_* as nft(8) does (include/uapi/linux/netfilter.h).
func nftFamily(f uint8) string {
	switch f {
	case unix.NFPROTO_INET:
		return "inet"
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_ARP:
		return "arp"
	case unix.NFPROTO_NETDEV:
		return "netdev"
	case unix.NFPROTO_BRIDGE:
		return "bridge"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return decimal(f)
}

// nftHook names a hook (enums nf_inet_hooks and nf_dev_hooks of netfilter.h,
// netfilter_arp.h).
func nftHook(family uint8, hook uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch family {
	case unix.NFPROTO_ARP:
		names = []string{"input", "output", "forward"}
	case unix.NFPROTO_NETDEV:
		names = []string{"ingress", "egress"}
	}
	if int(hook) < len(names) {
		return names[hook]
	}
	return decimal(hook)
}
