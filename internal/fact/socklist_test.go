package fact

import (
	"maps"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// memory are the nine numbers of SK_MEMINFO_*: first, first+1 …
func memoryNumbers(first uint32) (m message) {
	for i := range uint32(9) {
		m = m.U32(first + i)
	}
	return m
}

var wantMemory = fields{
	"rmem": "100", "rcvbuf": "101", "wmem": "102", "sndbuf": "103", "fwd_alloc": "104", "wmem_queued": "105", "optmem": "106", "sk_backlog": "107", "drops": "108",
}

// withMemory is wantMemory and more.
func withMemory(more fields) fields {
	f := maps.Clone(wantMemory)
	maps.Copy(f, more)
	return f
}

// tcpMessage is a TCP socket with every attribute.
func tcpMessage() message {
	m := message{}.U8(unix.AF_INET, 1, 1, 3, 0, 80, 0x1f, 0x90)
	m = append(m, []byte{192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}...)
	m = m.U32(4).U32(17).U32(1)                      // device, cookie
	m = m.U32(612).U32(5).U32(6).U32(1000).U32(4242) // timer, queues, user, inode
	info := make(message, 0, 280).U8(1, 4, 2, 0, 1, 2|8|64, 0x97, 0x05)
	for i := range uint32(24) {
		info = info.U32(1000 + i)
	}
	for i := range uint32(4) {
		info = info.U32(2000 + i).U32(1)
	}
	return m.Attr(kernelnet.InetMeminfo, memoryNumbers(100)).Attr(diagInfo, info[:136]).
		Attr(diagCong, []byte("cubic\x00")).Attr(diagTOS, []byte{16}).Attr(diagShutdown, []byte{2}).Attr(diagMark, num(77)).
		Attr(diagClassID, num(3)).Attr(diagCgroupID, message{}.U32(9).U32(0)).Attr(diagSockopt, []byte{0x12, 4}).
		Attr(diagULP|unix.NLA_F_NESTED, message{}.Text(ulpName, "tls")).
		Attr(diagBBR, message{}.U32(1).U32(1).U32(250).U32(739).U32(512)).Attr(18, []byte("secret!!"))
}

func TestInetDetail(t *testing.T) {
	name, f, err := inetDetail(tcpMessage())
	if err != nil || name != "192.0.2.1:80 192.0.2.9:8080" {
		t.Fatalf("%s, %v", name, err)
	}
	for key, want := range withMemory(fields{
		"state": "established", "addr": "192.0.2.1", "port": "80", "peer_addr": "192.0.2.9", "peer_port": "8080",
		"recv_q": "5", "send_q": "6", "uid": "1000", "inode": "4242", "cookie": "4294967313", "ifindex": "4",
		"timer": "on", "timer_ms": "612", "timer_retrans": "3", "ca_state": "4", "retransmits": "2", "backoff": "1",
		"options": "sack ecn usec_ts", "snd_wscale": "7", "rcv_wscale": "9", "delivery_rate_app_limited": "1", "fastopen_client_fail": "2",
		"rto": "1000", "rtt": "1015", "total_retrans": "1023", "pacing_rate": "4294969296", "bytes_received": "4294969299",
		"congestion": "cubic", "tos": "16", "shutdown": "2", "mark": "77", "class_id": "3", "cgroup_id": "9", "sockopt": "is_icsk mc_loop defer_connect",
		"ulp": "tls", "bbr_bw": "4294967297", "bbr_min_rtt": "250", "bbr_pacing_gain": "739", "bbr_cwnd_gain": "512",
	}) {
		if f[key] != want {
			t.Errorf("%s is %q, want %q", key, f[key], want)
		}
	}
	for key, v := range f {
		if key == "segs_out" || strings.Contains(v, "secret") { // behind the end; a key of a signature
			t.Errorf("%s: %s", key, v)
		}
	}
	_, f, err = inetDetail(diagMessage(unix.AF_INET6, 9))
	if err != nil || f["backlog"] != "128" || f["send_q"] != "" || f["peer_addr"] != "" || f["ifindex"] != "" || f["timer"] != "" {
		t.Errorf("listener: %v, %v", f, err)
	}
}

func unixMessage() message {
	return message{}.U8(unix.AF_UNIX, unix.SOCK_STREAM, tcpListen, 0).U32(4242).U32(17).U32(1).
		Attr(0, []byte("\x00a\x00b")).Attr(1, message{}.U32(99).U32(8<<20|1)).Attr(2, num(4243)).Attr(3, message{}.U32(1).U32(2)).
		Attr(4, message{}.U32(2).U32(128)).Attr(5, memoryNumbers(100)).Attr(6, []byte{1}).Attr(7, num(1000))
}

func packetMessage() message {
	return message{}.U8(unix.AF_PACKET, unix.SOCK_RAW).U16(3).U32(4242).U32(17).U32(1).
		Attr(0, message{}.U32(2).U32(1).U32(0).U32(64).U32(0).U32(0b10011)).
		Attr(2, message{}.U32(4096).U32(1).U32(2048).U32(2).U32(10).U32(0).U32(0)).
		Attr(4, num(7|1<<16)).Attr(5, num(1000)).Attr(6, memoryNumbers(100))
}

func netlinkMessage() message {
	return message{}.U8(unix.AF_NETLINK, unix.SOCK_RAW, 0, 1).U32(4195).U32(5).U32(6).U32(4242).U32(17).U32(1).
		Attr(0, memoryNumbers(100)).Attr(1, message{}.U32(0x41).U32(1)).Attr(4, num(0b1001))
}

func TestDetails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		read  func([]byte) (string, fields, error)
		brief func([]byte) (listed, error)
		m     []byte
		want  fields
		first listed
	}{
		{"@a@b", unixDetail, briefUnix, unixMessage(), withMemory(fields{
			"type": "stream", "state": "listen", "inode": "4242", "cookie": "4294967313", "path": "@a@b", "vfs_inode": "99", "vfs_dev": "8:1",
			"peer": "4243", "pending": "2", "recv_q": "2", "backlog": "128", "shutdown": "1", "uid": "1000",
		}), listed{inode: 4242, waiting: 2, drops: 108, cookie: 4294967313}},
		{"0x0003 on device 2", packetDetail, briefPacket, packetMessage(), withMemory(fields{
			"type": "raw", "protocol": "3", "inode": "4242", "cookie": "4294967313", "ifindex": "2", "version": "1", "reserve": "0",
			"copy_thresh": "64", "tstamp": "0", "running": "1", "flags": "auxdata loss", "rx_ring_block_size": "4096", "rx_ring_block_nr": "1",
			"rx_ring_frame_size": "2048", "rx_ring_frame_nr": "2", "rx_ring_retire_tmo": "10", "rx_ring_sizeof_priv": "0", "rx_ring_features": "0",
			"fanout_id": "7", "fanout_type": "1", "uid": "1000", "recv_q": "100", "send_q": "102",
		}), listed{inode: 4242, waiting: 202, drops: 108, cookie: 4294967313}},
		{"route 4195", netlinkDetail, briefNetlink, netlinkMessage(), withMemory(fields{
			"protocol": "0", "portid": "4195", "inode": "4242", "cookie": "4294967313", "groups": "1 7 33", "dst_portid": "5", "dst_group": "6",
			"flags": "cb_running no_enobufs", "recv_q": "100", "send_q": "102",
		}), listed{inode: 4242, waiting: 202, drops: 108, cookie: 4294967313}},
		{
			"unnamed", unixLine, briefUnixLine, []byte("0000000000000000: 00000002 00000000 00010000 0001 01  1047"),
			fields{"type": "stream", "state": "listen", "inode": "1047", "path": ""},
			listed{inode: 1047},
		},
		{
			"/run/a b", unixLine, briefUnixLine, []byte("0000000000000000: 00000003 00000000 00000000 0002 03 1048 /run/a b"),
			fields{"type": "dgram", "state": "established", "inode": "1048", "path": "/run/a b"},
			listed{inode: 1048},
		},
		{
			"0x0003 on device 0", packetLineDetail, briefPacketLine, []byte("00000000746fd5a9 3      3    0003   0     1 5120   12     7220962"),
			fields{"type": "raw", "protocol": "3", "ifindex": "0", "running": "1", "rmem": "5120", "recv_q": "5120", "uid": "12", "inode": "7220962"},
			listed{inode: 7220962, waiting: 5120},
		},
		{
			"route 19649", netlinkLineDetail, briefNetlinkLine, []byte("0000000067e4c0c9 0   19649      0000ffff 4160     7        0     2        35       7220964 "),
			fields{
				"protocol": "0", "portid": "19649", "groups": "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "rmem": "4160", "recv_q": "4160",
				"wmem": "7", "send_q": "7", "drops": "35", "inode": "7220964",
			},
			listed{inode: 7220964, waiting: 4167, drops: 35},
		},
		{
			"127.0.0.1:53", lineDetail, briefLine, []byte(strings.Split(procUDP, "\n")[1]),
			fields{"addr": "127.0.0.1", "port": "53", "state": "close", "recv_q": "255", "send_q": "16", "uid": "101", "inode": "23456", "drops": "17"},
			listed{inode: 23456, waiting: 271, drops: 17},
		},
	} {
		name, f, err := tt.read(tt.m)
		if d := gocmp.Diff(tt.want, f); d != "" || err != nil || name != tt.name {
			t.Errorf("%s: %q, %v: %s", tt.name, name, err, d)
		}
		l, err := tt.brief(tt.m)
		if d := gocmp.Diff(tt.first, l, gocmp.AllowUnexported(listed{})); d != "" || err != nil {
			t.Errorf("%s: %v: %s", tt.name, err, d)
		}
	}
}

