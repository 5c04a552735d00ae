package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var (
	errNoTracefs = errors.New("tracefs is not mounted")
	errFormat    = errors.New("not the format of a tracepoint")
)

// mountPoint returns where a filesystem type is mounted, and "" if it is not.
// It reads the table of mounts and touches no directory: looking into
// /sys/kernel/debug/tracing mounts tracefs there (kernel/trace/trace.c,
// trace_automount).
func (h Host) mountPoint(fstype string) (string, error) {
	table, err := os.ReadFile(h.path("/proc/self/mounts"))
	if err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	return findMount(string(table), fstype), nil
}

// findMount looks for a filesystem type in a table in the format of fstab(5).
func findMount(table, fstype string) string {
	for line := range strings.Lines(table) {
		if f := strings.Fields(line); len(f) >= 3 && f[2] == fstype {
			return unescapeMount(f[1])
		}
	}
	return ""
}

// unescapeMount undoes mangle() of fs/seq_file.c: \040 for a space.
func unescapeMount(s string) string {
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && len(s)-i > 3 {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out = append(out, byte(c))
				i += 3
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// kfreeSkbFormat reads the format of the tracepoint skb:kfree_skb from a
// mounted tracefs.
func (h Host) kfreeSkbFormat() ([]byte, error) {
	dir, err := h.mountPoint("tracefs")
	if err != nil {
		return nil, err
	}
	if dir == "" {
		return nil, errNoTracefs
	}
	return os.ReadFile(h.path(filepath.Join(dir, "events/skb/kfree_skb/format")))
}

// parseKfreeSkbFormat reads the names that the tracepoint prints for its
// reasons, and whether it has a reason at all (5.17). The list is that of
// __print_symbolic in the "print fmt" line:
//
//	__print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" })
//
// Entries whose number the kernel left as a C name are skipped.
func parseKfreeSkbFormat(format []byte) (values []enumValue, given bool, err error) {
	if !bytes.Contains(format, []byte("field:")) {
		return nil, false, errFormat
	}
	given = bytes.Contains(format, []byte(" reason;"))
	_, list, ok := bytes.Cut(format, []byte("__print_symbolic(REC->reason,"))
	if !given || !ok {
		return nil, given, nil
	}
	for {
		list = bytes.TrimLeft(list, ", \t")
		if bytes.HasPrefix(list, []byte(")")) {
			return values, true, nil
		}
		entry, rest, ok := bytes.Cut(list, []byte("}"))
		number, name, ok2 := bytes.Cut(bytes.TrimPrefix(entry, []byte("{")), []byte(","))
		if !ok || !ok2 || len(entry) == 0 || entry[0] != '{' {
			return nil, true, fmt.Errorf("%w: list of reasons breaks off after %d entries", errFormat, len(values))
		}
		list = rest
		n, err := strconv.ParseUint(string(bytes.TrimSpace(number)), 0, 32)
		text := string(bytes.Trim(bytes.TrimSpace(name), `"`))
		if err != nil || text == "" {
			continue
		}
		values = append(values, enumValue{text, uint32(n)})
	}
}
