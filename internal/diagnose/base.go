package diagnose

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// base is an observation made ready for questions about counters and facts.
type base struct {
	o        *record.Observation
	counters map[numberKey][]*record.Counter
	parts    map[numberKey][]*record.Counter // of the totals in counters
	facts    map[numberKey][]*record.Fact
	// asObjects are those that were asked for as objects; nobody changes them.
	asObjects map[numberKey][]map[string]any
	// slack is the part of the window that the counters did not see.
	slack float64
	// spaces are the namespaces that have counters of their own, by inode.
	spaces []record.NetNS
	// placeless: the source of the drops does not tell where on the host they
	// were.
	placeless bool
	// unsampled: it gives no samples either.
	unsampled bool
}

// numberKey is a counter's name or a fact's request, in a namespace; the
// inode is 0 for those of the whole host.
type numberKey struct {
	name  string
	inode uint32
}

func newBase(o *record.Observation) *base {
	b := &base{o: o, placeless: placeless(o), unsampled: placeless(o) && len(o.Samples) == 0, counters: make(map[numberKey][]*record.Counter, len(o.Counters)), parts: map[numberKey][]*record.Counter{}, facts: map[numberKey][]*record.Fact{}, asObjects: map[numberKey][]map[string]any{}}
	if whole, part := o.Window.Duration, o.CountersWindow.Duration; whole > 0 && part > 0 {
		b.slack = min(max(0, 1-float64(part)/float64(whole)), maxSlack)
	}
	seen := map[uint32]record.NetNS{}
	lists := make([]*record.Counter, len(o.Counters)) // of one each, for nearly all names
	for i := range o.Counters {
		c := &o.Counters[i]
		k := numberKey{c.Name, c.NetNS.Inode}
		if c.Object != "" { // a part, of which an expression would make a sum
			b.parts[k] = append(b.parts[k], c)
			continue
		}
		if found, ok := b.counters[k]; ok {
			b.counters[k] = append(found, c)
		} else {
			lists[i] = c
			b.counters[k] = lists[i : i+1 : i+1]
		}
		if c.NetNS.Inode != 0 {
			seen[c.NetNS.Inode] = c.NetNS
		}
	}
	for i := range o.Facts {
		f := &o.Facts[i]
		k := numberKey{joinRequest(f.Kind, f.Request), f.NetNS.Inode}
		b.facts[k] = append(b.facts[k], f)
	}
	for _, ns := range seen {
		b.spaces = append(b.spaces, ns)
	}
	slices.SortFunc(b.spaces, func(x, y record.NetNS) int { return cmp.Compare(x.Inode, y.Inode) })
	return b
}

// maxSlack bounds slack: what differs by more is different.
const maxSlack = 0.25

// missed is how many of so many drops the counters may have missed because they did
// not see the whole window: those that came in that time at the rate of the rest, and
// as many more as chance brings (three standard deviations of a Poisson process). A
// burst just then may have been more: that is not known, and stays open.
func (b *base) missed(drops float64) float64 {
	n := b.slack * drops
	return n + 3*math.Sqrt(n)
}

func joinRequest(kind, arg string) string { return strings.TrimSpace(kind + " " + arg) }

// place is where an expression looks for numbers.
type place struct {
	ns  record.NetNS
	dev record.Device // Index 0: all devices
	// anywhere: of drops of which it is not known in which namespace they were,
	// so that a counter is that of all namespaces.
	anywhere bool
}

// counter sums up the entries of a counter: those of the device, else those
// of the namespace, else those of the host. Another device's are never taken
// for those of p's device.
func (b *base) counter(name string, p place) (record.Counter, bool) {
	found := b.counters[numberKey{name, p.ns.Inode}]
	if p.anywhere && len(found) == 0 {
		for _, ns := range b.spaces {
			found = append(found, b.counters[numberKey{name, ns.Inode}]...)
		}
	}
	if len(found) == 0 {
		found = b.counters[numberKey{name, 0}]
	}
	if p.dev.Index != 0 {
		found = slices.DeleteFunc(slices.Clone(found), func(c *record.Counter) bool {
			return c.Device.Index != 0 && c.Device.Index != p.dev.Index
		})
	}
	if len(found) == 0 {
		return record.Counter{}, false
	}
	sum := *found[0]
	for _, c := range found[1:] {
		sum.Before += c.Before
		sum.After += c.After
		sum.Delta += c.Delta
	}
	return sum, true
}

// hostWide are the kinds of facts of which some exist once for all namespaces.
var hostWide = []string{"sysctl", "owner", "sockstat", "conntrack"}

// asked are the facts of a request, also one that only says why there are none.
func (b *base) asked(request string, p place) []*record.Fact {
	found := b.facts[numberKey{request, p.ns.Inode}]
	// Everything else of the host says nothing about another namespace.
	if kind, _ := splitRequest(request); len(found) == 0 && slices.Contains(hostWide, kind) {
		found = b.facts[numberKey{request, 0}]
	}
	return found
}

// answers are the facts of a request: those of the namespace, else those of
// the host.
func (b *base) answers(request string, p place) ([]*record.Fact, error) {
	found := b.asked(request, p)
	if len(found) == 0 {
		return nil, unknownf("%s was not read", request)
	}
	if why := found[0].Missing; why != "" {
		return nil, unknownf("%s: %s", request, why)
	}
	return found, nil
}

// kindOf is what kind of device it is, "" for one of hardware; false where that
// is not known.
func (b *base) kindOf(ns record.NetNS, dev record.Device) (string, bool) {
	found, err := b.answers(joinRequest(linkFact, dev.Name), place{ns: ns})
	if err != nil || dev.Name == "" {
		return "", false
	}
	return found[0].Fields["kind"], true
}

