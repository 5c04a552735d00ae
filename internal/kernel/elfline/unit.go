package elfline

import (
	"debug/dwarf"
	"errors"
	"fmt"
	"path"
	"strings"
)

const (
	// maxAbbrev bounds the abbreviations of a unit, in bytes: those of a kernel
	// have a few thousand, of one that was optimised as a whole a few ten
	// thousand.
	maxAbbrev = 256 << 10
	// maxEntries bounds the entries of a unit that are looked at at once.
	maxEntries = 1 << 21
	// maxFunctions bounds the pieces of functions of a unit.
	maxFunctions = 1 << 18
)

// unit is one compilation unit.
type unit struct {
	data    *dwarf.Data
	version uint16
	// entry is the unit's own.
	entry *dwarf.Entry
	// functions are what code in it belongs to.
	functions []function
	// table is nil where it has no lines.
	table *table
	// dir is the directory that it was compiled in.
	dir string
}

// function is the code from low to before high, of the entry at offset.
type function struct {
	low, high uint64
	offset    dwarf.Offset
}

// header reads the first entry of the unit at an offset of .debug_info.
//
// debug/dwarf would read the headers and abbreviations of all units at once,
// which takes some hundred MiB for a kernel, so it is shown one unit. What
// refers to other units, which none of what is read here does, is out of its
// sight.
func (l *Lines) header(offset uint64) (*unit, error) {
	if offset >= uint64(len(l.sec.info)) {
		return nil, errBroken
	}
	info := l.sec.info[offset:]
	body, rest, offsetSize, err := cutUnit(info, l.order)
	if err != nil {
		return nil, err
	}
	if len(body) > maxUnit {
		return nil, fmt.Errorf("a unit of %d bytes", len(body))
	}
	c := cursor{b: body, order: l.order}
	u := &unit{version: uint16(c.uint(2))}
	if u.version >= 5 {
		c.bytes(2) // kind of unit, size of addresses
	}
	abbrev := c.uint(offsetSize)
	if c.err != nil || abbrev > uint64(len(l.sec.abbrev)) {
		return nil, errBroken
	}
	abbrevs := l.sec.abbrev[:min(uint64(len(l.sec.abbrev)), abbrev+maxAbbrev)]
	u.data, err = dwarf.New(abbrevs, nil, nil, info[:len(info)-len(rest)], nil, nil, nil, l.sec.str)
	if err != nil {
		return nil, err
	}
	for name, b := range map[string][]byte{
		".debug_addr": l.sec.addr, ".debug_line_str": l.sec.lineStr,
		".debug_rnglists": l.sec.rngLists, ".debug_str_offsets": l.sec.strOffsets,
	} {
		if err := u.data.AddSection(name, b); err != nil {
			return nil, err
		}
	}
	if u.entry, err = u.data.Reader().Next(); err != nil {
		return nil, err
	}
	if u.entry == nil || u.entry.Tag != dwarf.TagCompileUnit {
		return nil, errors.New("not a unit of code")
	}
	u.dir, _ = u.entry.Val(dwarf.AttrCompDir).(string)
	if len(u.dir) > maxPath {
		return nil, errBroken
	}
	return u, nil
}

// open reads the header of a unit and finds its functions.
func (l *Lines) open(offset uint64) (*unit, error) {
	u, err := l.header(offset)
	if err != nil {
		return nil, err
	}
	if at, ok := u.entry.Val(dwarf.AttrStmtList).(int64); ok {
		if u.table, err = parseTable(&l.sec, at, l.order); err != nil {
			return nil, err
		}
	}
	w := walker{r: u.data.Reader()}
	w.next() // the unit's own entry
	for e := w.next(); e != nil; e = w.next() {
		if e.Tag == dwarf.TagSubprogram {
			for _, p := range l.pieces(u, e) {
				if p[0] < p[1] && len(u.functions) < maxFunctions {
					u.functions = append(u.functions, function{p[0], p[1], e.Offset})
				}
			}
		}
		w.skip(e)
	}
	return u, w.err
}

// walker reads entries, so many at most.
type walker struct {
	r    *dwarf.Reader
	seen int
	err  error
}

// next is the next entry; nil at the end of the innermost list, or of all.
func (w *walker) next() *dwarf.Entry {
	e := w.any()
	if e != nil && e.Tag == 0 {
		return nil
	}
	return e
}

