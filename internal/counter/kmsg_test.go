package counter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// announced are lines as kernels write them: those without a kernel were read
// from the log of 6.18, the others follow its source. They say which counter
// counts them; "" is none.
var announced = []struct{ kernel, line, name string }{
	{"2.6.32", "nf_conntrack: table full, dropping packet.", "nf_conntrack_table_full"},
	{"", "nf_conntrack: nf_conntrack: table full, dropping packet", "nf_conntrack_table_full"},
	{"7.2", "nf_conntrack: nf_conntrack: table full in netns 4026532179, dropping packet", "nf_conntrack_table_full"},
	{"7.2", "nf_conntrack: nf_conntrack: expectation table full", "nf_conntrack_expect_full"},
	{"2.6.32", "Neighbour table overflow.", "neigh_table_overflow"},
	{"7.2", "neighbour: arp_cache: neighbor table overflow!", "neigh_table_overflow"},
	{"2.6.32", "possible SYN flooding on port 80. Sending cookies.", "syn_flood_cookies"},
	{"2.6.32", "TCPv6: Possible SYN flooding on port 80. Dropping request.", "syn_flood_drops"},
	{"4.19", "TCP: request_sock_TCP: Possible SYN flooding on port 8080. Sending cookies.  Check SNMP counters.", "syn_flood_cookies"},
	{"7.2", "TCP: request_sock_TCP: Possible SYN flooding on port [::]:443. Dropping request.", "syn_flood_drops"},
	{"7.2", "TCP: drop open request from 198.51.100.7/4711", "tcp_open_request_drops"},
	{"2.6.32", "Out of socket memory", "tcp_out_of_memory"},
	{"7.2", "TCP: out of memory -- consider tuning tcp_mem", "tcp_out_of_memory"},
	{"2.6.32", "TCP: too many of orphaned sockets", "tcp_orphans"},
	{"7.2", "TCP: too many orphaned sockets", "tcp_orphans"},
	{"4.19", "TCP: MD5 Hash failed for (192.0.2.1, 4711)->(192.0.2.2, 179)", "tcp_md5_failures"},
	{"5.10", "TCPv6: MD5 Hash mismatch for [2001:db8::1]:4711->[2001:db8::2]:179 L3 index 0", "tcp_md5_failures"},
	{"5.10", "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out", "tx_timeouts"},
	{"7.2", "ixgbe 0000:03:00.0 eth1: NETDEV WATCHDOG: CPU: 3: transmit queue 7 timed out 5120 ms", "tx_timeouts"},
	{"2.6.32", "swapper: page allocation failure. order:1, mode:0x4020", "atomic_allocation_failures"},
	{"3.10", "ksoftirqd/1: page allocation failure: order:0, mode:0x20", "atomic_allocation_failures"},
	{"3.10", "java: page allocation failure: order:4, mode:0x40d0", ""},
	{"7.2", "swapper/3: page allocation failure: order:2, mode:0x40820(GFP_ATOMIC|__GFP_COMP), nodemask=(null),cpuset=/,mems_allowed=0", "atomic_allocation_failures"},
	{"7.2", "java: page allocation failure: order:9, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)", ""},
	{"7.2", "GFP_ATOMIC: page allocation failure: order:9, mode:0x40cc0(GFP_KERNEL|__GFP_COMP), nodemask=(null)", ""},
	{"2.6.32", "dst cache overflow", "dst_cache_overflow"},
	{"5.14", "Route cache is full: consider increasing sysctl net.ipv[4|6].route.max_size.", "dst_cache_overflow"},
	{"7.2", "e1000e 0000:00:1f.6 eno1: NIC Link is Down", "link_down"},
	{"7.2", "mlx5_core 0000:5e:00.0 ens1f0np0: Link down", "link_down"},
	{"7.2", "r8169 0000:02:00.0 enp2s0: Link is Down", "link_down"},
	{"7.2", "tg3 0000:02:00.0 eth0: Link is down", "link_down"},
	{"2.6.32", "sky2 eth0: Link is down.", "link_down"},
	{"7.2", "ata1: SATA link down (SStatus 0 SControl 300)", ""},
	{"7.2", "pcieport 0000:00:1c.0: pciehp: Slot(3): Link Down", ""},
	{"7.2", "IPv6: ADDRCONF(NETDEV_UP): eth0: link is not ready", ""},
	{"7.2", "bond0: (slave eth1): link status definitely down, disabling slave", "bond_link_down"},
	{"7.2", "bond0: now running without any active interface!", "bond_no_link"},
	{"6.12", "IPv4: martian source 192.0.2.1 from 127.0.0.1, on dev eth0", "martian_source"},
	{"7.2", "IPv4: martian source (src=127.0.0.1, dst=192.0.2.1, dev=eth0)", "martian_source"},
	{"6.12", "IPv4: martian destination 127.0.0.1 from 192.0.2.1, dev eth0", "martian_destination"},
	{"4.19", "UDP: bad checksum. From 192.0.2.1:53 to 192.0.2.2:4711 ulen 20", "udp_bad_checksum"},
	{"4.19", "UDPLite: short packet: From 192.0.2.1:53 40/20 to 192.0.2.2:4711", "udp_short_packet"},
	{"2.6.32", "UDPv6: short packet: 40/20", "udp_short_packet"},
	{"7.2", "IPv4: Oversized IP packet from 192.0.2.9", "ip_oversized"},
	{"2.6.32", "ip_frag_create: no memory left !", "frag_limit"},
	{"3.10", "inet_frag_find: Fragment hash bucket list length grew over limit 128. Dropping fragment.", "frag_limit"},
	{"7.2", "Dead loop on virtual device tun0 (net 1), fix it urgently!", "virtual_device_loop"},
	{"7.2", "Virtual device dummy0 asks to queue packet!", "virtual_device_queue"},
	{"5.10", "eth0: hw csum failure", "hw_csum_failure"},
	{"7.2", "ixgbe 0000:03:00.0 eth1: hw csum failure", "hw_csum_failure"},
	{"7.2", "napi_frags_skb: dropping impossible skb from eth0", "gro_impossible_skb"},
	{"7.2", "unencrypted skb with no associated socket - dropping", "tls_unencrypted"},
	{"", "nf_queue: full at 1 entries, dropping packets(s)", "nfqueue_full"},
	{"7.2", "xt_hashlimit: max count of 65536 reached", "hashlimit_full"},
	{"7.2", "IPVS: rr: TCP 192.0.2.1:80 - no destination available", "ipvs_no_destination"},
	{"2.6.32", "eth0: received packet with  own address as source address", "bridge_own_address"},
	{"7.2", "br0: received packet on eth0 with own address as source address (addr:02:00:00:00:00:01, vlan:0)", "bridge_own_address"},
	{"7.2", "openvswitch: eth0: dropped over-mtu packet: 1514 > 1500", "ovs_over_mtu"},
	{"7.2", "openvswitch: ovs: recursion limit reached on datapath ovs-system, probable configuration error", "ovs_limit"},
	{"7.2", "openvswitch: ovs-system: deferred action limit reached, drop recirc action (recirc_id=0x1)", "ovs_limit"},
	{"7.2", "bpf: recursion limit reached on datapath, buggy bpf program?", "bpf_recursion"},
	{"7.2", "Illegal XDP return value 17 on prog x (id 3) dev eth0, expect packet loss!", "xdp_action"},
	{"7.2", "1: reclassify loop, rule prio 1, protocol 800", "tc_reclassify_loop"},
	{"7.2", "htb: classify loop detected, dropping packet", "qdisc_classify_loop"},
	{"6.1", "hfsc: classify hop budget exhausted, dropping packet", "qdisc_classify_loop"},
	{"", "tc mirred to Houston: device down0 is down", "mirred_down"},
	{"2.6.32", "mirred to Houston: device eth3 is gone!", "mirred_down"},
	{"7.2", "Packet exceeded mirred recursion limit on dev eth0", "mirred_recursion"},
	{"7.2", "ip6_tunnel: ip6tnl1 xmit: Local address not yet configured!", "tunnel_no_address"},
	{"7.2", "ip6_tunnel: ip6tnl1 xmit: Routing loop! Remote address found on this node!", "tunnel_loop"},
	{"7.2", "xfrm0: Local routing loop detected!", "tunnel_loop"},
	{"7.2", "mroute: pending queue full, dropping entries", "mroute_queue_full"},
	{"", "storm: left promiscuous mode", ""},
	{"7.2", "Link is Down[4711]: segfault at 0 ip 0000000000000000 sp 00007ffd5d1c1b38 error 14 in sh[55a4c8a4d000+1000]", ""},
	{"7.2", "martian source [4711]: segfault at 0 ip 0000000000000000 sp 00007ffd5d1c1b38 error 14", ""},
	{"7.2", "nf_conntrack: table full IN=eth0 OUT= MAC=02:00:00:00:00:01 SRC=192.0.2.1 DST=192.0.2.2 LEN=60", ""},
}

