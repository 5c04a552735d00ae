//go:build root

package fact

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
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

// manyRoutes makes routes of every kind that ip can make here.
func manyRoutes(t *testing.T, n *netlab.Namespace) {
	t.Helper()
	pair(t, n)
	withIPv6(t, n)
	lines := each("ip route add",
		"blackhole 203.0.113.1", "unreachable 203.0.113.2 metric 7", "prohibit 203.0.113.3/32 table 200", "throw 203.0.113.64/26 table 1000",
		"198.51.100.0/25 via 192.0.2.2 src 192.0.2.1 proto bgp metric 77 mtu lock 1280 advmss 1200 window 5000 rtt 100ms rttvar 50ms ssthresh 10 cwnd lock 20 "+
			"initcwnd 30 initrwnd 40 rto_min 300ms hoplimit 9 reordering 4 quickack 1 fastopen_no_cookie 1 congctl reno features ecn",
		"198.51.100.128/25 via 192.0.2.2 tos 0x10", "198.51.100.128/26 dev a0 scope link realm 3/4",
		"10.9.0.0/16 nexthop via 192.0.2.2 dev a0 weight 3 nexthop via 192.0.2.3 dev a0 weight 1",
		"10.8.0.0/16 via 10.8.0.1 dev a0 onlink table 70000",
		"10.13.0.0/16 via inet6 fe80::2 dev a0",
	)
	lines = append(lines, each("ip nexthop add", "id 1 via 192.0.2.2 dev a0", "id 2 via 192.0.2.3 dev a0", "id 3 blackhole", "id 10 group 1,5/2")...)
	lines = append(lines, each("ip route add", "10.10.0.0/16 nhid 10", "10.11.0.0/16 nhid 1", "10.12.0.0/16 nhid 3")...)
	lines = append(lines, each("ip -6 route add",
		"blackhole 2001:db8:1::/48", "unreachable 2001:db8:2::/48", "prohibit 2001:db8:3::/48 table 300", "throw 2001:db8:4::/48",
		"2001:db8:5::/48 via 2001:db8::2 mtu 1400 hoplimit 5 pref high expires 1000", "default via fe80::2 dev a0 metric 55",
		"2001:db8:6::/48 from 2001:db8::/64 via 2001:db8::2",
		"2001:db8:7::/48 nexthop via 2001:db8::2 dev a0 weight 2 nexthop via 2001:db8::3 dev a0 weight 1",
	)...)
	sh(t, lines...)
}

// withIPv6 gives a0 of pair 2001:db8::1/64.
func withIPv6(t *testing.T, n *netlab.Namespace) {
	t.Helper()
	for _, s := range []string{"a0.accept_dad", "all.disable_ipv6", "a0.disable_ipv6"} {
		must(t, n.Sysctl("net.ipv6.conf."+s, "0"))
	}
	sh(t, "ip addr add 2001:db8::1/64 dev a0 nodad")
	// A worker of the kernel adds the route to the address.
	within(t, "the address is local", func() bool { return one(t, "route", "2001:db8::1").Value == "local" })
}

// toolRoute is a route of ip -d -j route in the words of the fact.
func toolRoute(v map[string]any, family string) object {
	o := object{}
	if hops, ok := v["nexthops"].([]any); ok {
		var list []string
		for _, h := range hops {
			list = append(list, toolHop(h.(map[string]any)))
		}
		o["nexthops"], o["paths"] = strings.Join(list, "; "), decimal(len(list))
	}
	delete(v, "nexthops")
	delete(v, "nh_info") // the nexthop object itself, whose parts the fact has
	for k, s := range flat(v) {
		o[strings.TrimPrefix(k, "metrics_")] = s
	}
	delete(o, "cache") // an empty list
	for _, k := range []string{"dst", "from"} {
		o[k] = wholePrefix(o[k])
	}
	if o["from"] == "" {
		delete(o, "from")
	}
	rename(o, "prefsrc", "src")
	rename(o, "via_host", "gateway")
	delete(o, "via_family") // the form of the address says it
	o["flags"] = strings.ReplaceAll(o["flags"], " ", ",")
	if o["flags"] == "" {
		delete(o, "flags")
	}
	if to, ok := o["flow_to"]; ok {
		o["realms"] = strings.TrimPrefix(o["flow_from"]+"/"+to, "/")
		delete(o, "flow_from")
		delete(o, "flow_to")
	}
	if tos, ok := o["tos"]; ok {
		var n uint8
		_, _ = fmt.Sscanf(tos, "0x%x", &n)
		o["tos"] = decimal(n)
	}
	if _, ok := o["ecn"]; ok {
		delete(o, "ecn")
		o["features"] = "0x1"
	}
	o["family"] = family
	return o
}

