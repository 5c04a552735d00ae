package counter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxXtParts is how many rules and policies of iptables-legacy that drop may
// have values, and as many of those that do not.
const maxXtParts = 2000

func xtSource(f kernelnet.XtFamily) string { return "getsockopt IPT_SO_GET_ENTRIES of " + f.Program }

// readIptables adds the counters of iptables-legacy: those of rules and
// policies that drop or reject as iptables.drop_packets and
// iptables.drop_bytes, the others as iptables.packets and iptables.bytes. Only
// tables that exist are asked for: a question would create one
// (net/netfilter/x_tables.c, xt_request_find_table_lock), and the kernel
// removes it only with the namespace.
func (s *Snapshot) readIptables() {
	all := xtValues{whole: true}
	for _, f := range kernelnet.XtFamilies() {
		if err := readXt(f, &all); err != nil {
			all.whole = false
			s.miss(xtSource(f), err)
		}
		if all.left > 0 {
			s.miss(xtSource(f), fmt.Errorf("the counters of %d more rules were left out", all.left))
			all.left = 0
		}
	}
	s.Values = append(s.Values, all.values()...)
}

// readXt adds the tables of a family.
func readXt(f kernelnet.XtFamily, all *xtValues) error {
	names, err := os.ReadFile(filepath.Join(thread, f.List))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return kernelnet.NeedsCap(err, netAdmin)
	}
	var errs []error
	for _, name := range strings.Fields(string(names)) {
		t, err := f.Read(name)
		var rules []kernelnet.XtRule
		var chains map[int]string
		if err == nil {
			rules, chains, err = f.Rules(t)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", name, err))
		}
		all.add(f, name, rules, chains)
	}
	return errors.Join(errs...)
}

// xtValues are the counters of all tables of a namespace.
type xtValues struct {
	drop, plain           []Value
	dropParts, plainParts int
	left                  int
	// packets and bytes are the sums of all that drops, if any does; whole
	// says that nothing is missing.
	packets, bytes uint64
	drops, whole   bool
}

// add adds the rules and policies of a table. A rule is known by what it says,
// and by a number where several say the same: its place changes with every rule
// before it.
func (v *xtValues) add(f kernelnet.XtFamily, table string, rules []kernelnet.XtRule, chains map[int]string) {
	same := map[uint64]int{}
	for _, r := range rules {
		list, count, prefix := &v.plain, &v.plainParts, "iptables."
		if r.Drops() {
			list, count, prefix = &v.drop, &v.dropParts, "iptables.drop_"
			v.drops = true
			v.packets += r.Packets
			v.bytes += r.Bytes
		}
		if *count++; *count > maxXtParts {
			v.left++
			continue
		}
		object := "policy " + f.Name + " " + table + " " + r.Chain
		id := idOf(object)
		if r.Number > 0 {
			object = fmt.Sprintf("rule %s %s %s %d", f.Name, table, r.Chain, r.Number)
			says := idOf(f.Name, table, r.Chain, f.Says(r, chains))
			same[says]++
			id = says + uint64(same[says]-1)
		}
		command := f.Program + " -t " + quote(table) + " -vnxL " + quote(r.Chain) + " --line-numbers"
		*list = append(*list, xtPair(prefix, object, id, command, xtSource(f), r.Packets, r.Bytes)...)
	}
}

// values are all counters, the sum of what drops first.
func (v *xtValues) values() []Value {
	var values []Value
	if v.drops && v.whole {
		values = xtPair("iptables.drop_", "", 0, "iptables-legacy-save -c; ip6tables-legacy-save -c", xtSource(kernelnet.XtFamilies()[0]), v.packets, v.bytes)
	}
	return append(append(values, v.drop...), v.plain...)
}

func xtPair(prefix, object string, id uint64, command, source string, packets, count uint64) []Value {
	return []Value{
		{Name: prefix + "packets", Object: object, ID: id, Value: packets, Source: source, Command: command},
		{Name: prefix + "bytes", Object: object, ID: id, Value: count, Source: source, Command: command},
	}
}