func TestAnnouncements(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range announced {
		var c kmsgCounts
		if err := c.line([]byte("4,17,99,-;" + a.line + "\n SUBSYSTEM=net\n DEVICE=n3\n")); err != nil {
			t.Fatal(err)
		}
		for i, n := range c.lines {
			want := uint64(0)
			if announcements[i].name == a.name {
				want = 1
				seen[a.name] = true
			}
			if n != want {
				t.Errorf("%s: %q counts %d as %s, want %d", a.kernel, a.line, n, announcements[i].name, want)
			}
		}
	}
	for _, a := range announcements {
		if !seen[a.name] {
			t.Errorf("no line of %s", a.name)
		}
	}
}

// TestAnnouncementsAreLong: the name of a program has at most 15 bytes, and is
// in lines of the kernel. What would fit into it must be tied to more.
func TestAnnouncementsAreLong(t *testing.T) {
	for _, a := range announcements {
		for _, parts := range a.lines {
			if n := len(strings.Join(parts, "")); n < 16 && a.also == nil {
				t.Errorf("%s: %q has %d bytes", a.name, parts, n)
			}
		}
	}
}

// TestAnnouncementCommands: grep finds the lines of a kind, each of them.
func TestAnnouncementCommands(t *testing.T) {
	quoted := regexp.MustCompile(`'([^']*)'`)
	for i := range announcements {
		a := &announcements[i]
		var patterns []*regexp.Regexp
		for _, m := range quoted.FindAllStringSubmatch(a.grep(), -1) {
			// In a basic expression these are characters like any other.
			basic := strings.NewReplacer("(", `\(`, ")", `\)`, "!", "!").Replace(m[1])
			patterns = append(patterns, regexp.MustCompile("(?i:"+basic+")"))
		}
		for _, line := range announced {
			found := false
			for _, p := range patterns {
				found = found || p.MatchString(line.line)
			}
			// What else was written of a link that is down, grep does not find.
			if line.name == a.name && !found && !strings.HasSuffix(line.line, ": Link down") {
				t.Errorf("grep %s does not find %q", a.grep(), line.line)
			}
		}
	}
}