func toolHop(v map[string]any) string {
	o := flat(v)
	h := hop{gateway: o["gateway"], dev: o["dev"], weight: 1}
	_, _ = fmt.Sscan(o["weight"], &h.weight)
	s := h.String()
	if o["flags"] != "" {
		s += " " + strings.ReplaceAll(o["flags"], " ", ",")
	}
	return s
}

// wholePrefix adds the length that ip leaves out.
func wholePrefix(s string) string {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()).String()
	}
	return s
}

var countsDown = map[string]string{"expires": "it counts down"}

// moreThanIP are fields that the JSON of ip does not have.
var moreThanIP = map[string]string{"lock": "ip prints it only as text"}

func TestRoutesMatchIP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		manyRoutes(t, n)
		var want, got []object
		for family, flag := range map[string]string{"ip": "-4", "ip6": "-6"} {
			for _, v := range objects(t, "ip "+flag+" -d -j route show table all") {
				want = append(want, without(toolRoute(v, family), countsDown))
			}
		}
		list := facts(t, "routes", "")
		for _, f := range list {
			got = append(got, without(without(valueAnd(f, "type"), moreThanIP), countsDown))
		}
		if left, err := strconv.Atoi(named(t, list, "main 2001:db8:5::/48 dev a0 metric 1024").Fields["expires"]); err != nil || left < 900 || left > 1000 {
			t.Errorf("it expires in %d s, %v", left, err)
		}
		if len(got) < 30 {
			t.Errorf("only %d routes", len(got))
		}
		sameSets(t, "routes", want, got)
		if f := named(t, list, "main 198.51.100.0/25 dev a0 metric 77"); f.Fields["lock"] != "mtu,cwnd,rto_min" {
			t.Errorf("locked: %+v", f)
		}
		// Its JSON has two members dst.
		if can(t, "CONFIG_LWTUNNEL", "ip route add 10.14.0.0/16 encap ip id 5 dst 192.0.2.9 dev a0") {
			if f := named(t, facts(t, "routes", ""), "main 10.14.0.0/16 dev a0"); f.Fields["encap"] != "ip" {
				t.Errorf("got %+v", f)
			}
			sh(t, "ip route del 10.14.0.0/16")
		}
		// The kernel may leave the ways to the nexthop objects.
		must(t, n.Sysctl("net.ipv4.nexthop_compat_mode", "0"))
		withObject := objects(t, "ip -j route show 10.11.0.0/16")
		if len(withObject) != 1 {
			t.Fatal("the route with a nexthop object is gone")
		}
		if _, there := withObject[0]["dev"]; there {
			t.Error("the kernel still tells the device")
		}
		odd := func(f record.Fact) bool {
			delete(f.Fields, "expires")
			return f.Fields["dst"] == "10.12.0.0/16" // a black hole has lo as its device, or none
		}
		if d := gocmp.Diff(slices.DeleteFunc(list, odd), slices.DeleteFunc(facts(t, "routes", ""), odd)); d != "" {
			t.Errorf("without compatibility: %s", d)
		}
	})
}

// A router in the way of a0 has a link with a smaller MTU and says so.
func TestPathMTU(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		b := pair(t, n)
		must(t, b.Sysctl("net.ipv4.ip_forward", "1"))
		must(t, b.Do(func() error {
			_, err := testkit.Batch("ip", "link add x0 mtu 1200 type veth peer y0", "link set x0 up", "link set y0 up", "route add 198.51.100.0/24 dev x0")
			return err
		}))
		sh(t, "ip route add 198.51.100.0/24 via 192.0.2.2")
		if f := one(t, "route", "198.51.100.9"); f.Fields["mtu"] != "" || f.Fields["expires"] != "" || f.Fields["match"] != "198.51.100.0/24" {
			t.Errorf("before: %+v", f)
		}
		conn, err := net.Dial("udp", "198.51.100.9:9")
		must(t, err)
		defer conn.Close()
		raw, err := conn.(*net.UDPConn).SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}))
		must(t, err)
		within(t, "the router said its MTU", func() bool {
			_, _ = conn.Write(make([]byte, 1400)) // EMSGSIZE from then on
			return one(t, "route", "198.51.100.9").Fields["mtu"] == "1200"
		})
		f := one(t, "route", "198.51.100.9")
		if n, err := strconv.Atoi(f.Fields["expires"]); err != nil || n < 1 || n > 600 {
			t.Errorf("got %+v", f)
		}
		var want, got []object
		for _, v := range objects(t, "ip -4 -d -j route show cache table all") {
			want = append(want, without(toolRoute(v, "ip"), ofExceptions))
		}
		for _, f := range facts(t, "routes", "") {
			if strings.HasSuffix(f.Name, " exception") {
				got = append(got, without(valueAnd(f, "type"), ofExceptions))
			}
		}
		sameSets(t, "exceptions", want, got)
		if len(got) != 1 || got[0]["mtu"] != "1200" {
			t.Errorf("got %v", got)
		}
	})
}

