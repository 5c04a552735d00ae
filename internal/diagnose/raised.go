package diagnose

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// raised says which drops raise a counter; knowledge/counters/README.md
// describes its form.
type raised struct {
	// Family and Protocols are conditions of all raisings.
	Family    int       `yaml:"family"`
	Protocols []string  `yaml:"protocols"`
	By        []raising `yaml:"raised_by"`
	// AgainIn are counters that count the same packet again, less precisely.
	AgainIn []string `yaml:"again_in"`
	// Harmless says what raises it without any loss, Spare how much of that
	// there can be; Silent what it loses without a drop event.
	Harmless string `yaml:"harmless"`
	Spare    string `yaml:"spare"`
	Silent   string `yaml:"silent"`

	spare     *expression
	protocols []uint8
}

// raising chooses drops that raise a counter.
type raising struct {
	conditions `yaml:",inline"`
	Directions []record.Direction `yaml:"directions"`
	Scope      string             `yaml:"scope"`
	// Kinds are the kinds of devices whose counter it raises; any where empty.
	Kinds    []string `yaml:"kinds"`
	Relation string   `yaml:"relation"`
	Why      string   `yaml:"why"`
}

// The relations of a counter to the drops that raise it.
const (
	// relationExactly: each drop raises it by one.
	relationExactly = "exactly"
	// relationAtLeast: each drop raises it by one or more.
	relationAtLeast = "at_least"
	// relationAtMost: some of the drops raise it, by one.
	relationAtMost = "at_most"
)

// The scopes of a raising, where it is not the counter's own.
const (
	// scopeNetNS: the drop may be on another device of the namespace.
	scopeNetNS = "netns"
	// scopeHost: the drop may be in another namespace, as at the other end of
	// a veth pair.
	scopeHost = "host"
)

// raisingOf is a raising with the counter that it is of.
type raisingOf struct {
	counter string
	of      *raised
	*raising
}

// siteOf is what conditions are looked up by: a reason, and a function or "".
type siteOf struct{ reason, symbol string }

// sites are those by which drops are found for which c can hold.
func (c conditions) sites() []siteOf {
	symbols := c.Symbols
	if len(symbols) == 0 || slices.ContainsFunc(symbols, func(s string) bool { return strings.HasSuffix(s, "*") }) {
		symbols = []string{""}
	}
	var out []siteOf
	for _, reason := range c.Reasons {
		for _, s := range symbols {
			out = append(out, siteOf{reason, s})
		}
	}
	return out
}

// sites are those of the conditions that can hold for d.
func (d drop) sites() [4]siteOf {
	return [4]siteOf{{d.reason, d.symbol}, {d.reason, ""}, {anyReason, d.symbol}, {anyReason, ""}}
}

// dropsFile is the one file of counters/ that is no catalogue.
const dropsFile = "counters/drops.yaml"

// loadRaised reads which drops raise the counters of the catalogue. A base
// without the file is good.
func loadRaised(fsys fs.FS, k *Knowledge, how trust) error {
	k.raised, k.raisings, k.related = map[string]*raised{}, map[siteOf][]raisingOf{}, map[string]*kinship{}
	k.kinded = map[string]bool{}
	if _, err := fs.Stat(fsys, dropsFile); err == nil {
		var f struct {
			Drops map[string]*raised `yaml:"drops"`
		}
		if err := decodeStrict(fsys, dropsFile, &f); err != nil {
			return err
		}
		for name, r := range f.Drops {
			if err := k.checkRaised(name, r, how); err != nil {
				return fmt.Errorf("%s: counter %s: %w", dropsFile, name, err)
			}
			k.raised[name] = r
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.raised)) {
		r := k.raised[name]
		for i := range r.By {
			for _, s := range r.By[i].sites() {
				k.raisings[s] = append(k.raisings[s], raisingOf{name, r, &r.By[i]})
			}
			if len(r.By[i].Kinds) > 0 {
				k.kinded[name] = true
			}
		}
	}
	return k.relate()
}

func (k *Knowledge) checkRaised(name string, r *raised, how trust) error {
	if _, ok := k.counters[name]; !ok {
		return errors.New("it is in no file of counters")
	}
	if r == nil || len(r.By)+len(r.AgainIn) == 0 && r.Harmless+r.Silent == "" {
		return errors.New("nothing is said about it")
	}
	for _, again := range r.AgainIn {
		if _, ok := k.counters[again]; !ok || again == name {
			return fmt.Errorf("again_in: %q is no other counter", again)
		}
	}
	for i := range r.By {
		if err := k.checkRaising(&r.By[i]); err != nil {
			return fmt.Errorf("raised_by %d: %w", i+1, err)
		}
	}
	if !slices.Contains([]int{0, 4, 6}, r.Family) {
		return fmt.Errorf("unknown family %d", r.Family)
	}
	for _, p := range r.Protocols {
		n, ok := protocolNumber(p)
		if !ok {
			return fmt.Errorf("unknown protocol %q", p)
		}
		r.protocols = append(r.protocols, n)
	}
	if r.Spare == "" {
		return nil
	}
	if r.Harmless == "" {
		return errors.New("spare: nothing harmless is said")
	}
	c := compiler{trust: how}
	r.spare = c.expression("spare", r.Spare, nil)
	return c.err
}

