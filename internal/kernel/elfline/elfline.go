// Package elfline finds the place in the source of an address of an ELF file, by
// the DWARF that is in it. It reads the index at the start, and of each
// compilation unit as much as an address in it needs, when it needs it.
//
// It must not open files, know which kernel an ELF file is of, or trust a byte
// of it.
package elfline

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// ErrNone says that an ELF file has no debugging information.
var ErrNone = errors.New("it has no debugging information")

const (
	// maxUnit bounds what is looked at of a unit, in bytes.
	maxUnit = 64 << 20
	// maxCached bounds the addresses and the units that are remembered.
	maxCached, maxUnits = 1 << 16, 32
	// maxPath bounds the path of a source file, in bytes.
	maxPath = 512
)

// sections are the debugging information of a file, as its bytes lie there.
type sections struct {
	abbrev, addr, aranges, info, line, lineStr, ranges, rngLists, str, strOffsets []byte
}

// Lines finds places in the source. Its methods must not be called at the same
// time.
type Lines struct {
	order binary.ByteOrder
	sec   sections
	index index
	units map[uint64]*unit
	found map[uint64]place
}

// place is a line of a file; the zero value is none.
type place struct {
	file string
	line int
}

// New reads the index of the debugging information of e, whose bytes are image.
// They are used until the last call of Find. An error wraps ErrNone where there
// is none.
func New(e *elf.File, image []byte) (l *Lines, err error) {
	l = &Lines{order: e.ByteOrder, units: map[uint64]*unit{}, found: map[uint64]place{}}
	if err := l.sections(e, image); err != nil {
		return nil, err
	}
	err = guarded(func() (err error) {
		l.index, err = l.buildIndex()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read debugging information: %w", err)
	}
	return l, nil
}

// sections finds the sections of e in image.
func (l *Lines) sections(e *elf.File, image []byte) error {
	wanted := map[string]*[]byte{
		"abbrev": &l.sec.abbrev, "addr": &l.sec.addr, "aranges": &l.sec.aranges, "info": &l.sec.info,
		"line": &l.sec.line, "line_str": &l.sec.lineStr, "ranges": &l.sec.ranges,
		"rnglists": &l.sec.rngLists, "str": &l.sec.str, "str_offsets": &l.sec.strOffsets,
	}
	for _, s := range e.Sections {
		if strings.HasPrefix(s.Name, ".zdebug_") || strings.HasPrefix(s.Name, ".debug_") && s.Flags&elf.SHF_COMPRESSED != 0 {
			return fmt.Errorf("section %q is compressed: unpack it with `objcopy --decompress-debug-sections`", s.Name)
		}
		to := wanted[strings.TrimPrefix(s.Name, ".debug_")]
		if to == nil || !strings.HasPrefix(s.Name, ".debug_") || s.Type == elf.SHT_NOBITS {
			continue
		}
		if s.Offset > uint64(len(image)) || s.FileSize > uint64(len(image))-s.Offset {
			return fmt.Errorf("section %q is cut off", s.Name)
		}
		*to = image[s.Offset : s.Offset+s.FileSize : s.Offset+s.FileSize]
	}
	if len(l.sec.info) == 0 || len(l.sec.line) == 0 || len(l.sec.abbrev) == 0 {
		return ErrNone
	}
	return nil
}

// Find returns the source file, relative to the root of the source, and the
// line of the instruction at addr; "" and 0 where they are not known.
//
// Of code that was inlined it is the innermost place that is not in a header:
// kfree_skb and its like are inline functions of headers, and whoever asks where
// a packet was dropped wants to know who called them.
func (l *Lines) Find(addr uint64) (file string, line int) {
	at, ok := l.found[addr]
	if !ok {
		// What cannot be read is not known.
		_ = guarded(func() (err error) {
			at, err = l.find(addr)
			return err
		})
		if len(l.found) >= maxCached {
			clear(l.found)
		}
		l.found[addr] = at
	}
	return at.file, at.line
}

func (l *Lines) find(addr uint64) (place, error) {
	offset, ok := l.index.unit(addr)
	if !ok {
		return place{}, nil
	}
	u := l.units[offset]
	if u == nil {
		var err error
		if u, err = l.open(offset); err != nil {
			return place{}, err
		}
		if len(l.units) >= maxUnits {
			clear(l.units)
		}
		l.units[offset] = u
	}
	return l.place(u, addr)
}

// guarded calls f, and makes an error of a panic: debug/dwarf is meant for what
// a compiler made, and a mapped file may become shorter while it is read.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("broken: %v", r)
		}
	}()
	return f()
}
