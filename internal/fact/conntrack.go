package fact

import (
	"errors"
	"io/fs"
	"strings"
)

// readConntrack gives how full the table of connections is. The files are not
// there where the module is not loaded.
func readConntrack(q *query) error {
	const dir = "/proc/sys/net/netfilter/nf_conntrack_"
	q.source = dir + "count"
	q.command = "sysctl net.netfilter.nf_conntrack_count net.netfilter.nf_conntrack_max net.netfilter.nf_conntrack_buckets"
	f := fields{}
	for _, name := range []string{"count", "max", "buckets"} {
		s, err := q.readFile(dir + name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // the namespace of a user has no max
		case err != nil:
			return err
		default:
			f[name] = strings.TrimSpace(s)
		}
	}
	if count, ok := f["count"]; ok {
		q.add("", count, f)
	}
	return nil
}
