package fact

import (
	"errors"
	"io/fs"
	"strings"
)

// readConntrack gives how full the table of connections is. The entries are
// counted for each namespace; the most that there may be, and the size of the
// hash, is one number for the host that every namespace shows
// (net/netfilter/nf_conntrack_standalone.c, nf_conntrack_standalone_init_sysctl;
// 5.10 to 7.2). Older kernels do not show it in the namespace of a user. The
// files are not there where the module is not loaded.
func readConntrack(q *query) error {
	const dir = "/proc/sys/net/netfilter/nf_conntrack_"
	q.source = dir + "count"
	q.command = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_buckets"
	f := fields{}
	read := func(names ...string) error {
		for _, name := range names {
			s, err := q.readFile(dir + name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if err == nil {
				f[name] = strings.TrimSpace(s)
			}
		}
		return nil
	}
	if err := read("count", "max", "buckets", "expect_max"); err != nil {
		return err
	}
	count, ok := f["count"]
	if !ok {
		return nil
	}
	if f["max"] == "" && q.Host != nil {
		// Without it the rest still holds.
		_ = q.Host(func() error { return read("max", "buckets", "expect_max") })
	}
	q.add("", count, f)
	return nil
}
