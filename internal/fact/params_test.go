package fact

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func num16(v uint16) []byte { return native.AppendUint16(nil, v) }
func num64(v uint64) []byte { return native.AppendUint64(nil, v) }

// words is a structure of numbers of 32 bits.
func words(v ...uint32) []byte {
	var b []byte
	for _, n := range v {
		b = append(b, num(n)...)
	}
	return b
}

// rateSpec is struct tc_ratespec.
func rateSpec(rate uint32) []byte { return slices.Concat([]byte{3, 1, 0, 0, 0, 0, 0, 0}, num(rate)) }

func TestReaders(t *testing.T) {
	for _, tt := range []struct {
		read reader
		in   []byte
		want string
		ok   bool
	}{
		{asNumber, []byte{7}, "7", true},
		{asNumber, num16(300), "300", true},
		{asNumber, num64(math.MaxUint64), "18446744073709551615", true},
		{asNumber, []byte{1, 2, 3}, "", false},
		{asNumber, nil, "", false},
		{asSigned, []byte{0xff}, "-1", true},
		{asSigned, num(0xfffffffe), "-2", true},
		{asSigned, num64(math.MaxUint64), "-1", true},
		{asSigned, nil, "", false},
		{asNonzero, num(0), "", false},
		{asNumberBut(9), num(9), "", false},
		{asBool, num(5), "1", true},
		{asBit(4), num(5), "1", true},
		{asBit(2), num(5), "0", true},
		{asHex, num16(0xff), "0xff", true},
		{asHexBut(3), num(3), "", false},
		{asNetwork, []byte{0x12, 0xb5}, "4789", true},
		{asNetwork, []byte{1}, "", false},
		{asNetwork64, []byte{0, 0, 0, 0, 0, 0, 1, 0}, "256", true},
		{asNetworkHex, []byte{0, 0, 0, 16}, "0x10", true},
		{asPower, num(10), "1024", true},
		{asPower, num(64), "", false},
		{asName("a", "", "c"), num(2), "c", true},
		{asName("a", "", "c"), num(1), "1", true},
		{asName("a"), num(7), "7", true},
		{asText, []byte("x\x00y"), "x", true},
		{asIP, []byte{1, 2, 3, 4}, "1.2.3.4", true},
		{asIP, []byte{1, 2, 3}, "", false},
		{asSomeIP, make([]byte, 16), "", false},
		{asMAC, []byte{2, 0, 0, 0, 0, 1}, "02:00:00:00:00:01", true},
		{asMAC, []byte{2}, "", false},
		{asBytes, []byte{1, 0, 3}, "1 0 3", true},
		{asWords, words(5, 6), "5 6", true},
		{asWords, []byte{1, 2, 3, 4, 5}, "", false},
		{asShare, num(math.MaxUint32 / 4), "0.25", true},
		{asRest, num(math.MaxUint32 / 4 * 3), "0.25", true},
		{asProbability, num(1 << 31), "0.5", true},
		{asNanoseconds, num64(1500), "1.5", true},
		{asEtherProto, []byte{0x81, 0}, "802.1Q", true},
		{asEtherProto, []byte{0x86, 0xdd}, "0x86dd", true},
		{at(4, 2, asNumber), []byte{0, 0, 0, 0, 9, 0}, "9", true},
		{at(4, 2, asNumber), []byte{0, 0, 0, 0, 9}, "", false},
		{optBit(1), words(2, 3), "1", true},
		{optBit(2), words(2, 3), "", false},
		{bridgeID, []byte{0x80, 0, 2, 0, 0, 0, 0, 0xa}, "8000.2:0:0:0:0:a", true},
		{macvlanMode, num(4), "bridge", true},
		{vlanFlags, words(3, 0xffffffff), "REORDER_HDR,GVRP", true},
		{ipvlanFlags, num16(2), "vepa", true},
		{netkitPolicy, num(2), "blackhole", true},
		{addressList, message{}.Attr(0, []byte{192, 0, 2, 1}).Attr(1, []byte{192, 0, 2, 2}), "192.0.2.1 192.0.2.2", true},
		{inside(3, asNumber), message{}.Attr(3, num(8)), "8", true},
		{inside(3, asNumber), message{}.Attr(4, num(8)), "", false},
		{linkLayer, []byte{0x12}, "atm", true},
	} {
		got, ok := tt.read(tt.in)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%x: %q, %v; want %q, %v", tt.in, got, ok, tt.want, tt.ok)
		}
	}
}

