package elfline

import (
	"debug/dwarf"
)

// maxPieces bounds the pieces of code that one entry has.
const maxPieces = 4096

// pieces are the code that an entry stands for: from low to before high. Unlike
// debug/dwarf's Ranges it reads no list to its end that has none.
func (l *Lines) pieces(u *unit, e *dwarf.Entry) [][2]uint64 {
	low, hasLow := e.Val(dwarf.AttrLowpc).(uint64)
	if hasLow {
		switch high := e.Val(dwarf.AttrHighpc).(type) {
		case uint64:
			return [][2]uint64{{low, high}}
		case int64:
			return [][2]uint64{{low, low + uint64(high)}}
		}
	}
	field := e.AttrField(dwarf.AttrRanges)
	if field == nil {
		return nil
	}
	var at uint64
	switch v := field.Val.(type) {
	case int64:
		at = uint64(v)
	case uint64: // of a table of lists; debug/dwarf has looked it up
		at = v
	default:
		return nil
	}
	base, _ := u.entry.Val(dwarf.AttrLowpc).(uint64)
	if u.version < 5 {
		return l.oldRanges(at, base)
	}
	return l.ranges(u, at, base)
}

// oldRanges reads a list of .debug_ranges (DWARF 4, 2.17.3).
func (l *Lines) oldRanges(at, base uint64) (list [][2]uint64) {
	if at > uint64(len(l.sec.ranges)) {
		return nil
	}
	c := cursor{b: l.sec.ranges[at:], order: l.order}
	for c.err == nil && len(list) < maxPieces {
		low, high := c.uint(8), c.uint(8)
		switch {
		case low == 0 && high == 0:
			return list
		case low == ^uint64(0):
			base = high
		default:
			list = append(list, [2]uint64{base + low, base + high})
		}
	}
	return list
}

// The kinds of entries of a list (DWARF 5, 7.25).
const (
	rleEnd          = 0
	rleBaseAddressx = 1
	rleStartxEndx   = 2
	rleStartxLength = 3
	rleOffsetPair   = 4
	rleBaseAddress  = 5
	rleStartEnd     = 6
	rleStartLength  = 7
)

// ranges reads a list of .debug_rnglists (DWARF 5, 2.17.3).
func (l *Lines) ranges(u *unit, at, base uint64) (list [][2]uint64) {
	if at > uint64(len(l.sec.rngLists)) {
		return nil
	}
	addrBase, _ := u.entry.Val(dwarf.AttrAddrBase).(int64)
	indexed := func(c *cursor) uint64 {
		n, table := c.uleb(), l.sec.addr
		if addrBase < 0 || addrBase > int64(len(table)) || n > uint64(len(table)) {
			c.fail(errBroken)
			return 0
		}
		a := cursor{b: table[addrBase:], order: l.order}
		a.bytes(n * 8)
		v := a.uint(8)
		if a.err != nil {
			c.fail(a.err)
		}
		return v
	}
	c := cursor{b: l.sec.rngLists[at:], order: l.order}
	for len(list) < maxPieces {
		var low, high uint64
		switch c.byte() {
		case rleBaseAddressx:
			base = indexed(&c)
			continue
		case rleBaseAddress:
			base = c.uint(8)
			continue
		case rleStartxEndx:
			low, high = indexed(&c), indexed(&c)
		case rleStartxLength:
			low = indexed(&c)
			high = low + c.uleb()
		case rleOffsetPair:
			low, high = base+c.uleb(), base+c.uleb()
		case rleStartEnd:
			low, high = c.uint(8), c.uint(8)
		case rleStartLength:
			low = c.uint(8)
			high = low + c.uleb()
		default: // the end, or nothing that is known
			return list
		}
		if c.err != nil {
			return list
		}
		list = append(list, [2]uint64{low, high})
	}
	return list
}