func unixLine(b []byte) (string, fields, error) { return unixLineDetail(b) }

// TestSocketsFromFiles reads what a kernel without sock_diag tells.
func TestSocketsFromFiles(t *testing.T) {
	const modules = "proc/modules"
	r := tree(t, map[string]string{
		modules: "", "proc/self/": "", "proc/sys/kernel/modules_disabled": "0\n",
		"proc/thread-self/net/udp":  procUDP,
		"proc/thread-self/net/unix": "Num       RefCount Protocol Flags    Type St Inode Path\n0000000000000000: 00000002 00000000 00010000 0001 01 7 /a\nb is a part of that name\n",
	})
	read := func(arg string) []record.Fact { return r.Read(record.FactRequest{Kind: "sockets", Arg: arg}, ns) }
	got := read("udp")
	if len(got) != 1 || got[0].Name != "127.0.0.1:53" || got[0].Value != "255" || got[0].Fields["drops"] != "17" || got[0].Source != "/proc/net/udp, /proc/net/udp6" {
		t.Errorf("udp: %+v", got)
	}
	if got := read("unix"); len(got) != 1 || got[0].Name != "/a" || got[0].Fields["inode"] != "7" {
		t.Errorf("unix: %+v", got)
	}
	if got := read("udp 23456"); len(got) != 1 || got[0].Fields["inode"] != "23456" || got[0].Command != "ss -uanem | grep -w -A1 23456" {
		t.Errorf("one: %+v", got)
	}
	if got := read("udp 4"); len(got) != 1 || got[0].Value != None {
		t.Errorf("another: %+v", got)
	}
	if got := read("tcp"); len(got) != 1 || got[0].Missing == "" {
		t.Errorf("no file: %+v", got)
	}
}

