//go:build root

package fact

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// openSocket opens a socket of the test.
func openSocket(t testing.TB, domain, typ, proto int) int {
	t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	mustTB(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func mustTB(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setOption(t testing.TB, fd, level, option, value int) {
	t.Helper()
	mustTB(t, unix.SetsockoptInt(fd, level, option, value))
}

var loopback = [4]byte{127, 0, 0, 1}

// serveTCP listens on a port of its own and returns where.
func serveTCP(t testing.TB, backlog int, before func(fd int)) (fd int, at unix.Sockaddr) {
	t.Helper()
	fd = openSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if before != nil {
		before(fd)
	}
	mustTB(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}))
	mustTB(t, unix.Listen(fd, backlog))
	at, err := unix.Getsockname(fd)
	mustTB(t, err)
	return fd, at
}

// connectTo begins a connection.
func connectTo(t testing.TB, at unix.Sockaddr, before func(fd int)) int {
	t.Helper()
	fd := openSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if before != nil {
		before(fd)
	}
	if err := unix.Connect(fd, at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	return fd
}

// acceptOne takes a connection that is there or comes soon.
func acceptOne(t *testing.T, fd int) int {
	t.Helper()
	var c int
	within(t, "a connection came", func() bool {
		var err error
		c, _, err = unix.Accept4(fd, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if !errors.Is(err, unix.EAGAIN) {
			must(t, err)
		}
		return err == nil
	})
	t.Cleanup(func() { unix.Close(c) })
	return c
}

// sendBytes sends n bytes from a to b, which reads them.
func sendBytes(t *testing.T, a, b, n int) {
	t.Helper()
	_, err := unix.Write(a, make([]byte, n))
	must(t, err)
	buf := make([]byte, n)
	within(t, "all bytes came", func() bool {
		k, err := unix.Read(b, buf)
		if !errors.Is(err, unix.EAGAIN) {
			must(t, err)
			n -= k
		}
		return n <= 0
	})
}

// tcpSockets are connections in many states.
func tcpSockets(t *testing.T, ns *netlab.Namespace) {
	must(t, ns.Sysctl("net.ipv4.tcp_ecn", "1"))
	full, at := serveTCP(t, 0, nil)
	_ = full
	for range 3 { // the last of them get no answer, and ask again
		connectTo(t, at, nil)
	}
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_available_congestion_control")
	must(t, err)
	for _, name := range strings.Fields(string(b)) {
		use := func(fd int) { must(t, unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)) }
		l, at := serveTCP(t, 8, use)
		c := connectTo(t, at, func(fd int) {
			use(fd)
			setOption(t, fd, unix.SOL_SOCKET, unix.SO_MARK, 77)
			must(t, unix.Fchown(fd, 1234, -1))
			setOption(t, fd, unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 1<<30)
			setOption(t, fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		})
		s := acceptOne(t, l)
		sendBytes(t, c, s, 5000)
		sendBytes(t, s, c, 700)
	}
	l, at := serveTCP(t, 8, func(fd int) { setOption(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) })
	c := connectTo(t, at, nil)
	s := acceptOne(t, l)
	for { // until neither end has room
		if _, err := unix.Write(c, make([]byte, 4096)); err != nil {
			break
		}
	}
	half := connectTo(t, at, nil)
	acceptOne(t, l)
	must(t, unix.Shutdown(half, unix.SHUT_WR))
	_ = s
	closed := connectTo(t, at, nil)
	unix.Close(acceptOne(t, l))
	unix.Close(closed)
	six := openSocket(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	setOption(t, six, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	must(t, unix.Bind(six, &unix.SockaddrInet6{}))
	must(t, unix.Listen(six, 1))
	reuse := func(fd int) { setOption(t, fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }
	_, at = serveTCP(t, 3, reuse)
	second := openSocket(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	reuse(second)
	must(t, unix.Bind(second, at))
	must(t, unix.Listen(second, 5))
}

// still runs do until nothing moved meanwhile, and returns what do gave: a
// connection whose peer has no room, or does not answer, asks again and again.
func still[T any](t *testing.T, proto string, do func() T) (got T) {
	t.Helper()
	state := func() string {
		var now strings.Builder
		for _, f := range facts(t, "sockets", proto) {
			now.WriteString(f.Name)
			for _, name := range []string{"cookie", "state", "recv_q", "send_q", "bytes_acked", "segs_in", "segs_out", "backoff", "ato", "timer", "timer_retrans", "retransmits", "drops", "rmem", "fwd_alloc", "wmem", "wmem_queued", "sk_backlog"} {
				now.WriteString(" " + f.Fields[name])
			}
		}
		return now.String()
	}
	before := state()
	within(t, "nothing moves for a moment", func() bool {
		got = do()
		after := state()
		same := before == after
		before = after
		return same
	})
	return got
}

// ssEnds is how ss shows the ends of a socket.
func ssEnds(f fields) (local, peer string) {
	show := func(addr, port string, any bool) string {
		if strings.Contains(addr, ":") {
			if addr == "::" && f["v6only"] != "1" {
				addr = "*"
			} else {
				addr = "[" + addr + "]"
			}
		}
		if any || port == "0" {
			port = "*"
		}
		return addr + ":" + port
	}
	addr, port := f["peer_addr"], f["peer_port"]
	if addr == "" {
		addr, port = "0.0.0.0", "0"
		if strings.Contains(f["addr"], ":") {
			addr = "::"
		}
	}
	return show(f["addr"], f["port"], false), show(addr, port, false)
}

var ssStates = map[string]string{
	"established": "ESTAB", "syn-sent": "SYN-SENT", "syn-recv": "SYN-RECV", "fin-wait-1": "FIN-WAIT-1", "fin-wait-2": "FIN-WAIT-2",
	"time-wait": "TIME-WAIT", "close": "UNCONN", "close-wait": "CLOSE-WAIT", "last-ack": "LAST-ACK", "listen": "LISTEN", "closing": "CLOSING",
}

// matchInet compares each socket of ss with the fact of the same cookie, or of
// the same ends where ss shows none, and each fact with a socket of ss.
func matchInet(t *testing.T, proto, flag string) map[string]bool {
	t.Helper()
	seen := map[string]bool{}
	type both struct {
		list []ssSocket
		got  []record.Fact
	}
	b := still(t, proto, func() both { return both{runSS(t, 5, flag), facts(t, "sockets", proto)} })
	list, got := b.list, b.got
	if len(list) != len(got) || len(got) < 2 {
		t.Fatalf("ss shows %d sockets, whydrop %d: %v %v", len(list), len(got), list, got)
	}
	for _, s := range list {
		i := slices.IndexFunc(got, func(f record.Fact) bool {
			local, peer := ssEnds(f.Fields)
			return s.columns[3] == local && s.columns[4] == peer && (s.values["sk"] == "" || s.values["sk"] == ssWords["sk"](f.Fields))
		})
		if i < 0 {
			t.Errorf("%v is not among %+v", s, got)
			continue
		}
		f := got[i].Fields
		send := f["send_q"] + f["backlog"]
		if d := gocmp.Diff(s.columns[:3], []string{ssStates[f["state"]], f["recv_q"], send}); d != "" || got[i].Value != f["recv_q"] {
			t.Errorf("%v: %s", s.columns, d)
		}
		compareSS(t, s, f, seen)
		// The same one, asked for alone.
		if f["inode"] != "0" {
			one := one(t, "sockets", proto+" "+f["inode"])
			if one.Name != got[i].Name || one.Fields["cookie"] != f["cookie"] {
				t.Errorf("inode %s: %+v", f["inode"], one)
			}
		}
	}
	return seen
}

// loadDiag has ss ask once, for which the kernel loads what it needs.
func loadDiag(t *testing.T) {
	t.Helper()
	for _, flag := range []string{"-t", "-u", "-w", "-x", "-0"} {
		runSS(t, 0, flag)
	}
	runSS(t, 0, "-f", "netlink")
}

func TestTCPMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		loadDiag(t)
		tcpSockets(t, ns)
		seen := matchInet(t, "tcp", "-t")
		ssComplete(t, seen, "ino", "sk", "uid", "fwmark", "shutdown", "skmem", "timer", "ts", "sack", "cubic", "wscale", "rto", "rtt",
			"mss", "cwnd", "bytes_sent", "bytes_acked", "bytes_received", "segs_out", "segs_in", "lastsnd", "pacing_rate", "delivered",
			"unacked", "notsent", "rcv_space", "minrtt", "busy", "v6only")
		compareProc(t, "tcp")
	})
}

func TestUDPMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		fd := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		setOption(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		setOption(t, fd, unix.SOL_SOCKET, unix.SO_MARK, 5)
		must(t, unix.Fchown(fd, 1234, -1))
		must(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback}))
		at, err := unix.Getsockname(fd)
		must(t, err)
		c := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		must(t, unix.Connect(c, at))
		for range 30 {
			_, err := unix.Write(c, make([]byte, 200))
			must(t, err)
		}
		six := openSocket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0)
		must(t, unix.Bind(six, &unix.SockaddrInet6{}))
		only := openSocket(t, unix.AF_INET6, unix.SOCK_DGRAM, 0)
		setOption(t, only, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
		must(t, unix.Bind(only, &unix.SockaddrInet6{}))
		seen := matchInet(t, "udp", "-u")
		ssComplete(t, seen, "ino", "sk", "uid", "fwmark", "shutdown", "skmem", "v6only")
		if f := facts(t, "sockets", "udp")[0]; numOf(f.Fields, "drops") == 0 || f.Value == "0" {
			t.Errorf("the one that waits and lost most is not the first: %+v", f)
		}
		compareProc(t, "udp")
	})
}

func TestRawMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		fd := openSocket(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_UDP)
		setOption(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		openSocket(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
		openSocket(t, unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6)
		sender := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		for range 30 {
			must(t, unix.Sendto(sender, make([]byte, 200), 0, &unix.SockaddrInet4{Addr: loopback, Port: 9}))
		}
		matchInet(t, "raw", "-w")
		if f := one(t, "sockets", "raw "+strconv.FormatUint(inodeOf(t, fd), 10)); numOf(f.Fields, "drops") == 0 {
			t.Errorf("it lost nothing: %+v", f)
		}
		compareProc(t, "raw")
	})
}
