package counter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// The samples in testdata/sockets are one namespace of 6.18, in which a socket
// of each kind had a small buffer and nobody read it.

func kindNamed(t testing.TB, table string) socketKind {
	t.Helper()
	for _, k := range socketKinds() {
		if k.table == table {
			return k
		}
	}
	t.Fatalf("no kind %s", table)
	return socketKind{}
}

// losses are the parts of a kind by their objects, and the total under "".
func losses(t testing.TB, values []Value, table string) map[string]uint64 {
	t.Helper()
	got := map[string]uint64{}
	for _, v := range values {
		if v.Name != table+".drops" {
			continue
		}
		if _, twice := got[v.Object]; twice {
			t.Errorf("%s %q is there twice", v.Name, v.Object)
		}
		if v.Level || v.Device != (record.Device{}) || v.Source == "" || v.Command == "" {
			t.Errorf("%+v", v)
		}
		got[v.Object] = v.Value
	}
	return got
}

func TestSocketSamples(t *testing.T) {
	for _, tt := range []struct {
		table string
		diag  string
		files []string
		want  map[string]uint64
	}{
		{"udp", "udp-6.18.hex", []string{"udp-6.18", "udp6-6.18"}, map[string]uint64{"": 44, "socket 7220957": 27, "socket 7220959": 17}},
		{"udplite", "udplite-6.18.hex", []string{"udplite-6.18"}, map[string]uint64{"": 7, "socket 7220960": 7}},
		{"raw", "", []string{"raw-6.18"}, map[string]uint64{"": 26, "socket 7220961": 26}},
		{"ping", "", []string{"icmp-6.18"}, map[string]uint64{"": 8, "socket 7220963": 8}},
		{"netlink", "netlink-6.18.hex", []string{"netlink-6.18"}, map[string]uint64{"": 35, "socket 7220964": 35}},
		{"packet", "packet-6.18.hex", nil, map[string]uint64{"": 176, "socket 7220962": 176}},
		{"tcp", "tcp-6.18.hex", nil, map[string]uint64{"": 3, "socket 7220968": 3}},
		{"unix", "unix-6.18.hex", nil, map[string]uint64{"": 0}},
	} {
		k := kindNamed(t, tt.table)
		if tt.diag != "" {
			var ta tally
			for _, m := range loadMessages(t, "sockets/"+tt.diag) {
				l, err := k.dumps[0].parse(m)
				if err != nil {
					t.Fatalf("%s: %v", tt.diag, err)
				}
				ta.add(l)
			}
			if d := cmp.Diff(tt.want, losses(t, k.values(&ta, "x", "x"), tt.table)); d != "" {
				t.Errorf("%s: %s", tt.diag, d)
			}
		}
		var ta tally
		for _, name := range tt.files {
			if err := parseSockets(bytes.NewReader(load(t, "sockets/"+name)), &ta); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if tt.files != nil {
			if d := cmp.Diff(tt.want, losses(t, k.values(&ta, "x", "x"), tt.table)); d != "" {
				t.Errorf("%v: %s", tt.files, d)
			}
		}
	}
}

// Old forms, made after the kernel's sources: 2.6.32 net/ipv4/udp.c
// (udp4_format_sock, with a signed number of drops), 3.10
// net/netlink/af_netlink.c (netlink_seq_show), 2.6.25 net/ipv4/udp.c, which
// had no drops.
const (
	reconstructedUDP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             
  53: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 ffff88003d8ac000 -2           
`
	reconstructedNetlink = `sk       Eth Pid    Groups   Rmem     Wmem     Dump     Locks     Drops     Inode
ffff88003d8ac000 0   4195   00000011 2304     0        (null) 2        12       4712 
`
	reconstructedNoDrops = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                               
`
)

func TestParseSockets(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []loss
		bad        string
	}{
		{"a signed number", reconstructedUDP, []loss{{inode: 4711, drops: 1<<32 - 2}}, ""},
		{"of netlink", reconstructedNetlink, []loss{{inode: 4712, drops: 12}}, ""},
		{"no drops", reconstructedNoDrops, nil, "no inode or no drops"},
		{"empty", "", nil, ""},
		{"cut off", strings.TrimSuffix(reconstructedUDP, "\n"), nil, "cut off"},
		{"no number", strings.Replace(reconstructedUDP, "-2 ", "z ", 1), nil, "invalid syntax"},
		{"no inode", strings.Replace(reconstructedUDP, "4711", "-4711", 1), nil, "invalid syntax"},
		{"33 bits", strings.Replace(reconstructedUDP, "-2 ", "4294967296 ", 1), nil, "out of range"},
		{"too few", "inode drops\n1\n", nil, "invalid syntax"},
		{"endless", "inode drops\n" + strings.Repeat("1", 1<<15), nil, "longer than"},
	} {
		var ta tally
		err := parseSockets(strings.NewReader(tt.text), &ta)
		if (err == nil) != (tt.bad == "") || err != nil && !strings.Contains(err.Error(), tt.bad) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.bad)
		}
		if err == nil {
			if d := cmp.Diff(tt.want, ta.list, cmp.AllowUnexported(loss{})); d != "" {
				t.Errorf("%s: %s", tt.name, d)
			}
		}
	}
}

