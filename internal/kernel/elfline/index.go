package elfline

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"time"
)

const (
	// maxSpans bounds the pieces of code of a file.
	maxSpans = 1 << 21
	// maxUnitsIndexed bounds the units that are opened one by one where the
	// file has no index.
	maxUnitsIndexed = 1 << 17
	// maxWalk bounds the time for that: each unit may have many abbreviations.
	maxWalk = 10 * time.Second
)

var errTooLong = errors.New("to look at its units takes too long")

// index says which unit an address belongs to.
type index []span

// span is the code from low to before high, of the unit whose header is at
// offset in .debug_info.
type span struct{ low, high, offset uint64 }

func (x index) unit(addr uint64) (offset uint64, ok bool) {
	i := sort.Search(len(x), func(i int) bool { return x[i].low > addr }) - 1
	if i < 0 || addr >= x[i].high {
		return 0, false
	}
	return x[i].offset, true
}

// buildIndex takes the file's own index, .debug_aranges, and looks at the first
// entry of each unit that is not in it: clang makes one of assembly alone.
func (l *Lines) buildIndex() (index, error) {
	x, named, err := parseAranges(l.sec.aranges, l.order)
	if err != nil {
		x, named = nil, nil
	}
	more, err := l.walkUnits(named, time.Now().Add(maxWalk))
	if err != nil {
		return nil, err
	}
	x = append(x, more...)
	if len(x) == 0 {
		return nil, ErrNone
	}
	slices.SortFunc(x, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.low, b.low), cmp.Compare(a.high, b.high), cmp.Compare(a.offset, b.offset))
	})
	return x, nil
}

// parseAranges reads .debug_aranges (DWARF 5, 6.1.2), and says which units are
// in it.
func parseAranges(b []byte, order binary.ByteOrder) (x index, named map[uint64]bool, err error) {
	named = map[uint64]bool{}
	for total := len(b); len(b) > 0; {
		start := total - len(b)
		unit, rest, offsetSize, err := cutUnit(b, order)
		if err != nil {
			return nil, nil, err
		}
		header := 2 + offsetSize + 2 // version, offset, size of addresses, of segments
		c := cursor{b: unit, order: order}
		version, offset, addrSize, segSize := c.uint(2), c.uint(offsetSize), c.byte(), c.byte()
		if c.err != nil || version != 2 || addrSize != 8 || segSize != 0 {
			return nil, nil, errBroken
		}
		named[offset] = true
		// The tuples begin at a multiple of their size, from the start.
		at := len(b) - len(rest) - len(unit) + header
		for pad := (16 - (start+at)%16) % 16; pad > 0 && header < len(unit); pad-- {
			header++
		}
		for t := unit[header:]; len(t) >= 16; t = t[16:] {
			low, size := order.Uint64(t), order.Uint64(t[8:])
			if low == 0 && size == 0 {
				break
			}
			if low+size <= low {
				continue
			}
			if len(x) >= maxSpans {
				return nil, nil, errors.New("its index has too many entries")
			}
			x = append(x, span{low, low + size, offset})
		}
		b = rest
	}
	return x, named, nil
}

// walkUnits opens each unit that is not in the index and asks it for its code.
func (l *Lines) walkUnits(named map[uint64]bool, deadline time.Time) (index, error) {
	var x index
	units := 0
	for b := l.sec.info; len(b) > 0; units++ {
		offset := uint64(len(l.sec.info) - len(b))
		_, rest, _, err := cutUnit(b, l.order)
		if err != nil || units >= maxUnitsIndexed {
			break // those before are good
		}
		if b = rest; named[offset] {
			continue
		}
		if time.Now().After(deadline) {
			return nil, errTooLong
		}
		u, err := l.header(offset)
		if err != nil {
			continue // a unit of types, or of another version
		}
		for _, r := range l.pieces(u, u.entry) {
			if r[0] < r[1] && len(x) < maxSpans {
				x = append(x, span{r[0], r[1], offset})
			}
		}
	}
	return x, nil
}
