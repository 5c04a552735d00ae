package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// genlFamily is a family of generic netlink as this kernel numbers it.
type genlFamily struct {
	id      uint16
	version uint8
}

// genlFamilies lists the families that the calling thread's namespace can
// ask. The list is asked for as a whole: a question for one by its name would
// have the kernel load a module for it (net/netlink/genetlink.c,
// ctrl_getfamily).
func genlFamilies() (map[string]genlFamily, error) {
	messages, err := genlFamily{id: nl.GENL_ID_CTRL, version: nl.GENL_CTRL_VERSION}.dump(nl.GENL_CTRL_CMD_GETFAMILY, nil)
	if err != nil {
		return nil, fmt.Errorf("list families of generic netlink: %w", err)
	}
	return parseFamilies(messages)
}

// parseFamilies makes the list of CTRL_CMD_NEWFAMILY messages.
func parseFamilies(messages [][]byte) (map[string]genlFamily, error) {
	families := make(map[string]genlFamily, len(messages))
	var errs []error
	for _, m := range messages {
		var name string
		var f genlFamily
		errs = append(errs, attributes(m, func(kind uint16, content []byte) {
			switch kind {
			case nl.GENL_CTRL_ATTR_FAMILY_NAME:
				name = unix.ByteSliceToString(content)
			case nl.GENL_CTRL_ATTR_FAMILY_ID:
				if len(content) >= 2 {
					f.id = binary.NativeEndian.Uint16(content)
				}
			case nl.GENL_CTRL_ATTR_VERSION:
				if v, ok := u32(content, 0); ok {
					f.version = uint8(v)
				}
			}
		}))
		if name != "" && f.id != 0 {
			families[name] = f
		}
	}
	return families, parseError("families of generic netlink", errs...)
}

// dump sends a command that asks for all objects and returns the attributes of
// each answer.
func (f genlFamily) dump(command uint8, attrs []byte) ([][]byte, error) {
	const tries = 5 // as in dump
	var err error
	for range tries {
		var messages [][]byte
		if messages, err = f.ask(command, unix.NLM_F_DUMP, attrs); err == nil {
			return messages, nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return nil, err
}

// ask sends a command once.
func (f genlFamily) ask(command uint8, flags int, attrs []byte) ([][]byte, error) {
	req := nl.NewNetlinkRequest(int(f.id), flags)
	req.AddRawData([]byte{command, f.version, 0, 0}) // struct genlmsghdr
	req.AddRawData(attrs)
	messages, err := req.Execute(unix.NETLINK_GENERIC, f.id)
	if err != nil {
		return nil, fmt.Errorf("generic netlink command %d: %w", command, err)
	}
	bodies := make([][]byte, 0, len(messages))
	for _, m := range messages {
		if len(m) < nl.SizeofGenlmsg {
			return nil, fmt.Errorf("answer to generic netlink command %d: %d bytes: %w", command, len(m), errShort)
		}
		bodies = append(bodies, m[nl.SizeofGenlmsg:])
	}
	return bodies, nil
}

// genlAttr appends an attribute.
func genlAttr(b []byte, kind uint16, content []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+len(content)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, content...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// genlNest appends an attribute that holds others.
func genlNest(b []byte, kind uint16, content []byte) []byte {
	return genlAttr(b, kind|unix.NLA_F_NESTED, content)
}

// genlNumber appends an attribute of 32 bits.
func genlNumber(b []byte, kind uint16, v uint32) []byte {
	return genlAttr(b, kind, binary.NativeEndian.AppendUint32(nil, v))
}

// genlUnsupported says whether a refusal means that there is no such thing: the
// kernel does not know the command (EOPNOTSUPP), or the family went (ENOENT).
func genlUnsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}
