package counter

import (
	"hash/maphash"
	"strings"
)

// seed makes the IDs of parts; they mean nothing to another process.
var seed = maphash.MakeSeed()

// idOf is the Value.ID of a part that texts tell apart from all others of its
// table and device, at any time. It is never 0.
func idOf(texts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, s := range texts {
		h.WriteString(s)
		h.WriteByte(0)
	}
	return max(1, h.Sum64())
}

// otherUse is the counter that the same part has where it is used otherwise: a
// policy that becomes "drop", or a named counter that stands before a drop from
// now on, keeps what it has counted.
func otherUse(name string) string {
	table, field, _ := strings.Cut(name, ".")
	if plain, drops := strings.CutPrefix(field, "drop_"); drops {
		return table + "." + plain
	}
	return table + ".drop_" + field
}
