package fact

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

const (
	// maxDetailed is how many sockets are told with all that is known of them.
	maxDetailed = 64
	// maxListing is how long the list of sockets may take that are told by
	// /proc/net: the time grows with the square of their number.
	maxListing = 2 * time.Second
)

// listed is a socket of a list as far as it must be known to choose.
type listed struct {
	inode uint32
	// waiting is what is in its queues, in the unit of its kind.
	waiting uint64
	drops   uint32
	// cookie is another number of it, 0 where it is not told.
	cookie uint64
	// raw is what the kernel said of it.
	raw []byte
}

// telling is a way to list the sockets of a protocol.
type telling struct {
	list func(each func(raw []byte) error) error
	// brief and detail read what list gives.
	brief  func(raw []byte) (listed, error)
	detail func(raw []byte) (name string, f fields, err error)
	// more asks for a chosen socket anew; nil where there is no more.
	more func(raw []byte) []byte
}

// sockProto is a protocol whose sockets can be listed.
type sockProto struct {
	name    string
	modules []string
	diag    telling
	// files and proc are the other way.
	files   []string
	proc    telling
	command string
}

func inetProto(name string, proto uint8, module, command string) sockProto {
	p := sockProto{
		name: name, modules: []string{"inet_diag", module}, command: command, files: []string{name, name + "6"},
		diag: telling{
			list: func(each func([]byte) error) error {
				return diagMessages(proto, allStates, lightExt|1<<(diagTOS-1)|1<<(diagTClass-1), each)
			},
			brief: briefInet, detail: inetDetail,
		},
		proc: telling{brief: briefLine, detail: lineDetail},
	}
	if proto == unix.IPPROTO_TCP {
		p.diag.more = withInfo
	}
	return p
}

func sockProtos() []sockProto {
	return []sockProto{
		inetProto("tcp", unix.IPPROTO_TCP, "tcp_diag", "ss -tanemi"),
		inetProto("udp", unix.IPPROTO_UDP, "udp_diag", "ss -uanem"),
		inetProto("udplite", unix.IPPROTO_UDPLITE, "udp_diag", "cat /proc/net/udplite /proc/net/udplite6"),
		inetProto("raw", unix.IPPROTO_RAW, "raw_diag", "ss -wanem"),
		{
			name: "unix", modules: []string{"unix_diag"}, command: "ss -xanem", files: []string{"unix"},
			diag: telling{list: dumpOf(kernelnet.UnixDiag(unixShow)), brief: briefUnix, detail: unixDetail},
			proc: telling{brief: briefUnixLine, detail: unixLineDetail},
		},
		{
			name: "packet", modules: []string{"af_packet_diag"}, command: "ss -0anem", files: []string{"packet"},
			diag: telling{list: dumpOf(kernelnet.PacketDiag(packetShow)), brief: briefPacket, detail: packetDetail},
			proc: telling{brief: briefPacketLine, detail: packetLineDetail},
		},
		{
			name: "netlink", modules: []string{"netlink_diag"}, command: "ss -f netlink -anem", files: []string{"netlink"},
			diag: telling{list: dumpOf(kernelnet.NetlinkDiag(netlinkShow)), brief: briefNetlink, detail: netlinkDetail},
			proc: telling{brief: briefNetlinkLine, detail: netlinkLineDetail},
		},
	}
}

func dumpOf(m message) func(func([]byte) error) error {
	return func(each func([]byte) error) error { return kernelnet.DiagDump(m, each) }
}

// checkSockets accepts a protocol, and the inode of a socket behind it.
func checkSockets(arg string) error {
	proto, inode, one := strings.Cut(arg, " ")
	if !slices.ContainsFunc(sockProtos(), func(p sockProto) bool { return p.name == proto }) {
		return fmt.Errorf("argument %q: no protocol whose sockets are listed", arg)
	}
	if n, err := strconv.ParseUint(inode, 10, 32); one && (err != nil || n == 0 || strconv.FormatUint(n, 10) != inode) {
		return fmt.Errorf("argument %q: %q is not the inode of a socket", arg, inode)
	}
	return nil
}

// readSockets gives the sockets of a protocol that have most waiting, or the
// one that is asked for, with all that the kernel tells of them. The value is
// what waits to be received.
func readSockets(q *query) error {
	name, arg, one := strings.Cut(q.arg, " ")
	protos := sockProtos()
	p := protos[slices.IndexFunc(protos, func(p sockProto) bool { return p.name == name })]
	inode, _ := strconv.ParseUint(arg, 10, 32) // checked before
	q.command = p.command
	if one {
		q.command += " | grep -w -A1 " + arg
	}
	m := &most[listed]{keep: maxDetailed, compare: func(a, b listed) int {
		return cmp.Or(cmp.Compare(b.waiting, a.waiting), cmp.Compare(b.drops, a.drops), cmp.Compare(a.inode, b.inode))
	}}
	t, err := q.tell(p, func(t telling, raw []byte) error {
		l, err := t.brief(raw)
		if errors.Is(err, errNoSocket) {
			return nil
		}
		if err == nil && (!one || uint64(l.inode) == inode) && !m.skips(l) {
			l.raw = bytes.Clone(raw) // what it is a part of is much larger
			m.offer(l)
		}
		return err
	})
	if err != nil {
		return err
	}
	// Of netlink a socket with groups is there twice (net/netlink/diag.c,
	// __netlink_diag_dump).
	seen := map[uint64]bool{}
	for _, l := range m.cut() {
		if l.cookie != 0 && seen[l.cookie] {
			continue
		}
		seen[l.cookie] = true
		if t.more != nil {
			l.raw = t.more(l.raw)
		}
		name, f, err := t.detail(l.raw)
		if err != nil {
			return err
		}
		q.add(name, f["recv_q"], f)
	}
	q.leftOut(m.left)
	return nil
}

// tell lists the sockets over sock_diag where that is loaded, else from
// /proc/net, and returns the way that it took.
func (q *query) tell(p sockProto, each func(t telling, raw []byte) error) (telling, error) {
	if there, err := q.has(p.modules...); err == nil && there {
		t := p.diag
		q.source = "SOCK_DIAG_BY_FAMILY"
		err := t.list(func(raw []byte) error { return each(t, raw) })
		if !errors.Is(err, kernelnet.ErrNoDiag) {
			return t, err
		}
	}
	t := p.proc
	q.source = "/proc/net/" + strings.Join(p.files, ", /proc/net/")
	return t, q.procLines(p.files, func(line []byte) error { return each(t, line) })
}

// briefInet reads what waits in the queues; the send queue of a listener is
// its backlog.
func briefInet(b []byte) (listed, error) {
	s, err := parseDiag(b)
	if err != nil {
		return listed{}, err
	}
	l := listed{inode: s.inode, waiting: uint64(s.recvQ), drops: s.drops, cookie: native.Uint64(b[diagID+40:])}
	if s.state != tcpListen {
		l.waiting += uint64(s.sendQ)
	}
	return l, nil
}
