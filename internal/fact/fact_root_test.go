//go:build root

package fact

import (
	"encoding/json"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// facts reads a request on the test's thread and holds every answer to what
// all have in common.
func facts(t *testing.T, kind, arg string) []record.Fact {
	t.Helper()
	got := (&Reader{}).Read(record.FactRequest{Kind: kind, Arg: arg}, ns)
	if len(got) == 0 {
		t.Fatalf("%s %s: no fact", kind, arg)
	}
	for _, f := range got {
		if f.Kind != kind || f.Request != arg || f.Name == "" || f.Source == "" || f.Command == "" {
			t.Errorf("incomplete: %+v", f)
		}
		if f.Missing != "" {
			t.Fatalf("%s %s: %s", kind, arg, f.Missing)
		}
	}
	return got
}

func one(t *testing.T, kind, arg string) record.Fact {
	t.Helper()
	got := facts(t, kind, arg)
	if len(got) != 1 {
		t.Fatalf("%s %s: %d facts: %+v", kind, arg, len(got), got)
	}
	return got[0]
}

func named(t *testing.T, list []record.Fact, name string) record.Fact {
	t.Helper()
	i := slices.IndexFunc(list, func(f record.Fact) bool { return f.Name == name })
	if i < 0 {
		t.Fatalf("no fact %q in %+v", name, list)
	}
	return list[i]
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needKernel fails the test where this kernel was built without something that
// every kernel of the tests has.
func needKernel(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s, which the kernel must have, or a module that it can load: %v", what, err)
	}
}

// within waits until ok, as long as a slow machine may need.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain until " + what)
		}
	}
}

// pair joins the namespace of the thread with another over a0 (192.0.2.1/24)
// and b0 (192.0.2.2/24).
func pair(t *testing.T, a *netlab.Namespace) (b *netlab.Namespace) {
	t.Helper()
	b, err := netlab.New()
	must(t, err)
	t.Cleanup(func() { b.Close() })
	must(t, netlab.Veth(
		netlab.End{NS: a, Name: "a0", Addr: netip.MustParsePrefix("192.0.2.1/24")},
		netlab.End{NS: b, Name: "b0", Addr: netip.MustParsePrefix("192.0.2.2/24")}))
	return b
}

// tool runs a program of iproute2 in the namespace of the thread and reads its
// JSON.
func tool(t *testing.T, out any, name string, args ...string) {
	t.Helper()
	must(t, testkit.Iproute2(name))
	b, err := exec.Command(name, args...).Output()
	must(t, err)
	must(t, json.Unmarshal(b, out))
}

func TestSysctlOfNamespace(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		const ttl = "net/ipv4/ip_default_ttl"
		must(t, n.Sysctl("net.ipv4.ip_default_ttl", "77"))
		if f := one(t, "sysctl", ttl); f.Value != "77" || f.NetNS != ns {
			t.Errorf("got %+v", f)
		}
		// A setting that exists on the host only.
		const backlog = "net/core/netdev_max_backlog"
		r := Reader{Host: func(fn func() error) error { return netns.Do("/proc/self/ns/net", fn) }}
		f := r.Read(record.FactRequest{Kind: "sysctl", Arg: backlog}, ns)[0]
		var want []byte
		must(t, netns.Do("/proc/self/ns/net", func() (err error) {
			want, err = os.ReadFile("/proc/sys/" + backlog)
			return err
		}))
		if f.Value != strings.TrimSpace(string(want)) || f.Value == "" || f.NetNS != (record.NetNS{}) {
			t.Errorf("got %+v, want %s", f, want)
		}
		if f := (&Reader{}).Read(record.FactRequest{Kind: "sysctl", Arg: backlog}, ns)[0]; f.Missing == "" || f.NetNS != ns {
			t.Errorf("without the host: %+v", f)
		}
	})
}

