package diagnose

import (
	"cmp"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// merge adds up counts that differ only in a device's name that was not known
// yet.
func merge(counts []record.Count, names deviceNames) []record.Count {
	if !slices.ContainsFunc(counts, func(c record.Count) bool { return names.fill(&c.Key) }) {
		return counts // no two can become one
	}
	out := make([]record.Count, 0, len(counts))
	at := make(map[record.Key]int, len(counts))
	for _, c := range counts {
		names.fill(&c.Key)
		i, ok := at[c.Key]
		if !ok {
			at[c.Key] = len(out)
			out = append(out, c)
			continue
		}
		out[i].Drops += c.Drops
		out[i].Bytes += c.Bytes
	}
	return out
}

// inOrder are the places of counts in an order that does not depend on theirs:
// shares are used up in it.
func inOrder(counts []record.Count, kinds []*kind) []int {
	// What mostly decides stands side by side.
	type place struct {
		drops                uint64
		rank                 int
		netns, device, count uint32
	}
	places := make([]place, len(counts))
	for i := range counts {
		c := &counts[i]
		places[i] = place{c.Drops, kinds[i].rank, c.NetNS.Inode, c.Device.Index, uint32(i)}
	}
	slices.SortFunc(places, func(x, y place) int {
		switch {
		case x.drops != y.drops:
			return cmp.Compare(y.drops, x.drops)
		case x.rank != y.rank:
			return cmp.Compare(x.rank, y.rank)
		case x.netns != y.netns:
			return cmp.Compare(x.netns, y.netns)
		case x.device != y.device:
			return cmp.Compare(x.device, y.device)
		}
		a, b := &counts[x.count], &counts[y.count]
		return cmp.Or(
			strings.Compare(a.Reason.Subsystem, b.Reason.Subsystem),
			cmp.Compare(a.Location.Address, b.Location.Address),
			cmp.Compare(a.Location.Offset, b.Location.Offset),
			strings.Compare(a.Device.Name, b.Device.Name),
			cmp.Compare(a.EtherType, b.EtherType),
			cmp.Compare(a.IPProto, b.IPProto),
			strings.Compare(string(a.Direction), string(b.Direction)),
			cmp.Compare(a.Bytes, b.Bytes),
			cmp.Compare(x.count, y.count),
		)
	})
	out := make([]int, len(places))
	for i, p := range places {
		out[i] = int(p.count)
	}
	return out
}
