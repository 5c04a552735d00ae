package counter

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// What single sockets lost (sk_drops of include/net/sock.h) is in no table of
// the kernel but with each socket: sock_diag tells it, and for some kinds a
// file of /proc/net. A packet socket counts there only what did not fit into
// its buffer; what did not fit into a ring (PACKET_RX_RING, which tcpdump
// uses) is in PACKET_STATISTICS alone, and whoever reads those sets them to 0
// for the program that owns the socket (net/packet/af_packet.c,
// packet_getsockopt), so they are never read. A unix socket counts only what
// a BPF program of a sockmap threw away (include/linux/skmsg.h, sock_drop).

// socketKind is a kind of sockets that count what they lose.
type socketKind struct {
	// table is the first part of the counter's name.
	table string
	// protocols are the kind's names in /proc/net/protocols; where there are as
	// many dumps or files as names, each is that of one.
	protocols []string
	// modules must be there before sock_diag is asked, or it would load them
	// (net/core/sock.c, sock_load_diag_module); dumps is what it is asked.
	modules []string
	dumps   []diagDump
	// files are those of /proc/net that tell the drops; none where the
	// kernel tells them by sock_diag alone.
	files []string
	// command shows all sockets of the kind, and what sock_diag tells of them.
	command string
}

// socketKinds are all of them. Their counters have the field drops.
func socketKinds() []socketKind {
	return []socketKind{
		{
			table: "tcp", protocols: []string{"TCP", "TCPv6"}, modules: []string{"inet_diag", "tcp_diag"},
			dumps: inetDumps(unix.IPPROTO_TCP), command: "ss -tanem",
		},
		{
			table: "udp", protocols: []string{"UDP", "UDPv6"}, modules: []string{"inet_diag", "udp_diag"},
			dumps: inetDumps(unix.IPPROTO_UDP), files: []string{"udp", "udp6"}, command: "ss -uanem",
		},
		{
			table: "udplite", protocols: []string{"UDP-Lite", "UDPLITEv6"}, modules: []string{"inet_diag", "udp_diag"},
			dumps: inetDumps(unix.IPPROTO_UDPLITE), files: []string{"udplite", "udplite6"},
		},
		{
			table: "raw", protocols: []string{"RAW", "RAWv6"}, modules: []string{"inet_diag", "raw_diag"},
			dumps: inetDumps(unix.IPPROTO_RAW), files: []string{"raw", "raw6"}, command: "ss -wanem",
		},
		// The kernel has no sock_diag of these (net/ipv4/ping.c).
		{table: "ping", protocols: []string{"PING", "PINGv6"}, files: []string{"icmp", "icmp6"}},
		{
			table: "netlink", protocols: []string{"NETLINK"}, modules: []string{"netlink_diag"},
			dumps: []diagDump{netlinkDump()}, files: []string{"netlink"}, command: "ss -f netlink -anem",
		},
		{
			table: "packet", protocols: []string{"PACKET"}, modules: []string{"af_packet_diag"},
			dumps: []diagDump{packetDump()}, command: "ss -0anem",
		},
		{
			table: "unix", protocols: []string{"UNIX", "UNIX-STREAM"}, modules: []string{"unix_diag"},
			dumps: []diagDump{unixDump()}, command: "ss -xanem",
		},
	}
}

const (
	// maxSockets is how many sockets of a kind have a counter of their own:
	// those that lost most.
	maxSockets = 4096
	// maxListed is how many sockets of a kind are read from /proc/net. The
	// kernel begins anew with each page of the list (net/ipv4/udp.c,
	// udp_get_idx), so the time grows with the square: 20,000 take 0.3 s on a
	// host where 100,000 take 9.5 s, and sock_diag 0.2 s.
	maxListed = 20_000
)

// socketName is the counter of a kind, and missingSockets how Missing names
// what is not known of it.
func socketName(table string) string     { return table + ".drops" }
func missingSockets(table string) string { return table + " sockets" }

// socketObject names a socket by the number that /proc/PID/fd shows.
func socketObject(inode uint32) string { return "socket " + strconv.FormatUint(uint64(inode), 10) }

// readSockets adds what the sockets of the namespace have lost: for each that
// lost something, and in total for each kind that can be read.
func (s *Snapshot) readSockets() { s.sockets(live.Has, thread) }

// sockets does it with what has says of modules, and the files below dir.
func (s *Snapshot) sockets(has func(...string) (bool, error), dir string) {
	inUse, err := readInUse(dir)
	if err != nil {
		s.miss("sockets", err)
		return
	}
	for _, k := range socketKinds() {
		n, listed := k.inUse(inUse)
		switch {
		case !listed:
			// The kernel was built without the protocol, or its module is not
			// loaded.
		case n == 0:
			s.addSockets(k, &tally{}, "/proc/net/protocols", "cat /proc/net/protocols")
		default:
			s.kind(k, inUse, has, dir)
		}
	}
}

