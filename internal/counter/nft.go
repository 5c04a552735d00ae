package counter

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// The questions to nf_tables. None of them resets a counter.
const (
	nftRuleSource   = "nfnetlink NFT_MSG_GETRULE"
	nftChainSource  = "nfnetlink NFT_MSG_GETCHAIN"
	nftObjectSource = "nfnetlink NFT_MSG_GETOBJ"
)

// What is read of a ruleset, so that one of a million rules neither fills the
// memory nor takes seconds.
const (
	// maxNftRules is how many rules are looked at.
	maxNftRules = 10000
	// maxNftParts is how many rules, policies and objects that drop may have
	// values, and as many of those that do not.
	maxNftParts = 2000
)

// readNft adds the counters of nftables, among them the rules that iptables-nft
// makes: those of rules that drop or reject as nft.drop_packets and
// nft.drop_bytes, the others as nft.packets and nft.bytes.
func (s *Snapshot) readNft() {
	ok, err := live.Has("nf_tables")
	if err != nil {
		s.miss(nftRuleSource, err)
	}
	if !ok {
		return
	}
	var t *nftTables
	bad := s.nftDump(nftRuleSource, unix.NFT_MSG_GETRULE, unix.NFT_MSG_NEWRULE, func() { t = newNftTables() }, func(m []byte) (bool, error) { return t.addRule(m) })
	if bad {
		return
	}
	rules := *t
	bad = s.nftDump(nftChainSource, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_NEWCHAIN, func() { *t = rules.clone() }, func(m []byte) (bool, error) { return true, t.addChain(m) })
	t.whole = t.whole && !bad
	chains := *t
	s.nftDump(nftObjectSource, unix.NFT_MSG_GETOBJ, unix.NFT_MSG_NEWOBJ, func() { *t = chains.clone() }, func(m []byte) (bool, error) { return true, t.addObject(m) })
	s.Values = append(s.Values, t.values()...)
	if t.stopped {
		s.miss(nftRuleSource, fmt.Errorf("only the first %d rules were read", maxNftRules))
	}
	if t.left > 0 {
		s.miss(nftRuleSource, fmt.Errorf("the counters of %d more rules and objects were left out", t.left))
	}
}

// nftDump hands every object of a kind to each and says whether the source
// could not be read. A message that is not understood is named in Missing.
func (s *Snapshot) nftDump(source string, request, answer int, begin func(), each func(m []byte) (bool, error)) bool {
	var errs []error
	err := kernelnet.NftDump(request, answer, unix.AF_UNSPEC, nil, func() {
		errs = nil
		begin()
	}, func(m []byte) error {
		more, err := each(m)
		if err != nil {
			errs = append(errs[:min(len(errs), 3)], err)
		}
		if !more {
			return kernelnet.ErrEnough
		}
		return nil
	})
	switch {
	case noSubsystem(err):
		return true
	case err != nil:
		s.miss(source, kernelnet.NeedsCap(err, netAdmin))
		return true
	}
	if err := parseError(source, errs...); err != nil {
		s.miss(source, err)
	}
	return false
}

// nftTables are the counters of all tables of a namespace.
type nftTables struct {
	// rules are how many were looked at. stopped says that there are more,
	// whole that all were read and understood.
	rules          int
	stopped, whole bool
	// drop and plain are the values of what drops and of the rest. Each part
	// has two or four; parts count them.
	drop, plain           []Value
	dropParts, plainParts int
	left                  int
	// packets and bytes are the sums of all that drops, if any does.
	packets, bytes uint64
	drops          bool
	// refs say how rules use named counters; mapped are the tables of rules
	// that choose one by a map.
	refs   map[kernelnet.NftID]nftUse
	mapped map[kernelnet.NftID]bool
	// rule is the one that was read last.
	rule nftRule
}

// nftUse is how rules use a named counter: before a drop, or otherwise.
type nftUse struct{ drop, other bool }

func newNftTables() *nftTables {
	return &nftTables{whole: true, refs: map[kernelnet.NftID]nftUse{}, mapped: map[kernelnet.NftID]bool{}}
}

// clone is a copy to which values can be added without touching those of t.
func (t *nftTables) clone() nftTables {
	c := *t
	c.drop, c.plain = c.drop[:len(c.drop):len(c.drop)], c.plain[:len(c.plain):len(c.plain)]
	return c
}

// addRule takes a message of a rule and says whether another one may follow.
func (t *nftTables) addRule(m []byte) (more bool, err error) {
	if t.rules++; t.rules > maxNftRules {
		t.stopped, t.whole = true, false
		return false, nil
	}
	r := &t.rule
	if err := r.parse(m); err != nil {
		t.whole = false
		return true, err
	}
	for id, use := range r.refs {
		old := t.refs[id]
		t.refs[id] = nftUse{drop: old.drop || use.drop, other: old.other || use.other}
	}
	if r.maps {
		t.mapped[kernelnet.NftID{Family: r.Family, Table: string(r.Table)}] = true
	}
	for i, c := range r.counters {
		t.addCounter(c, func() label { return r.label("counter", i) })
	}
	for i, q := range r.quotas {
		t.addPlain(func() []Value { return q.values(r.label("quota", i)) })
	}
	return true, nil
}