// socketMessage is an answer of sock_diag for UDP with so many numbers of
// memory, the last of which are the drops.
func socketMessage(inode uint32, cookie uint64, drops uint32, numbers int) []byte {
	m := make([]byte, 72)
	binary.NativeEndian.PutUint64(m[44:], cookie)
	binary.NativeEndian.PutUint32(m[68:], inode)
	memory := make([]byte, 4*numbers)
	if numbers > unix.SK_MEMINFO_DROPS {
		binary.NativeEndian.PutUint32(memory[4*unix.SK_MEMINFO_DROPS:], drops)
	}
	return append(m, attr(kernelnet.InetMeminfo, memory)...)
}

func TestParseDiag(t *testing.T) {
	d := inetDumps(17)[0]
	got, err := d.parse(socketMessage(7, 1<<40|9, 1<<32-1, 9))
	if want := (loss{7, 1<<40 | 9, 1<<32 - 1}); got != want || err != nil {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	// Before 4.7 there were eight; something new may follow.
	if _, err := d.parse(socketMessage(7, 9, 1, 8)); !errors.Is(err, kernelnet.ErrNoDiag) {
		t.Errorf("without drops: %v", err)
	}
	if l, err := d.parse(socketMessage(7, 9, 1, 12)); l.drops != 1 || err != nil {
		t.Errorf("with more: %+v, %v", l, err)
	}
	if l, err := d.parse(socketMessage(7, 9, 1, 9)[:72]); l.drops != 0 || err != nil {
		t.Errorf("no full socket: %+v, %v", l, err)
	}
	for n := range 72 {
		if _, err := d.parse(make([]byte, n)); !errors.Is(err, kernelnet.ErrShort) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

func TestTally(t *testing.T) {
	var ta tally
	for _, l := range []loss{
		{1, 10, 5},
		{1, 11, 7}, // two parts of an MPTCP connection
		{2, 12, 3},
		{2, 12, 4}, // twice in a list that changed
		{3, 13, 0},
		{0, 14, 9}, // no program holds it
	} {
		ta.add(l)
	}
	k := kindNamed(t, "tcp")
	want := map[string]uint64{"": 16, "socket 1": 12, "socket 2": 4}
	if d := cmp.Diff(want, losses(t, k.values(&ta, "x", "x"), "tcp")); d != "" {
		t.Error(d)
	}
	var s Snapshot
	ta = tally{}
	const more = 3
	for i := range uint32(3*maxSockets + more) {
		ta.add(loss{inode: i + 1, drops: uint64(i) + 1})
		if len(ta.list) > 2*maxSockets {
			t.Fatalf("%d in memory", len(ta.list))
		}
	}
	s.addSockets(k, &ta, "x", "x")
	n := uint64(3*maxSockets + more)
	got := losses(t, s.Values, "tcp")
	if len(got) != maxSockets+1 || got[""] != n*(n+1)/2 || got[fmt.Sprint("socket ", n)] != n || got[fmt.Sprint("socket ", n-maxSockets+1)] == 0 {
		t.Errorf("%d values, total %d", len(got), got[""])
	}
	if len(s.Missing) != 1 || s.whole(missingSockets("tcp")) {
		t.Errorf("missing: %+v", s.Missing)
	}
}

// lists is a folder like /proc/thread-self/net.
func lists(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func noModules(...string) (bool, error) { return false, nil }

// TestSocketsWithoutDiag reads what /proc/net tells where no module of
// sock_diag is there, and asks none.
func TestSocketsWithoutDiag(t *testing.T) {
	in := func(lines ...string) string {
		return "protocol  size sockets  memory press maxhdr\n" + strings.Join(append(lines, ""), "\n")
	}
	udp := string(load(t, "sockets/udp-6.18"))
	receiver := string(load(t, "sockets/packet-6.18"))
	for _, tt := range []struct {
		name    string
		files   map[string]string
		want    map[string]uint64
		missing string
	}{
		{"nothing at all", nil, nil, "counters of sockets: open"},
		{"another form", map[string]string{"protocols": "sockets: used 17\n"}, nil, "counters of sockets: /proc/net/protocols: heading"},
		{"empty", map[string]string{"protocols": ""}, nil, "counters of sockets: /proc/net/protocols: it is empty"},
		{"none in use", map[string]string{"protocols": in("UDP 1 0", "TCP 1 0"), "udp": "garbage"}, map[string]uint64{"udp": 0, "tcp": 0}, ""},
		{"not known", map[string]string{"protocols": in("TCP 1 0"), "udp": "garbage"}, map[string]uint64{"tcp": 0}, ""},
		{"in use", map[string]string{"protocols": in("UDP 1 3", "UDPv6 1 0", "TCP 1 7"), "udp": udp}, map[string]uint64{"udp": 27}, ""},
		{"too many", map[string]string{"protocols": in("UDP 1 20000", "UDPv6 1 1"), "udp": udp}, nil, "counters of udp sockets: more than 20000 sockets"},
		{"garbage", map[string]string{"protocols": in("UDP 1 3"), "udp": "garbage\n"}, nil, "counters of udp sockets: /proc/net/udp: heading"},
		{"capture", map[string]string{"protocols": in("PACKET 1 1"), "packet": receiver}, nil, "counters of packet sockets: the kernel tells"},
		{"sender", map[string]string{"protocols": in("PACKET 1 1"), "packet": strings.Replace(receiver, " 0003 ", " 0000 ", 1)}, nil, ""},
	} {
		s := Snapshot{Time: time.Unix(1, 0)}
		s.sockets(noModules, lists(t, tt.files))
		missing := ""
		for _, b := range s.Missing {
			missing += b.What + ": " + b.Why
		}
		for _, k := range socketKinds() {
			got := losses(t, s.Values, k.table)
			want, ok := tt.want[k.table]
			if (len(got) > 0) != ok || got[""] != want {
				t.Errorf("%s: %s: %v, want %d", tt.name, k.table, got, want)
			}
		}
		if !strings.HasPrefix(missing, tt.missing) || (missing == "") != (tt.missing == "") {
			t.Errorf("%s: missing %q, want %q", tt.name, missing, tt.missing)
		}
	}
}

func TestDiffOfSockets(t *testing.T) {
	part := func(inode uint32, n uint64) Value {
		return Value{Name: "udp.drops", Object: socketObject(inode), Value: n, Source: "s"}
	}
	total := func(n uint64) Value { return Value{Name: "udp.drops", Value: n, Source: "s"} }
	capped := func(s Snapshot) Snapshot {
		s.miss(missingSockets("udp"), errors.New("too many"))
		return s
	}
	old := snapshot(total(30), part(1, 10), part(2, 20))
	for _, tt := range []struct {
		name          string
		before, after Snapshot
		want          map[string]uint64 // deltas
	}{
		{"grew", old, snapshot(total(33), part(1, 11), part(2, 22)), map[string]uint64{"": 3, "socket 1": 1, "socket 2": 2}},
		{"a new one", old, snapshot(total(37), part(1, 10), part(2, 20), part(3, 7)), map[string]uint64{"": 7, "socket 1": 0, "socket 2": 0, "socket 3": 7}},
		{"one closed", old, snapshot(total(13), part(1, 13)), map[string]uint64{"": 3, "socket 1": 3}},
		{"all closed", old, snapshot(total(0)), map[string]uint64{"": 0}},
		{"closed and new", old, snapshot(total(16), part(1, 11), part(3, 5)), map[string]uint64{"": 6, "socket 1": 1, "socket 3": 5}},
		{"not read before", snapshot(), snapshot(total(7), part(3, 7)), map[string]uint64{"": 0, "socket 3": 0}},
		{"not all known before", capped(old), snapshot(total(37), part(1, 10), part(3, 7)), map[string]uint64{"": 27, "socket 1": 0, "socket 3": 0}},
		{"not all known after", old, capped(snapshot(total(37), part(1, 10))), map[string]uint64{"": 7, "socket 1": 0}},
		{"no read before", Snapshot{}, snapshot(total(7), part(3, 7)), map[string]uint64{"": 0, "socket 3": 0}},
	} {
		got := map[string]uint64{}
		for _, c := range Diff(tt.before, tt.after, record.NetNS{}) {
			got[c.Object] = c.Delta
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

func FuzzParseSocketList(f *testing.F) {
	for _, name := range []string{"udp-6.18", "udp6-6.18", "icmp-6.18", "netlink-6.18", "protocols-6.18", "packet-6.18"} {
		f.Add(load(f, "sockets/"+name))
	}
	f.Add([]byte(reconstructedUDP))
	f.Add([]byte("drops inode\n0\n-1 7\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var ta tally
		err := parseSockets(bytes.NewReader(text), &ta)
		for _, l := range ta.list {
			if l.drops == 0 || l.drops >= 1<<32 || l.inode == 0 || !bytes.Contains(text, []byte(fmt.Sprint(l.inode))) {
				t.Errorf("%+v", l)
			}
		}
		// However it comes in, it is the same.
		var slow tally
		serr := parseSockets(oneByte{bytes.NewReader(text)}, &slow)
		if d := cmp.Diff(ta.list, slow.list, cmp.AllowUnexported(loss{})); d != "" || (err == nil) != (serr == nil) {
			t.Errorf("byte by byte: %v, %v: %s", err, serr, d)
		}
		_, _ = parseInUse(bytes.NewReader(text))
		_, _ = receivers(bytes.NewReader(text))
	})
}

// oneByte gives a byte at a time.
type oneByte struct{ r io.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

func FuzzParseSocketMessage(f *testing.F) {
	kinds := socketKinds()
	for i, name := range []string{"tcp", "udp", "udplite", "", "", "netlink", "packet", "unix"} {
		if name != "" {
			for _, m := range loadMessages(f, "sockets/"+name+"-6.18.hex") {
				f.Add(uint8(i), m)
			}
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, m []byte) {
		k := kinds[int(i)%len(kinds)]
		for _, d := range k.dumps {
			l, err := d.parse(m)
			if l.drops >= 1<<32 || err == nil && len(m) < d.size {
				t.Errorf("%+v, %v of %d bytes", l, err, len(m))
			}
		}
	})
}

// generated is a list of n sockets, each of which lost something, without
// having it in memory.
type generated struct {
	n, next int
	rest    []byte
}

func (g *generated) Read(b []byte) (int, error) {
	if len(g.rest) == 0 {
		if g.next > g.n {
			return 0, io.EOF
		}
		g.rest = g.rest[:0]
		if g.next == 0 {
			g.rest = append(g.rest, reconstructedUDP[:strings.IndexByte(reconstructedUDP, '\n')+1]...)
		} else {
			g.rest = fmt.Appendf(g.rest, "%5d: 0100007F:%04X 00000000:0000 07 00000000:00000F00 00:00000000 00000000     0        0 %d 2 00000000cbce9046 %-9d\n", g.next, g.next&0xffff, g.next, g.next)
		}
		g.next++
	}
	n := copy(b, g.rest)
	g.rest = g.rest[n:]
	return n, nil
}

// BenchmarkParse100000Sockets reads the losses of 100,000 sockets.
func BenchmarkParse100000Sockets(b *testing.B) {
	const n = 100_000
	d := inetDumps(17)[0]
	check := func(b *testing.B, t *tally) {
		values := kindNamed(b, "udp").values(t, "x", "x")
		if len(values) != maxSockets+1 || values[0].Value != n*(n+1)/2 {
			b.Fatalf("%d values, total %d", len(values), values[0].Value)
		}
	}
	b.Run("sock_diag", func(b *testing.B) {
		m := socketMessage(1, 1, 1, 9)
		b.ReportAllocs()
		for b.Loop() {
			var t tally
			for i := range uint32(n) {
				binary.NativeEndian.PutUint64(m[44:], uint64(i+1))
				binary.NativeEndian.PutUint32(m[68:], i+1)
				binary.NativeEndian.PutUint32(m[72+4+4*unix.SK_MEMINFO_DROPS:], i+1)
				l, err := d.parse(m)
				if err != nil {
					b.Fatal(err)
				}
				t.add(l)
			}
			check(b, &t)
		}
	})
	b.Run("proc", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var t tally
			if err := parseSockets(&generated{n: n}, &t); err != nil {
				b.Fatal(err)
			}
			check(b, &t)
		}
	})
}
