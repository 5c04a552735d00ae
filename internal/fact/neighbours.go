package fact

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// neighTable is what the kernel says of a table of neighbours, which all
// namespaces share.
type neighTable struct {
	name   string
	fields fields
}

// readNeighbours counts the neighbours of the namespace, IPv4 (arp) and IPv6
// (ndisc), by state, beside the limits of the table.
func readNeighbours(q *query) error {
	q.source, q.command = "RTM_GETNEIGH, RTM_GETNEIGHTBL", "ip -s neigh show nud all; ip ntable show name arp_cache; ip ntable show name ndisc_cache"
	tables, err := neighTables()
	if err != nil {
		return err
	}
	for _, t := range []struct {
		name, table string
		family      uint8
	}{{"arp", "arp_cache", unix.AF_INET}, {"ndisc", "ndisc_cache", unix.AF_INET6}} {
		table, ok := tables[t.table]
		if !ok { // a kernel without IPv6
			continue
		}
		total, err := countNeighbours(t.family, table.fields)
		if err != nil {
			return err
		}
		q.add(t.name, decimal(total), table.fields)
	}
	return nil
}

// countNeighbours counts the entries of a family in this namespace, of which
// gc_entries says how many the limits hold for: those that are permanent or
// were learned or checked by somebody else do not count
// (neigh_update_gc_list of net/core/neighbour.c, since 5.0).
func countNeighbours(family uint8, f fields) (total uint64, err error) {
	var states map[string]uint64
	var collectable uint64
	m := message{}.U8(family, 0).U16(0).U32(0).U32(0)
	err = kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, m, func() { states, total, collectable = map[string]uint64{}, 0, 0 }, func(b []byte) error {
		n, err := neighHead(b)
		if err != nil || n.family != family {
			return err
		}
		total++
		states[n.state]++
		if n.state != "permanent" && n.flags&(flagExtLearned|flagExtValidated) == 0 {
			collectable++
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("list neighbours: %w", err)
	}
	for _, s := range append([]string{None}, nudStates...) {
		f[s] = decimal(states[s])
	}
	f["gc_entries"] = decimal(collectable)
	return total, nil
}

// neighTableParams are those of NDTA_* (include/uapi/linux/neighbour.h):
// struct ndt_config and struct ndt_stats.
var neighTableParams = []param{
	{2, "gc_thresh1", asNumber},
	{3, "gc_thresh2", asNumber},
	{4, "gc_thresh3", asNumber},
	{5, "host_entries", at(4, 4, asNumber)},
	{7, "table_fulls", at(80, 8, asNumber)},
	{8, "gc_interval", asNumber}, // milliseconds
}

// neighTables reads the limits of the tables. Unlike the files of /proc/sys,
// which are there in the host's namespace only, every namespace has them.
func neighTables() (map[string]neighTable, error) {
	var tables map[string]neighTable
	m := message{}.U8(unix.AF_UNSPEC, 0, 0, 0)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETNEIGHTBL, unix.RTM_NEWNEIGHTBL, m, func() { tables = map[string]neighTable{} }, func(b []byte) error {
		t, err := parseNeighTable(b)
		if _, ok := t.fields["gc_thresh3"]; ok { // not one of a device's parameters
			tables[t.name] = t
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list tables of neighbours: %w", err)
	}
	return tables, nil
}

// parseNeighTable reads struct ndtmsg and its attributes.
func parseNeighTable(b []byte) (neighTable, error) {
	const sizeofNdtmsg, ndtaName = 4, 1
	t := neighTable{fields: fields{}}
	err := kernelnet.Attributes(b, sizeofNdtmsg, func(kind int, v []byte) {
		if kind == ndtaName {
			t.name = text(v)
		}
	})
	if err != nil {
		return t, err
	}
	return t, decode(b, sizeofNdtmsg, neighTableParams, "", t.fields)
}
