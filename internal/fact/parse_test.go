package fact

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

func num(v uint32) []byte   { return native.AppendUint32(nil, v) }
func bnum(v uint32) []byte  { return []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)} }
func nest(m message) []byte { return m }

// linkMessage is a bridge's port with a program of XDP.
func linkMessage() message {
	return message{}.U8(0, 0).U16(1).U32(7).U32(unix.IFF_UP).U32(0).
		Text(unix.IFLA_IFNAME, "veth0").Attr(unix.IFLA_ADDRESS, []byte{2, 0, 0, 0, 0, 0xa}).Attr(unix.IFLA_MTU, num(1400)).Attr(unix.IFLA_TXQLEN, num(1000)).
		Attr(unix.IFLA_OPERSTATE, []byte{6}).Attr(unix.IFLA_CARRIER, []byte{1}).Attr(unix.IFLA_PROMISCUITY, num(1)).
		Attr(unix.IFLA_MASTER, num(3)).Attr(unix.IFLA_LINK, num(8)).Attr(unix.IFLA_LINK_NETNSID, num(2)).
		Attr(unix.IFLA_LINKINFO, nest(message{}.Text(unix.IFLA_INFO_KIND, "veth").Text(unix.IFLA_INFO_SLAVE_KIND, "bridge").
			Attr(unix.IFLA_INFO_SLAVE_DATA, nest(message{}.Attr(1, []byte{4}).Attr(33, []byte{1}))))).
		Attr(unix.IFLA_XDP|unix.NLA_F_NESTED, nest(message{}.Attr(unix.IFLA_XDP_ATTACHED, []byte{2}).Attr(unix.IFLA_XDP_PROG_ID, num(41))))
}

func TestParseDevice(t *testing.T) {
	d, err := parseDevice(linkMessage())
	if err != nil {
		t.Fatal(err)
	}
	want := fields{
		"index": "7", "flags": "UP", "link_netnsid": "2", "port_kind": "bridge",
		"address": "02:00:00:00:00:0a", "port_state": "blocking", "port_isolated": "1", "kind": "veth", "mtu": "1400", "up": "1", "carrier": "1", "promiscuity": "1", "qlen": "1000", "xdp": "generic", "xdp_id": "41",
	}
	if diff := gocmp.Diff(want, d.fields); diff != "" {
		t.Error(diff)
	}
	if d.index != 7 || d.name != "veth0" || d.state != "up" || d.master != 3 || d.peer != 8 || d.peerNS != 2 || !d.elsewhere || d.qlen != 1000 {
		t.Errorf("got %+v", d)
	}
	// What has another length is left out, what is unknown is too.
	d, err = parseDevice(message{}.U8(0, 0).U16(1).U32(7).U32(0).U32(0).Attr(unix.IFLA_MTU, []byte{1, 2, 3}).Attr(unix.IFLA_OPERSTATE, []byte{99}).Attr(999, nil))
	if err != nil || d.fields["up"] != "0" || d.fields["mtu"] != "" || d.state != "unknown" {
		t.Errorf("got %+v, %v", d, err)
	}
}

func TestParseXDP(t *testing.T) {
	for _, tt := range []struct {
		m        message
		mode, id string
	}{
		{message{}.Attr(unix.IFLA_XDP_ATTACHED, []byte{0}), "none", ""},
		{message{}.Attr(unix.IFLA_XDP_ATTACHED, []byte{1}).Attr(unix.IFLA_XDP_PROG_ID, num(5)).Attr(unix.IFLA_XDP_DRV_PROG_ID, num(5)), "driver", "5"},
		{message{}.Attr(unix.IFLA_XDP_ATTACHED, []byte{3}).Attr(unix.IFLA_XDP_PROG_ID, num(6)), "offload", "6"},
		{message{}.Attr(unix.IFLA_XDP_ATTACHED, []byte{4}).Attr(unix.IFLA_XDP_SKB_PROG_ID, num(8)).Attr(unix.IFLA_XDP_DRV_PROG_ID, num(7)), "driver", "7"},
	} {
		f := fields{"xdp": "none"}
		if err := parseXDP(tt.m, f); err != nil || f["xdp"] != tt.mode || f["xdp_id"] != tt.id {
			t.Errorf("%v, %v; want %s %s", f, err, tt.mode, tt.id)
		}
	}
}