func TestSuppressed(t *testing.T) {
	for line, want := range map[string]uint64{
		"net_ratelimit: 17 callbacks suppressed":                   17,
		"net_ratelimit: 17 output lines suppressed due to limits":  0,
		"neigh_alloc: 5 callbacks suppressed":                      0,
		"net_ratelimit: callbacks suppressed":                      0,
		"net_ratelimit: 99999999999999999999 callbacks suppressed": 0,
		"x: net_ratelimit: 17 callbacks suppressed":                0,
	} {
		var c kmsgCounts
		if err := c.line([]byte("4,0,0,-;" + line + "\n")); err != nil {
			t.Fatal(err)
		}
		if c.suppressed != want {
			t.Errorf("%q: %d, want %d", line, c.suppressed, want)
		}
	}
}

func TestKmsgLine(t *testing.T) {
	const full = "nf_conntrack: table full, dropping packet"
	for _, c := range []struct {
		name, line string
		count      uint64
		wantErr    string
	}{
		{"of the kernel", "4,10,5,-;" + full + "\n", 1, ""},
		{"with a caller", "4,10,5,-,caller=T1;" + full + "\n", 1, ""},
		{"without an end", "4,10,5,-;" + full, 1, ""},
		{"of a program", "12,10,5,-;" + full + "\n", 0, ""},
		{"of another facility", "30,10,5,-;" + full + "\n", 0, ""},
		{"in what belongs to it", "4,10,5,-;hello\n X=" + full + "\n", 0, ""},
		{"empty", "", 0, "no priority"},
		{"no text", "4,10,5,-", 0, "no priority"},
		{"no number", "4;" + full + "\n", 0, "no priority"},
		{"a word", "4,x,5,-;" + full + "\n", 0, "no number"},
		{"the last number", "4,18446744073709551615,5,-;" + full + "\n", 0, "no number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got kmsgCounts
			err := got.line([]byte(c.line))
			check(t, nil, err, "", c.wantErr)
			if got.lines[0] != c.count {
				t.Errorf("%d, want %d", got.lines[0], c.count)
			}
		})
	}
	got := kmsgCounts{next: 7, begun: true}
	if err := got.line([]byte("4,6,5,-;again\n")); err == nil || !strings.Contains(err.Error(), "line 6 came behind line 6") {
		t.Error(err)
	}
}

// ring is a log that hands out lines, or errors.
type ring struct {
	t     *testing.T
	items []any // a line's number, which is full of loss; or an error
}

func (r *ring) receive(b []byte) (int, error) {
	if len(r.items) == 0 {
		return 0, unix.EAGAIN
	}
	item := r.items[0]
	r.items = r.items[1:]
	if err, ok := item.(error); ok {
		return 0, err
	}
	return copy(b, fmt.Sprintf("4,%d,5,-;nf_conntrack: table full, dropping packet\n", item)), nil
}

