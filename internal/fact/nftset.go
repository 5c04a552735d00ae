package fact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// nftSet is a set or map of nftables.
type nftSet struct {
	// anonymous is one that stands in its rule; interval, that its keys are the
	// ends of ranges.
	anonymous, interval bool
	keySize, dataSize   int
	dataType            uint64
	elems               []nftElem
	// more is how many elements there are beyond those.
	more int
}

// nftElem is an element of a set. end is set in one that ends the range which
// the element before it began, and is no part of it.
type nftElem struct {
	key, upTo  []byte // upTo is the upper end of a range of several keys
	end, other bool   // other stands for all that is not in the set
	data       []byte
	verdict    string
	object     string
	hasData    bool
}

// maxElems bounds how many elements of a set a rule shows.
const maxElems = 64

// parseSet reads a message NFT_MSG_NEWSET: its table, its name and the set.
func parseSet(b []byte) (kernelnet.NftID, *nftSet, error) {
	var id kernelnet.NftID
	a, err := kernelnet.ParseAttrs(b, kernelnet.SizeofNfgen)
	if err != nil {
		return id, nil, err
	}
	id = kernelnet.NftID{Family: b[0], Table: a.Text(unix.NFTA_SET_TABLE), Name: a.Text(unix.NFTA_SET_NAME)}
	flags := a.Num(unix.NFTA_SET_FLAGS)
	return id, &nftSet{
		anonymous: flags&unix.NFT_SET_ANONYMOUS != 0, interval: flags&unix.NFT_SET_INTERVAL != 0,
		keySize: int(min(a.Num(unix.NFTA_SET_KEY_LEN), 64)), dataSize: int(min(a.Num(unix.NFTA_SET_DATA_LEN), 64)),
		dataType: a.Num(unix.NFTA_SET_DATA_TYPE),
	}, nil
}

// addElements adds those of a message NFT_MSG_NEWSETELEM.
func (s *nftSet) addElements(b []byte) error {
	a, err := kernelnet.ParseAttrs(b, kernelnet.SizeofNfgen)
	if err != nil {
		return err
	}
	var bad error
	err = kernelnet.Attributes(a.Get(unix.NFTA_SET_ELEM_LIST_ELEMENTS), 0, func(t int, elem []byte) {
		if t != unix.NFTA_LIST_ELEM {
			return
		}
		if len(s.elems) >= maxElems {
			s.more++
			return
		}
		e, err := parseElem(elem)
		bad = errors.Join(bad, err)
		s.elems = append(s.elems, e)
	})
	return errors.Join(err, bad)
}

// Attributes and flags of elements that the library does not have.
const (
	elemObject, elemKeyEnd = 9, 10
	elemCatchall           = 2
)

func parseElem(b []byte) (nftElem, error) {
	a, err := kernelnet.ParseAttrs(b, 0)
	if err != nil {
		return nftElem{}, err
	}
	flags := a.Num(unix.NFTA_SET_ELEM_FLAGS)
	e := nftElem{
		key: a.Data(unix.NFTA_SET_ELEM_KEY), upTo: a.Data(elemKeyEnd),
		end: flags&unix.NFT_SET_ELEM_INTERVAL_END != 0, other: flags&elemCatchall != 0, object: a.Text(elemObject),
	}
	if a.Has(unix.NFTA_SET_ELEM_DATA) {
		data := a.Nest(unix.NFTA_SET_ELEM_DATA)
		e.hasData, e.data = true, data.Get(unix.NFTA_DATA_VALUE)
		if data.Has(unix.NFTA_DATA_VERDICT) {
			e.verdict = verdictText(data.Nest(unix.NFTA_DATA_VERDICT))
		}
	}
	return e, nil
}

