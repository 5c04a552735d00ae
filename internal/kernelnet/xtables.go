package kernelnet

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxXtTable bounds the bytes of a table: a rule has 150 to 500.
	maxXtTable = 32 << 20
	// xtNameLen is XT_TABLE_MAXNAMELEN.
	xtNameLen = 32
	// sizeofXtInfo is struct ipt_getinfo: the name, the hooks that are valid,
	// for each of the five hooks the offset of its chain, and of the chain's
	// policy, the number of entries and their size.
	sizeofXtInfo = xtNameLen + 4 + 4*xtHooks + 4*xtHooks + 4 + 4
	xtHooks      = 5
	// SizeofXtHead is struct xt_entry_match, and xt_entry_target: the size, the
	// name and the revision.
	SizeofXtHead = 32
	// Options of include/uapi/linux/netfilter_ipv4/ip_tables.h; those of IPv6
	// have the same numbers.
	iptSoGetInfo    = 64
	iptSoGetEntries = 65
)

// XtFamily is a family of iptables-legacy.
type XtFamily struct {
	// Name is that of the family, List the file that names its tables, Program
	// the one that shows them.
	Name, List, Program string
	Six                 bool
	domain, level       int
	// Where struct ipt_entry or ip6t_entry has the offsets of its target and of
	// the next entry, and its counters, and its end, for 64 bits
	// (include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h).
	target, next, counters, size int
}

// XtFamilies are IPv4 and IPv6.
func XtFamilies() [2]XtFamily {
	return [2]XtFamily{
		{"ip", "ip_tables_names", "iptables-legacy", false, unix.AF_INET, unix.SOL_IP, 88, 90, 96, 112},
		{"ip6", "ip6_tables_names", "ip6tables-legacy", true, unix.AF_INET6, unix.SOL_IPV6, 140, 142, 152, 168},
	}
}

// XtTable is a table as the kernel tells it: struct ipt_getinfo, and its entries.
type XtTable struct{ Info, Entries []byte }

// Read reads a table of the calling thread's namespace, which must exist: a
// question for another would create it (net/netfilter/x_tables.c,
// xt_request_find_table_lock), and the kernel removes it only with the
// namespace.
func (f XtFamily) Read(name string) (t XtTable, err error) {
	defer func() { err = NeedsCap(err, "CAP_NET_RAW and CAP_NET_ADMIN") }()
	// struct xt_counters has another alignment for programs of 32 bits.
	if strconv.IntSize != 64 {
		return t, errors.New("a program of 32 bits does not read it")
	}
	if len(name) >= xtNameLen {
		return t, errors.New("its name is too long")
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return t, fmt.Errorf("raw socket: %w", err)
	}
	defer unix.Close(fd)
	for range 5 { // another program may change the table in between
		t.Info = make([]byte, sizeofXtInfo)
		copy(t.Info, name)
		if err := getsockopt(fd, f.level, iptSoGetInfo, t.Info); err != nil {
			return t, fmt.Errorf("IPT_SO_GET_INFO: %w", err)
		}
		size := native.Uint32(t.Info[sizeofXtInfo-4:])
		if size > maxXtTable {
			return t, fmt.Errorf("it has %d bytes, more than %d", size, maxXtTable)
		}
		// struct ipt_get_entries: the name, the size, and aligned to 8 the entries.
		const head = 40
		b := make([]byte, head+size)
		copy(b, name)
		copy(b[xtNameLen:], t.Info[sizeofXtInfo-4:])
		err = getsockopt(fd, f.level, iptSoGetEntries, b)
		t.Entries = b[head:]
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if err != nil {
		return t, fmt.Errorf("IPT_SO_GET_ENTRIES: %w", err)
	}
	return t, nil
}

// getsockopt has the kernel read and write b.
func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}

// XtRule is a rule of a chain, by its number there, or with number 0 the policy
// of the chain.
type XtRule struct {
	Chain string
	// Builtin is set for a chain that a hook leads to.
	Builtin        bool
	Number         int
	Packets, Bytes uint64
	// Header is struct ipt_entry or ip6t_entry, Matches are the structures
	// xt_entry_match with their data, Data is that of the target.
	Header, Matches, Data []byte
	// Target is the name of the target, Revision its version. A verdict has none.
	Target   string
	Revision uint8
	// Next is where the next entry begins.
	Next int
}