func routeMessage() message {
	return message{}.U8(2, 32, 0, 0, 254, 0, 0, unix.RTN_UNICAST).U32(0).
		Attr(unix.RTA_TABLE, num(1000)).Attr(unix.RTA_OIF, num(4)).Attr(unix.RTA_GATEWAY, []byte{192, 0, 2, 1}).
		Attr(unix.RTA_PREFSRC, []byte{192, 0, 2, 9}).Attr(unix.RTA_METRICS, nest(message{}.Attr(unix.RTAX_MTU, num(1280)).Attr(unix.RTAX_HOPLIMIT, num(3))))
}

func TestParseRoute(t *testing.T) {
	r, err := parseRoute(routeMessage())
	if err != nil || r.kind != "unicast" || r.oif != 4 {
		t.Errorf("got %+v, %v", r, err)
	}
	want := fields{
		"table": "1000", "gateway": "192.0.2.1", "src": "192.0.2.9", "mtu": "1280", "hoplimit": "3",
		"dst": "0.0.0.0/32", "family": "ip", "protocol": "unspec", "scope": "global",
	}
	if diff := gocmp.Diff(want, r.fields); diff != "" {
		t.Error(diff)
	}
	via := message{}.U16(unix.AF_INET6)
	via = append(via, []byte{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}...)
	r, err = parseRoute(message{}.U8(2, 32, 0, 0, 255, 0, 0, unix.RTN_LOCAL).U32(0).Attr(unix.RTA_VIA, via))
	if err != nil || r.kind != "local" || r.fields["table"] != "local" || r.fields["gateway"] != "fe80::1" {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err := parseRoute(message{}.U8(2, 32, 0, 0, 255, 0, 0, 99).U32(0)); err != nil || r.kind != "99" {
		t.Errorf("a type that is not known: %+v, %v", r, err)
	}
}

func addrMessage() message {
	return message{}.U8(2, 31, 0, 0).U32(5).Attr(unix.IFA_ADDRESS, []byte{192, 0, 2, 1}).Attr(unix.IFA_LOCAL, []byte{192, 0, 2, 0})
}

func TestParseLocalAddr(t *testing.T) {
	if a, err := parseLocalAddr(addrMessage()); err != nil || a.index != 5 || a.addr != "192.0.2.0" || a.prefix != 31 || a.fields["peer"] != "192.0.2.1" || a.fields["scope"] != "global" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func neighMessage(state uint16) message {
	return message{}.U8(2, 0).U16(0).U32(5).U16(state).U8(0, 0).Attr(unix.NDA_LLADDR, []byte{2, 0, 0xab, 0, 0, 1})
}

func TestParseNeigh(t *testing.T) {
	for state, want := range map[uint16]string{0: "none", 1: "incomplete", 2: "reachable", 4: "stale", 32: "failed", 128: "permanent"} {
		if got, err := parseNeigh(neighMessage(state)); err != nil || got.state != want || got.fields["lladdr"] != "02:00:ab:00:00:01" {
			t.Errorf("%d: %+v %v", state, got, err)
		}
	}
}

func qdiscMessage(kind string, options, stats []byte) message {
	return message{}.U8(0, 0).U16(0).U32(4).U32(0x10000).U32(handleRoot).U32(0).Text(1, kind).Attr(2, options).Attr(7, stats)
}

func TestParseQdisc(t *testing.T) {
	stats := message{}.Attr(1, make([]byte, 16)).Attr(3, append(append(num(3), num(4500)...), make([]byte, 12)...))
	pad := func(at int, v uint32) []byte { return append(make([]byte, at), num(v)...) }
	for _, tt := range []struct {
		kind    string
		options []byte
		limit   int64
	}{
		{"pfifo", num(100), 100},
		{"pfifo", nil, -1},
		{"noqueue", num(100), -1},
		{"netem", pad(4, 1000), 1000},
		{"sfq", pad(8, 127), 127},
		{"tbf", message{}.Attr(1, append(pad(24, 3000), make([]byte, 8)...)), 3000},
		{"fq_codel", message{}.Attr(1, num(4999)).Attr(2, num(10240)), 10240},
		{"fq", message{}.Attr(1, num(10000)).Attr(2, num(100)), 10000},
		{"htb", message{}.Attr(2, make([]byte, 20)).Attr(5, num(1000)), 1000},
		{"red", message{}.Attr(1, pad(0, 60000)), 60000},
	} {
		got, err := parseQdisc(qdiscMessage(tt.kind, tt.options, stats))
		if err != nil || got.index != 4 || got.handle != 0x10000 || got.parent != handleRoot || got.kind != tt.kind || !got.hasQueue || got.qlen != 3 || got.backlog != 4500 {
			t.Errorf("%+v, %v", got, err)
		}
		if got.limit != tt.limit {
			t.Errorf("%s: limit %d, want %d", tt.kind, got.limit, tt.limit)
		}
	}
}

func TestHandle(t *testing.T) {
	for h, want := range map[uint32]string{handleRoot: "root", handleIngress: "ingress", 0x80010000: "8001:", 0x1001a: "1:1a", 1: ":1", 0: "0:"} {
		if got := handle(h); got != want {
			t.Errorf("%#x: %s, want %s", h, got, want)
		}
	}
}

func filterMessage(kind string, h uint32, options message) message {
	m := message{}.U8(0, 0).U16(0).U32(4).U32(h).U32(parentIngress).U32(10<<16|0x0300).Text(1, kind)
	if options != nil {
		m = m.Attr(2, options)
	}
	return m
}

func TestParseFilter(t *testing.T) {
	for _, tt := range []struct {
		m    message
		want filter
	}{
		{filterMessage("bpf", 0, nil), filter{kind: "bpf", pref: 10}},
		{filterMessage("bpf", 1, message{}.Text(7, "drop.o:[tc]").Attr(11, num(33))), filter{kind: "bpf", handle: 1, pref: 10, prog: "drop.o:[tc]", id: 33, real: true}},
		{filterMessage("u32", 0x80000000, message{}.Attr(4, num(1))), filter{kind: "u32", handle: 0x80000000, pref: 10}},
		{filterMessage("u32", 0x80000800, message{}), filter{kind: "u32", handle: 0x80000800, pref: 10, real: true}},
	} {
		if got, err := parseFilter(tt.m); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%+v, %v; want %+v", got, err, tt.want)
		}
	}
	f := filter{kind: "bpf", handle: 1, pref: 10, prog: "x", id: 3}
	if diff := gocmp.Diff(fields{"direction": "ingress", "kind": "bpf", "pref": "10", "handle": "0x1", "prog": "x id 3"}, f.fields("ingress")); diff != "" {
		t.Error(diff)
	}
}

func diagMessage(family uint8, mem int) message {
	m := message{}.U8(family, tcpListen, 0, 0, 0, 80, 0, 0)
	m = append(m, []byte{192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9}...)
	m = append(m, make([]byte, 28)...) // the other end, device, cookie
	m = m.U32(0).U32(5).U32(128).U32(1000).U32(4242)
	var info message
	for i := range uint32(mem) {
		info = info.U32(100 + i)
	}
	return m.Attr(kernelnet.InetMeminfo, info)
}

func TestParseDiag(t *testing.T) {
	s, err := parseDiag(diagMessage(unix.AF_INET, 9))
	if err != nil || s.local.String() != "192.0.2.1:80" || s.state != tcpListen || s.recvQ != 5 || s.sendQ != 128 || s.uid != 1000 || s.inode != 4242 {
		t.Errorf("got %+v, %v", s, err)
	}
	if !s.hasMem || s.rcvbuf != 101 || s.wmem != 102 || s.sndbuf != 103 || !s.hasDrops || s.drops != 108 {
		t.Errorf("memory: %+v", s)
	}
	s, err = parseDiag(diagMessage(unix.AF_INET6, 8))
	if err != nil || s.local.String() != "[c000:201::9]:80" || s.hasDrops {
		t.Errorf("got %+v, %v", s, err)
	}
	if _, err := parseDiag(diagMessage(99, 9)); err == nil {
		t.Error("another family was accepted")
	}
}

const procUDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  125: 0100007F:0035 00000000:0000 07 00000010:000000FF 00:00000000 00000000   101        0 23456 2 0000000000000000 17
`

const procTCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: B80D0120000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 777 1 0000000000000000 100 0 0 10 0
`

func TestParseProcSockets(t *testing.T) {
	var got []socket
	for _, s := range []string{procUDP, procTCP6} {
		if err := parseProcSockets(strings.NewReader(s), func(s *socket) { got = append(got, *s) }); err != nil {
			t.Fatal(err)
		}
	}
	if len(got) != 2 {
		t.Fatalf("got %+v", got)
	}
	u, l := got[0], got[1]
	if u.local.String() != "127.0.0.1:53" || u.state != 7 || u.recvQ != 255 || u.sendQ != 16 || u.uid != 101 || u.inode != 23456 || !u.hasDrops || u.drops != 17 {
		t.Errorf("udp: %+v", u)
	}
	if l.local.String() != "[2001:db8::1]:8080" || l.state != tcpListen || l.recvQ != 3 || l.inode != 777 || l.diag || l.hasMem {
		t.Errorf("tcp6: %+v", l)
	}
	for _, bad := range []string{"x", strings.Replace(procUDP, "0035", "FFFFF", 1), strings.Replace(procUDP, "0100007F", "01", 1), strings.Replace(procUDP, "0100007F", "0100007F00000000", 1), strings.Replace(procUDP, " 17", " z", 1)} {
		if err := parseProcSockets(strings.NewReader("head\n"+bad[strings.IndexByte(bad, '\n')+1:]), func(*socket) {}); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestListIsBounded(t *testing.T) {
	list := byWeight(maxSockets, func(s *socket) uint64 { return uint64(s.recvQ) })
	for i := range 3*maxSockets + 7 {
		list.offer(socket{recvQ: uint32(i * 7919 % (3*maxSockets + 7))})
		if len(list.list) > 2*maxSockets {
			t.Fatalf("%d in memory", len(list.list))
		}
	}
	q := &query{Reader: &Reader{}}
	q.list(list, func(s *socket) { q.add("x", decimal(s.recvQ), nil) })
	last := len(q.facts) - 1
	if last != maxSockets || q.facts[last].Missing != decimal(2*maxSockets+7)+" more sockets are left out" {
		t.Fatalf("%d facts, last %+v", len(q.facts), q.facts[last])
	}
	for i, f := range q.facts[:last] {
		if f.Value != decimal(3*maxSockets+6-i) {
			t.Fatalf("fact %d: %+v", i, f)
		}
	}
}

func chainMessage(name string, hook bool) message {
	m := message{}.U8(1, 0, 0, 0).Text(unix.NFTA_CHAIN_TABLE, "t").Text(unix.NFTA_CHAIN_NAME, name)
	if hook {
		m = m.Attr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, message{}.Attr(unix.NFTA_HOOK_HOOKNUM, bnum(1)).Attr(unix.NFTA_HOOK_PRIORITY, bnum(0xffffff6a))).
			Attr(unix.NFTA_CHAIN_POLICY, bnum(kernelnet.NfDrop))
	}
	return m
}

func verdict(code int32, to string) message {
	v := message{}.Attr(unix.NFTA_VERDICT_CODE, bnum(uint32(code)))
	if to != "" {
		v = v.Text(unix.NFTA_VERDICT_CHAIN, to)
	}
	return message{}.Attr(unix.NFTA_DATA_VERDICT, v)
}

func expression(name string, data message) message {
	return message{}.Attr(unix.NFTA_LIST_ELEM, message{}.Text(unix.NFTA_EXPR_NAME, name).Attr(unix.NFTA_EXPR_DATA, data))
}

func ruleMessage(chain string, exprs ...message) message {
	return message{}.U8(1, 0, 0, 0).Text(unix.NFTA_RULE_TABLE, "t").Text(unix.NFTA_RULE_CHAIN, chain).
		Attr(unix.NFTA_RULE_EXPRESSIONS, slices.Concat(exprs...))
}

func immediate(code int32, to string) message {
	return expression("immediate", message{}.Attr(unix.NFTA_IMMEDIATE_DREG, bnum(0)).Attr(unix.NFTA_IMMEDIATE_DATA, verdict(code, to)))
}

func vmap(set string) message {
	return expression("lookup", message{}.Text(unix.NFTA_LOOKUP_SET, set).Attr(unix.NFTA_LOOKUP_DREG, bnum(unix.NFT_REG_VERDICT)))
}

func elements(verdicts ...message) message {
	var list message
	for _, v := range verdicts {
		list = list.Attr(unix.NFTA_LIST_ELEM, message{}.Attr(unix.NFTA_SET_ELEM_KEY, num(1)).Attr(unix.NFTA_SET_ELEM_DATA, v))
	}
	return message{}.U8(1, 0, 0, 0).Attr(unix.NFTA_SET_ELEM_LIST_ELEMENTS, list)
}

func TestRuleset(t *testing.T) {
	rs := &ruleset{chains: map[kernelnet.NftID]*chain{}}
	rs.clearRules()
	for name, base := range map[string]bool{"in": true, "sub": false, "mapped": false, "lonely": false} {
		c, err := kernelnet.ParseNftChain(chainMessage(name, base))
		if err != nil {
			t.Fatal(err)
		}
		rs.chains[c.ID] = &chain{NftChain: c}
	}
	for _, m := range []message{
		ruleMessage("in", expression("counter", nil), immediate(1, "")),                        // accept
		ruleMessage("in", immediate(unix.NFT_JUMP, "sub")),                                     // jump sub
		ruleMessage("in", vmap("m")),                                                           // vmap: drops, goes to mapped
		ruleMessage("in", expression("reject", message{}.Attr(1, bnum(0)))),                    // reject
		ruleMessage("in", expression("lookup", message{}.Text(unix.NFTA_LOOKUP_SET, "plain"))), // no map of verdicts
		ruleMessage("sub", immediate(kernelnet.NfDrop, "")),                                    // drop
		ruleMessage("sub", immediate(unix.NFT_GOTO, "in")),                                     // a circle, which the kernel refuses
		ruleMessage("sub", expression("target", message{}.Text(unix.NFTA_TARGET_NAME, "REJECT"))),
		ruleMessage("sub", expression("target", message{}.Text(unix.NFTA_TARGET_NAME, "LOG"))),
		ruleMessage("mapped", expression("immediate", message{}.Attr(unix.NFTA_IMMEDIATE_DREG, bnum(1)).Attr(unix.NFTA_IMMEDIATE_DATA, message{}.Attr(unix.NFTA_DATA_VALUE, bnum(0))))),
		ruleMessage("mapped", immediate(kernelnet.NfDrop, "")),
		ruleMessage("lonely", immediate(kernelnet.NfDrop, "")),
		ruleMessage("unknown", immediate(kernelnet.NfDrop, "")),
	} {
		id, v, err := parseRule(m)
		if err != nil {
			t.Fatal(err)
		}
		rs.addRule(id, v)
	}
	id := kernelnet.NftID{Family: 1, Table: "t", Name: "m"}
	if got := slices.Collect(maps.Keys(rs.lookups)); !slices.Equal(got, []kernelnet.NftID{id}) {
		t.Fatalf("maps %v", got)
	}
	if err := parseElements(elements(verdict(kernelnet.NfDrop, ""), verdict(unix.NFT_GOTO, "mapped"), verdict(1, "")), id, rs.lookups[id]); err != nil {
		t.Fatal(err)
	}
	rs.resolve()
	in := rs.chains[kernelnet.NftID{Family: 1, Table: "t", Name: "in"}]
	if !in.Base || in.Hook != 1 || in.Priority != -150 || in.Policy != "drop" {
		t.Errorf("chain %+v", in)
	}
	if rules, drops := rs.reach(in); rules != 11 || drops != 5 {
		t.Errorf("%d rules, %d drop; want 11, 5", rules, drops)
	}
}

func TestNftNames(t *testing.T) {
	for _, tt := range []struct {
		family uint8
		hook   uint32
		want   string
	}{
		{1, 1, "inet input"}, {2, 0, "ip prerouting"}, {3, 1, "arp output"}, {5, 0, "netdev ingress"}, {7, 2, "bridge forward"}, {10, 4, "ip6 postrouting"}, {99, 98, "99 98"}, {1, 5, "inet ingress"},
	} {
		if got := kernelnet.NftFamily(tt.family) + " " + nftHook(tt.family, tt.hook); got != tt.want {
			t.Errorf("%d %d: %s, want %s", tt.family, tt.hook, got, tt.want)
		}
	}
}

// parsers are those of messages of the kernel.
var parsers = []struct {
	seeds []message
	parse func(b []byte) error
}{
	{[]message{linkMessage()}, func(b []byte) error { _, err := parseDevice(b); return err }},
	{[]message{routeMessage()}, func(b []byte) error { _, err := parseRoute(b); return err }},
	{[]message{addrMessage()}, func(b []byte) error { _, err := parseLocalAddr(b); return err }},
	{[]message{neighMessage(2)}, func(b []byte) error { _, err := parseNeigh(b); return err }},
	{[]message{qdiscMessage("fq", message{}.Attr(1, num(9)), nil), qdiscMessage("sfq", make([]byte, 20), nil)}, func(b []byte) error { _, err := parseQdisc(b); return err }},
	{[]message{filterMessage("bpf", 1, message{}.Text(7, "x").Attr(11, num(1)))}, func(b []byte) error { _, err := parseFilter(b); return err }},
	{[]message{vlanMessage([2]uint16{6, 1}, [2]uint16{8, 5}, [2]uint16{16, 8})}, func(b []byte) error { _, _, err := parseVLANs(b); return err }},
	{[]message{filterMessage("u32", 0x800, message{}.Attr(7, message{}.Attr(1, mirredMessage(1, 6, 20))))}, func(b []byte) error { _, err := parseFilter(b); return err }},
	{[]message{diagMessage(2, 9), diagMessage(10, 4)}, func(b []byte) error { _, err := parseDiag(b); return err }},
	{[]message{ruleMessage("in", immediate(kernelnet.NfDrop, ""), vmap("m"), immediate(unix.NFT_JUMP, "sub"))}, func(b []byte) error { _, _, err := parseRule(b); return err }},
	{[]message{elements(verdict(0, ""), verdict(-3, "x"))}, func(b []byte) error { return parseElements(b, kernelnet.NftID{}, &verdicts{}) }},
}

// A message that is cut off before its end is an error or fewer attributes,
// and never a panic; one too short for its structure is an error.
func TestTruncated(t *testing.T) {
	for i, p := range parsers {
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

func FuzzMessages(f *testing.F) {
	for i, p := range parsers {
		for _, m := range p.seeds {
			f.Add(uint8(i), []byte(m))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, b []byte) {
		_ = parsers[int(i)%len(parsers)].parse(slices.Clip(b))
	})
}

func FuzzProcFiles(f *testing.F) {
	f.Add(procUDP)
	f.Add(procTCP6)
	f.Add("TCP: inuse 5 orphan 0\nUDP: inuse 2 mem\n")
	f.Fuzz(func(t *testing.T, s string) {
		_ = parseProcSockets(strings.NewReader(s), func(s *socket) {
			if !s.local.Addr().IsValid() {
				t.Errorf("a socket without address: %+v", s)
			}
		})
		parseSockstat(s, func(name, value string) {
			if !strings.Contains(s, value) {
				t.Errorf("%s: %q is not in the text", name, value)
			}
		})
	})
}

func FuzzArguments(f *testing.F) {
	for _, s := range []string{"192.0.2.1 from 192.0.2.2 iif eth0", "fe80::1 eth0", "net/ipv4/ip_forward", "eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, arg string) {
		if r, err := parseRouteArg(arg); err == nil && len(r.message(1, 0, 0)) < unix.SizeofRtMsg {
			t.Errorf("%q gives no message", arg)
		}
		_ = checkNeigh(arg)
		if checkSysctl(arg) == nil && (strings.Contains("/"+arg+"/", "/../") || strings.HasPrefix(arg, "/")) {
			t.Errorf("%q leads out of /proc/sys", arg)
		}
		if checkDevice(arg) == nil && strings.ContainsAny(arg, "/ \n") {
			t.Errorf("%q is no device", arg)
		}
	})
}
