package fact

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// chain is a chain of nftables, and what its rules do.
type chain struct {
	kernelnet.NftChain
	rules, drops int
	jumps        []kernelnet.NftID
}

// ruleset are the chains of a namespace; order is the kernel's.
type ruleset struct {
	chains map[kernelnet.NftID]*chain
	order  []kernelnet.NftID
	// lookups are the maps of verdicts that rules look into, and what is in
	// them.
	lookups map[kernelnet.NftID]*verdicts
	// pending are rules that depend on a map.
	pending []pendingRule
}

type pendingRule struct {
	chain *chain
	drops bool
	maps  []kernelnet.NftID
}

// verdicts say what a rule, or a map that it looks into, may do.
type verdicts struct {
	drops bool
	jumps []kernelnet.NftID
	maps  []kernelnet.NftID
}

// readNftChains gives each base chain of nftables. rules and drops count the
// rules of the chain and of all chains that it leads to, each once.
func readNftChains(q *query) error {
	q.source, q.command = "NFT_MSG_GETCHAIN, NFT_MSG_GETRULE", "nft list ruleset"
	// A question would have the kernel load nf_tables (nfnetlink_rcv_msg of
	// net/netfilter/nfnetlink.c), and without it there are no chains.
	if ok, err := q.has("nf_tables"); !ok {
		return err
	}
	rs, err := readRuleset()
	if errors.Is(err, errNoNft) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list chains of nftables: %w", kernelnet.NeedsCap(err, "CAP_NET_ADMIN"))
	}
	for _, id := range rs.order {
		c := rs.chains[id]
		if !c.Base {
			continue
		}
		family := kernelnet.NftFamily(id.Family)
		rules, drops := rs.reach(c)
		q.command = fmt.Sprintf("nft list chain %s %s %s", family, shell(id.Table), shell(id.Name))
		q.add(family+" "+id.Table+" "+id.Name, c.Policy, fields{
			"hook": nftHook(id.Family, c.Hook), "priority": decimal(c.Priority), "policy": c.Policy,
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
	err := kernelnet.NftDump(unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, unix.AF_UNSPEC, nil, func() {
		rs = &ruleset{chains: map[kernelnet.NftID]*chain{}, lookups: map[kernelnet.NftID]*verdicts{}}
	}, func(b []byte) error {
		c, err := kernelnet.ParseNftChain(b)
		if err == nil && rs.chains[c.ID] == nil {
			rs.chains[c.ID] = &chain{NftChain: c}
			rs.order = append(rs.order, c.ID)
		}
		return err
	})
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, errNoNft
	}
	if err != nil {
		return nil, err
	}
	err = kernelnet.NftDump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, unix.AF_UNSPEC, nil, rs.clearRules, func(b []byte) error {
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
		m := message{}.Text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Table).Text(unix.NFTA_SET_ELEM_LIST_SET, id.Name)
		err := kernelnet.NftDump(unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM, id.Family, m, func() { *v = verdicts{} }, func(b []byte) error {
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
	rs.lookups, rs.pending = map[kernelnet.NftID]*verdicts{}, nil
}

func (rs *ruleset) addRule(id kernelnet.NftID, v verdicts) {
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

// parseRule reads a rule of NFT_MSG_NEWRULE: its chain and what it may do.
func parseRule(b []byte) (id kernelnet.NftID, v verdicts, err error) {
	var r kernelnet.NftRule
	err = r.Parse(b)
	id = kernelnet.NftID{Family: r.Family, Table: string(r.Table), Name: string(r.Chain)}
	for _, e := range r.Exprs {
		v.drops = v.drops || e.Drops()
		switch string(e.Name) {
		case "immediate":
			err = errors.Join(err, v.add(e.Get(unix.NFTA_IMMEDIATE_DATA), id))
		case "lookup":
			if e.Has(unix.NFTA_LOOKUP_DREG) && e.Num(unix.NFTA_LOOKUP_DREG) == unix.NFT_REG_VERDICT {
				v.maps = append(v.maps, kernelnet.NftID{Family: id.Family, Table: id.Table, Name: e.Text(unix.NFTA_LOOKUP_SET)})
			}
		}
	}
	return id, v, err
}

// add reads data, of a rule or a map of the table of id, that may be a verdict.
func (v *verdicts) add(data []byte, id kernelnet.NftID) error {
	verdict, err := kernelnet.ParseNftVerdict(data)
	if err != nil || !verdict.Is {
		return err
	}
	switch verdict.Code {
	case kernelnet.NfDrop:
		v.drops = true
	case unix.NFT_JUMP, unix.NFT_GOTO:
		v.jumps = append(v.jumps, kernelnet.NftID{Family: id.Family, Table: id.Table, Name: string(verdict.Chain)})
	}
	return nil
}

// parseElements reads elements of NFT_MSG_NEWSETELEM: the verdicts of a map.
func parseElements(b []byte, id kernelnet.NftID, v *verdicts) error {
	a, bad := kernelnet.ParseAttrs(b, kernelnet.SizeofNfgen)
	err := kernelnet.Attributes(a.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS), 0, func(t int, elem []byte) {
		if t == unix.NFTA_LIST_ELEM {
			e, err := kernelnet.ParseAttrs(elem, 0)
			bad = errors.Join(bad, err, v.add(e.Get(unix.NFTA_SET_ELEM_DATA), id))
		}
	})
	return errors.Join(bad, err)
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
