package elfline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

var errBroken = errors.New("it is broken")

// cutUnit reads the length at the start of a unit of DWARF (DWARF 5, 7.4): the
// unit's bytes without it, what follows the unit, and how many bytes an offset
// has.
func cutUnit(b []byte, order binary.ByteOrder) (unit, rest []byte, offsetSize int, err error) {
	if len(b) < 4 {
		return nil, nil, 0, errBroken
	}
	length, header, offsetSize := uint64(order.Uint32(b)), 4, 4
	if length == 0xffffffff {
		if len(b) < 12 {
			return nil, nil, 0, errBroken
		}
		length, header, offsetSize = order.Uint64(b[4:]), 12, 8
	}
	b = b[header:]
	if length > uint64(len(b)) {
		return nil, nil, 0, errBroken
	}
	return b[:length], b[length:], offsetSize, nil
}

// cursor reads one thing after the other. After an error everything is 0.
type cursor struct {
	b     []byte
	order binary.ByteOrder
	err   error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// bytes are the next n.
func (c *cursor) bytes(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail(errBroken)
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

func (c *cursor) byte() byte {
	if len(c.b) == 0 {
		c.fail(errBroken)
		return 0
	}
	v := c.b[0]
	c.b = c.b[1:]
	return v
}

// uint is a number of 1, 2, 4 or 8 bytes.
func (c *cursor) uint(size int) uint64 {
	b := c.bytes(uint64(size))
	switch {
	case b == nil:
		return 0
	case size == 1:
		return uint64(b[0])
	case size == 2:
		return uint64(c.order.Uint16(b))
	case size == 4:
		return uint64(c.order.Uint32(b))
	}
	return c.order.Uint64(b)
}

// uleb is an unsigned LEB128 number, without the bits above 64.
func (c *cursor) uleb() (v uint64) {
	for shift := uint(0); c.err == nil; shift += 7 {
		b := c.byte()
		v |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			break
		}
	}
	return v
}

// sleb is a signed LEB128 number.
func (c *cursor) sleb() (v int64) {
	for shift := uint(0); c.err == nil; {
		b := c.byte()
		v |= int64(b&0x7f) << shift
		shift += 7
		if b&0x80 == 0 {
			if shift < 64 && b&0x40 != 0 {
				v |= -1 << shift
			}
			break
		}
	}
	return v
}

// text is a string with a 0 at its end.
func (c *cursor) text() []byte {
	end := bytes.IndexByte(c.b[:min(len(c.b), maxPath+1)], 0)
	if end < 0 {
		c.fail(fmt.Errorf("a path of more than %d bytes", maxPath))
		return nil
	}
	b := c.b[:end]
	c.b = c.b[end+1:]
	return b
}