// linkFact is the kind of the fact that tells of a device.
const linkFact = "link"

// none is the value of the one fact of a request that found nothing.
const none = "none"

// number turns text into a number where it is one.
func number(s string) any {
	if s == "" || s[0] > '9' {
		return s // what begins with a letter is none, and to say so takes long
	}
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	return s
}

// clamp makes a count of the kernel one that expressions can reckon with.
func clamp(n uint64) int { return int(min(n, 1<<62)) }

// functions fills in what expressions can call.
func (b *base) functions(s *scope, p place) {
	delta := func(name string) (record.Counter, error) {
		c, ok := b.counter(name, p)
		if !ok {
			return c, unknownf("counter %s was not read", name)
		}
		return c, nil
	}
	s.Counter = func(name string) (int, error) { c, err := delta(name); return clamp(c.Delta), err }
	s.Total = func(name string) (int, error) { c, err := delta(name); return clamp(c.After), err }
	s.Most = func(names ...string) (int, error) { return b.most(names, p) }
	s.Growths = func(name string) ([]int, error) { return b.growths(name, p) }
	s.Sysctls = func(name string) ([]int, error) { return b.sysctls(name, p) }
	s.Sysctl = func(name string) (int, error) {
		list, err := b.sysctls(name, p)
		if err != nil {
			return 0, err
		}
		return list[0], nil
	}
	s.Fact = func(request string) (any, error) {
		found, err := b.answers(request, p)
		if err != nil {
			return nil, err
		}
		return number(found[0].Value), nil
	}
	s.Field = func(request, name string) (any, error) {
		found, err := b.answers(request, p)
		if err != nil {
			return nil, err
		}
		v, ok := found[0].Fields[name]
		if !ok {
			return nil, unknownf("%s has no %s", request, name)
		}
		return number(v), nil
	}
	s.Facts = func(request string) ([]map[string]any, error) { return b.objects(request, p) }
	s.Near = func(x, y any) (bool, error) {
		a, ok := toFloat(x)
		c, ok2 := toFloat(y)
		if !ok || !ok2 {
			return false, unknownf("near(%v, %v): not numbers", x, y)
		}
		return near(a, c), nil
	}
	s.Known = func(known bool, v any) (any, error) {
		if !known {
			return nil, unknownf("too little was seen to know it")
		}
		return v, nil
	}
	s.Has = func(name string) bool {
		if _, ok := b.counter(name, p); ok {
			return true
		}
		found := b.asked(name, p)
		return len(found) > 0 && found[0].Missing == ""
	}
}

// most is the greatest growth of the counters that were read.
func (b *base) most(names []string, p place) (int, error) {
	most, read := 0, false
	for _, name := range names {
		if c, ok := b.counter(name, p); ok {
			most, read = max(most, clamp(c.Delta)), true
		}
	}
	if !read {
		return 0, unknownf("none of the counters %s was read", strings.Join(names, ", "))
	}
	return most, nil
}

// growths are those of a counter's parts.
func (b *base) growths(name string, p place) ([]int, error) {
	found := b.parts[numberKey{name, p.ns.Inode}]
	if len(found) == 0 {
		found = b.parts[numberKey{name, 0}]
	}
	var out []int
	for _, c := range found {
		if p.dev.Index == 0 || c.Device.Index == 0 || c.Device.Index == p.dev.Index {
			out = append(out, clamp(c.Delta))
		}
	}
	if len(out) == 0 {
		return nil, unknownf("the parts of counter %s were not read", name)
	}
	return out, nil
}

func (b *base) sysctls(name string, p place) ([]int, error) {
	found, err := b.answers("sysctl "+name, p)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, f := range strings.Fields(found[0].Value) {
		n, err := strconv.Atoi(f)
		if err != nil {
			return nil, unknownf("sysctl %s is %q, not a number", name, found[0].Value)
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		return nil, unknownf("sysctl %s is empty", name)
	}
	return out, nil
}

// objects are the answers for expressions. The result must not be changed: a list
// of thousands, as that of a firewall's rules, is made once.
func (b *base) objects(request string, p place) ([]map[string]any, error) {
	k := numberKey{request, p.ns.Inode}
	if made, ok := b.asObjects[k]; ok {
		return made, nil
	}
	found, err := b.answers(request, p)
	if err != nil {
		return nil, err
	}
	out := []map[string]any{}
	for _, f := range found {
		if f.Missing != "" || f.Value == none && len(f.Fields) == 0 {
			continue // what a long list leaves out, or that there is nothing
		}
		o := map[string]any{"name": f.Name, "value": number(f.Value)}
		for k, v := range f.Fields {
			o[k] = number(v)
		}
		out = append(out, o)
	}
	b.asObjects[k] = out
	return out, nil
}

// enter is the text before a command that makes it run in the namespace.
func (b *base) enter(ns record.NetNS) string {
	switch {
	case ns.Inode == 0 || ns.Name == hostNetNS:
		return ""
	// One with a slash is a container's or a unit's, which ip does not know.
	case ns.Name != "" && ns.Name != "own" && !strings.Contains(ns.Name, "/") && harmless.MatchString(ns.Name):
		return "ip netns exec " + ns.Name + " "
	}
	pid := "PID"
	if found, err := b.answers("netns", place{ns: ns}); err == nil && found[0].NetNS.Inode == ns.Inode && found[0].Fields["pid"] != "" {
		pid = found[0].Fields["pid"]
	}
	return fmt.Sprintf("nsenter --net=/proc/%s/ns/net ", pid)
}
