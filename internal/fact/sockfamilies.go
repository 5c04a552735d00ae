package fact

import (
	"encoding/binary"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// What sock_diag is asked for unix, packet and netlink sockets
// (include/uapi/linux/{unix,packet,netlink}_diag.h).
const (
	// unixShow is all but the inode of the file (UDIAG_SHOW_VFS), the pending
	// connections one by one (UDIAG_SHOW_ICONS), which rqlen counts, and what
	// came later.
	unixShow = 1<<0 | 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<6
	// packetShow leaves out the addresses of groups and the filter's code.
	packetShow  = 1<<0 | 1<<2 | 1<<3 | 1<<4
	netlinkShow = 1<<0 | 1<<1 | 1<<3
)

// socketTypes are the names of SOCK_*.
var socketTypes = []string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "dgram", unix.SOCK_RAW: "raw", unix.SOCK_SEQPACKET: "seqpacket", unix.SOCK_PACKET: "packet"}

// nameOf is the name of a number, or the number where it has none.
func nameOf(names []string, n int) string {
	if n >= 0 && n < len(names) && names[n] != "" {
		return names[n]
	}
	return strconv.Itoa(n)
}

// briefMemory finds what waits in the buffers of a socket, and its drops, by
// the attribute with SK_MEMINFO_*.
func briefMemory(b []byte, skip, memory int) (waiting uint64, drops uint32, err error) {
	err = kernelnet.Attributes(b, skip, func(t int, v []byte) {
		if t != memory {
			return
		}
		if len(v) >= 4*(unix.SK_MEMINFO_WMEM_ALLOC+1) {
			waiting = uint64(native.Uint32(v)) + uint64(native.Uint32(v[4*unix.SK_MEMINFO_WMEM_ALLOC:]))
		}
		if len(v) >= 4*(unix.SK_MEMINFO_DROPS+1) {
			drops = native.Uint32(v[4*unix.SK_MEMINFO_DROPS:])
		}
	})
	return waiting, drops, err
}

func briefUnix(b []byte) (l listed, err error) {
	if len(b) < kernelnet.SizeofUnixDiag {
		return l, kernelnet.ErrShort
	}
	l.inode, l.cookie = native.Uint32(b[4:]), native.Uint64(b[8:])
	_, l.drops, err = briefMemory(b, kernelnet.SizeofUnixDiag, kernelnet.UnixMeminfo)
	if err != nil {
		return l, err
	}
	err = kernelnet.Attributes(b, kernelnet.SizeofUnixDiag, func(t int, v []byte) {
		if t != 4 || len(v) != 8 { // UNIX_DIAG_RQLEN
			return
		}
		l.waiting = uint64(native.Uint32(v))
		if b[2] != tcpListen { // of a listener that is its backlog
			l.waiting += uint64(native.Uint32(v[4:]))
		}
	})
	return l, err
}

// unixDetail reads struct unix_diag_msg and its attributes. The queues of a
// listener are its waiting connections and its backlog, those of others bytes
// (net/unix/diag.c, sk_diag_show_rqlen).
func unixDetail(b []byte) (name string, f fields, err error) {
	if len(b) < kernelnet.SizeofUnixDiag {
		return "", nil, kernelnet.ErrShort
	}
	f = fields{
		"type": nameOf(socketTypes, int(b[1])), "state": nameOf(stateNames, int(b[2])),
		"inode": decimal(native.Uint32(b[4:])), "cookie": decimal(native.Uint64(b[8:])), "path": "",
	}
	err = kernelnet.Attributes(b, kernelnet.SizeofUnixDiag, func(t int, v []byte) {
		switch t {
		case 0: // UNIX_DIAG_NAME
			f["path"] = unixPath(v)
		case 1: // UNIX_DIAG_VFS
			if len(v) == 8 {
				dev := native.Uint32(v[4:]) // MKDEV of the kernel: 12 and 20 bits
				f["vfs_inode"], f["vfs_dev"] = decimal(native.Uint32(v)), decimal(dev>>20)+":"+decimal(dev&(1<<20-1))
			}
		case 2:
			put32(f, "peer", v)
		case 3: // UNIX_DIAG_ICONS: the inodes of connections that wait
			f["pending"] = decimal(len(v) / 4)
		case 4: // UNIX_DIAG_RQLEN
			if len(v) != 8 {
				return
			}
			f["recv_q"] = decimal(native.Uint32(v))
			send := "send_q"
			if b[2] == tcpListen {
				send = "backlog"
			}
			f[send] = decimal(native.Uint32(v[4:]))
		case 5:
			putMemory(f, v)
		case 6:
			if len(v) == 1 {
				f["shutdown"] = decimal(v[0])
			}
		case 7: // since 5.3
			put32(f, "uid", v)
		}
	})
	return unixName(f), f, err
}

// unixPath is a name; the zeros of an abstract one are shown as @.
func unixPath(b []byte) string {
	if len(b) > 0 && b[0] == 0 {
		return strings.ReplaceAll(string(b), "\x00", "@")
	}
	return text(b)
}

func unixName(f fields) string {
	if f["path"] != "" {
		return f["path"]
	}
	return "unnamed"
}

func briefPacket(b []byte) (l listed, err error) {
	if len(b) < kernelnet.SizeofPacketDiag {
		return l, kernelnet.ErrShort
	}
	l.inode, l.cookie = native.Uint32(b[4:]), native.Uint64(b[8:])
	l.waiting, l.drops, err = briefMemory(b, kernelnet.SizeofPacketDiag, kernelnet.PacketMeminfo)
	return l, err
}

