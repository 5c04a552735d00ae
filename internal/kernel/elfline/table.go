package elfline

import (
	"encoding/binary"
	"fmt"
	"path"
)

// maxFiles bounds the directories and the files of a unit, each.
const maxFiles = 1 << 16

// table is a unit's table of lines: a program that makes rows (DWARF 5, 6.2).
//
// debug/dwarf has a reader of such tables, which makes room for as many files
// as the table says it has, and keeps the path of each; this one looks at the
// path of the one file that is asked for.
type table struct {
	order     binary.ByteOrder
	dirs      [][]byte
	files     []file
	base      int64
	lineRange uint64
	least     uint64 // the length of the shortest instruction
	// operands are how many the standard opcodes have; of opcode 0, none.
	operands []byte
	program  []byte
}

// file is a source file: its name and which directory it is in.
type file struct {
	name []byte
	dir  uint64
}

// parseTable reads the header of the table at an offset of .debug_line.
func parseTable(sec *sections, offset int64, order binary.ByteOrder) (*table, error) {
	if offset < 0 || offset > int64(len(sec.line)) {
		return nil, errBroken
	}
	unit, _, offsetSize, err := cutUnit(sec.line[offset:], order)
	if err != nil {
		return nil, err
	}
	c := cursor{b: unit, order: order}
	version := c.uint(2)
	if version < 2 || version > 5 {
		return nil, fmt.Errorf("a table of lines of version %d", version)
	}
	if version >= 5 {
		c.bytes(2) // sizes of addresses and of segments
	}
	length := c.uint(offsetSize)
	if length > uint64(len(c.b)) {
		return nil, errBroken
	}
	t := &table{order: order, program: c.b[length:]}
	c.b = c.b[:length]
	t.least = uint64(c.byte())
	if version >= 4 && c.byte() > 1 {
		return nil, fmt.Errorf("a machine with several operations in an instruction")
	}
	c.byte() // whether rows begin statements
	t.base = int64(int8(c.byte()))
	t.lineRange = uint64(c.byte())
	if opcodes := c.byte(); opcodes > 0 {
		t.operands = append([]byte{0}, c.bytes(uint64(opcodes)-1)...)
	}
	if t.lineRange == 0 {
		return nil, errBroken
	}
	if version >= 5 {
		t.listed(&c, sec, offsetSize)
	} else {
		t.ended(&c)
	}
	return t, c.err
}

// ended reads the lists of directories and files as they were before DWARF 5:
// each ends with an empty entry, and each begins at 1.
func (t *table) ended(c *cursor) {
	t.dirs = [][]byte{nil} // where the unit was compiled
	for dir := c.text(); len(dir) > 0; dir = c.text() {
		t.dirs = append(t.dirs, dir)
		if len(t.dirs) > maxFiles {
			c.fail(errBroken)
		}
	}
	t.files = []file{{}}
	for name := c.text(); len(name) > 0; name = c.text() {
		t.files = append(t.files, file{name: name, dir: c.uleb()})
		c.uleb() // time
		c.uleb() // size
		if len(t.files) > maxFiles {
			c.fail(errBroken)
		}
	}
}

// listed reads them as they are since.
func (t *table) listed(c *cursor, sec *sections, offsetSize int) {
	for _, f := range list(c, sec, offsetSize) {
		t.dirs = append(t.dirs, f.name)
	}
	t.files = list(c, sec, offsetSize)
}

// What a field of an entry is, and its forms (DWARF 5, 6.2.4.1 and 7.5.6).
const (
	isPath, isDirectory = 1, 2

	formData2    = 0x05
	formData4    = 0x06
	formData8    = 0x07
	formString   = 0x08
	formBlock    = 0x09
	formData1    = 0x0b
	formStrp     = 0x0e
	formUdata    = 0x0f
	formData16   = 0x1e
	formLineStrp = 0x1f
)