// TestKmsgAgain reads a log that goes on, and loses lines.
func TestKmsgAgain(t *testing.T) {
	r := &ring{t: t}
	k := newKmsg("/dev/kmsg")
	k.receive = r.receive
	for _, step := range []struct {
		name               string
		items              []any
		lines, overwritten uint64
		missing            string
	}{
		{name: "the ring begins late", items: []any{40, 41}, lines: 2, overwritten: 40},
		{name: "nothing new", lines: 2, overwritten: 40},
		{name: "one more", items: []any{42, unix.EINTR}, lines: 3, overwritten: 40},
		{name: "some were overwritten", items: []any{unix.EPIPE, 46, 47}, lines: 5, overwritten: 43, missing: "3 lines were overwritten before they could be read"},
		{name: "then none", items: []any{48}, lines: 6, overwritten: 43},
		{name: "no permission any more", items: []any{unix.EPERM}, lines: 6, overwritten: 43, missing: "CAP_SYSLOG"},
		{name: "an old kernel", items: []any{unix.EINVAL}, lines: 6, overwritten: 43, missing: "since Linux 3.5"},
		{name: "going back", items: []any{3}, lines: 6, overwritten: 43, missing: "line 3 came behind line 48"},
	} {
		r.items = step.items
		var s Snapshot
		k.readInto(&s)
		if got := value(t, s.Values, "kmsg.nf_conntrack_table_full"); got != step.lines {
			t.Errorf("%s: %d lines, want %d", step.name, got, step.lines)
		}
		if got := value(t, s.Values, "kmsg.overwritten"); got != step.overwritten {
			t.Errorf("%s: %d overwritten, want %d", step.name, got, step.overwritten)
		}
		if step.missing == "" && len(s.Missing) > 0 || step.missing != "" && (len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, step.missing)) {
			t.Errorf("%s: missing %+v, want %q", step.name, s.Missing, step.missing)
		}
	}
}

// TestKmsgBound: a read ends, and the next goes on where it ended.
func TestKmsgBound(t *testing.T) {
	n := 0
	k := newKmsg("/dev/kmsg")
	k.receive = func(b []byte) (int, error) {
		if n == maxKmsgLines+5 {
			return 0, unix.EAGAIN
		}
		n++
		return copy(b, "4,"+strconv.Itoa(n-1)+",5,-;mroute: pending queue full, dropping entries\n"), nil
	}
	var s Snapshot
	k.readInto(&s)
	if got := value(t, s.Values, "kmsg.mroute_queue_full"); got != maxKmsgLines || len(s.Missing) != 1 {
		t.Errorf("%d lines, missing %+v", got, s.Missing)
	}
	s = Snapshot{}
	k.readInto(&s)
	if got := value(t, s.Values, "kmsg.mroute_queue_full"); got != maxKmsgLines+5 || len(s.Missing) != 0 {
		t.Errorf("%d lines, missing %+v", got, s.Missing)
	}
}

func TestKmsgAbsent(t *testing.T) {
	k := newKmsg(filepath.Join(t.TempDir(), "kmsg"))
	var s Snapshot
	k.readInto(&s)
	// Every kernel that runs tests has a log.
	if len(s.Values) > 0 || len(s.Missing) != 1 || !strings.Contains(s.Missing[0].Why, "no such file") {
		t.Errorf("%d values, missing %+v", len(s.Values), s.Missing)
	}
	if err := k.read(); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	k.close()
}

func FuzzKmsg(f *testing.F) {
	for i, a := range announced {
		f.Add([]byte(fmt.Sprintf("4,%d,0,-;%s\n", i, a.line)))
	}
	f.Add([]byte("4,0,0,-;net_ratelimit: 4294967296 callbacks suppressed\n"))
	f.Add([]byte("4,18446744073709551614,0,-;x"))
	f.Add([]byte("6,1,0,-;: page allocation failureorder:mode:0xffffffffffffffffff(GFP_ATOMIC"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c kmsgCounts
		err := c.line(b)
		var sum uint64
		for _, n := range c.lines {
			sum += n
		}
		if sum > 1 || err != nil && (sum > 0 || c.suppressed > 0) || c.suppressed > 1<<32 {
			t.Errorf("%q counts %d, suppressed %d, %v", b, sum, c.suppressed, err)
		}
		if err == nil && (c.next == 0 || c.overwritten != c.next-1 || c.late != 0) {
			t.Errorf("%q: next %d, overwritten %d, late %d", b, c.next, c.overwritten, c.late)
		}
		for _, v := range c.values("/dev/kmsg") {
			if strings.Contains(v.Command, "\n") || !strings.HasPrefix(v.Name, "kmsg.") {
				t.Errorf("%+v", v)
			}
		}
	})
}
