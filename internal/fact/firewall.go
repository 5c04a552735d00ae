package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// readFirewall gives every rule of the firewall as text: those of nftables,
// among them those of iptables-nft, and those of iptables-legacy.
func readFirewall(q *query) error {
	q.source, q.command = "NFT_MSG_GETCHAIN, NFT_MSG_GETSET, NFT_MSG_GETRULE", "nft -a list ruleset"
	err := q.nftRules()
	if err != nil {
		q.missing(err.Error()) // the other firewall may still be read
	}
	if legacy := q.legacyRules(); legacy != nil {
		return legacy
	}
	if len(q.facts) == 0 {
		q.source, q.command = "NFT_MSG_GETCHAIN, /proc/net/ip_tables_names, /proc/net/ip6_tables_names", "nft -a list ruleset"
	}
	return nil
}

// nftRules adds the rules of nftables, chain by chain.
func (q *query) nftRules() error {
	p, err := q.modules("nf_tables")
	if p == absent {
		return nil
	}
	if err != nil {
		return fmt.Errorf("tell whether nf_tables is there without loading it: %w", err)
	}
	l, err := readListing()
	if errors.Is(err, errNoNft) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list rules of nftables: %w", needsCap(err, "CAP_NET_ADMIN"))
	}
	names := deviceNames{}
	for _, id := range l.order {
		q.nftChain(l, l.chains[id], names)
	}
	if l.left > 0 {
		q.missing(fmt.Sprintf("%d more rules of nftables are not listed", l.left))
	}
	return nil
}

// nftChain adds the policy of a chain, if it has one, and its rules.
func (q *query) nftChain(l *nftListing, c *chain, names deviceNames) {
	family := nftFamily(c.id.family)
	name := family + " " + c.id.table + " " + c.id.name
	hooks, priorities := l.hookOf(c.id)
	common := func() fields {
		f := fields{"family": family, "table": c.id.table, "chain": c.id.name, "hook": hooks, "priority": priorities}
		if c.base {
			f["type"] = c.kind
		}
		if len(c.devices) > 0 {
			f["device"] = strings.Join(c.devices, " ")
		}
		if l.dormant[chainID{family: c.id.family, table: c.id.table}] {
			f["dormant"] = "1"
		}
		return f
	}
	q.command = fmt.Sprintf("nft -a list chain %s %s %s", family, shell(c.id.table), shell(c.id.name))
	if c.base {
		f := common()
		f["verdict"] = c.policy
		if c.counted {
			f["packets"], f["bytes"] = decimal(c.packets), decimal(c.bytes)
		}
		q.addRule("policy "+name, "policy "+c.policy, f)
	}
	for _, r := range l.list[c.id] {
		d := newNftText(c.id.family)
		d.devices = names.of
		d.set = func(set string) *nftSet { return l.sets[chainID{c.id.family, c.id.table, set}] }
		rule := d.rule(r.exprs)
		f := common()
		f["handle"], f["verdict"] = decimal(r.handle), d.verdict
		if d.counted {
			f["packets"], f["bytes"] = decimal(d.packets), decimal(d.bytes)
		}
		if d.quota != "" {
			f["quota_used"] = d.quota
		}
		if r.comment != "" {
			f["comment"] = r.comment
		} else if d.comment != "" {
			f["comment"] = d.comment
		}
		q.addRule("rule "+name+" "+decimal(r.handle), rule, f)
	}
}

// addRule adds a rule or policy, and says whether it drops all that it matches.
func (q *query) addRule(name, text string, f fields) {
	f["drops"] = "0"
	switch strings.ToLower(f["verdict"]) {
	case "drop", "reject":
		f["drops"] = "1"
	}
	q.add(name, text, f)
}

// legacyPriorities are where the tables of iptables-legacy are called
// (enum nf_ip_hook_priorities of include/uapi/linux/netfilter_ipv4.h).
var legacyPriorities = map[string]string{
	"raw": "-300", "mangle": "-150", "filter": "0", "security": "50",
	"nat PREROUTING": "-100", "nat OUTPUT": "-100", "nat INPUT": "100", "nat POSTROUTING": "100",
}

// legacyRules adds the rules of iptables-legacy, of tables that exist.
func (q *query) legacyRules() error {
	count, left := 0, 0
	for _, family := range xtFamilies {
		q.source, q.command = "getsockopt IPT_SO_GET_ENTRIES", family.program+"-save -c"
		s, err := q.readFile("/proc/thread-self/net/" + family.list)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read legacy tables: %w", needsCap(err, "root"))
		}
		for _, table := range strings.Fields(s) {
			info, entries, err := readXtTable(family, table)
			if err != nil {
				return err
			}
			rules, err := parseXtTable(info, entries, family.six)
			if err != nil {
				return fmt.Errorf("table %s of %s: %w", table, family.program, err)
			}
			hooks := legacyHooks(rules)
			for _, r := range rules {
				if count++; count > maxFirewallRules {
					left++
					continue
				}
				q.legacyRule(family, table, r, hooks[r.chain])
			}
		}
	}
	if left > 0 {
		q.missing(fmt.Sprintf("%d more rules of iptables-legacy are not listed", left))
	}
	return nil
}

// legacyHooks says through which chains of hooks a packet may come to a chain.
func legacyHooks(rules []xtRule) map[string][]string {
	jumps := map[string][]string{}
	var hooks []string
	for _, r := range rules {
		if r.builtin && r.number == 0 {
			hooks = append(hooks, r.chain)
		}
		jumps[r.chain] = append(jumps[r.chain], r.verdict)
	}
	reached := map[string][]string{}
	for _, hook := range hooks {
		seen := map[string]bool{hook: true}
		for todo := []string{hook}; len(todo) > 0; todo = todo[1:] {
			reached[todo[0]] = append(reached[todo[0]], hook)
			for _, next := range jumps[todo[0]] {
				if !seen[next] && jumps[next] != nil {
					seen[next] = true
					todo = append(todo, next)
				}
			}
		}
	}
	return reached
}

// legacyRule adds a rule, or the policy of a chain.
func (q *query) legacyRule(family xtFamily, table string, r xtRule, hooks []string) {
	f := fields{
		"family": family.name, "table": table, "chain": r.chain, "hook": strings.ToLower(strings.Join(hooks, " ")), "program": family.program,
		"verdict": r.verdict, "packets": decimal(r.packets), "bytes": decimal(r.bytes),
	}
	priority, ok := legacyPriorities[table]
	if !ok && len(hooks) == 1 {
		priority = legacyPriorities[table+" "+hooks[0]]
	}
	f["priority"] = priority
	if r.comment != "" {
		f["comment"] = r.comment
	}
	q.command = fmt.Sprintf("%s -t %s -vnxL %s --line-numbers", family.program, shell(table), shell(r.chain))
	name := family.name + " " + table + " " + r.chain
	if r.number == 0 {
		q.addRule("policy "+name, "policy "+r.verdict, f)
		return
	}
	f["number"] = decimal(r.number)
	q.addRule("rule "+name+" "+decimal(r.number), strings.TrimSpace("-A "+shell(r.chain)+" "+r.spec), f)
}
