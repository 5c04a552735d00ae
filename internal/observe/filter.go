package observe

import (
	"fmt"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/record"
)

// Filter narrows what is shown. Everything is counted all the same, so the
// accounting says how much was left out. Empty lists match all; several
// entries of a list match any, the lists together match all.
type Filter struct {
	// Interfaces are device names. A device in another namespace is known by
	// its number only, until a sample brings the name: until then its drops
	// match, because they may be the ones that are asked for.
	Interfaces []string
	// Reasons are names of drop reasons, with or without the prefix
	// SKB_DROP_REASON_, in any case.
	Reasons []string
	// NetNS are namespaces as netns.Names.Find takes them, or "all".
	NetNS []string
}

// FilterError says that a filter names something that does not exist: the
// user's mistake, not the host's.
type FilterError struct{ Err error }

func (e *FilterError) Error() string { return e.Err.Error() }
func (e *FilterError) Unwrap() error { return e.Err }

// matcher is a Filter made ready for one kernel and host.
type matcher struct {
	interfaces map[string]bool
	reasons    map[record.Reason]bool
	netns      map[uint32]bool
	// placeless says that the source tells neither device nor namespace of a
	// drop, so that these choose none.
	placeless bool
	// traps are reasons of hardware that are asked for, by their names.
	traps map[string]bool
	// reasonNames are the names of reasons where the source tells no more.
	reasonNames map[string]bool
}

// reasonParser is what compile needs of internal/kernel.
type reasonParser interface {
	Parse(name string) ([]record.Reason, error)
}

func (f Filter) compile(reasons reasonParser, names *netns.Names) (matcher, error) {
	var m matcher
	for _, s := range f.Interfaces {
		if s == "" {
			return m, &FilterError{fmt.Errorf("interface name is empty")}
		}
		m.interfaces = add(m.interfaces, s)
	}
	for _, s := range f.Reasons {
		found, err := reasons.Parse(s)
		if trap, ok := askedTrap(s, err); ok {
			m.traps = add(m.traps, trap)
			continue
		}
		if err != nil {
			return m, &FilterError{err}
		}
		for _, r := range found {
			m.reasons = add(m.reasons, r)
		}
	}
	var err error
	m.netns, err = f.spaces(names)
	return m, err
}

// spaces are the inodes of the namespaces that are asked for; nil is all.
func (f Filter) spaces(names *netns.Names) (only map[uint32]bool, err error) {
	for _, s := range f.NetNS {
		if s == netns.All {
			return nil, nil
		}
	}
	for _, s := range f.NetNS {
		ino, err := names.Find(s)
		if err != nil {
			return nil, &FilterError{err}
		}
		only = add(only, ino)
	}
	return only, nil
}

func add[K comparable](set map[K]bool, k K) map[K]bool {
	if set == nil {
		set = map[K]bool{}
	}
	set[k] = true
	return set
}

// Match says whether drops with that key are asked for.
func (m matcher) Match(k record.Key) bool {
	if m.placeless {
		return m.reasonNames == nil && m.traps == nil || m.reasonNames[k.Reason.Name] || k.Hardware() && m.traps[k.Reason.Name]
	}
	return (m.interfaces == nil || m.interfaces[k.Device.Name] || nameless(k.Device)) &&
		(m.reasons == nil && m.traps == nil || m.reasons[k.Reason] || k.Hardware() && m.traps[k.Reason.Name]) &&
		(m.netns == nil || m.netns[k.NetNS.Inode])
}

// Match applies a filter to keys already named, as those of a recorded
// observation are: reasons and namespaces match by name or number.
func (f Filter) Match(k record.Key) bool {
	return (len(f.Interfaces) == 0 || slices.Contains(f.Interfaces, k.Device.Name) || nameless(k.Device)) &&
		(len(f.Reasons) == 0 || slices.ContainsFunc(f.Reasons, func(s string) bool { return isReason(s, k) })) &&
		(len(f.NetNS) == 0 || slices.ContainsFunc(f.NetNS, func(s string) bool { return isNetNS(s, k) }))
}

// Recorded is the filter for the drops of a record with these sources, as it is
// when they watch: the drop monitor tells no place of a drop, so that none is
// left out for it, which is what blind says.
func (f Filter) Recorded(sources []record.Source) (_ Filter, blind []record.Blind) {
	monitor := slices.ContainsFunc(sources, func(s record.Source) bool {
		return s.Name == SourceDropmon && (s.State == record.SourceOK || s.State == record.SourceDegraded)
	})
	if !monitor || len(f.Interfaces)+len(f.NetNS) == 0 {
		return f, nil
	}
	return Filter{Reasons: f.Reasons}, []record.Blind{placeless}
}

// placeless is what a filter by place cannot do where the drop monitor watches.
var placeless = record.Blind{
	What: "which of the drops are on the device or in the network namespace that was asked for",
	Why:  "the drop monitor does not tell: all drops of the host are counted",
}

// Unmatched returns the entries of the filter that fit none of the keys: in a
// recorded file there is nothing else to check them against.
func (f Filter) Unmatched(keys []record.Key) []string {
	var list []string
	check := func(flag string, values []string, is func(string, record.Key) bool) {
		for _, v := range values {
			if !slices.ContainsFunc(keys, func(k record.Key) bool { return is(v, k) }) {
				list = append(list, flag+" "+v)
			}
		}
	}
	check("-i", f.Interfaces, func(s string, k record.Key) bool { return s == k.Device.Name })
	check("--reason", f.Reasons, isReason)
	check("--netns", f.NetNS, isNetNS)
	return list
}

func nameless(d record.Device) bool { return d.Name == "" && d.Index != 0 }

func isReason(s string, k record.Key) bool {
	return strings.EqualFold(strings.TrimPrefix(strings.ToUpper(s), "SKB_DROP_REASON_"), k.Reason.Name)
}

func isNetNS(s string, k record.Key) bool {
	inode := fmt.Sprint(k.NetNS.Inode)
	return s == netns.All || s == k.NetNS.Name || s == inode || s == "net:["+inode+"]"
}