func (k *Knowledge) checkRaising(r *raising) error {
	if err := r.conditions.check(); err != nil {
		return err
	}
	for _, reason := range r.Reasons {
		if _, ok := k.reasons[reason]; !ok && !slices.Contains([]string{anyReason, noReason, notSpecified}, reason) {
			return fmt.Errorf("reason %s is in no file of reasons", reason)
		}
	}
	if r.Relation == "" {
		r.Relation = relationExactly
	}
	switch {
	case len(r.Stack) > 0 || r.Destination != "":
		return errors.New("stack and destination are known of samples only")
	case !slices.Contains([]string{relationExactly, relationAtLeast, relationAtMost}, r.Relation):
		return fmt.Errorf("unknown relation %q", r.Relation)
	case !slices.Contains([]string{"", scopeNetNS, scopeHost}, r.Scope):
		return fmt.Errorf("unknown scope %q", r.Scope)
	case len(r.Kinds) > 0 && r.Relation != relationAtMost:
		return errors.New("kinds: which device it is is known from facts only, so it can be at_most alone")
	}
	for _, d := range r.Directions {
		if !slices.Contains([]record.Direction{record.DirectionRX, record.DirectionTX, record.DirectionForward, record.DirectionUnknown}, d) {
			return fmt.Errorf("unknown direction %q", d)
		}
	}
	return nil
}

func protocolNumber(name string) (uint8, bool) {
	for n := range 256 {
		if record.ProtoName(uint8(n)) == name {
			return uint8(n), true
		}
	}
	return 0, false
}

// kinship is what is known of a counter beside others.
type kinship struct {
	// same are the counters that may count a packet of this one too, above
	// those of them that do so less precisely, below those more precisely.
	same, above, below map[string]bool
	// names are those of same, in order.
	names []string
	// depth is greater than that of every counter above.
	depth int
}

// relate fills in k.related from overlaps and again_in.
func (k *Knowledge) relate() error {
	of := func(name string) *kinship {
		if k.related[name] == nil {
			k.related[name] = &kinship{same: map[string]bool{}, above: map[string]bool{}, below: map[string]bool{}}
		}
		return k.related[name]
	}
	for name, c := range k.counters {
		for _, other := range c.Overlaps {
			of(name).same[other], of(other).same[name] = true, true
		}
	}
	for name := range k.raised {
		depth, err := k.climb(name, name, of(name), 0)
		if err != nil {
			return fmt.Errorf("%s: %w", dropsFile, err)
		}
		of(name).depth = depth
		for up := range of(name).above {
			of(up).below[name], of(up).same[name], of(name).same[up] = true, true, true
		}
	}
	for _, kin := range k.related {
		kin.names = slices.Sorted(maps.Keys(kin.same))
	}
	return nil
}

// climb adds what is above at to kin, and returns how far up that goes.
func (k *Knowledge) climb(from, at string, kin *kinship, steps int) (int, error) {
	if steps > len(k.raised) {
		return 0, fmt.Errorf("counter %s: again_in leads in a circle", from)
	}
	height := 0
	r := k.raised[at]
	if r == nil {
		return 0, nil
	}
	for _, up := range r.AgainIn {
		kin.above[up] = true
		n, err := k.climb(from, up, kin, steps+1)
		if err != nil {
			return 0, err
		}
		height = max(height, n+1)
	}
	return height, nil
}

// certainty says whether a drop meets the conditions of a raising.
type certainty int

const (
	no certainty = iota
	maybe
	sure
)

// meets says whether drops with a key for which holdsKey holds raise the
// counter. What the key does not tell makes it doubtful.
func (r *raisingOf) meets(key *record.Key) certainty {
	c := sure
	if r.Relation == relationAtMost {
		c = maybe
	}
	if len(r.of.protocols) > 0 && !slices.Contains(r.of.protocols, key.IPProto) {
		if key.IPProto != 0 {
			return no
		}
		c = maybe
	}
	if r.of.Family != 0 {
		switch family := familyOf(key.EtherType); family {
		case r.of.Family:
		case 0:
			c = maybe
		default:
			return no
		}
	}
	if len(r.Directions) > 0 && !slices.Contains(r.Directions, key.Direction) {
		if key.Direction != record.DirectionUnknown && key.Direction != "" {
			return no
		}
		c = maybe
	}
	return c
}

// familyOf is 4 or 6, 0 where the EtherType is not known, and -1 for others.
func familyOf(ethertype uint16) int {
	switch ethertype {
	case 0:
		return 0
	case 0x0800:
		return 4
	case 0x86dd:
		return 6
	}
	return -1
}
