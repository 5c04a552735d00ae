package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/vishvananda/netlink"
	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// table is a value of /proc/net/FILE of the host, snmp or netstat.
func (t *topology) table(file, table, field string) (counter, error) {
	return t.tableOf(t.host, file, table, field)
}

// tableOf is such a value of any of the namespaces.
func (t *topology) tableOf(ns *netlab.Namespace, file, table, field string) (counter, error) {
	f, err := ns.Open(file)
	if err != nil {
		return nil, fmt.Errorf("open counters: %w", err)
	}
	t.onClose(f.Close)
	return tableCounter(f, table, field), nil
}

// countVanished makes those packets the loss that came into IP and were neither
// delivered nor forwarded, for losses that the kernel does not count: nothing
// else may get lost in the namespace then.
func (r *rig) countVanished(t *topology) error {
	var c [3]counter
	for i, field := range []string{"InReceives", "InDelivers", "ForwDatagrams"} {
		var err error
		if c[i], err = t.table("snmp", "Ip", field); err != nil {
			return err
		}
	}
	r.count(difference(c[0], c[1:]...), "Ip.InReceives - Ip.InDelivers - Ip.ForwDatagrams",
		"/proc/net/snmp", "nstat -az IpInReceives IpInDelivers IpForwDatagrams")
	return nil
}

// difference counts what went in at the first and came out at none of the
// others. They are read first, so that what passes meanwhile is not taken for
// lost twice.
func difference(in counter, out ...counter) counter {
	return func() (uint64, error) {
		var passed uint64
		for _, c := range out {
			v, err := c()
			if err != nil {
				return 0, err
			}
			passed += v
		}
		v, err := in()
		if err != nil {
			return 0, err
		}
		if v < passed {
			return 0, fmt.Errorf("%d packets came out, but only %d went in", passed, v)
		}
		return v - passed, nil
	}
}

// tableCounter is a value of an open /proc/net/snmp or /proc/net/netstat.
func tableCounter(f io.ReaderAt, table, field string) counter {
	return func() (uint64, error) {
		// Both files are below 8 KiB on every kernel up to 7.2.
		text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<16))
		if err != nil {
			return 0, fmt.Errorf("read %s.%s: %w", table, field, err)
		}
		return parseTable(text, table, field)
	}
}

// errNoCounter says that the kernel does not have a counter.
var errNoCounter = errors.New("no such counter")

// parseTable finds a value in text of the form that net/ipv4/proc.c writes: a
// line of names and a line of numbers, both beginning with the table's name
// and a colon.
func parseTable(text []byte, table, field string) (uint64, error) {
	var names [][]byte
	prefix := []byte(table + ":")
	for line := range bytes.Lines(text) {
		rest, ok := bytes.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		columns := bytes.Fields(rest)
		if names == nil {
			names = columns
			continue
		}
		if len(columns) != len(names) {
			return 0, fmt.Errorf("counter %s.%s: %d names but %d values", table, field, len(names), len(columns))
		}
		for i, name := range names {
			if string(name) != field {
				continue
			}
			v, err := strconv.ParseUint(string(columns[i]), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("counter %s.%s: %w", table, field, err)
			}
			return v, nil
		}
		break
	}
	return 0, fmt.Errorf("counter %s.%s: %w", table, field, errNoCounter)
}

// linkCounter is a number that the kernel keeps of a device of the host. The error
// of one that it does not keep has its name.
func (t *topology) linkCounter(device, name string, of func(*netlink.LinkStatistics) uint64) counter {
	return func() (uint64, error) {
		link, err := t.host.Link(device)
		if err != nil {
			return 0, err
		}
		s := link.Attrs().Statistics
		if s == nil {
			return 0, fmt.Errorf("%s of %s: %w", name, device, errNoCounter)
		}
		return of(s), nil
	}
}
