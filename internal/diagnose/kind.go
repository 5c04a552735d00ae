package diagnose

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// kind is what the knowledge base has for drops with the same reason and
// location: an observation has many counts, and few kinds of them.
type kind struct {
	drop // without what samples tell
	of   kindKey
	// rank is the place of reason and symbol in the order of their names.
	rank     int
	patterns []patternOf
	// bare are those that hold where there is no sample, nil until that is known.
	bare     []hit
	judged   *Verdict
	raisings []raisingOf // of counters that moved
}

// kindKey is what is the same for drops of a kind.
type kindKey struct {
	reason   record.Reason
	location record.Location
	otherL   bool
}

type kinds struct {
	by map[kindKey]*kind
	// last is the one that was asked for last, mostly that of the next drops too.
	last *kind
}

// of is the kind of drops with a key.
func (ks *kinds) of(key *record.Key, k *Knowledge) *kind {
	at := kindKey{key.Reason, key.Location, otherL(key)}
	if ks.last != nil && ks.last.of == at {
		return ks.last
	}
	d := ks.by[at]
	if d == nil {
		d = &kind{drop: describe(key, nil, nil), of: at}
		d.patterns = k.patternsOf(d.drop)
		ks.by[at] = d
	}
	ks.last = d
	return d
}

// rank fills in the ranks.
func (ks *kinds) rank() {
	compare := func(a, b kindKey) int {
		return cmp.Or(strings.Compare(a.reason.Name, b.reason.Name), strings.Compare(a.location.Symbol, b.location.Symbol))
	}
	order := slices.SortedFunc(maps.Keys(ks.by), compare)
	for i, at := range order {
		ks.by[at].rank = i
		if i > 0 && compare(order[i-1], at) == 0 {
			ks.by[at].rank = ks.by[order[i-1]].rank
		}
	}
}

// verdict is that on drops of which there is no sample.
func (d *kind) verdict(k *Knowledge) *Verdict {
	if d.judged == nil {
		v := k.verdictOn(d.drop)
		d.judged = &v
	}
	return d.judged
}

// siteKey is a key without the names that user space adds, see site.
type siteKey struct {
	kind          *kind
	netns, device uint32
	etherType     uint16
	ipProto       uint8
	direction     record.Direction
}

func (d *kind) site(k *record.Key) siteKey {
	return siteKey{d, k.NetNS.Inode, k.Device.Index, k.EtherType, k.IPProto, k.Direction}
}