// ofExceptions is what is not compared of them.
var ofExceptions = map[string]string{
	"expires": "it counts down", "error": "of a socket, not of the route",
	"protocol": "ip leaves it out", "scope": "ip leaves it out", "uid": "of who asks",
}

func TestRouteMatchesIPRouteGet(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		manyRoutes(t, n)
		sh(t, "ip route add 198.18.0.0/15 via 192.0.2.5 table 500",
			"ip rule add fwmark 7 table 500",
			"ip rule add ipproto 6 dport 443 table 500",
			"ip rule add to 198.19.0.0/16 uidrange 4242-4243 table 500",
			"ip rule add oif a0 to 198.19.1.1 table 500")
		must(t, n.Sysctl("net.ipv4.ip_forward", "1"))
		gateways := map[string]string{
			"198.51.100.9": "192.0.2.2", "198.51.100.9 from 192.0.2.1": "192.0.2.2", "10.13.0.1": "fe80::2", "192.0.2.9": "",
			"198.18.1.1 mark 7": "192.0.2.5", "198.18.1.1 ipproto tcp dport 443": "192.0.2.5", "198.19.0.1 uid 4242": "192.0.2.5", "198.19.1.1 oif a0": "192.0.2.5",
			"198.51.100.9 from 192.0.2.7 iif a0": "192.0.2.2", "198.51.100.200 tos 0x10": "192.0.2.2",
			"2001:db8:5::9": "2001:db8::2", "2001:db8:6::1 from 2001:db8::1": "2001:db8::2", "2001:db8::9 oif a0": "",
		}
		questions := slices.Sorted(maps.Keys(gateways))
		var lines []string
		for _, arg := range questions {
			line := strings.Replace(arg, "ipproto tcp", "ipproto 6", 1) // /etc/protocols need not be there
			lines = append(lines, "route get "+line, "route get fibmatch "+line)
		}
		answers := batchObjects(t, "ip -d -j", lines...)
		for i, arg := range questions {
			f := one(t, "route", arg)
			v, w := answers[2*i], answers[2*i+1]
			if len(v) != 1 {
				t.Fatalf("%s: %v", arg, v)
			}
			want := without(toolRoute(v[0], "ip"), ofQuestions)
			got := without(valueAnd(f, "type"), ofEntries)
			if d := gocmp.Diff(want, got); d != "" || f.Fields["gateway"] != gateways[arg] {
				t.Errorf("%s: %s", arg, d)
			}
			// The entry of the table itself.
			if len(w) != 1 || wholePrefix(w[0]["dst"].(string)) != f.Fields["match"] || w[0]["protocol"] != f.Fields["protocol"] {
				t.Errorf("%s: %v, got %v", arg, w, f.Fields)
			}
		}
		// Without what the rules ask for there is another way, or none.
		for arg, want := range map[string]string{"198.18.1.1": "none", "198.18.1.1 mark 8": "none", "198.18.1.1 ipproto udp dport 443": "none", "198.19.0.1 uid 4244": "none"} {
			if f := one(t, "route", arg); f.Value != want || f.Fields["error"] != "ENETUNREACH" {
				t.Errorf("%s: %+v", arg, f)
			}
		}
		// The route that refuses.
		for arg, want := range map[string][2]string{"203.0.113.1": {"203.0.113.1/32", "main"}, "203.0.113.2": {"203.0.113.2/32", "main"}, "2001:db8:1::7": {"2001:db8:1::/48", "main"}} {
			if f := one(t, "route", arg); f.Fields["match"] != want[0] || f.Fields["table"] != want[1] {
				t.Errorf("%s: %+v", arg, f)
			}
		}
		sh(t, "ip rule add blackhole to 203.0.113.200")
		if f := one(t, "route", "203.0.113.1"); f.Value != "blackhole" || f.Fields["match"] != "" {
			t.Errorf("a rule could be it too: %+v", f)
		}
	})
}