func TestDecode(t *testing.T) {
	params := []param{{whole, "head", at(0, 2, asNumber)}, {5, "a", asNumber}, {5, "b", at(0, 1, asNumber)}}
	f := fields{}
	if err := decode(message{}.U16(7).U16(0).Attr(5, num(9)), 4, params, "x_", f); err != nil {
		t.Fatal(err)
	}
	if d := gocmp.Diff(fields{"x_head": "7", "x_a": "9", "x_b": "9"}, f); d != "" {
		t.Error(d)
	}
	if err := decode([]byte{1}, 4, params, "", fields{}); err == nil {
		t.Error("a block shorter than its structure was accepted")
	}
}

// optionsOf are the parameters of a qdisc or class with such options.
func optionsOf(t *testing.T, kind string, options []byte, class bool) fields {
	t.Helper()
	m := qdiscMessage(kind, options, nil)
	parse := parseQdisc
	if class {
		parse = parseClass
	}
	q, err := parse(m)
	if err != nil {
		t.Fatal(err)
	}
	return q.fields
}

func TestQdiscOptions(t *testing.T) {
	for _, tt := range []struct {
		kind    string
		options []byte
		want    fields
	}{
		{
			"fq", message{}.Attr(2, num(100)).Attr(5, num(0)).Attr(7, num(math.MaxUint32)).Attr(8, num(10)).Attr(15, []byte{1}).Attr(16, slices.Concat(num(3), make([]byte, 16))).Attr(17, words(5, 6, 7)),
			fields{"flow_limit": "100", "pacing": "0", "buckets": "1024", "horizon_drop": "1", "bands": "3", "priomap": "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", "weights": "5 6 7"},
		},
		{"fq_codel", message{}.Attr(1, num(4999)).Attr(4, num(1)).Attr(8, num(0)), fields{"target": "4999", "ecn": "1"}},
		{"cake", message{}.Attr(2, num64(2500000)).Attr(3, num(1)).Attr(6, num(0xfffffffc)).Attr(12, nil).Attr(16, num(2)), fields{"bandwidth": "2500000", "diffserv": "diffserv4", "overhead": "-4", "raw": "1", "ack-filter": "aggressive"}},
		{"htb", message{}.Attr(2, words(0x30011, 10, 0x30, 0, 4)).Attr(5, num(1000)), fields{"r2q": "10", "default": "0x30", "direct_packets_stat": "4", "direct_qlen": "1000"}},
		// 15625 ticks of 64 ns are 1 ms.
		{"tbf", message{}.Attr(1, slices.Concat(rateSpec(125000), rateSpec(0), words(3000, 15625, 0))), fields{"rate": "125000", "burst": "125", "linklayer": "ethernet"}},
		{"tbf", message{}.Attr(1, slices.Concat(rateSpec(math.MaxUint32), rateSpec(1000), words(3000, 15625, 15625))).Attr(4, num64(1e10)), fields{"rate": "10000000000", "burst": "10000000", "peakrate": "1000", "minburst": "1", "linklayer": "ethernet"}},
		{
			"netem", append(words(1000, 500, math.MaxUint32, 5, 0, 0), message{}.Attr(10, num64(1e8)).Attr(11, num64(500)).Attr(5, message{}.Attr(2, words(math.MaxUint32, 0, 0, 0)))...),
			fields{"delay": "100000", "jitter": "0.5", "loss": "1", "gap": "5", "loss_p": "1", "loss_1-h": "1"},
		},
		{"netem", words(15625, 500, 0, 0, 0, 0), fields{"delay": "1000", "gap": "0"}},
		{"red", message{}.Attr(1, append(words(60000, 1000, 2000), 3, 4, 5, 1)).Attr(4, words(0xa, 0xf)), fields{"min": "1000", "max": "2000", "ewma": "3", "Plog": "4", "Scell_log": "5", "ecn": "0", "harddrop": "1", "adaptive": "0", "nodrop": "1"}},
		{"sfq", words(1514, 10, 127, 1024, 128), fields{"quantum": "1514", "perturb": "10", "divisor": "1024", "flows": "128"}},
		{"prio", append(num(3), 1, 2, 2, 2, 1, 2, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), fields{"bands": "3", "priomap": "1 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1"}},
		{"nobody_knows", words(1, 2, 3), fields{}},
		{"netem", words(1), fields{}}, // too short
	} {
		got := optionsOf(t, tt.kind, tt.options, false)
		if d := gocmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.kind, d)
		}
	}
	class := optionsOf(t, "htb", message{}.Attr(1, slices.Concat(rateSpec(1000), rateSpec(math.MaxUint32), words(15625, 15625, 2000, 0, 3))).Attr(7, num64(1e10)), true)
	want := fields{"rate": "1000", "ceil": "10000000000", "burst": "1", "cburst": "10000000", "quantum": "2000", "level": "0", "prio": "3", "linklayer": "ethernet"}
	if d := gocmp.Diff(want, class); d != "" {
		t.Error(d)
	}
}