func TestLink(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		b := pair(t, n)
		peer, err := b.Links().LinkByName("b0")
		must(t, err)
		must(t, b.Links().LinkSetMTU(peer, 1400))
		f := one(t, "link", "a0")
		want := map[string]string{
			"address": netlab.MAC(netip.MustParseAddr("192.0.2.1")).String(),
			"kind":    "veth", "mtu": "1500", "up": "1", "carrier": "1", "promiscuity": "0", "master": "", "qlen": "1000", "xdp": "none", "peer_mtu": "1400",
		}
		for name, w := range want { // the others are compared with ip in TestLinkMatchesIP
			if f.Fields[name] != w || f.Value != "up" || f.NetNS != ns {
				t.Errorf("%s is %q, want %q: %+v", name, f.Fields[name], w, f)
			}
		}
		var ip []struct {
			OperState string `json:"operstate"`
			MTU       int    `json:"mtu"`
			Qlen      int    `json:"txqlen"`
		}
		tool(t, &ip, "ip", "-j", "-d", "link", "show", "dev", "a0")
		if len(ip) != 1 || strings.ToLower(ip[0].OperState) != f.Value || decimal(ip[0].MTU) != f.Fields["mtu"] || decimal(ip[0].Qlen) != f.Fields["qlen"] {
			t.Errorf("ip says %+v", ip)
		}
		if f := one(t, "link", "lo"); f.Fields["kind"] != "" || f.Fields["mtu"] != "65536" || f.Fields["peer_mtu"] != "" {
			t.Errorf("lo: %+v", f)
		}
		if f := one(t, "link", "none0"); f.Value != None {
			t.Errorf("no device: %+v", f)
		}

		// Both ends in this namespace, one of them a port of a bridge, down.
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "x0", MTU: 1300}, PeerName: "y0", PeerMTU: 1200}))
		if f := one(t, "link", "x0"); f.Fields["peer_mtu"] != "1200" || f.Fields["up"] != "0" || f.Value != "down" {
			t.Errorf("x0: %+v", f)
		}
		needKernel(t, "bridge", netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
		x, err := netlink.LinkByName("x0")
		must(t, err)
		br, err := netlink.LinkByName("br0")
		must(t, err)
		must(t, netlink.LinkSetMaster(x, br.(*netlink.Bridge)))
		if f := one(t, "link", "x0"); f.Fields["master"] != "br0" || f.Fields["promiscuity"] != "1" {
			t.Errorf("a port: %+v", f)
		}
		if f := one(t, "link", "br0"); f.Fields["kind"] != "bridge" {
			t.Errorf("the bridge: %+v", f)
		}
	})
}

// program loads an eBPF program that lets every packet pass.
func program(t *testing.T, typ ebpf.ProgramType, pass int32) (p *ebpf.Program, id uint32) {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "pass_all", Type: typ, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, pass), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	info, err := p.Info()
	must(t, err)
	num, ok := info.ID()
	if !ok {
		t.Fatal("the program has no number")
	}
	return p, uint32(num)
}

func TestLinkXDP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		link, err := netlink.LinkByName("a0")
		must(t, err)
		p, id := program(t, ebpf.XDP, 2)
		for flags, mode := range map[int]string{unix.XDP_FLAGS_SKB_MODE: "generic", unix.XDP_FLAGS_DRV_MODE: "driver"} {
			must(t, netlink.LinkSetXdpFdWithFlags(link, p.FD(), flags))
			if f := one(t, "link", "a0"); f.Fields["xdp"] != mode || f.Fields["xdp_id"] != decimal(id) {
				t.Errorf("%s %d: %+v", mode, id, f)
			}
			must(t, netlink.LinkSetXdpFdWithFlags(link, -1, flags))
		}
		if f := one(t, "link", "a0"); f.Fields["xdp"] != "none" || f.Fields["xdp_id"] != "" {
			t.Errorf("detached: %+v", f)
		}
	})
}

