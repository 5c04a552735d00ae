package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// asker asks rtnetlink, question after question over one socket, for what a
// network namespace has. What it keeps of the answers is bounded.
type asker struct {
	sockets map[int]*nl.SocketHandle
	// room is how many bytes of messages are still kept, left how many
	// messages were not.
	room, left int
	// asked counts questions about one device, of at most maxAsked; refused
	// those beyond.
	asked, refused int
}

const (
	// maxTries bounds how often the kernel is asked for a list. It says when the
	// list changed while it was handed out: then one may be missing or there
	// twice.
	maxTries = 5
	// maxBytes bounds the messages of one source. A device takes 1.5 kB.
	maxBytes = 24 << 20
	// maxAsked bounds how often the kernel is asked about one device or
	// qdisc: at 10 µs each.
	maxAsked = 2048
	// maxParts bounds the parts (qdiscs, classes, actions, VLANs) of which one
	// source gives counters.
	maxParts = 8192
)

// newAsker opens a socket in the calling thread's namespace.
func newAsker() (*asker, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink socket: %w", err)
	}
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: 10}); err != nil {
		s.Close()
		return nil, fmt.Errorf("rtnetlink socket: %w", err)
	}
	a := &asker{sockets: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}
	a.begin()
	return a, nil
}

func (a *asker) close() { a.sockets[unix.NETLINK_ROUTE].Close() }

// begin starts a source: all bounds are whole again.
func (a *asker) begin() {
	a.room, a.left, a.asked, a.refused = maxBytes, 0, 0, 0
}

// bounded says what a source left out, or nil.
func (a *asker) bounded() error {
	var errs []error
	if a.left > 0 {
		errs = append(errs, fmt.Errorf("%d messages behind the first %d MiB are left out", a.left, maxBytes>>20))
	}
	if a.refused > 0 {
		errs = append(errs, fmt.Errorf("only %d of %d devices and qdiscs were asked", maxAsked, maxAsked+a.refused))
	}
	return errors.Join(errs...)
}

// dump asks for all objects of a kind and returns the messages of the type
// answer without their headers. request makes a new request. Where the list
// kept changing, the messages of the last attempt stand beside the error.
func (a *asker) dump(answer uint16, request func() *nl.NetlinkRequest) ([][]byte, error) {
	var err error
	var messages [][]byte
	for range maxTries {
		messages = nil
		room, left := a.room, 0
		req := request()
		req.Sockets = a.sockets
		err = req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
			if len(m) > room {
				left++
				room = 0
				return true // to count the rest
			}
			room -= len(m)
			messages = append(messages, m)
			return true
		})
		if err == nil {
			a.room = room
			a.left += left
			return messages, nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			messages = nil
			break
		}
	}
	return messages, fmt.Errorf("rtnetlink dump: %w", err)
}

// dumpOf is dump for a question about one device or qdisc. It answers nothing
// where that was asked too often.
func (a *asker) dumpOf(answer uint16, request func() *nl.NetlinkRequest) ([][]byte, error) {
	if a.asked == maxAsked {
		a.refused++
		return nil, nil
	}
	a.asked++
	return a.dump(answer, request)
}

// trafficRequest asks for qdiscs, classes or filters (struct tcmsg).
func trafficRequest(kind int, m nl.TcMsg) func() *nl.NetlinkRequest {
	return func() *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(kind, unix.NLM_F_DUMP)
		req.AddData(&m)
		return req
	}
}

// u32 and u64 read a number of an attribute; they say false behind its end.
func u32(b []byte, offset int) (uint64, bool) {
	if offset+4 > len(b) {
		return 0, false
	}
	return uint64(binary.NativeEndian.Uint32(b[offset:])), true
}

func u64(b []byte, offset int) (uint64, bool) {
	if offset+8 > len(b) {
		return 0, false
	}
	return binary.NativeEndian.Uint64(b[offset:]), true
}
