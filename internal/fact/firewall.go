package fact

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	if ok, err := q.has("nf_tables"); !ok {
		return err
	}
	l, err := readListing()
	if errors.Is(err, errNoNft) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list rules of nftables: %w", kernelnet.NeedsCap(err, "CAP_NET_ADMIN"))
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
	family := kernelnet.NftFamily(c.ID.Family)
	name := family + " " + c.ID.Table + " " + c.ID.Name
	hooks, priorities := l.hookOf(c.ID)
	common := func() fields {
		f := fields{"family": family, "table": c.ID.Table, "chain": c.ID.Name, "hook": hooks, "priority": priorities}
		if c.Base {
			f["type"] = c.Kind
		}
		if len(c.Devices) > 0 {
			f["device"] = strings.Join(c.Devices, " ")
		}
		if l.dormant[kernelnet.NftID{Family: c.ID.Family, Table: c.ID.Table}] {
			f["dormant"] = "1"
		}
		return f
	}
	q.command = fmt.Sprintf("nft -a list chain %s %s %s", family, shell(c.ID.Table), shell(c.ID.Name))
	if c.Base {
		f := common()
		f["verdict"] = c.Policy
		if c.Counted {
			f["packets"], f["bytes"] = decimal(c.Counter.Packets), decimal(c.Counter.Bytes)
		}
		q.addRule("policy "+name, "policy "+c.Policy, f)
	}
	for _, r := range l.list[c.ID] {
		d := newNftText(c.ID.Family)
		d.devices = names.of
		d.set = func(set string) *nftSet {
			return l.sets[kernelnet.NftID{Family: c.ID.Family, Table: c.ID.Table, Name: set}]
		}
		rule := d.rule(r.Exprs)
		f := common()
		f["handle"], f["verdict"] = decimal(r.Handle), d.verdict
		if d.counted {
			f["packets"], f["bytes"] = decimal(d.packets), decimal(d.bytes)
		}
		if d.quota != "" {
			f["quota_used"] = d.quota
		}
		if s := cmp.Or(nftComment(r.UserData), d.comment); s != "" {
			f["comment"] = s
		}
		q.addRule("rule "+name+" "+decimal(r.Handle), rule, f)
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
	for _, family := range kernelnet.XtFamilies() {
		q.source, q.command = "getsockopt IPT_SO_GET_ENTRIES", family.Program+"-save -c"
		s, err := q.readFile("/proc/thread-self/net/" + family.List)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read legacy tables: %w", kernelnet.NeedsCap(err, "root"))
		}
		for _, table := range strings.Fields(s) {
			t, err := family.Read(table)
			var rules []xtRule
			if err == nil {
				rules, err = xtRules(family, t)
			}
			if err != nil {
				return fmt.Errorf("table %s of %s: %w", table, family.Program, err)
			}
			hooks := legacyHooks(rules)
			for _, r := range rules {
				if count++; count > maxFirewallRules {
					left++
					continue
				}
				q.legacyRule(family, table, r, hooks[r.Chain])
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
		if r.Builtin && r.Number == 0 {
			hooks = append(hooks, r.Chain)
		}
		jumps[r.Chain] = append(jumps[r.Chain], r.verdict)
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
func (q *query) legacyRule(family kernelnet.XtFamily, table string, r xtRule, hooks []string) {
	f := fields{
		"family": family.Name, "table": table, "chain": r.Chain, "hook": strings.ToLower(strings.Join(hooks, " ")), "program": family.Program,
		"verdict": r.verdict, "packets": decimal(r.Packets), "bytes": decimal(r.Bytes),
	}
	priority, ok := legacyPriorities[table]
	if !ok && len(hooks) == 1 {
		priority = legacyPriorities[table+" "+hooks[0]]
	}
	f["priority"] = priority
	if r.comment != "" {
		f["comment"] = r.comment
	}
	q.command = fmt.Sprintf("%s -t %s -vnxL %s --line-numbers", family.Program, shell(table), shell(r.Chain))
	name := family.Name + " " + table + " " + r.Chain
	if r.Number == 0 {
		q.addRule("policy "+name, "policy "+r.verdict, f)
		return
	}
	f["number"] = decimal(r.Number)
	q.addRule("rule "+name+" "+decimal(r.Number), strings.TrimSpace("-A "+shell(r.Chain)+" "+r.spec), f)
}
