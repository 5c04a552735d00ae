package fact

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// xtFamily is a family of iptables-legacy.
type xtFamily struct {
	name, list, program string
	six                 bool
	domain, level       int
}

var xtFamilies = []xtFamily{
	{"ip", "ip_tables_names", "iptables-legacy", false, unix.AF_INET, unix.SOL_IP},
	{"ip6", "ip6_tables_names", "ip6tables-legacy", true, unix.AF_INET6, unix.SOL_IPV6},
}

// Options of include/uapi/linux/netfilter_ipv4/ip_tables.h; those of IPv6 have
// the same numbers.
const (
	iptSoGetInfo    = 64
	iptSoGetEntries = 65
	// maxXtTable bounds the bytes of a table: a rule has 150 to 500.
	maxXtTable = 32 << 20
)

// readXtTable reads struct ipt_getinfo of a table that exists, and its entries.
// Of one that does not exist the question would make one
// (net/netfilter/x_tables.c, xt_request_find_table_lock).
func readXtTable(f xtFamily, name string) (info, entries []byte, err error) {
	// struct xt_counters has another alignment for programs of 32 bits.
	if strconv.IntSize != 64 {
		return nil, nil, errors.New("a program of 32 bits does not read it")
	}
	if len(name) >= xtNameLen {
		return nil, nil, fmt.Errorf("table %q: its name is too long", name)
	}
	fd, err := unix.Socket(f.domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, nil, fmt.Errorf("raw socket: %w", needsCap(err, "CAP_NET_RAW"))
	}
	defer unix.Close(fd)
	for range 5 { // another program may change the table in between
		info = make([]byte, sizeofXtInfo)
		copy(info, name)
		if err := getsockopt(fd, f.level, iptSoGetInfo, info); err != nil {
			return nil, nil, fmt.Errorf("IPT_SO_GET_INFO of table %s: %w", name, needsCap(err, "CAP_NET_ADMIN"))
		}
		size := native.Uint32(info[sizeofXtInfo-4:])
		if size > maxXtTable {
			return nil, nil, fmt.Errorf("table %s has %d bytes, more than %d", name, size, maxXtTable)
		}
		// struct ipt_get_entries: the name, the size, and aligned to 8 the entries.
		const head = 40
		entries = make([]byte, head+size)
		copy(entries, name)
		copy(entries[xtNameLen:], info[sizeofXtInfo-4:])
		err = getsockopt(fd, f.level, iptSoGetEntries, entries)
		if err == nil {
			return info, entries[head:], nil
		}
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return nil, nil, fmt.Errorf("IPT_SO_GET_ENTRIES of table %s: %w", name, needsCap(err, "CAP_NET_ADMIN"))
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
