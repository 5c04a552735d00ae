package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sizeofNfgen is struct nfgenmsg (include/uapi/linux/netfilter/nfnetlink.h).
const sizeofNfgen = 4

// nfgen is struct nfgenmsg of a request that is about all families.
type nfgen struct{}

func (nfgen) Len() int          { return sizeofNfgen }
func (nfgen) Serialize() []byte { return make([]byte, sizeofNfgen) }

// nfDump sends a request for all objects to a subsystem of nfnetlink and hands
// each message that has the type answer to each, without its header, until
// that says false. Both types have the subsystem in the upper byte.
// begin is called before each attempt: the kernel says when the list changed
// while it was handed out, and then it is asked again; the last attempt is
// taken as it is. The caller makes sure that the subsystem is there, because
// the question would have the kernel load it (net/netfilter/nfnetlink.c,
// nfnetlink_rcv_msg).
func nfDump(request, answer int, begin func(), each func(m []byte) bool) error {
	const tries = 3
	for range tries {
		begin()
		err := nfDumpOnce(request, uint16(answer), each)
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			return err
		}
	}
	return nil
}

func nfDumpOnce(request int, answer uint16, each func(m []byte) bool) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("netlink socket: %w", err)
	}
	defer s.Close() // a dump that is not read to its end ends with it
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	req.AddData(nfgen{})
	if err := s.Send(req); err != nil {
		return fmt.Errorf("ask nfnetlink: %w", err)
	}
	changed := false
	for {
		messages, from, err := s.Receive()
		if err != nil {
			return fmt.Errorf("read nfnetlink: %w", err)
		}
		if from.Pid != nl.PidKernel {
			continue
		}
		for _, m := range messages {
			if m.Header.Seq != req.Seq {
				continue
			}
			changed = changed || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Header.Type == unix.NLMSG_DONE || m.Header.Type == unix.NLMSG_ERROR:
				return dumpEnd(m.Data, changed)
			case m.Header.Type == answer && !each(m.Data):
				return nil
			}
		}
	}
}

// dumpEnd is the result of a dump: the error number that it ends with.
func dumpEnd(b []byte, changed bool) error {
	if n, ok := u32(b, 0); ok && int32(n) < 0 {
		return fmt.Errorf("nfnetlink: %w", unix.Errno(-int32(n)))
	}
	if changed {
		return nl.ErrDumpInterrupted
	}
	return nil
}

// noSubsystem says whether an error of nfDump means that this kernel has no
// such subsystem or no such request.
func noSubsystem(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP)
}

// needsNetAdmin adds the capability that is missing to an error that means so.
func needsNetAdmin(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: it needs CAP_NET_ADMIN in the user namespace that owns this network namespace", err)
	}
	return err
}

// be32 and be64 read a number in network byte order, as nfnetlink has them.
func be32(b []byte) (uint32, bool) {
	if len(b) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b), true
}

func be64(b []byte) (uint64, bool) {
	if len(b) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(b), true
}
