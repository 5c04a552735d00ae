package kernelnet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/{inet,unix,packet,netlink}_diag.h: the structures that
// answers of sock_diag begin with, and the attributes with SK_MEMINFO_*.
const (
	SizeofInetDiag    = 72 // struct inet_diag_msg
	SizeofInetID      = 48 // struct inet_diag_sockid
	SizeofUnixDiag    = 16 // struct unix_diag_msg
	SizeofPacketDiag  = 16 // struct packet_diag_msg
	SizeofNetlinkDiag = 28 // struct netlink_diag_msg

	InetMeminfo    = 7 // INET_DIAG_SKMEMINFO
	UnixMeminfo    = 5 // UNIX_DIAG_MEMINFO
	PacketMeminfo  = 6 // PACKET_DIAG_MEMINFO
	NetlinkMeminfo = 0 // NETLINK_DIAG_MEMINFO
)

// ErrNoDiag says that the kernel has no sock_diag for a protocol.
var ErrNoDiag = errors.New("the kernel has no sock_diag of that protocol")

// InetDiag is struct inet_diag_req_v2. ext are the bits of the attributes that
// are asked for; an empty id stands for all sockets.
func InetDiag(family, proto, ext uint8, states uint32, id []byte) Message {
	m := Message{}.U8(family, proto, ext, 0).U32(states)
	return append(append(m, id...), make([]byte, SizeofInetID-len(id))...)
}

// UnixDiag is struct unix_diag_req for sockets in every state. show are the bits
// of the attributes that are asked for, as in PacketDiag and NetlinkDiag.
func UnixDiag(show uint32) Message {
	return Message{}.U8(unix.AF_UNIX, 0).U16(0).U32(^uint32(0)).U32(0).U32(show).U32(0).U32(0)
}

// PacketDiag is struct packet_diag_req.
func PacketDiag(show uint32) Message {
	return Message{}.U8(unix.AF_PACKET, 0).U16(0).U32(0).U32(show).U32(0).U32(0)
}

// NetlinkDiag is struct netlink_diag_req for every protocol (NDIAG_PROTO_ALL).
func NetlinkDiag(show uint32) Message {
	return Message{}.U8(unix.AF_NETLINK, 0xff).U16(0).U32(0).U32(show).U32(0).U32(0)
}

// DiagDump asks sock_diag for a list, and hands every answer to each until that
// fails. One that changed meanwhile lacks only what came or went. The error is
// ErrNoDiag where the kernel has none.
func DiagDump(m Message, each func(b []byte) error) error {
	err := Ask(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP, m, each)
	switch {
	case errors.Is(err, nl.ErrDumpInterrupted):
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return ErrNoDiag
	case err != nil:
		return fmt.Errorf("list sockets: %w", err)
	}
	return nil
}

// ReadList opens a list of sockets, such as udp, in dir, which is /proc/net of a
// thread, and hands it to read. Behind the time end it cannot be read further:
// for a long list the kernel needs a time that grows with the square of its
// length (net/ipv4/udp.c, udp_get_idx). A kernel that does not have the list is
// fs.ErrNotExist.
func ReadList(dir, name string, end time.Time, read func(io.Reader) error) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := read(until{f, end}); err != nil {
		return fmt.Errorf("/proc/net/%s: %w", name, err)
	}
	return nil
}

// until ends a list with an error when its time is over.
type until struct {
	io.Reader
	end time.Time
}

func (u until) Read(b []byte) (int, error) {
	if time.Now().After(u.end) {
		return 0, errors.New("the kernel needs too long for the list")
	}
	return u.Reader.Read(b)
}

// ParseDrops reads a counter of 32 bits of such a list. Older kernels print that
// of UDP with a sign.
func ParseDrops(word []byte) (uint32, error) {
	switch {
	case len(word) == 1 && word[0] == '0': // nearly all
		return 0, nil
	case len(word) > 1 && word[0] == '-':
		n, err := strconv.ParseInt(string(word), 10, 32)
		return uint32(n), err
	}
	n, err := strconv.ParseUint(string(word), 10, 32)
	return uint32(n), err
}
