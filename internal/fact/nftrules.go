package fact

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// What is read of a ruleset.
const (
	// maxFirewallRules bounds the rules of nftables, and those of iptables-legacy.
	maxFirewallRules = 5000
	// maxSets bounds the sets that stand in rules and are read with them.
	maxSets = 1000
)

// nftRule is a rule of nftables.
type nftRule struct {
	kernelnet.NftRule
	chain kernelnet.NftID
}

// nftListing is a ruleset with all that is needed to write its rules.
type nftListing struct {
	*ruleset
	// dormant are the tables whose chains see no packet.
	dormant map[kernelnet.NftID]bool
	sets    map[kernelnet.NftID]*nftSet
	list    map[kernelnet.NftID][]nftRule
	// count is how many rules are listed, left how many are not.
	count, left int
}

// readListing reads all tables, chains, sets and rules of the namespace, and
// what is in the sets that stand in rules.
func readListing() (*nftListing, error) {
	rs, err := readRuleset()
	if err != nil {
		return nil, err
	}
	l := &nftListing{ruleset: rs}
	err = kernelnet.NftDump(unix.NFT_MSG_GETTABLE, unix.NFT_MSG_NEWTABLE, unix.AF_UNSPEC, nil, func() { l.dormant = map[kernelnet.NftID]bool{} }, l.addTable)
	if err == nil {
		err = kernelnet.NftDump(unix.NFT_MSG_GETSET, unix.NFT_MSG_NEWSET, unix.AF_UNSPEC, nil, func() { l.sets = map[kernelnet.NftID]*nftSet{} }, func(b []byte) error {
			id, set, err := parseSet(b)
			if err == nil {
				l.sets[id] = set
			}
			return err
		})
	}
	if err == nil {
		err = kernelnet.NftDump(unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, unix.AF_UNSPEC, nil, func() {
			l.list, l.count, l.left = map[kernelnet.NftID][]nftRule{}, 0, 0
		}, l.addRule)
	}
	if err == nil {
		err = l.readElements()
	}
	return l, err
}

func (l *nftListing) addTable(b []byte) error {
	a, err := kernelnet.ParseAttrs(b, kernelnet.SizeofNfgen)
	if a.Num(unix.NFTA_TABLE_FLAGS)&unix.NFT_TABLE_F_DORMANT != 0 {
		l.dormant[kernelnet.NftID{Family: b[0], Table: a.Text(unix.NFTA_TABLE_NAME)}] = true
	}
	return err
}

func (l *nftListing) addRule(b []byte) error {
	if l.count >= maxFirewallRules {
		l.left++
		return nil
	}
	r, err := parseWholeRule(b)
	if err != nil {
		return err
	}
	l.count++
	l.list[r.chain] = append(l.list[r.chain], r)
	return nil
}

// parseWholeRule reads a rule of NFT_MSG_NEWRULE.
func parseWholeRule(b []byte) (r nftRule, err error) {
	err = r.Parse(b)
	r.chain = kernelnet.NftID{Family: r.Family, Table: string(r.Table), Name: string(r.Chain)}
	return r, err
}

// nftComment finds the comment in what nft(8) keeps with a rule: a type, a
// length, and so many bytes, again and again. The comment has the type 0.
func nftComment(b []byte) string {
	for len(b) >= 2 && int(b[1]) <= len(b)-2 {
		n := int(b[1])
		if b[0] == 0 {
			return text(b[2 : 2+n])
		}
		b = b[2+n:]
	}
	return ""
}

// readElements reads the sets that stand in rules. One that is gone meanwhile
// stays empty.
func (l *nftListing) readElements() error {
	read := 0
	for id, set := range l.sets {
		if !set.anonymous {
			continue
		}
		if read++; read > maxSets {
			set.anonymous = false // it is written by its name
			continue
		}
		m := message{}.Text(unix.NFTA_SET_ELEM_LIST_TABLE, id.Table).Text(unix.NFTA_SET_ELEM_LIST_SET, id.Name)
		err := kernelnet.NftDump(unix.NFT_MSG_GETSETELEM, unix.NFT_MSG_NEWSETELEM, id.Family, m, func() { set.elems, set.more = nil, 0 }, set.addElements)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// hookOf says at which hooks a packet may come to a chain, and with which
// priorities: its own, or those of the chains that lead to it.
func (l *nftListing) hookOf(id kernelnet.NftID) (hooks, priorities string) {
	var h, p []string
	for _, base := range l.order {
		c := l.chains[base]
		if !c.Base || !l.leadsTo(c, id) {
			continue
		}
		if hook := nftHook(base.Family, c.Hook); !slices.Contains(h, hook) {
			h = append(h, hook)
		}
		if priority := decimal(c.Priority); !slices.Contains(p, priority) {
			p = append(p, priority)
		}
	}
	return strings.Join(h, " "), strings.Join(p, " ")
}

// leadsTo says whether the rules of a chain, or of those that they lead to, may
// lead to another one.
func (rs *ruleset) leadsTo(c *chain, id kernelnet.NftID) bool {
	seen := map[kernelnet.NftID]bool{c.ID: true}
	for todo := []kernelnet.NftID{c.ID}; len(todo) > 0; {
		at := todo[0]
		todo = todo[1:]
		if at == id {
			return true
		}
		if next := rs.chains[at]; next != nil {
			for _, jump := range next.jumps {
				if !seen[jump] {
					seen[jump] = true
					todo = append(todo, jump)
				}
			}
		}
	}
	return false
}
