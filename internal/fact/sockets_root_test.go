//go:build root

package fact

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// send sends datagrams from a socket of its own.
func send(t *testing.T, to string, n int) {
	t.Helper()
	conn, err := net.Dial("udp", to)
	must(t, err)
	defer conn.Close()
	for range n {
		// Nobody may listen there: an error then comes with the next one.
		if _, err := conn.Write([]byte("datagram")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
	}
}

// listen opens a listener with room for few connections.
func listen(t *testing.T, backlog int) (port int, inode uint64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(t, unix.Listen(fd, backlog))
	return portOf(t, fd), inodeOf(t, fd)
}

func portOf(t *testing.T, fd int) int {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	must(t, err)
	return sa.(*unix.SockaddrInet4).Port
}

func inodeOf(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	return st.Ino
}

// diag says whether the kernel tells of sockets without loading a module.
func diag(t *testing.T, name string) bool {
	t.Helper()
	there, err := (&Reader{}).has("inet_diag", name)
	return there && err == nil
}

func TestListeners(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		if f := one(t, "tcp-listeners", ""); f.Value != None {
			t.Errorf("at first: %+v", f)
		}
		port, inode := listen(t, 3)
		idle, _ := listen(t, 9)
		addr := "127.0.0.1:" + strconv.Itoa(port)
		for range 2 { // nobody accepts them
			conn, err := net.Dial("tcp", addr)
			must(t, err)
			defer conn.Close()
		}
		want := map[string]string{"addr": "127.0.0.1", "port": strconv.Itoa(port), "recv_q": "2", "backlog": "3", "inode": strconv.FormatUint(inode, 10), "uid": "0"}
		if !diag(t, "tcp_diag") {
			delete(want, "backlog")
		}
		within(t, "both connections wait", func() bool { return named(t, facts(t, "tcp-listeners", ""), addr).Value == "2" })
		got := facts(t, "tcp-listeners", "")
		if d := gocmp.Diff(want, got[0].Fields); d != "" || got[0].Name != addr { // the fullest comes first
			t.Errorf("%+v: %s", got[0], d)
		}
		if named(t, got, "127.0.0.1:"+strconv.Itoa(idle)); len(got) != 2 {
			t.Errorf("got %+v", got)
		}
	})
}

// Both ways of reading sockets see the same ones.
func TestBothWaysAgree(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		port, _ := listen(t, 3)
		conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		must(t, err)
		defer conn.Close()
		for _, network := range []string{"udp4", "udp6"} {
			c, err := net.ListenPacket(network, ":0")
			if errors.Is(err, unix.EAFNOSUPPORT) {
				continue // a kernel without IPv6
			}
			must(t, err)
			defer c.Close()
		}
		for name, proto := range map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP} {
			var fromDiag, fromProc []string
			line := func(s *socket) string {
				return strings.Join([]string{s.local.String(), decimal(s.state), decimal(s.recvQ), decimal(s.uid), decimal(s.inode)}, " ")
			}
			err := diagSockets(proto, allStates, func(s *socket) { fromDiag = append(fromDiag, line(s)) })
			must(t, err)
			must(t, (&Reader{}).procSockets(name, func(s *socket) { fromProc = append(fromProc, line(s)) }))
			slices.Sort(fromDiag)
			slices.Sort(fromProc)
			if d := gocmp.Diff(fromDiag, fromProc); d != "" || len(fromProc) < 1 {
				t.Errorf("%s: %s", name, d)
			}
		}
	})
}

func TestUDPSockets(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		if f := one(t, "udp-sockets", ""); f.Value != None {
			t.Errorf("at first: %+v", f)
		}
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(t, err)
		defer conn.Close()
		quiet, err := net.ListenUDP("udp4", nil)
		must(t, err)
		defer quiet.Close()
		must(t, conn.SetReadBuffer(4000))
		raw, err := conn.SyscallConn()
		must(t, err)
		var rcvbuf, sndbuf int
		var inode uint64
		must(t, raw.Control(func(fd uintptr) {
			rcvbuf, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
			must(t, err)
			sndbuf, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
			must(t, err)
			inode = inodeOf(t, int(fd))
		}))
		const sent = 100
		send(t, conn.LocalAddr().String(), sent)
		got := facts(t, "udp-sockets", "")
		f := got[0] // most drops come first
		received := 0
		must(t, raw.Read(func(fd uintptr) bool {
			for buf := make([]byte, 100); ; received++ {
				if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
					return true
				}
			}
		}))
		if received == 0 || received == sent {
			t.Fatalf("%d of %d datagrams received", received, sent)
		}
		want := map[string]string{
			"addr": "127.0.0.1", "port": strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port), "drops": strconv.Itoa(sent - received),
			"inode": strconv.FormatUint(inode, 10), "uid": "0", "rcvbuf": strconv.Itoa(rcvbuf), "sndbuf": strconv.Itoa(sndbuf), "wmem": "0",
		}
		if !diag(t, "udp_diag") {
			delete(want, "rcvbuf")
			delete(want, "sndbuf")
		}
		recvQ, err := strconv.Atoi(f.Fields["recv_q"])
		if err != nil || recvQ <= 0 {
			t.Errorf("recv_q: %+v", f)
		}
		delete(f.Fields, "recv_q")
		if d := gocmp.Diff(want, f.Fields); d != "" || f.Name != conn.LocalAddr().String() || f.Value != want["drops"] {
			t.Errorf("%+v: %s", f, d)
		}
		q := named(t, got, "0.0.0.0:"+strconv.Itoa(quiet.LocalAddr().(*net.UDPAddr).Port))
		if q.Value != "0" || q.Fields["recv_q"] != "0" || len(got) != 2 {
			t.Errorf("%+v of %d", q, len(got))
		}
		if f := named(t, facts(t, "udp-sockets", ""), conn.LocalAddr().String()); f.Fields["recv_q"] != "0" {
			t.Errorf("read empty: %+v", f)
		}
	})
}

func TestStates(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		states := func() map[string]string {
			got := map[string]string{}
			for _, f := range facts(t, "tcp-states", "") {
				if f.Value != "0" {
					got[f.Name] = f.Value
				}
			}
			return got
		}
		if got := states(); len(got) != 0 {
			t.Errorf("at first: %v", got)
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		connect := func() (client, server net.Conn) {
			client, err := net.Dial("tcp4", l.Addr().String())
			must(t, err)
			server, err = l.Accept()
			must(t, err)
			return client, server
		}
		a, b := connect()
		defer a.Close()
		defer b.Close()
		if d := gocmp.Diff(map[string]string{"listen": "1", "established": "2"}, states()); d != "" {
			t.Error(d)
		}
		c, d := connect()
		must(t, c.Close())
		within(t, "one end waits for the other", func() bool { s := states(); return s["fin-wait-2"] == "1" && s["close-wait"] == "1" })
		must(t, d.Close())
		within(t, "the first to close waits", func() bool { s := states(); return s["time-wait"] == "1" && s["established"] == "2" })
	})
}

func TestSockstatCounts(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		before := named(t, facts(t, "sockstat", ""), "UDP.inuse").Value
		for range 3 {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			must(t, err)
			defer c.Close()
		}
		if after := named(t, facts(t, "sockstat", ""), "UDP.inuse").Value; before != "0" || after != "3" {
			t.Errorf("%s, then %s sockets", before, after)
		}
	})
}