func TestMostLossyClasses(t *testing.T) {
	list := make([]qdisc, maxQdiscs+5)
	list[3].qlen, list[maxQdiscs+1].drops, list[maxQdiscs+2].drops = 5, 7, 9
	got := mostLossy(list)
	if len(got) != maxQdiscs || got[0].drops != 9 || got[1].drops != 7 || got[2].qlen != 5 {
		t.Errorf("%d: %+v", len(got), got[:3])
	}
}

// kindMessage is a device of a kind, a port of another.
func kindMessage(kind string, data message, port string, portData message) message {
	info := message{}.Text(unix.IFLA_INFO_KIND, kind).Attr(unix.IFLA_INFO_DATA, data)
	if port != "" {
		info = info.Text(unix.IFLA_INFO_SLAVE_KIND, port).Attr(unix.IFLA_INFO_SLAVE_DATA, portData)
	}
	return message{}.U8(0, 0).U16(1).U32(7).U32(0).U32(0).Attr(unix.IFLA_LINKINFO|unix.NLA_F_NESTED, info).
		Attr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, message{}.Text(unix.IFLA_ALT_IFNAME, "other"))
}

func TestLinkKinds(t *testing.T) {
	d, err := parseDevice(kindMessage("bond", message{}.Attr(1, []byte{1}).Attr(2, num(9)).Attr(3, num(100)), "vrf", message{}.Attr(1, num(77))))
	if err != nil {
		t.Fatal(err)
	}
	d.resolve(deviceNames{9: "eth9"})
	want := fields{"kind": "bond", "bond_mode": "active-backup", "bond_active_slave": "eth9", "bond_miimon": "100", "port_kind": "vrf", "port_table": "77", "altnames": "other", "index": "7", "up": "0", "xdp": "none"}
	if diff := gocmp.Diff(want, d.fields); diff != "" {
		t.Error(diff)
	}
	if d, err = parseDevice(kindMessage("vxlan", message{}.Attr(1, num(42)).Attr(3, num(0)).Attr(15, []byte{0x12, 0xb5}).Attr(7, []byte{1}), "", nil)); err != nil {
		t.Fatal(err)
	}
	d.resolve(deviceNames{})
	if f := d.fields; f["vxlan_id"] != "42" || f["vxlan_port"] != "4789" || f["vxlan_learning"] != "1" || f["vxlan_link"] != "" {
		t.Errorf("got %v", f)
	}
}

// multipathMessage is a route with two ways.
func multipathMessage() message {
	way := func(weight uint8, oif uint32, gateway byte) message {
		attrs := message{}.Attr(unix.RTA_GATEWAY, []byte{192, 0, 2, gateway})
		return append(message{}.U16(uint16(8+len(attrs))).U8(16, weight).U32(oif), attrs...)
	}
	return message{}.U8(2, 16, 0, 0x10, 254, 3, 0, unix.RTN_UNICAST).U32(0).Attr(unix.RTA_DST, []byte{10, 9, 0, 0}).
		Attr(unix.RTA_MULTIPATH, slices.Concat(way(2, 4, 2), way(0, 5, 3))).
		Attr(unix.RTA_METRICS, message{}.Attr(1, num(1<<2|1<<13)).Attr(2, num(1400)).Attr(4, num(800)).Attr(10, num(math.MaxUint32))).
		Attr(unix.RTA_CACHEINFO, words(0, 0, 12345, uint32(0xffffff8f), 0, 0, 0, 0))
}