// ofQuestions is what ip route get repeats of the question or of the socket
// that would ask, and not of the route.
var ofQuestions = map[string]string{
	"dst": "the question", "from": "the question", "iif": "the question", "mark": "the question", "uid": "the question", "tos": "the question",
	"family": "the question", "flags": "none in an answer", "expires": "it counts down", "protocol": "of the entry", "scope": "of the entry",
	"ipid": "of the kernel's peer cache", "metric": "of the entry",
}

// ofEntries is what the fact adds of the entry that was taken.
var ofEntries = map[string]string{
	"lock": "ip prints it only as text", "match": "of the entry", "metric": "of the entry", "protocol": "of the entry", "paths": "of the entry", "nexthops": "of the entry", "nhid": "of the entry",
	"expires": "it counts down",
}

func TestRulesMatchIP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		lines := each("ip rule add",
			"from 192.0.2.0/24 to 198.51.100.7 table 100 pref 10", "iif a0 oif none0 table 100000 pref 20 protocol static", "fwmark 0x10/0xff table 7 pref 30 suppress_prefixlength 0",
			"fwmark 5 blackhole pref 40", "unreachable pref 50 to 10.0.0.0/8", "prohibit pref 60 not from 10.1.0.0/16", "goto 32766 pref 70", "goto 99 pref 80 tos 0x10",
			"nop pref 90", "ipproto 6 sport 80 dport 1000-2000 table 8 pref 100", "ipproto 17 sport 53-60 dport 5353 table 8 pref 100", "uidrange 5-7 table 9 pref 110 suppress_ifgroup 3",
			"realms 3/4 table 11 pref 120", "tun_id 4242 table 12 pref 130",
		)
		lines = append(lines, each("ip -6 rule add", "from 2001:db8::/32 table 100 pref 10", "to ::/0 iif a0 blackhole pref 20", "fwmark 9 prohibit pref 30")...)
		sh(t, lines...)
		can(t, "CONFIG_NET_L3_MASTER_DEV", "ip rule add l3mdev pref 1000")
		var want, got []object
		for family, flag := range map[string]string{"ip": "-4", "ip6": "-6"} {
			for _, v := range objects(t, "ip "+flag+" -d -j rule show") {
				want = append(want, toolRule(flat(v), family))
			}
		}
		list := facts(t, "rules", "")
		for _, f := range list {
			o := valueAnd(f, "action")
			o["flags"] = strings.TrimPrefix(strings.TrimPrefix(o["flags"], "permanent"), ",") // ip does not show it
			got = append(got, o)
		}
		sameSets(t, "rules", want, got)
		if f := named(t, list, "ip 100 #2"); f.Fields["ipproto"] != "17" {
			t.Errorf("the second of two with one priority: %+v", f)
		}
	})
}

// toolRule is a rule of ip -d -j rule in the words of the fact.
func toolRule(o object, family string) object {
	o["family"] = family
	for _, k := range []string{"src", "dst"} {
		if o[k] == "" || o[k] == "all" {
			continue
		}
		if o[k] == "0" {
			o[k] = map[string]string{"ip": "0.0.0.0", "ip6": "::"}[family]
		}
		if l := o[k+"len"]; l != "" {
			o[k] += "/" + l
		}
		o[k] = wholePrefix(o[k])
		delete(o, k+"len")
	}
	if o["action"] == "" {
		o["action"] = "lookup"
	}
	for _, a := range []string{"nop", "goto"} {
		if _, ok := o[a]; ok {
			o["action"] = a
		}
	}
	delete(o, "nop")
	var flags []string
	for _, f := range []string{"not", "unresolved", "iif_detached", "oif_detached"} {
		if _, ok := o[f]; ok {
			flags = append(flags, f)
			delete(o, f)
		}
	}
	o["flags"] = strings.Join(flags, ",")
	for _, p := range []string{"sport", "dport"} {
		if v, ok := o[p]; ok {
			o[p+"_start"], o[p+"_end"] = v, v
			delete(o, p)
		}
	}
	if to, ok := o["flow_to"]; ok {
		o["realms"] = o["flow_from"] + "/" + to
		delete(o, "flow_from")
		delete(o, "flow_to")
	}
	if p, ok := o["ipproto"]; ok {
		o["ipproto"] = strings.NewReplacer("tcp", "6", "udp", "17", "ipproto-", "").Replace(p)
	}
	return o
}