// elements writes what is in a set whose keys have these parts.
func (d *nftText) elements(s *nftSet, parts []*operand) string {
	elems := slices.Clone(s.elems)
	// nft(8) has text in the byte order of the host too.
	host := len(parts) == 1 && (parts[0].host || parts[0].kind == typeDeviceName || parts[0].kind == typeString)
	slices.SortStableFunc(elems, func(a, b nftElem) int {
		if c := cmp.Compare(fmt.Sprint(a.other), fmt.Sprint(b.other)); c != 0 {
			return c
		}
		if c := bytes.Compare(mostFirst(a.key, host), mostFirst(b.key, host)); c != 0 {
			return c
		}
		return cmp.Compare(fmt.Sprint(b.end), fmt.Sprint(a.end)) // the end of one before the begin of the next
	})
	var list []string
	for i, e := range elems {
		if e.end {
			continue
		}
		upTo := e.upTo
		if s.interval && upTo == nil && !e.other {
			upTo = upperEnd(elems[i+1:], len(e.key))
		}
		list = append(list, d.element(s, e, upTo, parts))
	}
	if s.more > 0 {
		list = append(list, fmt.Sprintf("… %d more", s.more))
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

// mostFirst is a number with its most significant byte first.
func mostFirst(b []byte, host bool) []byte {
	if !host || binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return b
	}
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

// upperEnd is the upper end of a range: one less than where the next element
// is, or the greatest key.
func upperEnd(rest []nftElem, size int) []byte {
	upTo := bytes.Repeat([]byte{0xff}, size)
	if len(rest) == 0 || rest[0].other || len(rest[0].key) != size {
		return upTo
	}
	copy(upTo, rest[0].key)
	for i := size - 1; i >= 0; i-- {
		upTo[i]--
		if upTo[i] != 0xff {
			break
		}
	}
	return upTo
}

// element writes one element.
func (d *nftText) element(set *nftSet, e nftElem, upTo []byte, parts []*operand) string {
	var keys []string
	at := 0
	for _, o := range parts {
		size := o.size
		if len(parts) == 1 {
			size = len(e.key)
		}
		keys = append(keys, d.keyPart(o, cut(e.key, at, size), cut(upTo, at, size)))
		at += 4 * regWords(size)
	}
	s := strings.Join(keys, " . ")
	if e.other {
		s = "*"
	}
	switch {
	case e.verdict != "":
		return s + " : " + e.verdict
	case e.object != "":
		return s + " : \"" + e.object + "\""
	case e.hasData:
		return s + " : " + d.mapped(set.dataType, e.data)
	}
	return s
}

// cut is a part of a key; shorter where the key is.
func cut(b []byte, at, size int) []byte {
	if at >= len(b) || size < 0 {
		return nil
	}
	return b[at:min(at+size, len(b))]
}

// keyPart writes a part of a key, or a range of them.
func (d *nftText) keyPart(o *operand, from, to []byte) string {
	if len(to) == 0 || bytes.Equal(from, to) {
		return d.setKey(o, from)
	}
	if n := rangePrefix(from, to); n >= 0 && o.kind.address() {
		return d.constant(o, from) + "/" + decimal(n)
	}
	return d.constant(o, from) + "-" + d.constant(o, to)
}

// setKey writes one key. Several flags are joined as the expression that nft(8)
// reads.
func (d *nftText) setKey(o *operand, b []byte) string {
	if names := o.kind.flags(); names != nil {
		if s := nftFlags(names, nftNumber(b, o.host), " | "); s != "" {
			return s
		}
	}
	return d.constant(o, b)
}

// rangePrefix is the length of the prefix that is exactly this range, or -1.
func rangePrefix(from, to []byte) int {
	mask := make([]byte, len(from))
	for i := range from {
		mask[i] = ^(from[i] ^ to[i])
	}
	n := maskLength(mask)
	for i := range from {
		if n < 0 || from[i]&^mask[i] != 0 || to[i]|mask[i] != 0xff {
			return -1
		}
	}
	return n
}

// mapped writes what a map gives, which may have several parts.
func (d *nftText) mapped(dataType uint64, b []byte) string {
	const partBits = 6
	if dataType < 1<<partBits {
		kind := setDataType(dataType)
		return kind.constant(b, kind.hostOrder(), d.devices)
	}
	var types []uint64
	for t := dataType; t > 0; t >>= partBits {
		types = append(types, t&(1<<partBits-1))
	}
	slices.Reverse(types)
	var parts []string
	at := 0
	for _, t := range types {
		size := setDataSize(t)
		if size == 0 {
			return fmt.Sprintf("0x%x", b)
		}
		parts = append(parts, d.mapped(t, cut(b, at, size)))
		at += 4 * regWords(size)
	}
	return strings.Join(parts, " . ")
}

// setDataSize is how many bytes a part of a value has; 0 where that is not
// known.
func setDataSize(t uint64) int {
	switch t {
	case 7, 19, 20:
		return 4
	case 8, 41:
		return 16
	case 9:
		return 6
	case 12:
		return 1
	case 13, 21:
		return 2
	}
	return 0
}

// setDataType is how the values of a map are written, by the numbers that
// nft(8) gives its types (enum datatypes of its include/datatype.h).
func setDataType(t uint64) nftType {
	switch t {
	case 7:
		return typeIPv4
	case 8:
		return typeIPv6
	case 9:
		return typeEther
	case 12:
		return typeProto
	case 13:
		return typePort
	case 19:
		return typeMark
	case 20:
		return typeDevice
	case 21:
		return typeHardware
	case 41:
		return typeDeviceName
	}
	return typeHex
}