func TestRoute(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		add := func(dst string, r netlink.Route) {
			t.Helper()
			_, network, err := net.ParseCIDR(dst)
			must(t, err)
			r.Dst = network
			must(t, netlink.RouteAdd(&r))
		}
		link, err := netlink.LinkByName("a0")
		must(t, err)
		add("198.51.100.0/25", netlink.Route{Gw: net.IPv4(192, 0, 2, 2), MTU: 1280, MTULock: true})
		for typ, dst := range map[int]string{unix.RTN_BLACKHOLE: "203.0.113.1/32", unix.RTN_UNREACHABLE: "203.0.113.2/32", unix.RTN_PROHIBIT: "203.0.113.3/32"} {
			add(dst, netlink.Route{Type: typ})
		}
		must(t, netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}, Table: 1000}))
		rule := netlink.NewRule()
		rule.Table, rule.Dst = 1000, &net.IPNet{IP: net.IPv4(10, 1, 0, 0), Mask: net.CIDRMask(16, 32)}
		needKernel(t, "policy routing", netlink.RuleAdd(rule))
		must(t, n.Sysctl("net.ipv4.ip_forward", "1"))
		must(t, n.Sysctl("net.ipv4.conf.all.rp_filter", "1"))
		for _, tt := range []struct {
			arg, value string
			fields     map[string]string
		}{
			{"192.0.2.7", "unicast", map[string]string{"dev": "a0", "src": "192.0.2.1", "table": "main"}},
			{"198.51.100.9", "unicast", map[string]string{"dev": "a0", "src": "192.0.2.1", "table": "main", "gateway": "192.0.2.2", "mtu": "1280"}},
			{"10.1.2.3", "unicast", map[string]string{"dev": "a0", "src": "192.0.2.1", "table": "1000"}},
			{"192.0.2.1", "local", map[string]string{"dev": "lo", "src": "192.0.2.1", "table": "local"}},
			{"192.0.2.255", "broadcast", map[string]string{"dev": "a0", "src": "192.0.2.1", "table": "local"}},
			{"203.0.113.1", "blackhole", map[string]string{"error": "EINVAL"}},
			{"203.0.113.2", "unreachable", map[string]string{"error": "EHOSTUNREACH"}},
			{"203.0.113.3", "prohibit", map[string]string{"error": "EACCES"}},
			{"203.0.113.4", "none", map[string]string{"error": "ENETUNREACH"}},
			{"192.0.2.7 from 192.0.2.1", "unicast", map[string]string{"dev": "a0", "table": "main"}},
			{"192.0.2.7 from 198.51.100.1", "none", map[string]string{"error": "EINVAL ENETUNREACH"}}, // not a local address
			{"203.0.113.1 from 192.0.2.1", "blackhole", map[string]string{"error": "EINVAL"}},
			{"192.0.2.1 from 192.0.2.2 iif a0", "local", map[string]string{"dev": "lo", "table": "local"}},
			{"192.0.2.1 from 203.0.113.9 iif a0", "none", map[string]string{"error": "EXDEV EINVAL"}}, // rp_filter
			{"192.0.2.1 from 127.0.0.1 iif a0", "none", map[string]string{"error": "EINVAL"}},         // a martian
			{"203.0.113.2 from 192.0.2.2 iif a0", "unreachable", map[string]string{"error": "EHOSTUNREACH"}},
			{"192.0.2.1 from 192.0.2.2 iif none0", "none", map[string]string{"error": "ENODEV"}},
		} {
			f := one(t, "route", tt.arg)
			if e := f.Fields["error"]; slices.Contains(strings.Fields(tt.fields["error"]), e) {
				tt.fields["error"] = e // kernels differ
				delete(f.Fields, "table")
			}
			for _, entry := range []string{"match", "protocol", "lock"} { // TestRouteMatchesIPRouteGet
				delete(f.Fields, entry)
			}
			if d := gocmp.Diff(tt.fields, f.Fields); d != "" || f.Value != tt.value {
				t.Errorf("%s: %s\n%s", tt.arg, f.Value, d)
			}
		}
	})
}