func TestParseMultipath(t *testing.T) {
	r, err := parseRoute(multipathMessage())
	if err != nil {
		t.Fatal(err)
	}
	r.names(deviceNames{4: "eth4", 5: "eth5"})
	want := fields{
		"dst": "10.9.0.0/16", "family": "ip", "table": "main", "protocol": "boot", "scope": "global", "tos": "16", "paths": "2",
		"nexthops": "via 192.0.2.2 dev eth4 weight 3 linkdown; via 192.0.2.3 dev eth5 weight 1 linkdown",
		"mtu":      "1400", "rtt": "100", "lock": "mtu,rto_min", "expires": "123", "error": "EHOSTUNREACH",
	}
	if d := gocmp.Diff(want, r.fields); d != "" {
		t.Error(d)
	}
	if r.name() != "main 10.9.0.0/16 tos 16" {
		t.Error(r.name())
	}
}

func TestRouteListIsBounded(t *testing.T) {
	route := func(kind, bits uint8, flags uint32) []byte {
		return message{}.U8(2, bits, 0, 0, 254, 0, 0, kind).U32(flags)
	}
	var a, b routeList
	for range maxRoutes + 10 {
		a.add(route(unix.RTN_UNICAST, 24, 0))
		b.add(route(unix.RTN_LOCAL, 32, 0))
	}
	a.add(route(unix.RTN_UNICAST, 32, unix.RTM_F_CLONED))
	b.add(route(unix.RTN_UNICAST, 0, 0))
	b.add(route(unix.RTN_PROHIBIT, 24, 0))
	list, err := a.routes(&b)
	if err != nil || len(list) != maxRoutes || list[0].kind != "prohibit" || list[1].fields["dst"] != "default" || list[2].kind != "unicast" || list[maxRoutes-1].kind != "unicast" {
		t.Errorf("%d, %v: %+v", len(list), err, list[:3])
	}
	if a.total+b.total != 2*maxRoutes+23 || len(b.picked[rankLocal]) != maxRoutes {
		t.Errorf("%d and %d", a.total, b.total)
	}
}

func ruleMessageOf(action uint8, attrs message) message {
	return append(message{}.U8(2, 0, 24, 0, 254, 0, 0, action).U32(2), attrs...)
}

func TestParseFibRule(t *testing.T) {
	r, err := parseFibRule(ruleMessageOf(1, message{}.Attr(2, []byte{192, 0, 2, 0}).Attr(6, num(100)).Attr(15, num(7777)).Attr(16, num(0xff)).Attr(23, []byte{80, 0, 81, 0})))
	if err != nil {
		t.Fatal(err)
	}
	want := fields{"family": "ip", "src": "192.0.2.0/24", "table": "7777", "flags": "not", "priority": "100", "fwmark": "0x0", "fwmask": "0xff", "sport_start": "80", "sport_end": "81"}
	if d := gocmp.Diff(want, r.fields); d != "" || r.action != "lookup" || r.priority != 100 {
		t.Errorf("%+v: %s", r, d)
	}
}

func nexthopMessage() message {
	return message{}.U8(2, 0, 4, 0).U32(0).Attr(1, num(10)).Attr(2, slices.Concat(num(1), []byte{4, 0, 0, 0}, num(2), []byte{0, 1, 0, 0}))
}

func TestNexthops(t *testing.T) {
	id, group, err := parseNexthop(nexthopMessage())
	if err != nil || id != 10 || len(group.group) != 2 {
		t.Fatalf("%d %+v %v", id, group, err)
	}
	one, _, err := parseNexthop(message{}.U8(2, 0, 4, 0).U32(0).Attr(1, num(1)).Attr(5, num(4)).Attr(6, []byte{192, 0, 2, 2}))
	if err != nil || one != 1 {
		t.Fatal(err)
	}
	list := map[uint32]nexthop{10: group, 1: {hop: hop{gateway: "192.0.2.2", oif: 4}}, 2: {hop: hop{oif: 5}}}
	r := routeAnswer{nhid: 10, fields: fields{}}
	r.resolve(list)
	r.names(deviceNames{4: "eth4", 5: "eth5"})
	if want := "via 192.0.2.2 dev eth4 weight 5; dev eth5 weight 257"; r.fields["nexthops"] != want {
		t.Errorf("%v, want %s", r.fields, want)
	}
	r = routeAnswer{nhid: 1, fields: fields{}}
	r.resolve(list)
	if r.oif != 4 || r.fields["gateway"] != "192.0.2.2" {
		t.Errorf("%+v", r)
	}
	r = routeAnswer{nhid: 99, fields: fields{}}
	r.resolve(list)
	if r.oif != 0 || len(r.hops) != 0 {
		t.Errorf("%+v", r)
	}
}

