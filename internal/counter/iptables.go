package counter

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is read of the tables of iptables-legacy.
const (
	// maxXtTable bounds the bytes of a table: a rule has 150 to 500.
	maxXtTable = 32 << 20
	// maxXtParts is how many rules and policies that drop may have values, and
	// as many of those that do not.
	maxXtParts = 2000
)

// xtFamily is a family of iptables-legacy.
type xtFamily struct {
	// name is that of the family, list the file that names its tables,
	// program the one that shows them, level that of its socket options.
	name, list, program string
	domain, level       int
	layout              xtLayout
}

func xtFamilies() []xtFamily {
	return []xtFamily{
		{"ip", "ip_tables_names", "iptables-legacy", unix.AF_INET, unix.SOL_IP, xtLayout{target: 88, next: 90, counters: 96, size: 112}},
		{"ip6", "ip6_tables_names", "ip6tables-legacy", unix.AF_INET6, unix.SOL_IPV6, xtLayout{target: 140, next: 142, counters: 152, size: 168}},
	}
}

func (f xtFamily) source() string { return "getsockopt IPT_SO_GET_ENTRIES of " + f.program }

// readIptables adds the counters of iptables-legacy: those of rules and
// policies that drop or reject as iptables.drop_packets and
// iptables.drop_bytes, the others as iptables.packets and iptables.bytes. Only
// tables that exist are asked for: a question would create one
// (net/netfilter/x_tables.c, xt_request_find_table_lock), and the kernel
// removes it only with the namespace.
func (s *Snapshot) readIptables() {
	all := xtValues{whole: true}
	for _, f := range xtFamilies() {
		names, err := xtTables(f)
		if err == nil && len(names) > 0 {
			err = f.read(names, &all)
		}
		if err != nil {
			all.whole = false
			s.miss(f.source(), err)
		}
		if all.left > 0 {
			s.miss(f.source(), fmt.Errorf("the counters of %d more rules were left out", all.left))
			all.left = 0
		}
	}
	s.Values = append(s.Values, all.values()...)
}

// xtTables names the tables of a family that exist in the namespace.
func xtTables(f xtFamily) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(thread, f.list))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, needsNetAdmin(err)
	}
	return strings.Fields(string(b)), nil
}

// read adds the tables of that names.
func (f xtFamily) read(names []string, all *xtValues) error {
	// struct xt_counters has another alignment for programs of 32 bits.
	if strconv.IntSize != 64 {
		return errors.New("a program of 32 bits does not read it")
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("raw socket: %w", needsNetRaw(err))
	}
	defer unix.Close(fd)
	var errs []error
	for _, name := range names {
		info, entries, err := readXtTable(fd, f.level, name)
		if err == nil {
			var parts []xtPart
			if parts, err = parseXtTable(info, entries, f.layout); err == nil {
				all.add(f, name, parts)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("table %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Options of include/uapi/linux/netfilter_ipv4/ip_tables.h; those of IPv6 have
// the same numbers.
const (
	iptSoGetInfo    = 64
	iptSoGetEntries = 65
)

// readXtTable reads struct ipt_getinfo of a table and its entries.
func readXtTable(fd, level int, name string) (info, entries []byte, err error) {
	if len(name) >= xtNameLen {
		return nil, nil, errors.New("its name is too long")
	}
	for range 5 { // another program may change the table in between
		info = make([]byte, sizeofXtInfo)
		copy(info, name)
		if err := getsockopt(fd, level, iptSoGetInfo, info); err != nil {
			return nil, nil, fmt.Errorf("IPT_SO_GET_INFO: %w", needsNetAdmin(err))
		}
		size, _ := u32(info, sizeofXtInfo-4)
		if size > maxXtTable {
			return nil, nil, fmt.Errorf("it has %d bytes, more than %d", size, maxXtTable)
		}
		// struct ipt_get_entries: the name, the size, and aligned to 8 the entries.
		const head = 40
		entries = make([]byte, head+size)
		copy(entries, name)
		copy(entries[xtNameLen:], info[sizeofXtInfo-4:])
		err = getsockopt(fd, level, iptSoGetEntries, entries)
		if err == nil {
			return info, entries[head:], nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, nil, fmt.Errorf("IPT_SO_GET_ENTRIES: %w", needsNetAdmin(err))
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

// needsNetRaw adds the capability that is missing to an error that means so.
func needsNetRaw(err error) error {
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: it needs CAP_NET_RAW and CAP_NET_ADMIN", err)
	}
	return err
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

func (v *xtValues) add(f xtFamily, table string, parts []xtPart) {
	for _, p := range parts {
		list, count, prefix := &v.plain, &v.plainParts, "iptables."
		if p.drops {
			list, count, prefix = &v.drop, &v.dropParts, "iptables.drop_"
			v.drops = true
			v.packets += p.packets
			v.bytes += p.bytes
		}
		if *count++; *count > maxXtParts {
			v.left++
			continue
		}
		object := "policy " + f.name + " " + table + " " + p.chain
		if p.number > 0 {
			object = fmt.Sprintf("rule %s %s %s %d", f.name, table, p.chain, p.number)
		}
		command := f.program + " -t " + quote(table) + " -vnxL " + quote(p.chain) + " --line-numbers"
		*list = append(*list, xtPair(prefix, object, command, f.source(), p.packets, p.bytes)...)
	}
}

// values are all counters, the sum of what drops first.
func (v *xtValues) values() []Value {
	var values []Value
	if v.drops && v.whole {
		values = xtPair("iptables.drop_", "", "iptables-legacy-save -c; ip6tables-legacy-save -c", xtFamilies()[0].source(), v.packets, v.bytes)
	}
	return append(append(values, v.drop...), v.plain...)
}

func xtPair(prefix, object, command, source string, packets, count uint64) []Value {
	return []Value{
		{Name: prefix + "packets", Object: object, Value: packets, Source: source, Command: command},
		{Name: prefix + "bytes", Object: object, Value: count, Source: source, Command: command},
	}
}

// zeroTerminated is the text up to the first zero byte, at most all.
func zeroTerminated(b []byte) string {
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text)
}