// kind adds one kind of sockets, some of which are in use.
func (s *Snapshot) kind(k socketKind, inUse map[string]uint64, has func(...string) (bool, error), dir string) {
	n, _ := k.inUse(inUse)
	var t tally
	if len(k.dumps) > 0 {
		if ok, err := has(k.modules...); err == nil && ok {
			err := k.readDiag(&t, inUse)
			if err == nil {
				s.addSockets(k, &t, "sock_diag "+k.table, k.command)
				return
			}
			if !errors.Is(err, kernelnet.ErrNoDiag) {
				s.miss(missingSockets(k.table), err)
				return
			}
		}
	}
	switch {
	case k.table == "packet":
		s.unseenPackets(dir)
	case len(k.files) == 0:
		// TCP counts its losses for the namespace (TcpExt), unix sockets lose
		// next to nothing: that they are not told by socket is no gap.
	case n > maxListed:
		s.missFix(missingSockets(k.table), fmt.Errorf("more than %d sockets: without sock_diag the kernel needs seconds to list them", maxListed), k.fix())
	default:
		t = tally{}
		if err := k.readFiles(dir, &t, inUse); err != nil {
			s.miss(missingSockets(k.table), err)
			return
		}
		s.addSockets(k, &t, k.sources(), "cat "+k.sources())
	}
}

// sources are the files of a kind.
func (k socketKind) sources() string {
	text := ""
	for i, f := range k.files {
		if i > 0 {
			text += " "
		}
		text += "/proc/net/" + f
	}
	return text
}

// fix is the command that makes sock_diag tell of a kind.
func (k socketKind) fix() string {
	if len(k.modules) == 0 {
		return ""
	}
	return "modprobe " + k.modules[len(k.modules)-1]
}

// missFix is miss with what a person can do about it.
func (s *Snapshot) missFix(source string, err error, fix string) {
	s.Missing = append(s.Missing, record.Blind{What: blindTo(source), Why: err.Error(), Fix: fix})
}

func (s *Snapshot) addSockets(k socketKind, t *tally, source, command string) {
	if command == "" {
		command = "cat " + k.sources()
	}
	s.Values = append(s.Values, k.values(t, source, command)...)
	if t.left > 0 {
		s.miss(missingSockets(k.table), fmt.Errorf("more than %d of them lost something: those that lost less are in the total alone", maxSockets))
	}
}

// values makes the counters of a tally.
func (k socketKind) values(t *tally, source, command string) []Value {
	t.prune(maxSockets)
	slices.SortStableFunc(t.list, func(a, b loss) int { return cmp.Compare(a.inode, b.inode) })
	total := Value{Name: socketName(k.table), Value: t.rest, Source: source, Command: command}
	values := []Value{total}
	for i, l := range t.list {
		values[0].Value += l.drops
		if last := len(values) - 1; i > 0 && values[last].Object == socketObject(l.inode) {
			values[last].Value += l.drops
			continue
		}
		v := total
		v.Object, v.Value = socketObject(l.inode), l.drops
		v.Command = command + " | grep -w -A1 " + strconv.FormatUint(uint64(l.inode), 10)
		values = append(values, v)
	}
	return values
}

// loss is what one socket has lost.
type loss struct {
	inode uint32
	// cookie tells sockets with the same inode apart, as the parts of an MPTCP
	// connection are (net/mptcp/subflow.c, mptcp_subflow_create_socket); 0
	// where it is not told.
	cookie uint64
	drops  uint64
}

// tally collects the losses of a kind of sockets in bounded memory.
type tally struct {
	list []loss
	// rest is what was lost by sockets that are not in the list, left how many
	// those are.
	rest uint64
	left int
}

// add notes a socket. One that lost nothing needs no room, and one without an
// inode is held by no program any more: it will be gone soon, and its drops
// with it.
func (t *tally) add(l loss) {
	if l.drops == 0 || l.inode == 0 {
		return
	}
	t.list = append(t.list, l)
	if len(t.list) >= 2*maxSockets {
		t.prune(maxSockets)
	}
}

// prune joins what belongs to one inode and keeps the n that lost most. A list
// that changed while it was read may have had a socket twice.
func (t *tally) prune(n int) {
	slices.SortFunc(t.list, func(a, b loss) int {
		return cmp.Or(cmp.Compare(a.inode, b.inode), cmp.Compare(a.cookie, b.cookie), cmp.Compare(b.drops, a.drops))
	})
	t.list = slices.CompactFunc(t.list, func(a, b loss) bool { return a.inode == b.inode && a.cookie == b.cookie })
	if len(t.list) <= n {
		return
	}
	slices.SortStableFunc(t.list, func(a, b loss) int { return cmp.Compare(b.drops, a.drops) })
	for _, l := range t.list[n:] {
		t.rest += l.drops
		t.left++
	}
	t.list = t.list[:n]
}
