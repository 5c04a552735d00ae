package lab

import (
	"errors"
	"fmt"

	"github.com/whydrop/whydrop/internal/lab/netlab"
)

// FillConntrack has ns track connections, and fills its table to a part of the
// limit, from 0 to 1, with entries that last for a day. It returns a function
// that takes back what a Close of ns does not, and how many entries there are.
func FillConntrack(ns *netlab.Namespace, part float64) (entries uint64, done func() error, err error) {
	t := &topology{host: ns}
	if err := t.trackConnections(); err != nil {
		return 0, nil, errors.Join(err, t.close())
	}
	limit, err := conntrackSetting(ns, "max")
	if err == nil && (limit == 0 || limit > maxEntries) {
		err = fmt.Errorf("fill connection tracking table: nf_conntrack_max is %d, the lab takes 1 to %d", limit, maxEntries)
	}
	if err == nil {
		err = ns.Do(func() error { return addConnections(uint32(float64(limit) * part)) })
	}
	if err == nil {
		entries, err = conntrackSetting(ns, "count")
	}
	if err != nil {
		return 0, nil, errors.Join(err, t.close())
	}
	return entries, t.close, nil
}