// any is like next, but the end of a list is an entry without a tag.
func (w *walker) any() *dwarf.Entry {
	if w.err != nil {
		return nil
	}
	if w.seen++; w.seen > maxEntries {
		w.err = fmt.Errorf("more than %d entries", maxEntries)
		return nil
	}
	e, err := w.r.Next()
	w.err = err
	return e
}

// skip goes behind the children of e. debug/dwarf's SkipChildren calls itself
// for each level, and levels are as many as the file says.
func (w *walker) skip(e *dwarf.Entry) {
	if !e.Children {
		return
	}
	if sibling, ok := e.Val(dwarf.AttrSibling).(dwarf.Offset); ok && sibling > e.Offset {
		w.r.Seek(sibling)
		return
	}
	for depth := 1; depth > 0; {
		switch e := w.any(); {
		case e == nil:
			return
		case e.Tag == 0:
			depth--
		case e.Children:
			depth++
		}
	}
}

// find returns the place of an address.
func (l *Lines) place(u *unit, addr uint64) (place, error) {
	if u.table == nil {
		return place{}, nil
	}
	var at place
	if file, line, ok := u.table.find(addr); ok {
		at = place{u.table.path(file, u.dir), line}
	}
	calls, err := l.calls(u, addr)
	if err != nil {
		return place{}, err
	}
	// From the innermost code outwards, to the first that is not of a header.
	for i := len(calls) - 1; i >= 0 && (at.file == "" || strings.HasSuffix(at.file, ".h")); i-- {
		at = calls[i]
	}
	if at.file = relative(at.file, u.dir); at.file == "" || len(at.file) > maxPath {
		return place{}, nil
	}
	return at, nil
}

// calls are the places where the functions that were inlined around an address
// were called, the outermost first.
func (l *Lines) calls(u *unit, addr uint64) ([]place, error) {
	for _, f := range u.functions {
		if addr < f.low || addr >= f.high {
			continue
		}
		w := walker{r: u.data.Reader()}
		w.r.Seek(f.offset)
		if e := w.next(); e == nil || !e.Children {
			return nil, w.err
		}
		return l.inlined(u, &w, addr)
	}
	return nil, nil
}

// inlined walks down from the children of a function to the code of addr.
func (l *Lines) inlined(u *unit, w *walker, addr uint64) (calls []place, err error) {
	for e := w.next(); e != nil; e = w.next() {
		if e.Tag == dwarf.TagInlinedSubroutine || e.Tag == dwarf.TagLexDwarfBlock {
			if covers(l.pieces(u, e), addr) {
				if e.Tag == dwarf.TagInlinedSubroutine {
					calls = append(calls, u.caller(e))
				}
				if e.Children {
					continue // into it
				}
				break
			}
		}
		w.skip(e)
	}
	return calls, w.err
}

func covers(pieces [][2]uint64, addr uint64) bool {
	for _, p := range pieces {
		if p[0] <= addr && addr < p[1] {
			return true
		}
	}
	return false
}

// caller is where an inlined function was called.
func (u *unit) caller(e *dwarf.Entry) place {
	file, ok := e.Val(dwarf.AttrCallFile).(int64)
	line, ok2 := e.Val(dwarf.AttrCallLine).(int64)
	if !ok || !ok2 || file < 0 || line <= 0 || line > 1<<30 {
		return place{}
	}
	at := place{u.table.path(uint64(file), u.dir), int(line)}
	if at.file == "" {
		return place{}
	}
	return at
}

// relative is the path of a file from the root of the source: that of the
// directory it was compiled in, or what the two have in common where the kernel
// was built in a directory of its own.
func relative(file, dir string) string {
	if file == "" {
		return ""
	}
	file = path.Clean(file)
	dir = path.Clean(dir)
	if !path.IsAbs(file) {
		// Distributions map the place of the build to nothing.
		file = strings.TrimPrefix(file, dir+"/")
		for strings.HasPrefix(file, "../") {
			file = file[len("../"):]
		}
		return file
	}
	for ; path.IsAbs(dir) && dir != "/"; dir = path.Dir(dir) {
		if rest, ok := strings.CutPrefix(file, dir+"/"); ok {
			return rest
		}
	}
	return file
}