// label says what a value is of and where it comes from. To make one takes
// longer than to read a rule, so it is made for values that are kept.
type label struct{ object, command, source string }

// label names the rule; a second counter of it has a number.
func (r *nftRule) label(what string, i int) label {
	family, table, chain := kernelnet.NftFamily(r.Family), string(r.Table), string(r.Chain)
	l := label{
		object:  "rule " + family + " " + table + " " + chain + " " + strconv.FormatUint(r.Handle, 10),
		command: "nft -a list chain " + family + " " + quote(table) + " " + quote(chain),
		source:  nftRuleSource,
	}
	if i > 0 {
		l.object += " " + what + " " + strconv.Itoa(i+1)
	}
	return l
}

// addChain takes a message of a chain: the counters of its policy, which only
// a chain has that was made with them, as iptables-nft does.
func (t *nftTables) addChain(m []byte) error {
	c, err := kernelnet.ParseNftChain(m)
	if err != nil {
		t.whole = false
	}
	if !c.Counted {
		return err
	}
	t.addCounter(nftCounter{c.Counter, c.Policy == "drop"}, func() label {
		family := kernelnet.NftFamily(c.ID.Family)
		return label{
			object:  "policy " + family + " " + c.ID.Table + " " + c.ID.Name,
			command: "nft list chain " + family + " " + quote(c.ID.Table) + " " + quote(c.ID.Name),
			source:  nftChainSource,
		}
	})
	return nil
}

// addObject takes a message of a named counter or quota.
func (t *nftTables) addObject(m []byte) error {
	o, err := parseNftObject(m)
	if err != nil || o.kind == "" {
		return err
	}
	family := kernelnet.NftFamily(o.id.Family)
	l := label{
		object:  o.kind + " " + family + " " + o.id.Table + " " + o.id.Name,
		command: "nft list " + o.kind + " " + family + " " + quote(o.id.Table) + " " + quote(o.id.Name),
		source:  nftObjectSource,
	}
	if o.kind == "quota" {
		t.addPlain(func() []Value { return o.quota.values(l) })
		return nil
	}
	use := t.refs[o.id]
	if use.drop && !use.other && t.whole && !t.mapped[kernelnet.NftID{Family: o.id.Family, Table: o.id.Table}] {
		t.addDrop(func() []Value { return counterValues(o.counter, "nft.drop_counter_", l) })
		return nil
	}
	t.addPlain(func() []Value { return counterValues(o.counter, "nft.counter_", l) })
	return nil
}

// addCounter adds the counter of a rule or of a policy.
func (t *nftTables) addCounter(c nftCounter, of func() label) {
	if !c.drops {
		t.addPlain(func() []Value { return counterValues(c.NftCounter, "nft.", of()) })
		return
	}
	t.drops = true
	t.packets += c.Packets
	t.bytes += c.Bytes
	t.addDrop(func() []Value { return counterValues(c.NftCounter, "nft.drop_", of()) })
}

func (t *nftTables) addDrop(values func() []Value) {
	if t.dropParts++; t.dropParts > maxNftParts {
		t.left++
		return
	}
	t.drop = append(t.drop, values()...)
}

func (t *nftTables) addPlain(values func() []Value) {
	if t.plainParts++; t.plainParts > maxNftParts {
		t.left++
		return
	}
	t.plain = append(t.plain, values()...)
}

// values are all counters, the sum of what drops first. Without all rules
// there is no sum.
func (t *nftTables) values() []Value {
	var values []Value
	if t.drops && t.whole {
		sum := kernelnet.NftCounter{Packets: t.packets, Bytes: t.bytes}
		values = counterValues(sum, "nft.drop_", label{command: "nft list ruleset", source: nftRuleSource})
	}
	return append(append(values, t.drop...), t.plain...)
}

func counterValues(c kernelnet.NftCounter, prefix string, l label) []Value {
	var id uint64
	if l.object != "" {
		id = idOf(l.object)
	}
	return []Value{
		{Name: prefix + "packets", Object: l.object, ID: id, Value: c.Packets, Source: l.source, Command: l.command},
		{Name: prefix + "bytes", Object: l.object, ID: id, Value: c.Bytes, Source: l.source, Command: l.command},
	}
}

func (q nftQuota) values(l label) []Value {
	return []Value{
		{Name: "nft.quota_bytes", Object: l.object, Value: q.used, Source: l.source, Command: l.command},
		{Name: "nft.quota_limit", Object: l.object, Value: q.limit, Level: true, Source: l.source, Command: l.command},
	}
}
