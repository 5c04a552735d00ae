package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The kinds of BTF types (include/uapi/linux/btf.h) and how many bytes follow
// the common part of each: some, and some for each member.
const btfKindEnum = 6

var btfTail = [...]struct{ fixed, perMember int }{
	1:           {fixed: 4},      // int
	2:           {},              // pointer
	3:           {fixed: 12},     // array
	4:           {perMember: 12}, // struct
	5:           {perMember: 12}, // union
	btfKindEnum: {perMember: 8},
	7:           {},              // forward
	8:           {},              // typedef
	9:           {},              // volatile
	10:          {},              // const
	11:          {},              // restrict
	12:          {},              // function
	13:          {perMember: 8},  // function prototype
	14:          {fixed: 4},      // variable
	15:          {perMember: 12}, // data section
	16:          {},              // float (5.13)
	17:          {fixed: 4},      // declaration tag (5.16)
	18:          {},              // type tag (5.17)
	19:          {perMember: 12}, // enum64 (6.0)
}

var errBTF = errors.New("not BTF")

// enumValue is one name of an enum.
type enumValue struct {
	Name  string
	Value uint32
}

// rawBTF is a BTF blob cut into its sections.
type rawBTF struct {
	order          binary.ByteOrder
	types, strings []byte
	// base holds the strings that come before this blob's own: those of
	// vmlinux for a module.
	base []byte
}

// parseRawBTF cuts a blob into its sections. base is the blob that a module's
// types build on, and nil for vmlinux itself.
func parseRawBTF(blob []byte, base *rawBTF) (*rawBTF, error) {
	const headerLen = 24
	if len(blob) < headerLen {
		return nil, fmt.Errorf("%w: %d bytes are too few", errBTF, len(blob))
	}
	b := &rawBTF{order: binary.LittleEndian}
	if b.order.Uint16(blob) != 0xeb9f {
		b.order = binary.BigEndian
	}
	if b.order.Uint16(blob) != 0xeb9f || blob[2] != 1 {
		return nil, fmt.Errorf("%w: bad magic or version", errBTF)
	}
	section := func(at int) ([]byte, error) {
		start := uint64(b.order.Uint32(blob[4:])) + uint64(b.order.Uint32(blob[at:]))
		end := start + uint64(b.order.Uint32(blob[at+4:]))
		if end > uint64(len(blob)) {
			return nil, fmt.Errorf("%w: section ends at %d of %d bytes", errBTF, end, len(blob))
		}
		return blob[start:end], nil
	}
	var err error
	if b.types, err = section(8); err != nil {
		return nil, err
	}
	if b.strings, err = section(16); err != nil {
		return nil, err
	}
	if base != nil {
		b.base = base.strings
	}
	return b, nil
}

// name returns the string at an offset, without copying it.
func (b *rawBTF) name(offset uint32) ([]byte, error) {
	table, at := b.base, uint64(offset)
	if at >= uint64(len(b.base)) {
		table, at = b.strings, at-uint64(len(b.base))
	}
	if at >= uint64(len(table)) {
		return nil, fmt.Errorf("%w: string at %d is outside of its table", errBTF, offset)
	}
	n := bytes.IndexByte(table[at:], 0)
	if n < 0 {
		return nil, fmt.Errorf("%w: string at %d has no end", errBTF, offset)
	}
	return table[at : at+uint64(n)], nil
}

// enums returns the values of every enum whose name ends in suffix, an element
// for each enum. It keeps nothing of the blob.
//
// This is for enums that are known only by the end of their names. cilium/ebpf
// finds a type by its whole name; walking all types with it costs 40 MB and
// 150 ms for vmlinux, this 8 ms, and next to nothing stays.
func (b *rawBTF) enums(suffix string) ([][]enumValue, error) {
	var found [][]enumValue
	for rest := b.types; len(rest) > 0; {
		if len(rest) < 12 {
			return nil, fmt.Errorf("%w: type is cut off", errBTF)
		}
		info := b.order.Uint32(rest[4:])
		kind, members := int(info>>24&0x1f), int(info&0xffff)
		if kind == 0 || kind >= len(btfTail) {
			return nil, fmt.Errorf("%w: unknown kind %d of type", errBTF, kind)
		}
		tail := btfTail[kind].fixed + btfTail[kind].perMember*members
		if len(rest)-12 < tail {
			return nil, fmt.Errorf("%w: type is cut off", errBTF)
		}
		if kind == btfKindEnum {
			name, err := b.name(b.order.Uint32(rest))
			if err != nil {
				return nil, err
			}
			if bytes.HasSuffix(name, []byte(suffix)) {
				values, err := b.values(rest[12 : 12+tail])
				if err != nil {
					return nil, err
				}
				found = append(found, values)
			}
		}
		rest = rest[12+tail:]
	}
	return found, nil
}

// values decodes the members of an enum.
func (b *rawBTF) values(members []byte) ([]enumValue, error) {
	values := make([]enumValue, 0, len(members)/8)
	for ; len(members) >= 8; members = members[8:] {
		name, err := b.name(b.order.Uint32(members))
		if err != nil {
			return nil, err
		}
		values = append(values, enumValue{string(name), b.order.Uint32(members[4:])})
	}
	return values, nil
}

// readAside reads a file into memory of its own, outside of Go's heap: giving
// it back with release lets the process shrink at once. vmlinux's BTF is 5 MB.
func readAside(path string) (data []byte, release func(), err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	// Module BTF is some 100 kB. The limit is there for what is no BTF.
	const limit = 64 << 20
	if info.Size() <= 0 || info.Size() > limit {
		return nil, nil, fmt.Errorf("read %s: size %d is not that of BTF", path, info.Size())
	}
	mem, err := unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: mmap: %w", path, err)
	}
	release = func() { _ = unix.Munmap(mem) }
	if n, err := io.ReadFull(f, mem); err != nil {
		release()
		return nil, nil, fmt.Errorf("read %s: %d of %d bytes: %w", path, n, len(mem), err)
	}
	return mem, release, nil
}

// scanDropReasons reads the enums *drop_reason of vmlinux and of every loaded
// module. Files that cannot be read are skipped, and reported in the error
// beside what was found.
func (h Host) scanDropReasons() ([][]enumValue, error) {
	blob, release, err := readAside(h.path(vmlinuxBTF))
	if err != nil {
		return nil, err
	}
	defer release()
	vmlinux, err := parseRawBTF(blob, nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", vmlinuxBTF, err)
	}
	found, err := vmlinux.enums("drop_reason")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", vmlinuxBTF, err)
	}
	dir := strings.TrimSuffix(h.path(vmlinuxBTF), "vmlinux")
	entries, err := os.ReadDir(dir)
	errs := []error{err}
	for _, e := range entries {
		if e.Name() == "vmlinux" {
			continue
		}
		more, err := scanModule(dir+e.Name(), vmlinux)
		errs = append(errs, err)
		found = append(found, more...)
	}
	return found, errors.Join(errs...)
}

func scanModule(path string, vmlinux *rawBTF) ([][]enumValue, error) {
	blob, release, err := readAside(path)
	if err != nil {
		return nil, err
	}
	defer release()
	b, err := parseRawBTF(blob, vmlinux)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	found, err := b.enums("drop_reason")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return found, nil
}