func TestCheckSockets(t *testing.T) {
	for _, arg := range []string{"tcp", "udp", "udplite 7", "raw", "unix 4294967295", "packet", "netlink"} {
		if err := checkSockets(arg); err != nil {
			t.Errorf("%q: %v", arg, err)
		}
	}
	for _, arg := range []string{"", "sctp", "tcp ", "tcp 0", "tcp x", "tcp 07", "tcp 4294967296", "tcp 1 2", " tcp", "tcp;id"} {
		if err := checkSockets(arg); err == nil {
			t.Errorf("%q was accepted", arg)
		}
	}
}

// sockDetails are all that read what the kernel says of a socket.
var sockDetails = []struct {
	brief  func([]byte) (listed, error)
	detail func([]byte) (string, fields, error)
	seed   []byte
}{
	{briefInet, inetDetail, tcpMessage()},
	{briefUnix, unixDetail, unixMessage()},
	{briefPacket, packetDetail, packetMessage()},
	{briefNetlink, netlinkDetail, netlinkMessage()},
	{briefLine, lineDetail, []byte(procTCP6[strings.IndexByte(procTCP6, '\n')+1:])},
	{briefUnixLine, unixLineDetail, []byte("0: 00000003 00000000 00000000 0002 03 1048 /run/a b")},
	{briefPacketLine, packetLineDetail, []byte("0 3      3    0003   0     1 5120   12     7220962")},
	{briefNetlinkLine, netlinkLineDetail, []byte("0 0   19649      0000ffff 4160     7        0     2        35       7220964 ")},
}

func TestDetailsCutOff(t *testing.T) {
	for i, d := range sockDetails {
		if _, _, err := d.detail(d.seed[:len(d.seed)-1]); err == nil && i < 4 {
			t.Errorf("%d: what is too short was accepted", i)
		}
		if _, _, err := d.detail(nil); err == nil {
			t.Errorf("%d: nothing was accepted", i)
		}
		for n := range d.seed {
			_, _ = d.brief(d.seed[:n:n])
			_, _, _ = d.detail(d.seed[:n:n])
		}
	}
}

func FuzzSockets(f *testing.F) {
	for i, d := range sockDetails {
		f.Add(uint8(i), d.seed)
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		d := sockDetails[int(i)%len(sockDetails)]
		b = slices.Clip(b)
		l, berr := d.brief(b)
		_, got, err := d.detail(b)
		if err != nil || berr != nil {
			return
		}
		if decimal(l.inode) != got["inode"] && int(i)%len(sockDetails) < 4 {
			t.Errorf("inode %d and %s", l.inode, got["inode"])
		}
	})
}

// BenchmarkSockets100000 chooses from that many sockets.
func BenchmarkSockets100000(b *testing.B) {
	const n = 100_000
	m := diagMessage(unix.AF_INET, 9)
	b.ReportAllocs()
	for b.Loop() {
		top := &most[listed]{keep: maxDetailed, compare: func(a, b listed) int { return int(b.waiting) - int(a.waiting) }}
		for i := range uint32(n) {
			native.PutUint32(m[56:], i*7919%n)
			l, err := briefInet(m)
			if err != nil {
				b.Fatal(err)
			}
			if !top.skips(l) {
				l.raw = slices.Clone(m)
				top.offer(l)
			}
		}
		if list := top.cut(); len(list) != maxDetailed || list[0].waiting != n-1 || top.left != n-maxDetailed {
			b.Fatalf("%d, %d left", len(list), top.left)
		}
	}
}