// list reads a list of directories or files: the format of an entry, how many
// there are, the entries.
func list(c *cursor, sec *sections, offsetSize int) (entries []file) {
	type field struct{ is, form uint64 }
	var format []field
	for n := c.byte(); n > 0; n-- {
		format = append(format, field{c.uleb(), c.uleb()})
	}
	count := c.uleb()
	if count > maxFiles {
		c.fail(fmt.Errorf("%d files in one unit", count))
	}
	for ; count > 0 && c.err == nil; count-- {
		var e file
		for _, f := range format {
			text, number := formed(c, sec, offsetSize, f.form)
			switch f.is {
			case isPath:
				e.name = text
			case isDirectory:
				e.dir = number
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// formed reads a field of an entry.
func formed(c *cursor, sec *sections, offsetSize int, form uint64) (text []byte, number uint64) {
	switch form {
	case formString:
		return c.text(), 0
	case formStrp, formLineStrp:
		from := sec.lineStr
		if form == formStrp {
			from = sec.str
		}
		at := c.uint(offsetSize)
		if at > uint64(len(from)) {
			c.fail(errBroken)
			return nil, 0
		}
		s := cursor{b: from[at:]}
		text = s.text()
		if s.err != nil {
			c.fail(s.err)
		}
		return text, 0
	case formData1:
		return nil, c.uint(1)
	case formData2:
		return nil, c.uint(2)
	case formData4:
		return nil, c.uint(4)
	case formData8:
		return nil, c.uint(8)
	case formData16:
		c.bytes(16)
	case formUdata:
		return nil, c.uleb()
	case formBlock:
		c.bytes(c.uleb())
	default:
		c.fail(fmt.Errorf("form 0x%x in a table of lines", form))
	}
	return nil, 0
}

// path is the path of a file, below dir where it is not absolute; empty where
// there is no such file.
func (t *table) path(n uint64, dir string) string {
	if n >= uint64(len(t.files)) || len(t.files[n].name) == 0 {
		return ""
	}
	f := t.files[n]
	name := string(f.name)
	if !path.IsAbs(name) && f.dir < uint64(len(t.dirs)) {
		name = path.Join(string(t.dirs[f.dir]), name)
	}
	if !path.IsAbs(name) {
		name = path.Join(dir, name)
	}
	return name
}

// The standard and extended opcodes (DWARF 5, 6.2.5.2 and 6.2.5.3).
const (
	opCopy           = 1
	opAdvancePC      = 2
	opAdvanceLine    = 3
	opSetFile        = 4
	opConstAddPC     = 8
	opFixedAdvancePC = 9

	opEndSequence = 1
	opSetAddress  = 2
)

// row is a row that the program makes: from addr to the next row's.
type row struct {
	addr uint64
	file uint64
	line int64
}

var firstRow = row{file: 1, line: 1}

// find runs the program until it has made the row that an address belongs to.
func (t *table) find(addr uint64) (file uint64, line int, ok bool) {
	c := cursor{b: t.program, order: t.order}
	now, last, open := firstRow, row{}, false
	for len(c.b) > 0 {
		op := c.byte()
		made, end := true, false
		switch {
		case int(op) >= len(t.operands):
			adjusted := uint64(op) - uint64(len(t.operands))
			now.addr += adjusted / t.lineRange * t.least
			now.line += t.base + int64(adjusted%t.lineRange)
		case op == 0:
			end = t.extended(&c, &now)
			made = end
		case op == opCopy:
		default:
			made = false
			t.standard(&c, op, &now)
		}
		if !made {
			continue
		}
		if open && last.addr <= addr && addr < now.addr {
			return last.file, int(last.line), last.line > 0 && last.line < 1<<30
		}
		last, open = now, !end
		if end {
			now = firstRow
		}
	}
	return 0, 0, false
}

// standard runs a standard opcode that makes no row.
func (t *table) standard(c *cursor, op byte, now *row) {
	switch op {
	case opAdvancePC:
		now.addr += c.uleb() * t.least
	case opAdvanceLine:
		now.line += c.sleb()
	case opSetFile:
		now.file = c.uleb()
	case opConstAddPC:
		now.addr += (255 - uint64(len(t.operands))) / t.lineRange * t.least
	case opFixedAdvancePC:
		now.addr += c.uint(2)
	default:
		for range t.operands[op] {
			c.uleb()
		}
	}
}

// extended runs an extended opcode, and says whether it ends a sequence.
func (t *table) extended(c *cursor, now *row) (end bool) {
	b := c.bytes(c.uleb())
	if len(b) == 0 {
		return false
	}
	switch {
	case b[0] == opEndSequence:
		return true
	case b[0] == opSetAddress && len(b) == 9:
		now.addr = t.order.Uint64(b[1:])
	}
	return false
}
