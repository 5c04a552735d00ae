package counter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/sock_diag.h and the headers of each family.
const (
	memDrops = 8 // SK_MEMINFO_DROPS, since 4.7

	inetSkmeminfo  = 7 // INET_DIAG_SKMEMINFO
	packetMeminfo  = 6 // PACKET_DIAG_MEMINFO
	netlinkMeminfo = 0 // NETLINK_DIAG_MEMINFO
	unixMeminfo    = 5 // UNIX_DIAG_MEMINFO

	packetShowMeminfo  = 1 << 4
	netlinkShowMeminfo = 1 << 0
	unixShowMeminfo    = 1 << 5

	// inetStates are the states of TCP whose sockets count drops: all but
	// SYN_RECV (which NEW_SYN_RECV goes with) and TIME_WAIT, which are no full
	// sockets (include/net/tcp_states.h). Sockets of UDP and raw ones are in
	// ESTABLISHED or CLOSE.
	inetStates = 1<<12 - 2 - 1<<3 - 1<<6
)

// errNoDiag says that sock_diag does not tell the drops: the kernel has none
// for the protocol, or is older than 4.7.
var errNoDiag = errors.New("sock_diag does not tell")

// diagDump is a list that sock_diag is asked for.
type diagDump struct {
	// request is what follows the netlink header.
	request []byte
	// size is where the attributes of an answer begin; inode and cookie are
	// places before that.
	size, inode, cookie int
	// meminfo is the attribute that the drops are in.
	meminfo uint16
}

// inetDumps asks for the sockets of both versions of IP.
func inetDumps(proto uint8) []diagDump {
	var dumps []diagDump
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		// struct inet_diag_req_v2, struct inet_diag_msg
		request := make([]byte, 56)
		request[0], request[1], request[2] = family, proto, 1<<(inetSkmeminfo-1)
		binary.NativeEndian.PutUint32(request[4:], inetStates)
		dumps = append(dumps, diagDump{request, 72, 68, 44, inetSkmeminfo})
	}
	return dumps
}

func packetDump() diagDump {
	// struct packet_diag_req, struct packet_diag_msg
	request := make([]byte, 20)
	request[0] = unix.AF_PACKET
	binary.NativeEndian.PutUint32(request[8:], packetShowMeminfo)
	return diagDump{request, 16, 4, 8, packetMeminfo}
}

func netlinkDump() diagDump {
	// struct netlink_diag_req with NDIAG_PROTO_ALL, struct netlink_diag_msg
	request := make([]byte, 20)
	request[0], request[1] = unix.AF_NETLINK, 255
	binary.NativeEndian.PutUint32(request[8:], netlinkShowMeminfo)
	return diagDump{request, 28, 16, 20, netlinkMeminfo}
}

func unixDump() diagDump {
	// struct unix_diag_req with every state, struct unix_diag_msg
	request := make([]byte, 24)
	request[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[4:], ^uint32(0))
	binary.NativeEndian.PutUint32(request[12:], unixShowMeminfo)
	return diagDump{request, 16, 4, 8, unixMeminfo}
}

// Len and Serialize make it a part of a request of the library.
func (d diagDump) Len() int          { return len(d.request) }
func (d diagDump) Serialize() []byte { return d.request }

// readDiag asks sock_diag for the sockets of a kind, whose modules must be
// there.
func (k socketKind) readDiag(t *tally, inUse map[string]uint64) error {
	for i, d := range k.dumps {
		if k.empty(i, len(k.dumps), inUse) {
			continue
		}
		err := d.read(t)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return errNoDiag
		}
		if err != nil {
			return fmt.Errorf("ask sock_diag for %s sockets: %w", k.table, err)
		}
	}
	return nil
}

// read takes the answers one by one; not one of them is kept.
func (d diagDump) read(t *tally) error {
	req := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(d)
	var bad error
	err := req.ExecuteIter(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		var l loss
		if l, bad = d.parse(m); bad == nil {
			t.add(l)
		}
		return bad == nil
	})
	// A list that changed meanwhile lacks nothing but what came or went, and
	// the tally knows what is there twice.
	if errors.Is(err, nl.ErrDumpInterrupted) {
		err = nil
	}
	return errors.Join(err, bad)
}

// parse reads an answer without its netlink header. What is no full socket has
// no memory and lost nothing.
func (d diagDump) parse(m []byte) (l loss, err error) {
	if len(m) < d.size {
		return l, fmt.Errorf("socket: %d bytes, want %d: %w", len(m), d.size, errShort)
	}
	l.inode = binary.NativeEndian.Uint32(m[d.inode:])
	l.cookie = binary.NativeEndian.Uint64(m[d.cookie:])
	old := false
	err = attributes(m[d.size:], func(kind uint16, content []byte) {
		if kind != d.meminfo {
			return
		}
		var ok bool
		l.drops, ok = u32(content, 4*memDrops)
		old = !ok
	})
	if err == nil && old {
		err = errNoDiag
	}
	return l, err
}
