//go:build root

package fact

import (
	"path/filepath"
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

// compareProc compares what /proc/net tells with what sock_diag does: each
// field that both have must be the same, if sock_diag says the same before and
// after (a peer may take from a queue meanwhile).
func compareProc(t *testing.T, proto string) {
	t.Helper()
	protos := sockProtos()
	p := protos[slices.IndexFunc(protos, func(p sockProto) bool { return p.name == proto })]
	read := func() map[string]fields {
		diag := map[string]fields{}
		for _, f := range facts(t, "sockets", proto) {
			diag[f.Fields["inode"]+" "+f.Name] = f.Fields
		}
		return diag
	}
	type socket struct {
		name string
		fields
	}
	var sockets []socket
	before := read()
	err := (&Reader{}).procLines(p.files, func(line []byte) error {
		l, err := p.proc.brief(line)
		if err != nil {
			return err
		}
		name, f, err := p.proc.detail(line)
		if err != nil {
			return err
		}
		if decimal(l.inode) != f["inode"] {
			t.Errorf("%s: inode %d", line, l.inode)
		}
		if ofReaders(proto, f) {
			return nil
		}
		sockets = append(sockets, socket{name, f})
		return nil
	})
	must(t, err)
	after := read()
	compared := 0
	for _, l := range sockets {
		id := l.fields["inode"] + " " + l.name
		want := before[id]
		// A unix connection that waits has no number yet.
		if want == nil && l.fields["inode"] != "0" {
			t.Errorf("%s is in /proc/net alone", l.name)
		}
		for key, v := range l.fields {
			w, ok := want[key]
			if !ok || key == "timer_ms" || w != after[id][key] {
				continue
			}
			compared++
			if v != w {
				t.Errorf("%s: %s is %s in /proc/net, sock_diag says %s", l.name, key, v, w)
			}
		}
	}
	if compared < 10 {
		t.Errorf("only %d fields compared", compared)
	}
}

// ofReaders says whether a socket is one that somebody reads sockets with.
func ofReaders(proto string, f fields) bool {
	return proto == "netlink" && f["protocol"] == decimal(unix.NETLINK_SOCK_DIAG)
}

func TestUnixMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		path := filepath.Join(t.TempDir(), "listener")
		l := openSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, unix.Bind(l, &unix.SockaddrUnix{Name: path}))
		must(t, unix.Listen(l, 7))
		c := openSocket(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
		must(t, unix.Connect(c, &unix.SockaddrUnix{Name: path}))
		_, err := unix.Write(c, make([]byte, 100))
		must(t, err)
		must(t, unix.Shutdown(c, unix.SHUT_WR))
		d := openSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0)
		must(t, unix.Bind(d, &unix.SockaddrUnix{Name: "@whydrop"}))
		must(t, unix.Sendto(openSocket(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0), make([]byte, 50), 0, &unix.SockaddrUnix{Name: "@whydrop"}))
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		list := runSS(t, 8, "-x")
		got := facts(t, "sockets", "unix")
		if len(list) != len(got) || len(got) < 6 {
			t.Fatalf("ss shows %d sockets, whydrop %d: %v", len(list), len(got), list)
		}
		seen := map[string]bool{}
		types := map[string]string{"u_str": "stream", "u_dgr": "dgram", "u_seq": "seqpacket"}
		for _, s := range list {
			i := slices.IndexFunc(got, func(f record.Fact) bool { return f.Fields["inode"] == s.columns[5] })
			if i < 0 {
				t.Errorf("%v is not among %+v", s, got)
				continue
			}
			f := got[i].Fields
			path, peer := f["path"], f["peer"]
			if path == "" {
				path = "*"
			}
			if peer == "" {
				peer = "0"
			}
			want := []string{types[s.columns[0]], s.columns[1], s.columns[2], s.columns[3], s.columns[4], s.columns[7]}
			if d := gocmp.Diff(want, []string{f["type"], ssStates[f["state"]], f["recv_q"], f["send_q"] + f["backlog"], path, peer}); d != "" {
				t.Errorf("%v: %s", s.columns, d)
			}
			compareSS(t, s, f, seen)
		}
		ssComplete(t, seen, "skmem", "shutdown", "ino", "dev", "peers")
		if f := named(t, got, path).Fields; f["backlog"] != "7" || f["pending"] != "1" || f["recv_q"] != "1" {
			t.Errorf("listener: %v", f)
		}
		compareProc(t, "unix")
	})
}

func TestPacketMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		loadDiag(t)
		fd := openSocket(t, unix.AF_PACKET, unix.SOCK_RAW, 0)
		setOption(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		setOption(t, fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1)
		must(t, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: 0x0300, Ifindex: 1}))
		must(t, unix.Fchown(fd, 1234, -1))
		ring := openSocket(t, unix.AF_PACKET, unix.SOCK_DGRAM, 0)
		setOption(t, ring, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2)
		must(t, unix.SetsockoptTpacketReq(ring, unix.SOL_PACKET, unix.PACKET_RX_RING, &unix.TpacketReq{Block_size: 4096, Block_nr: 1, Frame_size: 2048, Frame_nr: 2}))
		must(t, unix.Bind(ring, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: 1}))
		setOption(t, ring, unix.SOL_PACKET, unix.PACKET_FANOUT, 7|unix.PACKET_FANOUT_LB<<16)
		sender := openSocket(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
		for range 30 {
			must(t, unix.Sendto(sender, make([]byte, 200), 0, &unix.SockaddrInet4{Addr: loopback, Port: 9}))
		}
		list := runSS(t, 6, "-0")
		got := facts(t, "sockets", "packet")
		if len(list) != 2 || len(got) != 2 {
			t.Fatalf("ss shows %v, whydrop %+v", list, got)
		}
		seen := map[string]bool{}
		for _, s := range list {
			i := slices.IndexFunc(got, func(f record.Fact) bool { return f.Fields["inode"] == s.values["ino"] })
			if i < 0 {
				t.Fatalf("%v is not among %+v", s, got)
			}
			f := got[i].Fields
			local := map[string]string{"3": "*:lo", "2048": "[2048]:lo"}[f["protocol"]]
			kind := map[string]string{"raw": "p_raw", "dgram": "p_dgr"}[f["type"]]
			if d := gocmp.Diff(s.columns, []string{kind, "UNCONN", f["recv_q"], "0", local, "*"}); d != "" {
				t.Errorf("%v: %s", s, d)
			}
			compareSS(t, s, f, seen)
		}
		ssComplete(t, seen, "skmem", "ver", "flags", "ring_rx", "fanout", "uid")
		if f := got[0].Fields; numOf(f, "drops") == 0 || f["type"] != "raw" || f["ifindex"] != "1" {
			t.Errorf("the one that lost is not the first: %+v", got)
		}
		compareProc(t, "packet")
	})
}

func TestNetlinkMatchesSS(t *testing.T) {
	testkit.InNetNS(t, func(*netlab.Namespace) {
		loadDiag(t)
		fd := openSocket(t, unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
		must(t, unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_ROUTE}))
		got := facts(t, "sockets", "netlink")
		seen, compared := map[string]bool{}, 0
		for _, s := range runSS(t, 5, "-f", "netlink") {
			proto, signed, _ := strings.Cut(s.columns[3], ":")
			n, err := strconv.ParseInt(signed, 10, 64)
			must(t, err)
			portid := decimal(uint32(n))
			i := slices.IndexFunc(got, func(f record.Fact) bool { return f.Fields["protocol"] == proto && f.Fields["portid"] == portid })
			if proto == decimal(unix.NETLINK_SOCK_DIAG) {
				continue // those that ss and whydrop ask with
			}
			if i < 0 {
				t.Errorf("%v is not among %+v", s, got)
				continue
			}
			f := got[i].Fields
			if d := gocmp.Diff(s.columns[1:3], []string{f["recv_q"], f["send_q"]}); d != "" {
				t.Errorf("%v: %s", s, d)
			}
			compareSS(t, s, f, seen)
			compared++
		}
		ssComplete(t, seen, "skmem", "groups")
		if f := one(t, "sockets", "netlink "+strconv.FormatUint(inodeOf(t, fd), 10)); f.Fields["groups"] != "1 7" || compared < 4 {
			t.Errorf("%d compared, ours: %+v", compared, f)
		}
		compareProc(t, "netlink")
	})
}
