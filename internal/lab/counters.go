package lab

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

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
