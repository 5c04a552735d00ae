package fact

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// maxSockets is how many sockets an answer lists at most: those with most
// packets lost or waiting.
const maxSockets = 4096

// socket is what is known of one TCP or UDP socket.
type socket struct {
	local, peer netip.AddrPort
	state       uint8
	recvQ       uint32
	sendQ       uint32
	uid, inode  uint32
	// diag says that sock_diag told of it; hasMem and hasDrops that it also
	// told of buffers and drops.
	diag, hasMem, hasDrops      bool
	rcvbuf, sndbuf, wmem, drops uint32
}

// fields are those that every listed socket has.
func (s *socket) fields() fields {
	return fields{
		"addr": s.local.Addr().String(), "port": decimal(s.local.Port()), "recv_q": decimal(s.recvQ),
		"inode": decimal(s.inode), "uid": decimal(s.uid),
	}
}

// States of TCP (include/net/tcp_states.h), which UDP uses too.
const (
	tcpSynRecv    = 3
	tcpListen     = 10
	tcpNewSynRecv = 12
)

// stateNames are the names of the states that sockets are counted in.
var stateNames = []string{
	1: "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
	"close", "close-wait", "last-ack", "listen", "closing",
}

// allStates has a bit for each state, up to tcpNewSynRecv. Later ones are
// sockets that are bound and nothing else.
const allStates = 1<<(tcpNewSynRecv+1) - 2

// most keeps those of many that come first, in bounded memory.
type most[T any] struct {
	keep    int
	compare func(a, b T) int
	// list is sorted up to keep once it has been cut.
	list []T
	full bool
	// left is how many were left out.
	left int
}

// skips says whether as many as are kept come before v, and leaves it out.
func (m *most[T]) skips(v T) bool {
	if !m.full || m.compare(v, m.list[m.keep-1]) < 0 {
		return false
	}
	m.left++
	return true
}

// offer takes v unless it is skipped.
func (m *most[T]) offer(v T) {
	if m.skips(v) {
		return
	}
	m.list = append(m.list, v)
	if len(m.list) >= 2*m.keep {
		m.cut()
	}
}

// cut sorts what there is and leaves out what is too much.
func (m *most[T]) cut() []T {
	slices.SortStableFunc(m.list, m.compare)
	if over := len(m.list) - m.keep; over >= 0 {
		m.left += over
		m.full = m.keep > 0
		clear(m.list[m.keep:])
		m.list = m.list[:m.keep]
	}
	return m.list
}

// byWeight puts the sockets with the highest weight first.
func byWeight(keep int, weight func(*socket) uint64) *most[socket] {
	return &most[socket]{keep: keep, compare: func(a, b socket) int {
		return cmp.Or(cmp.Compare(weight(&b), weight(&a)), a.local.Compare(b.local))
	}}
}

// readListeners gives the listeners of TCP; the value is recv_q, how many
// connections wait to be accepted.
func readListeners(q *query) error {
	q.command = "ss -ltn"
	list := byWeight(maxSockets, func(s *socket) uint64 { return uint64(s.recvQ) })
	err := q.sockets(unix.IPPROTO_TCP, 1<<tcpListen, func(s *socket) {
		if s.state == tcpListen {
			list.offer(*s)
		}
	})
	if err != nil {
		return err
	}
	q.list(list, func(s *socket) {
		f := s.fields()
		if s.diag { // /proc/net/tcp does not tell the backlog
			f["backlog"] = decimal(s.sendQ)
		}
		q.add(s.local.String(), f["recv_q"], f)
	})
	return nil
}

// readUDP gives the UDP sockets; the value is how many datagrams they lost.
func readUDP(q *query) error {
	q.command = "ss -uanm"
	list := byWeight(maxSockets, func(s *socket) uint64 { return uint64(s.drops)<<32 + uint64(s.recvQ) })
	err := q.sockets(unix.IPPROTO_UDP, allStates, func(s *socket) { list.offer(*s) })
	if err != nil {
		return err
	}
	q.list(list, func(s *socket) {
		f := s.fields()
		if s.peer.Port() != 0 { // it is connected
			f["peer_addr"], f["peer_port"] = s.peer.Addr().String(), decimal(s.peer.Port())
		}
		f["wmem"] = decimal(s.sendQ)
		if s.hasDrops {
			f["drops"] = decimal(s.drops)
		}
		if s.hasMem {
			f["rcvbuf"], f["sndbuf"], f["wmem"] = decimal(s.rcvbuf), decimal(s.sndbuf), decimal(s.wmem)
		}
		q.add(s.local.String(), f["drops"], f)
	})
	return nil
}

// list adds the sockets and says how many are left out.
func (q *query) list(m *most[socket], add func(*socket)) {
	list := m.cut()
	for i := range list {
		add(&list[i])
	}
	q.leftOut(m.left)
}

func (q *query) leftOut(n int) {
	if n > 0 {
		q.missing(fmt.Sprintf("%d more sockets are left out", n))
	}
}

// readStates counts the TCP sockets in each state.
func readStates(q *query) error {
	q.command = "ss -tan"
	count := make([]uint64, len(stateNames))
	err := q.sockets(unix.IPPROTO_TCP, allStates, func(s *socket) {
		state := s.state
		if state == tcpNewSynRecv {
			state = tcpSynRecv
		}
		if int(state) < len(count) {
			count[state]++
		}
	})
	if err != nil {
		return err
	}
	for state, name := range stateNames {
		if name != "" {
			q.add(name, decimal(count[state]), nil)
		}
	}
	return nil
}

// sockets hands each IPv4 and IPv6 socket to each, over sock_diag where that
// is loaded, else from /proc/net.
func (q *query) sockets(proto uint8, states uint32, each func(*socket)) error {
	file, diag := "tcp", "tcp_diag"
	if proto == unix.IPPROTO_UDP {
		file, diag = "udp", "udp_diag"
	}
	// A question that the kernel cannot answer would have it load the module
	// (sock_load_diag_module of net/core/sock.c).
	if there, err := q.has("inet_diag", diag); err == nil && there {
		q.source = "SOCK_DIAG_BY_FAMILY"
		err := diagSockets(proto, states, each)
		if !errors.Is(err, kernelnet.ErrNoDiag) {
			return err
		}
	}
	q.source = "/proc/net/" + file + ", /proc/net/" + file + "6"
	return q.procSockets(file, each)
}
