package kernelnet

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// ErrEnough, returned for an answer, ends Ask and Dump without an error.
var ErrEnough = errors.New("enough")

// Ask sends a request on a new socket of the calling thread's namespace and
// hands every answer of type reply (0 is any) to each, without its header, until
// that fails. Errors are the kernel's numbers, or nl.ErrDumpInterrupted where
// what was listed changed meanwhile. A question to a part of the kernel that is
// not there may load it: see Modules.
func Ask(family, request int, reply uint16, flags int, m Message, each func(b []byte) error) error {
	s, err := nl.Subscribe(family)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	defer s.Close() // a dump that is not read to its end ends with it
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(request, flags)
	req.AddData(m)
	if err := s.Send(req); err != nil {
		return err
	}
	changed := false
	for {
		messages, from, err := s.Receive()
		if err != nil {
			return fmt.Errorf("receive from netlink: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			if m.Header.Seq != req.Seq {
				continue
			}
			changed = changed || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			if m.Header.Type == unix.NLMSG_DONE || m.Header.Type == unix.NLMSG_ERROR {
				return end(m.Data, changed)
			}
			if reply != 0 && m.Header.Type != reply {
				continue
			}
			if err := each(m.Data); errors.Is(err, ErrEnough) {
				return nil
			} else if err != nil {
				return err
			}
			// Parts of a list may lack the flag (net/netfilter/nfnetlink_hook.c,
			// nfnl_hook_dump_one), and the address of the socket as well.
			if m.Header.Flags&unix.NLM_F_MULTI == 0 && flags&unix.NLM_F_DUMP != unix.NLM_F_DUMP {
				return nil
			}
		}
	}
}

// end is the result of a request: the error number that the last message has.
func end(b []byte, changed bool) error {
	if len(b) >= 4 && int32(native.Uint32(b)) < 0 {
		return unix.Errno(-int32(native.Uint32(b)))
	}
	if changed {
		return nl.ErrDumpInterrupted
	}
	return nil
}

// Dump asks for all objects. The kernel says when the list changed while it was
// handed out, and then it is asked again: begin is called before each attempt,
// and the last one is taken as it is.
func Dump(family, request int, reply uint16, m Message, begin func(), each func(b []byte) error) error {
	for range 3 {
		begin()
		err := Ask(family, request, reply, unix.NLM_F_DUMP, m, each)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

// NeedsCap adds what is missing to an error that means that something is.
func NeedsCap(err error, capability string) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it needs %s", err, capability)
	}
	return err
}

// Family is a family of generic netlink as this kernel numbers it.
type Family struct {
	ID      uint16
	Version uint8
}

// Ask sends a command to the family, as [Ask] does, and hands the attributes of
// every answer to each.
func (f Family) Ask(command uint8, flags int, attrs Message, each func(attrs []byte) error) error {
	m := append(Message{}.U8(command, f.Version, 0, 0), attrs...) // struct genlmsghdr
	return Ask(unix.NETLINK_GENERIC, int(f.ID), f.ID, flags, m, func(b []byte) error {
		if len(b) < nl.SizeofGenlmsg {
			return ErrShort
		}
		return each(b[nl.SizeofGenlmsg:])
	})
}

// Families lists the families that the calling thread's namespace can ask, by
// their names. The list is asked for as a whole: a question for one by its name
// would have the kernel load a module for it (net/netlink/genetlink.c,
// ctrl_getfamily).
func Families() (map[string]Family, error) {
	families := map[string]Family{}
	control := Family{ID: nl.GENL_ID_CTRL, Version: nl.GENL_CTRL_VERSION}
	err := control.Ask(nl.GENL_CTRL_CMD_GETFAMILY, unix.NLM_F_DUMP, nil, func(b []byte) error { return addFamily(families, b) })
	if err != nil && !errors.Is(err, nl.ErrDumpInterrupted) { // what is in the list twice is the same
		return nil, fmt.Errorf("list families of generic netlink: %w", err)
	}
	return families, nil
}

// addFamily adds what a message CTRL_CMD_NEWFAMILY says.
func addFamily(families map[string]Family, b []byte) error {
	var name string
	var f Family
	err := Attributes(b, 0, func(kind int, content []byte) {
		switch {
		case kind == nl.GENL_CTRL_ATTR_FAMILY_NAME:
			name = unix.ByteSliceToString(content)
		case kind == nl.GENL_CTRL_ATTR_FAMILY_ID && len(content) >= 2:
			f.ID = native.Uint16(content)
		case kind == nl.GENL_CTRL_ATTR_VERSION && len(content) >= 4:
			f.Version = uint8(native.Uint32(content))
		}
	})
	if name != "" && f.ID != 0 {
		families[name] = f
	}
	return err
}