func TestRouteIPv6(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		must(t, n.Sysctl("net.ipv6.conf.all.disable_ipv6", "0"))
		must(t, n.Sysctl("net.ipv6.conf.a0.disable_ipv6", "0"))
		must(t, n.Sysctl("net.ipv6.conf.a0.accept_dad", "0"))
		link, err := netlink.LinkByName("a0")
		must(t, err)
		addr, err := netlink.ParseAddr("2001:db8::1/64")
		must(t, err)
		addr.Flags = unix.IFA_F_NODAD
		must(t, netlink.AddrAdd(link, addr))
		_, black, err := net.ParseCIDR("2001:db8:1::/48")
		must(t, err)
		must(t, netlink.RouteAdd(&netlink.Route{Dst: black, Type: unix.RTN_BLACKHOLE}))
		// A worker of the kernel adds the route to the address.
		within(t, "the address is local", func() bool { return one(t, "route", "2001:db8::1").Value == "local" })
		for arg, want := range map[string]string{
			"2001:db8::7": "unicast", "2001:db8::1": "local", "2001:db8:1::1": "blackhole", "2001:db8:2::1": "none",
		} {
			if f := one(t, "route", arg); f.Value != want || want == "unicast" && f.Fields["dev"] != "a0" {
				t.Errorf("%s: %+v, want %s", arg, f, want)
			}
		}
		if f := named(t, facts(t, "addresses", ""), "2001:db8::1"); f.Fields["dev"] != "a0" || f.Fields["prefix"] != "64" {
			t.Errorf("got %+v", f)
		}
	})
}

func TestAddresses(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		got := map[string]string{}
		for _, f := range facts(t, "addresses", "") {
			got[f.Name+"/"+f.Fields["prefix"]] = f.Fields["dev"]
		}
		if d := gocmp.Diff(map[string]string{"127.0.0.1/8": "lo", "192.0.2.1/24": "a0"}, got); d != "" {
			t.Error(d)
		}
		lo, err := netlink.LinkByName("lo")
		must(t, err)
		must(t, netlink.LinkSetDown(lo))
		a0, err := netlink.LinkByName("a0")
		must(t, err)
		for _, link := range []netlink.Link{lo, a0} {
			list, err := netlink.AddrList(link, unix.AF_UNSPEC)
			must(t, err)
			for i := range list {
				must(t, netlink.AddrDel(link, &list[i]))
			}
		}
		if f := one(t, "addresses", ""); f.Value != None || f.Name != "addresses" {
			t.Errorf("without addresses: %+v", f)
		}
	})
}

func TestNeigh(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		if f := one(t, "neigh", "192.0.2.2 a0"); f.Value != "permanent" || f.Fields["lladdr"] != netlab.MAC(netip.MustParseAddr("192.0.2.2")).String() {
			t.Errorf("got %+v", f)
		}
		for _, arg := range []string{"192.0.2.9 a0", "192.0.2.2 none0"} {
			if f := one(t, "neigh", arg); f.Value != None {
				t.Errorf("%s: %+v", arg, f)
			}
		}
		if f := one(t, "neigh", "192.0.2.9 a0"); f.Value != None {
			t.Errorf("the question made an entry: %+v", f)
		}
		conn, err := net.Dial("udp", "192.0.2.9:9")
		must(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		must(t, err)
		seen := map[string]bool{}
		within(t, "nobody answered", func() bool {
			seen[one(t, "neigh", "192.0.2.9 a0").Value] = true
			return seen["failed"]
		})
		if d := gocmp.Diff([]string{"failed", "incomplete"}, slices.Sorted(maps.Keys(seen))); d != "" {
			t.Error(d)
		}
	})
}
