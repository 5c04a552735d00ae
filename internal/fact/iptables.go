package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// readIptablesLegacy gives the tables of the old iptables. Asking for a table
// by the interface of iptables itself would create it
// (xt_request_find_table_lock of net/netfilter/x_tables.c); these files only
// list those that are there.
func readIptablesLegacy(q *query) error {
	files := []string{"ip_tables_names", "ip6_tables_names"}
	q.source = "/proc/net/" + files[0] + ", /proc/net/" + files[1]
	q.command = "cat /proc/net/" + files[0] + " /proc/net/" + files[1]
	var names []string
	for _, file := range files {
		s, err := q.readFile("/proc/thread-self/net/" + file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read legacy tables: %w", kernelnet.NeedsCap(err, "root"))
		}
		names = append(names, strings.Fields(s)...)
	}
	slices.Sort(names)
	q.add("", strings.Join(slices.Compact(names), " "), nil)
	return nil
}