func tableMessage() message {
	return message{}.U8(2, 0, 0, 0).Text(1, "arp_cache").Attr(4, num(1024)).Attr(5, words(4, 77, 0, 0, 0, 0, 0, 0)).Attr(7, slices.Concat(make([]byte, 80), num64(3)))
}

func TestParseNeighTable(t *testing.T) {
	n, err := parseNeighTable(tableMessage())
	if err != nil || n.name != "arp_cache" {
		t.Fatalf("%+v %v", n, err)
	}
	if d := gocmp.Diff(fields{"gc_thresh3": "1024", "host_entries": "77", "table_fulls": "3"}, n.fields); d != "" {
		t.Error(d)
	}
	flagged := append(neighMessage(2)[:10:10], append([]byte{16 | 128, 0}, message{}.Attr(ndaFlagsExt, num(4))...)...)
	if n, err := parseNeigh(flagged); err != nil || n.fields["flags"] != "extern_learn,router,extern_valid" || n.state != "reachable" {
		t.Errorf("%+v %v", n, err)
	}
}

func progMessage() []byte {
	return slices.Concat(words(6, 41), []byte{1, 2, 3, 4, 5, 6, 7, 8}, make([]byte, 48), []byte("my_xdp\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), make([]byte, 100))
}

func TestParsePrograms(t *testing.T) {
	p, err := parseProgInfo(progMessage())
	if err != nil || p != (progInfo{"my_xdp", "xdp", "0102030405060708"}) {
		t.Errorf("%+v %v", p, err)
	}
	for _, tt := range []struct {
		in   []byte
		want linkInfo
	}{
		{append(words(3, 5, 41, 0), append(num64(1<<40), words(8)...)...), linkInfo{id: 5, kind: 3, prog: 41, cgroup: 1 << 40, attachType: 8}},
		{words(10, 6, 42, 0, 2, 1, 0xffffff7f, 0), linkInfo{id: 6, kind: 10, prog: 42, family: 2, hook: 1, priority: -129}},
		{words(5, 7, 43, 0, 4026532000, 36), linkInfo{id: 7, kind: 5, prog: 43, target: 4026532000, attachType: 36}},
		{words(6, 8, 44, 0, 3), linkInfo{id: 8, kind: 6, prog: 44, target: 3}},
		{words(1, 9, 45, 0), linkInfo{id: 9, kind: 1, prog: 45}},
	} {
		if got, err := parseLinkInfo(tt.in); err != nil || got != tt.want {
			t.Errorf("%+v, %v; want %+v", got, err, tt.want)
		}
	}
}

func hookMessage(kind uint32) message {
	return message{}.U8(2, 0, 0, 0).Attr(1, bnum(1)).Attr(2, bnum(0xffffff7f)).
		Attr(6, message{}.Attr(2, bnum(kind)).Attr(1, message{}.Attr(1, bnum(41))))
}

func actionMessage() message {
	options := message{}.Attr(2, words(7, 0, 0, 0, 0)).Attr(9, num(41))
	return message{}.U8(0, 0, 0, 0).Attr(1, message{}.Attr(1, message{}.Text(1, "bpf").Attr(2, options)))
}

func TestParseHookAndActions(t *testing.T) {
	if h, err := parseHook(hookMessage(2)); err != nil || h != (hookProgram{-129, 41}) {
		t.Errorf("%+v %v", h, err)
	}
	if h, err := parseHook(hookMessage(1)); err != nil || h.id != 0 { // a chain of nftables
		t.Errorf("%+v %v", h, err)
	}
	if a, err := parseActions(actionMessage()); err != nil || !slices.Equal(a, []bpfAction{{7, 41}}) {
		t.Errorf("%+v %v", a, err)
	}
}

func TestUnifiedMount(t *testing.T) {
	const mounts = `24 1 0:21 / /sys/fs/cgroup rw,nosuid shared:9 - tmpfs tmpfs rw
25 24 0:22 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
26 24 0:23 / /sys/fs/cgroup/uni\040fied\134x rw shared:4 - cgroup2 cgroup2 rw
27 24 0:23 / /elsewhere rw - cgroup2 cgroup2 rw
`
	if got := unifiedMount(mounts); got != `/sys/fs/cgroup/uni fied\x` {
		t.Error(got)
	}
	for _, none := range []string{"", "x - cgroup2 y", "24 1 0:21 / /a rw - tmpfs cgroup2 rw\n", `\04`} {
		if got := unifiedMount(none); got != "" {
			t.Errorf("%q: %s", none, got)
		}
	}
	if got := unescapeMount(`\04\999\0401`); got != `\04\999 1` {
		t.Error(got)
	}
}

// paramParsers are those of messages of the kernel.
var paramParsers = []struct {
	seeds [][]byte
	parse func(b []byte) error
}{
	{[][]byte{kindMessage("bond", message{}.Attr(1, []byte{1}), "bridge", message{}.Attr(1, []byte{3})), kindMessage("vxlan", message{}.Attr(10, num(9)), "", nil)}, func(b []byte) error {
		d, err := parseDevice(b)
		if err == nil {
			d.resolve(deviceNames{9: "x"})
		}
		return err
	}},
	{[][]byte{multipathMessage()}, func(b []byte) error {
		r, err := parseRoute(b)
		if err == nil {
			r.names(anyName(b))
			_ = r.name()
		}
		return err
	}},
	{[][]byte{ruleMessageOf(1, message{}.Attr(2, []byte{1, 2, 3, 4}).Attr(23, num(9)))}, func(b []byte) error { _, err := parseFibRule(b); return err }},
	{[][]byte{nexthopMessage()}, func(b []byte) error { _, _, err := parseNexthop(b); return err }},
	{[][]byte{tableMessage()}, func(b []byte) error { _, err := parseNeighTable(b); return err }},
	{[][]byte{progMessage()}, func(b []byte) error { _, err := parseProgInfo(b); return err }},
	{[][]byte{words(10, 6, 42, 0, 2, 1, 3, 0)}, func(b []byte) error { _, err := parseLinkInfo(b); return err }},
	{[][]byte{hookMessage(2)}, func(b []byte) error { _, err := parseHook(b); return err }},
	{[][]byte{actionMessage()}, func(b []byte) error { _, err := parseActions(b); return err }},
	{qdiscSeeds(), func(b []byte) error {
		_, err := parseQdisc(b)
		if _, err2 := parseClass(b); err != nil {
			return err
		} else {
			return err2
		}
	}},
}

// qdiscSeeds is a message of each kind whose options are known.
func qdiscSeeds() (list [][]byte) {
	for kind, set := range qdiscOptions {
		options := make([]byte, min(set.skip, 68))
		for _, p := range set.params {
			if p.attr != whole {
				options = message(options).Attr(p.attr, make([]byte, 48))
			}
		}
		if set.skip > 68 {
			options = options[:68]
		}
		list = append(list, qdiscMessage(kind, options, nil))
	}
	slices.SortFunc(list, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
	return list
}

// anyName knows the name of every device that a message can mean, so that the
// kernel is not asked.
func anyName(b []byte) deviceNames {
	names := deviceNames{}
	for i := range b {
		if i+4 <= len(b) {
			names[native.Uint32(b[i:])] = fmt.Sprint("d", i)
		}
	}
	return names
}

// As TestTruncated, for the parsers of this file.
func TestParamsTruncated(t *testing.T) {
	for i, p := range paramParsers {
		for _, m := range p.seeds {
			if err := p.parse(m); err != nil {
				t.Errorf("parser %d: %v", i, err)
			}
			if p.parse(nil) == nil || p.parse(m[:3]) == nil {
				t.Errorf("parser %d accepts what is too short", i)
			}
			for n := range m {
				_ = p.parse(m[:n:n])
			}
		}
	}
}

func FuzzParams(f *testing.F) {
	for i, p := range paramParsers {
		for _, m := range p.seeds {
			f.Add(uint8(i), m)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		_ = paramParsers[int(i)%len(paramParsers)].parse(slices.Clip(b))
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add("26 24 0:23 / /sys/fs/cgroup/uni\\040fied rw - cgroup2 cgroup2 rw\n")
	f.Fuzz(func(t *testing.T, s string) {
		if got := unifiedMount(s); len(got) > len(s) {
			t.Errorf("%q from %q", got, s)
		}
	})
}