// Rules parses the entries of a table; chains are the names of its chains by
// where their first rules begin. A chain of its own begins with an entry that
// has the target ERROR and ends with one that returns; one of a hook begins and
// ends where info says, and its last entry is the policy. The table ends with an
// own chain ERROR without rules.
func (f XtFamily) Rules(t XtTable) (rules []XtRule, chains map[int]string, err error) {
	if len(t.Info) != sizeofXtInfo {
		return nil, nil, fmt.Errorf("information of %d bytes: %w", len(t.Info), ErrShort)
	}
	hooks, policies := xtChains(t.Info)
	chains = map[int]string{}
	var current XtRule        // its chain and number
	own, open := false, false // open: the last rule may be the end of an own chain
	for at, next := 0, 0; at < len(t.Entries); at = next {
		r, err := f.entry(t.Entries[at:])
		if err != nil {
			return nil, nil, fmt.Errorf("entry at %d: %w", at, err)
		}
		r.Next += at
		next = r.Next
		if name, ok := hooks[at]; ok {
			chains[at] = name
			current, own, open = XtRule{Chain: name, Builtin: true}, false, false
		}
		if r.Target == "ERROR" {
			if own && open {
				rules = rules[:len(rules)-1] // what ends a chain is no rule
			}
			chains[next] = unix.ByteSliceToString(r.Data)
			current, own, open = XtRule{Chain: chains[next]}, true, false
			continue
		}
		open = true
		current.Number++
		r.Chain, r.Builtin, r.Number = current.Chain, current.Builtin, current.Number
		if r.Builtin && policies[at] {
			r.Number = 0
		}
		rules = append(rules, r)
	}
	if !own || current.Chain != "ERROR" {
		return nil, nil, fmt.Errorf("the last entry is missing: %w", ErrShort)
	}
	return rules, chains, nil
}

// xtChains gives where the chains of the hooks begin, and where their policies
// are.
func xtChains(info []byte) (hooks map[int]string, policies map[int]bool) {
	hooks, policies = map[int]string{}, map[int]bool{}
	valid := native.Uint32(info[xtNameLen:])
	for i, name := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
		if valid&(1<<i) == 0 {
			continue
		}
		at := info[xtNameLen+4+4*i:]
		hooks[int(native.Uint32(at))] = name
		policies[int(native.Uint32(at[4*xtHooks:]))] = true
	}
	return hooks, policies
}

// entry parses the first of some entries.
func (f XtFamily) entry(b []byte) (XtRule, error) {
	if len(b) < f.size {
		return XtRule{}, fmt.Errorf("%d bytes: %w", len(b), ErrShort)
	}
	target, next := int(native.Uint16(b[f.target:])), int(native.Uint16(b[f.next:]))
	if target < f.size || next < target+SizeofXtHead || next > len(b) {
		return XtRule{}, fmt.Errorf("target at %d, next at %d of %d bytes: %w", target, next, len(b), ErrShort)
	}
	return XtRule{
		Packets: native.Uint64(b[f.counters:]), Bytes: native.Uint64(b[f.counters+8:]),
		Header: b[:f.size], Matches: b[f.size:target], Data: b[target+SizeofXtHead : next],
		Target:   unix.ByteSliceToString(b[target+2 : target+SizeofXtHead-1]), // behind its size
		Revision: b[target+SizeofXtHead-1], Next: next,
	}, nil
}

// Verdict is what a rule without the name of a target does: -verdict - 1, or
// where the chain begins that it goes to (net/ipv4/netfilter/ip_tables.c,
// ipt_do_table). It is 0 where it is missing.
func (r XtRule) Verdict() int32 {
	if len(r.Data) < 4 {
		return 0
	}
	return int32(native.Uint32(r.Data))
}

// Says is what the rule matches and does, without what changes while it stays
// the same rule: its counters, and where it and the chain that it goes to lie in
// the table. chains are those of Rules. The text is not for people.
func (f XtFamily) Says(r XtRule, chains map[int]string) string {
	does := string(r.Data)
	if v := r.Verdict(); r.Target == "" && v >= 0 {
		does = chains[int(v)] // empty where it goes on to the next rule
	}
	// Before the offset of the target stands a number for the kernel's own use.
	match := r.Header[:min(len(r.Header), f.target-4)]
	return fmt.Sprintf("%q %q %q %d %q", match, r.Matches, r.Target, r.Revision, does)
}

// Drops says whether the rule drops every packet that it is for.
func (r XtRule) Drops() bool {
	return r.Target == "REJECT" || r.Target == "" && len(r.Data) >= 4 && r.Verdict() == -NfDrop-1
}