// packetFlags are the bits of pdi_flags, the first of which is a field of its
// own: whether the socket receives.
var packetFlags = []string{"running", "auxdata", "origdev", "vnethdr", "loss"}

// packetDetail reads struct packet_diag_msg and its attributes.
func packetDetail(b []byte) (name string, f fields, err error) {
	if len(b) < kernelnet.SizeofPacketDiag {
		return "", nil, kernelnet.ErrShort
	}
	// packet_diag.c hands on the protocol in the order of the host.
	f = fields{
		"type": nameOf(socketTypes, int(b[1])), "protocol": decimal(native.Uint16(b[2:])),
		"inode": decimal(native.Uint32(b[4:])), "cookie": decimal(native.Uint64(b[8:])),
	}
	err = kernelnet.Attributes(b, kernelnet.SizeofPacketDiag, func(t int, v []byte) {
		switch t {
		case 0: // PACKET_DIAG_INFO
			membersOf(4, 0, "ifindex", "version", "reserve", "copy_thresh", "tstamp").read(f, v)
			if len(v) >= 24 {
				flags := native.Uint32(v[20:])
				f["running"], f["flags"] = decimal(flags&1), flagNames(flags&^1, packetFlags)
			}
		case 2:
			putRing(f, "rx_ring_", v)
		case 3:
			putRing(f, "tx_ring_", v)
		case 4: // PACKET_DIAG_FANOUT
			if n, ok := u32(v); ok {
				f["fanout_id"], f["fanout_type"] = decimal(n&0xffff), decimal(n>>16)
			}
		case 5:
			put32(f, "uid", v)
		case 6:
			putMemory(f, v)
			f["recv_q"], f["send_q"] = f["rmem"], f["wmem"]
		}
	})
	return packetName(f), f, err
}

// putRing adds struct packet_diag_ring. Losses of a ring are not among the
// drops of its socket.
func putRing(f fields, prefix string, b []byte) {
	membersOf(4, 0, prefix+"block_size", prefix+"block_nr", prefix+"frame_size", prefix+"frame_nr",
		prefix+"retire_tmo", prefix+"sizeof_priv", prefix+"features").read(f, b)
}

func packetName(f fields) string {
	n, _ := strconv.ParseUint(f["protocol"], 10, 16)
	return "0x" + strconv.FormatUint(n|1<<16, 16)[1:] + " on device " + f["ifindex"]
}

func briefNetlink(b []byte) (l listed, err error) {
	if len(b) < kernelnet.SizeofNetlinkDiag {
		return l, kernelnet.ErrShort
	}
	l.inode, l.cookie = native.Uint32(b[16:]), native.Uint64(b[20:])
	l.waiting, l.drops, err = briefMemory(b, kernelnet.SizeofNetlinkDiag, kernelnet.NetlinkMeminfo)
	return l, err
}

// netlinkProtocols are the names of NETLINK_* (include/uapi/linux/netlink.h).
var netlinkProtocols = []string{
	"route", "unused", "usersock", "firewall", "sock_diag", "nflog", "xfrm", "selinux", "iscsi", "audit",
	"fib_lookup", "connector", "netfilter", "ip6_fw", "dnrtmsg", "kobject_uevent", "generic", "", "scsitransport",
	"ecryptfs", "rdma", "crypto", "smc",
}

// netlinkFlags are the bits of NDIAG_FLAG_*.
var netlinkFlags = []string{"cb_running", "pktinfo", "broadcast_error", "no_enobufs", "listen_all_nsid", "cap_ack", "ext_ack", "strict_chk"}

// netlinkDetail reads struct netlink_diag_msg and its attributes.
func netlinkDetail(b []byte) (name string, f fields, err error) {
	if len(b) < kernelnet.SizeofNetlinkDiag {
		return "", nil, kernelnet.ErrShort
	}
	f = fields{
		"protocol": decimal(b[2]), "portid": decimal(native.Uint32(b[4:])), "inode": decimal(native.Uint32(b[16:])),
		"cookie": decimal(native.Uint64(b[20:])), "groups": "",
	}
	if b[3] == 1 { // NETLINK_CONNECTED
		f["dst_portid"], f["dst_group"] = decimal(native.Uint32(b[8:])), decimal(native.Uint32(b[12:]))
	}
	err = kernelnet.Attributes(b, kernelnet.SizeofNetlinkDiag, func(t int, v []byte) {
		switch t {
		case 0:
			putMemory(f, v)
			f["recv_q"], f["send_q"] = f["rmem"], f["wmem"]
		case 1:
			f["groups"] = bitNumbers(v)
		case 4:
			if n, ok := u32(v); ok {
				f["flags"] = flagNames(n, netlinkFlags)
			}
		}
	})
	return netlinkName(f), f, err
}

// bitNumbers are the bits that are set, counted from 1, by spaces: the groups
// of a netlink socket, which the kernel keeps in an array of long.
func bitNumbers(b []byte) string {
	var set []string
	for i := 0; i+8 <= len(b); i += 8 {
		word := binary.NativeEndian.Uint64(b[i:])
		for bit := range 64 {
			if word>>bit&1 == 1 {
				set = append(set, strconv.Itoa(i*8+bit+1))
			}
		}
	}
	return strings.Join(set, " ")
}

func netlinkName(f fields) string {
	n, _ := strconv.Atoi(f["protocol"])
	return nameOf(netlinkProtocols, n) + " " + f["portid"]
}
