package counter

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// Of the headers of each family in include/uapi/linux.
const (
	packetShowMeminfo  = 1 << 4
	netlinkShowMeminfo = 1 << 0
	unixShowMeminfo    = 1 << 5

	// inetStates are the states of TCP whose sockets count drops: all but
	// SYN_RECV (which NEW_SYN_RECV goes with) and TIME_WAIT, which are no full
	// sockets (include/net/tcp_states.h). Sockets of UDP and raw ones are in
	// ESTABLISHED or CLOSE.
	inetStates = 1<<12 - 2 - 1<<3 - 1<<6
)

// diagDump is a list that sock_diag is asked for.
type diagDump struct {
	request kernelnet.Message
	// size is where the attributes of an answer begin; inode and cookie are
	// places before that.
	size, inode, cookie int
	// meminfo is the attribute that the drops are in.
	meminfo int
}

// inetDumps asks for the sockets of both versions of IP.
func inetDumps(proto uint8) []diagDump {
	var dumps []diagDump
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := kernelnet.InetDiag(family, proto, 1<<(kernelnet.InetMeminfo-1), inetStates, nil)
		dumps = append(dumps, diagDump{request, kernelnet.SizeofInetDiag, 68, 44, kernelnet.InetMeminfo})
	}
	return dumps
}

func packetDump() diagDump {
	return diagDump{kernelnet.PacketDiag(packetShowMeminfo), kernelnet.SizeofPacketDiag, 4, 8, kernelnet.PacketMeminfo}
}

func netlinkDump() diagDump {
	return diagDump{kernelnet.NetlinkDiag(netlinkShowMeminfo), kernelnet.SizeofNetlinkDiag, 16, 20, kernelnet.NetlinkMeminfo}
}

func unixDump() diagDump {
	return diagDump{kernelnet.UnixDiag(unixShowMeminfo), kernelnet.SizeofUnixDiag, 4, 8, kernelnet.UnixMeminfo}
}

// readDiag asks sock_diag for the sockets of a kind, whose modules must be
// there.
func (k socketKind) readDiag(t *tally, inUse map[string]uint64) error {
	for i, d := range k.dumps {
		if k.empty(i, len(k.dumps), inUse) {
			continue
		}
		// Not one of the answers is kept, and the tally knows what is there twice.
		err := kernelnet.DiagDump(d.request, func(m []byte) error {
			l, err := d.parse(m)
			if err == nil {
				t.add(l)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// parse reads an answer without its netlink header. What is no full socket has
// no memory and lost nothing.
func (d diagDump) parse(m []byte) (l loss, err error) {
	old := false
	err = kernelnet.Attributes(m, d.size, func(kind int, content []byte) {
		if kind != d.meminfo {
			return
		}
		var ok bool
		l.drops, ok = u32(content, 4*unix.SK_MEMINFO_DROPS)
		old = !ok
	})
	switch {
	case err != nil:
		return loss{}, fmt.Errorf("socket: %w", err)
	case old:
		return loss{}, kernelnet.ErrNoDiag
	}
	l.inode = binary.NativeEndian.Uint32(m[d.inode:])
	l.cookie = binary.NativeEndian.Uint64(m[d.cookie:])
	return l, nil
}
