package diagnose_test

import (
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

// onlyCounted prints the findings that only a counter tells of: its name, how
// much, and the device.
func onlyCounted(d record.Diagnosis) string {
	var out []string
	for _, f := range d.Findings {
		if f.LostBy != "counters" {
			continue
		}
		name := f.Cause
		if name == record.CauseNotKnown {
			name = f.Evidence[0].Name
		}
		s := fmt.Sprintf("%s:%d", name, f.Drops)
		if f.Events > 0 {
			s = fmt.Sprintf("%s:%d events", name, f.Events)
		}
		for _, dev := range f.Devices {
			s += ":" + strings.TrimSuffix(dev, " (netns lab)")
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// drop is a count of drops in the lab's namespace at a device (0: none).
func drop(reason, symbol string, ethertype uint16, proto uint8, dir record.Direction, index uint32, n uint64) record.Count {
	c := count(reason, symbol, n)
	c.EtherType, c.IPProto, c.Direction = ethertype, proto, dir
	if index != 0 {
		c.Device = record.Device{Index: index, Name: fmt.Sprint("eth", index)}
	}
	return c
}

func link(index uint32, kind string) record.Fact {
	f := fact("link", fmt.Sprint("eth", index), "up")
	f.Fields = map[string]string{"kind": kind}
	return f
}

// TestLossStaysOpen holds losses that something beside them must not excuse.
func TestLossStaysOpen(t *testing.T) {
	const rx, tx = record.DirectionRX, record.DirectionTX
	five := []record.Counter{
		moves("Udp.RcvbufErrors", 1000), moves("TcpExt.TCPBacklogDrop", 1000), moves("Ip.InHdrErrors", 1000),
		moves("TcpExt.TCPMinTTLDrop", 1000), moves("TcpExt.IPReversePathFilter", 1000),
	}
	excused := func(a record.Accounting) *record.Observation {
		o := watched(nil, five...)
		o.Accounting = a
		return o
	}
	lldp := func(cs ...record.Counter) *record.Observation {
		return watched([]record.Count{drop("UNHANDLED_PROTO", "__netif_receive_skb_core", 0x88cc, 0, rx, 2, 500)}, append(cs, on("link.rx_dropped", 500, 2))...)
	}
	loop := func(device uint32, facts ...record.Fact) *record.Observation {
		o := watched([]record.Count{drop("LOCAL_MAC", "vxlan_rcv", 0x0800, 17, rx, device, 400)},
			on("link.rx_errors", 400, 2), on("link.rx_crc_errors", 400, 2), on("link.rx_errors", 400, 9))
		o.Facts = facts
		return o
	}
	backlog := func(kind string) *record.Observation {
		o := watched([]record.Count{drop("CPU_BACKLOG", "enqueue_to_backlog", 0x0800, 17, rx, 2, 900)}, on("link.tx_dropped", 400, 3))
		o.Counts[0].NetNS = record.NetNS{Inode: 4026532999}
		o.Facts = []record.Fact{link(3, kind)}
		return o
	}
	blindfold := func(cs ...record.Counter) *record.Observation {
		o := watched(nil, cs...)
		o.Sources = []record.Source{{Name: "counters", State: record.SourceOK}, {Name: "skbdrop", State: record.SourceFailed}}
		return o
	}
	deaf := watched(nil, moves("Ip.OutDiscards", 70))
	deaf.Accounting.AlertsLost = 1
	k := load(t)
	for _, c := range []struct {
		name string
		o    *record.Observation
		want string
	}{
		{"a queue of a driver", watched(nil, on("ethtool.rx_queue_drop_cnt", 500, 2)), "nic-rx-ring-full:500:eth2"},
		{"drops that nobody could look at, once", excused(record.Accounting{DropsUnattributed: 1000}), "Ip.InHdrErrors:1000, TcpExt.TCPBacklogDrop:1000, TcpExt.TCPMinTTLDrop:1000, Udp.RcvbufErrors:1000"},
		{"drops without a place in the table, once", excused(record.Accounting{MapFull: 2100}), "Ip.InHdrErrors:1000, TcpExt.TCPBacklogDrop:1000, TcpExt.TCPMinTTLDrop:1000"},
		{"drops that were filtered out, once", excused(record.Accounting{DropsFiltered: 1999}), "Ip.InHdrErrors:1000, TcpExt.TCPBacklogDrop:1000, TcpExt.TCPMinTTLDrop:1000, Udp.RcvbufErrors:1000"},
		{"all of them", excused(record.Accounting{MapFull: 3000, DropsFiltered: 2000}), ""},
		{"a ring beside drops in the stack", lldp(on("ethtool.rx_no_dma_resources", 450, 2)), "nic-rx-ring-full:450:eth2"},
		{"a ring, by link and driver", lldp(on("ethtool.rx_missed_errors", 500, 2), on("link.rx_missed_errors", 500, 2)), "nic-rx-ring-full:500:eth2"},
		{"a port beside drops in the stack", lldp(on("ethtool.rx_discards_phy", 300, 2)), "nic-rx-fifo:300:eth2"},
		{"a port that rx_dropped has", watched([]record.Count{drop("UNHANDLED_PROTO", "__netif_receive_skb_core", 0x88cc, 0, rx, 2, 500)}, on("link.rx_dropped", 800, 2), on("ethtool.rx_discards_phy", 300, 2)), "nic-rx-fifo:300:eth2"},
		{"a cable beside drops of a tunnel", loop(9), "nic-rx-crc:400:eth2"},
		{"a cable below a tunnel", loop(2, link(2, ""), link(9, "vxlan")), "nic-rx-crc:400:eth2"},
		{"no cable, a tunnel", func() *record.Observation {
			o := loop(2, link(2, ""), link(9, "vxlan"))
			o.Counters = o.Counters[2:]
			return o
		}(), ""},
		{"a tunnel that nobody knows", func() *record.Observation {
			o := loop(2)
			o.Counters = o.Counters[2:]
			return o
		}(), "link.rx_errors:400:eth9"},
		{"packets without a route beside a bad line", watched([]record.Count{drop("IP_OUTNOROUTES", "__ip_queue_xmit", 0x0800, 6, tx, 0, 400)}, on("link.tx_errors", 400, 2)), "link.tx_errors:400:eth2"},
		{"the backlog of another namespace", backlog(""), "link.tx_dropped:400:eth3"},
		{"the backlog at the other end", backlog("veth"), ""},
		{"events", watched(nil, on("fec.uncorrectable_blocks", 10000, 2), on("ethtool.tx_timeout", 3, 2)), "fec.uncorrectable_blocks:10000 events:eth2, nic-tx-timeout:3 events:eth2"},
		{"events of the stack", watched(nil, moves("TcpExt.OfoPruned", 7), moves("arp_cache.table_fulls", 8)), "TcpExt.OfoPruned:7 events, arp_cache.table_fulls:8 events"},
		{"events that two counters count", watched(nil, moves("Ip.ReasmFails", 20), moves("Ip.ReasmTimeout", 20)), "Ip.ReasmTimeout:20 events"},
		{"events, and more of the sum", watched(nil, moves("Ip.ReasmFails", 50), moves("Ip.ReasmTimeout", 20)), "Ip.ReasmFails:30 events, Ip.ReasmTimeout:20 events"},
		{"events with fewer drops", watched([]record.Count{drop("FRAG_REASM_TIMEOUT", "inet_frag_rbtree_purge", 0x0800, 17, rx, 2, 4)}, moves("Ip.ReasmTimeout", 900), moves("Ip.ReasmFails", 900)), "Ip.ReasmTimeout:896 events"},
		{"events whose packets are counted", watched(nil, on("fec.uncorrectable_blocks", 10, 2), on("link.rx_crc_errors", 70, 2), on("link.rx_errors", 70, 2)), "nic-rx-crc:70:eth2"},
		{"events of which few packets are counted", watched(nil, on("fec.uncorrectable_blocks", 1000, 2), on("link.rx_crc_errors", 70, 2), on("link.rx_errors", 70, 2)), "fec.uncorrectable_blocks:1000 events:eth2, nic-rx-crc:70:eth2"},
		{"acknowledgements that cake leaves out", watched(nil, on("qdisc.drops", 100, 2), on("cake.acks_dropped_packets", 100, 2)), ""},
		{"those and others", watched(nil, on("qdisc.drops", 170, 2), on("cake.acks_dropped_packets", 100, 2)), "qdisc.drops:70:eth2"},
		{"those of another device", watched(nil, on("qdisc.drops", 100, 2), on("cake.acks_dropped_packets", 100, 3)), "qdisc.drops:100:eth2"},
		{"those beside drops", watched([]record.Count{drop("QDISC_DROP", "__dev_queue_xmit", 0x0800, 17, tx, 2, 170)}, on("qdisc.drops", 170, 2), on("cake.acks_dropped_packets", 100, 2), moves("Udp.SndbufErrors", 100)), ""},
		{"a policy, IPv6", watched([]record.Count{drop("XFRM_POLICY", "udpv6_queue_rcv_one_skb", 0x86dd, 17, rx, 2, 100)}, moves("xfrm.XfrmInNoPols", 100), moves("Udp6.InErrors", 100)), ""},
		{"the reserve", watched([]record.Count{drop("PFMEMALLOC", "udp_queue_rcv_one_skb", 0x0800, 17, rx, 2, 100)}, moves("TcpExt.PFMemallocDrop", 100), moves("Udp.InErrors", 100)), ""},
		{"too big to be sent", watched([]record.Count{drop("PKT_TOO_BIG", "ip_fragment", 0x0800, 17, tx, 2, 100)}, moves("Ip.FragFails", 100), moves("Ip.OutDiscards", 100)), ""},
		{"a tunnel's full ring, UDP-Lite", watched([]record.Count{drop("FULL_RING", "tun_net_xmit", 0x0800, 136, tx, 2, 100)}, on("link.tx_dropped", 100, 2), moves("UdpLite.SndbufErrors", 100)), ""},
		{"a full send buffer, nobody watched", blindfold(moves("Udp.SndbufErrors", 1000), moves("Ip.OutDiscards", 1000)), "Udp.SndbufErrors:1000"},
		{"a full send buffer, not all was heard of", deaf, "Ip.OutDiscards:70"},
		{"a full send buffer", watched(nil, moves("Udp.SndbufErrors", 1000), moves("Ip.OutDiscards", 1000)), ""},
		{"retransmissions that were not sent", blindfold(moves("TcpExt.TCPRetransFail", 1000)), ""},
		{"cookies without resets", watched(nil, moves("TcpExt.SyncookiesFailed", 1000), moves("Tcp.OutRsts", 30)), "TcpExt.SyncookiesFailed:970"},
		{"what spares it was not read", watched(nil, moves("Icmp.InErrors", 50)), "Icmp.InErrors:50"},
		{"ICMP errors of others", watched(nil, moves("Icmp.InErrors", 50), moves("Icmp.InDestUnreachs", 30), moves("Icmp.InRedirects", 20)), ""},
		{"two in a hundred", watched([]record.Count{drop("SOCKET_RCVBUFF", "__udp_queue_rcv_skb", 0x0800, 17, rx, 2, 981_000)}, moves("Udp.RcvbufErrors", 1_000_000)), "Udp.RcvbufErrors:19000"},
		{"few of many", watched([]record.Count{drop("SOCKET_RCVBUFF", "__udp_queue_rcv_skb", 0x0800, 17, rx, 2, 999_940)}, moves("Udp.RcvbufErrors", 1_000_000)), ""},
	} {
		d := diagnose.Run(c.o, k, diagnose.Options{All: true})
		if got := onlyCounted(d); got != c.want {
			t.Errorf("%s: %s\nwant %s\n%s", c.name, got, c.want, entries(d))
		}
	}
}

// Drops explain no counter that they do not raise, though both moved by as much.
func TestDropsOfAnotherCounter(t *testing.T) {
	for _, c := range []struct {
		name    string
		o       *record.Observation
		counter string
	}{
		{"refused by a firewall on the way in", watched([]record.Count{drop("NETFILTER_DROP", "nft_do_chain", 0x0800, 17, record.DirectionRX, 0, 1000)}, moves("Udp.SndbufErrors", 600), moves("Ip.OutDiscards", 1000), moves("nft.drop_packets", 1000)), "Udp.SndbufErrors"},
		{"an old acknowledgement", watched([]record.Count{drop("TCP_RFC7323_PAWS_ACK", "tcp_validate_incoming", 0x0800, 6, record.DirectionRX, 2, 700)}, moves("TcpExt.PAWSEstab", 700), moves("TcpExt.PAWSOldAck", 700)), "TcpExt.PAWSEstab"},
		{"a connection in TIME_WAIT", watched([]record.Count{drop("TCP_RFC7323_TW_PAWS", "tcp_v4_rcv", 0x0800, 6, record.DirectionRX, 2, 700)}, moves("TcpExt.PAWSEstab", 700), moves("TcpExt.PAWSTimewait", 700)), "TcpExt.PAWSEstab"},
	} {
		for _, e := range diagnose.Run(c.o, load(t), diagnose.Options{All: true}).Ledger.Entries {
			if e.Counter == c.counter && e.Drops != 0 {
				t.Errorf("%s: %s has %d drops", c.name, c.counter, e.Drops)
			}
		}
	}
}

// silenced are the counters of loss that may move without a finding, by what
// drops.yaml says: what raises them is no loss, or would have been seen.
var silenced = []string{
	"Udp.SndbufErrors", "Udp6.SndbufErrors", "UdpLite.SndbufErrors", "UdpLite6.SndbufErrors", "Ip.OutDiscards", "Ip6.OutDiscards",
	"TcpExt.TCPRetransFail", "TcpExt.ArpFilter", "TcpExt.LockDroppedIcmps", "TcpExt.TCPSYNChallenge",
	"rt_cache.in_martian_src", "rt_cache.in_martian_dst", "rt_cache.in_no_route",
	"arp_cache.res_failed", "ndisc_cache.res_failed", "clip_arp_cache.res_failed",
}

// total is what the findings say was lost, in packets and in events.
func total(d record.Diagnosis) (n uint64) {
	for _, f := range d.Findings {
		n += f.Explains() + f.Events
	}
	return n
}

// TestEveryLossCounterMakesAFinding: whichever counter of loss moves alone, it
// is said that something was lost, and how much.
func TestEveryLossCounterMakesAFinding(t *testing.T) {
	diagnose.Alone(t)
	k := load(t)
	n := 0
	for name, c := range k.Raised() {
		m, _ := k.Counter(name)
		if c.Kind != "loss" || c.Unit == "bytes" || m.Station == record.StationUnknown {
			continue
		}
		n++
		d := diagnose.Run(watched(nil, on(name, 5000, 2)), k, diagnose.Options{})
		got := total(d)
		// A cause may know better.
		known := len(d.Findings) > 0 && d.Findings[0].Cause != record.CauseNotKnown
		if quiet := slices.Contains(silenced, name); quiet && !known && got > 0 || !quiet && got < 4990 {
			t.Errorf("%s +5000: %d lost", name, got)
		}
	}
	if n < 250 {
		t.Errorf("only %d counters", n)
	}
}

// TestLossBesideACase: a loss that comes to what a recorded case has is found
// too, whatever its drops and counters are.
func TestLossBesideACase(t *testing.T) {
	diagnose.Alone(t)
	const more = 70_000
	k := load(t)
	files, err := fs.Glob(knowledge.FS, "causes/*/cases/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		o := observationOf(t, knowledge.FS, name)
		was := total(diagnose.Run(&o, k, diagnose.Options{All: true}))
		for i := range o.Counters {
			c := &o.Counters[i]
			m, ok := k.Counter(c.Name)
			if !ok || m.Kind != "loss" || m.Unit == "bytes" || c.Object != "" || c.Delta == 0 || slices.Contains(silenced, c.Name) {
				continue
			}
			n++
			old := *c
			c.After, c.Delta = c.After+more, c.Delta+more
			d := diagnose.Run(&o, k, diagnose.Options{All: true})
			// A few may be drops that another counter had, or nobody.
			if got := total(d); got < was || got-was < more-200 {
				t.Errorf("%s/%s: %s +%d more: %d lost, was %d\n%s", path.Base(path.Dir(path.Dir(name))), path.Base(name), c.Name, more, got, was, entries(d))
			}
			*c = old
		}
	}
	if n < 150 {
		t.Errorf("only %d counters", n)
	}
}

// apart are counters that an equal drop may raise, but never the same one.
var apart = map[string]string{
	"Ip6.InNoRoutes Ip6.InAddrErrors":       "one or the other (net/ipv6/route.c, ip6_pkt_drop)",
	"Ip6.InNoRoutes Ip6.OutNoRoutes":        "one or the other (net/ipv6/route.c, ip6_pkt_drop)",
	"Ip.FragFails link.tx_":                 "of a router, or of a tunnel",
	"Ip6.FragFails link.tx_":                "of a router, or of a tunnel",
	"Ip6.InTooBigErrors link.tx_":           "of a router, or of a tunnel",
	"Ip.OutNoRoutes link.tx_":               "of a socket, or of a tunnel",
	"fq.flows_plimit codel.drop_overlimit":  "a qdisc has one kind",
	"fq.flows_plimit fq_codel.":             "a qdisc has one kind",
	"fq.flows_plimit red.":                  "a qdisc has one kind",
	"fq.horizon_drops codel.drop_overlimit": "a qdisc has one kind",
	"fq.horizon_drops fq_codel.":            "a qdisc has one kind",
	"fq.horizon_drops red.":                 "a qdisc has one kind",
}

// TestCountersOfOneDropAreRelated: where each drop of a reason raises one counter
// and may raise another, the two are known to count the same packets. Else the
// other would be a loss of its own.
func TestCountersOfOneDropAreRelated(t *testing.T) {
	used := map[string]bool{}
	for _, pair := range load(t).Unrelated() {
		known := false
		for p := range apart {
			if strings.HasPrefix(pair, p) {
				used[p], known = true, true
			}
		}
		if !known {
			t.Errorf("a drop may raise both of %s, and neither overlaps with the other nor is again in it", pair)
		}
	}
	for p := range apart {
		if !used[p] {
			t.Errorf("no drop may raise both of %s any more", p)
		}
	}
}

// Which devices count what is dropped in a tunnel, or at the other end of a
// pair, the facts tell.
func TestKindsOfDevicesAreAskedFor(t *testing.T) {
	o := watched([]record.Count{drop("LOCAL_MAC", "vxlan_rcv", 0x0800, 17, record.DirectionRX, 2, 400)},
		on("link.rx_errors", 400, 9), on("link.rx_crc_errors", 0, 7), on("link.tx_dropped", 5, 8))
	var asked []string
	for _, r := range diagnose.Wants(o, load(t)) {
		if r.Kind == "link" && r.NetNS == space.Inode {
			asked = append(asked, r.Arg)
		}
	}
	if want := []string{"eth9"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
}

// What is counted as dropped and is no loss is no loss of its station.
func TestSparedAtItsStation(t *testing.T) {
	k := load(t)
	for _, c := range []struct {
		name     string
		counters []record.Counter
		want     uint64
	}{
		{"none", []record.Counter{on("qdisc.drops", 100, 2)}, 100},
		{"all", []record.Counter{on("qdisc.drops", 100, 2), on("cake.acks_dropped_packets", 100, 2)}, 0},
		{"some", []record.Counter{on("cake.acks_dropped_packets", 70, 2), on("qdisc.drops", 100, 2)}, 30},
		{"of another device", []record.Counter{on("cake.acks_dropped_packets", 70, 3), on("qdisc.drops", 100, 2)}, 100},
		{"more than all", []record.Counter{on("cake.acks_dropped_packets", math.MaxUint64-9, 2), on("qdisc.drops", 100, 2)}, 0},
	} {
		stations, _ := diagnose.CountersByStation(c.counters, k, diagnose.CounterOptions{Interval: 1})
		for _, s := range stations {
			if s.Station == record.StationQdisc && s.Lost != c.want {
				t.Errorf("%s: %d lost, want %d", c.name, s.Lost, c.want)
			}
		}
	}
}
