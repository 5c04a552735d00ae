//go:build root

package counter

import (
	"encoding/binary"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// shaped is a device with queues that lose some of what is sent.
type shaped struct {
	// option is the part of the kernel that it needs, kind what it is called.
	kind, option string
	// commands are those of tc, with the device left out.
	commands []string
	// priorities are given to the packets in turn: a class, or a band.
	priorities []int
	// lost are counters that must have grown.
	lost []string
}

// slow is a shaper that lets nothing pass but the first packets: a byte a
// second. The queue below it fills up.
const slow = "qdisc add root handle 1: tbf rate 8bit burst 300 limit 100000"

// below is a kind of queue below such a shaper.
func below(kind, option, settings string, lost ...string) shaped {
	return shaped{
		kind: kind, option: option, lost: lost,
		commands: []string{slow, "qdisc add parent 1:1 handle 10: " + kind + " " + settings},
	}
}

// anywhere are the devices that every kernel of the tests can have.
func anywhere() []shaped {
	return []shaped{
		{kind: "htb", option: "CONFIG_NET_SCH_HTB", commands: []string{
			"qdisc add root handle 1: htb default 20",
			"class add parent 1: classid 1:1 htb rate 80bit burst 300 cburst 300",
			"class add parent 1:1 classid 1:10 htb rate 8bit ceil 80bit burst 300 cburst 300",
			"class add parent 1:1 classid 1:20 est 250ms 500ms htb rate 8bit ceil 80bit burst 300 cburst 300",
			"qdisc add parent 1:10 handle 10: pfifo limit 3",
			"qdisc add parent 1:20 handle 20: bfifo limit 500",
		}, priorities: []int{0x10010, 0, 0x10000}, lost: []string{"qdisc.drops", "htb.direct_pkts", "class.drops", "htb.lends"}},
		{kind: "tbf", option: "CONFIG_NET_SCH_TBF", commands: []string{
			"qdisc add root handle 1: est 250ms 500ms tbf rate 8bit burst 300 limit 500",
		}, lost: []string{"qdisc.drops", "qdisc.backlog"}},
		below("pfifo", "CONFIG_NET_SCH_FIFO", "limit 3", "qdisc.drops"),
		below("pfifo_head_drop", "CONFIG_NET_SCH_FIFO", "limit 3", "qdisc.drops"),
		{kind: "mq", option: "CONFIG_NET_SCHED", commands: []string{
			"qdisc add root handle 1: mq",
			"qdisc add parent 1:2 handle 12: tbf rate 8bit burst 300 limit 500",
		}, lost: []string{"class.packets"}},
	}
}

// elsewhere are the devices that Debian's kernels can have.
func elsewhere() []shaped {
	bands := []int{0, 6, 2, 7} // of SO_PRIORITY: three bands of prio
	return []shaped{
		{kind: "fq", option: "CONFIG_NET_SCH_FQ", commands: []string{
			"qdisc add root handle 1: fq limit 10 flow_limit 3 maxrate 8bit initial_quantum 100",
		}, lost: []string{"fq.flows_plimit", "fq.throttled", "qdisc.drops", "fq.flows"}},
		below("fq_codel", "CONFIG_NET_SCH_FQ_CODEL", "limit 5 flows 16", "fq_codel.drop_overlimit", "qdisc.drops", "fq_codel.maxpacket"),
		below("codel", "CONFIG_NET_SCH_CODEL", "limit 3", "codel.drop_overlimit", "qdisc.drops"),
		{kind: "cake", option: "CONFIG_NET_SCH_CAKE", commands: []string{
			"qdisc add root handle 1: cake bandwidth 64bit diffserv4 memlimit 8000",
		}, lost: []string{"cake.dropped_packets", "cake.sent_packets", "cake.max_skblen", "qdisc.drops"}},
		below("red", "CONFIG_NET_SCH_RED", "limit 2500 min 300 max 900 avpkt 100 burst 6 probability 1 bandwidth 1mbit", "qdisc.drops"),
		below("sfq", "CONFIG_NET_SCH_SFQ", "limit 60 depth 20 divisor 16 redflowlimit 100000 min 300 max 900 avpkt 100 burst 9 probability 1", "qdisc.drops"),
		{kind: "netem", option: "CONFIG_NET_SCH_NETEM", commands: []string{
			"qdisc add root handle 1: netem limit 5 delay 200s loss 20% duplicate 20%",
		}, lost: []string{"qdisc.drops", "qdisc.qlen"}},
		below("pie", "CONFIG_NET_SCH_PIE", "limit 3", "pie.overlimit", "pie.packets_in"),
		below("choke", "CONFIG_NET_SCH_CHOKE", "limit 5 min 1 max 3 probability 1 bandwidth 1mbit", "qdisc.drops"),
		below("sfb", "CONFIG_NET_SCH_SFB", "limit 5", "sfb.queuedrop"),
		below("hhf", "CONFIG_NET_SCH_HHF", "limit 5", "hhf.drop_overlimit"),
		below("fq_pie", "CONFIG_NET_SCH_FQ_PIE", "limit 5", "fq_pie.overlimit"),
		below("skbprio", "CONFIG_NET_SCH_SKBPRIO", "limit 5", "qdisc.drops"),
		{kind: "gred", option: "CONFIG_NET_SCH_GRED", commands: []string{
			slow, "qdisc add parent 1:1 handle 10: gred setup DPs 2 default 0",
			"qdisc change parent 1:1 handle 10: gred limit 2500 min 300 max 900 avpkt 100 burst 6 DP 0 probability 1 bandwidth 1mbit",
			"qdisc change parent 1:1 handle 10: gred limit 500 min 300 max 400 avpkt 100 burst 6 DP 1 probability 1 bandwidth 1mbit",
		}, lost: []string{"qdisc.drops", "gred.packets"}},
		{kind: "prio", option: "CONFIG_NET_SCH_PRIO", commands: []string{
			"qdisc add root handle 1: prio",
			"qdisc add parent 1:2 handle 12: tbf rate 8bit burst 300 limit 500",
		}, priorities: bands, lost: []string{"qdisc.drops", "class.packets"}},
		{kind: "hfsc", option: "CONFIG_NET_SCH_HFSC", commands: []string{
			"qdisc add root handle 1: hfsc default 1",
			"class add parent 1: classid 1:1 hfsc sc rate 1kbit ul rate 1kbit",
			"qdisc add parent 1:1 handle 10: pfifo limit 3",
		}, lost: []string{"qdisc.drops", "class.drops"}},
		{kind: "drr", option: "CONFIG_NET_SCH_DRR", commands: []string{
			"qdisc add root handle 1: drr",
			"class add parent 1: classid 1:1 drr",
			"qdisc add parent 1:1 handle 10: tbf rate 8bit burst 300 limit 500",
		}, priorities: []int{0x10001, 0x10001, 0}, lost: []string{"qdisc.drops", "class.drops"}},
		{kind: "qfq", option: "CONFIG_NET_SCH_QFQ", commands: []string{
			"qdisc add root handle 1: qfq",
			"class add parent 1: classid 1:1 qfq weight 1 maxpkt 2000",
		}, priorities: []int{0x10001, 0}, lost: []string{"class.packets"}},
		{kind: "ets", option: "CONFIG_NET_SCH_ETS", commands: []string{
			"qdisc add root handle 1: ets bands 3 strict 3",
			"qdisc add parent 1:3 handle 13: tbf rate 8bit burst 300 limit 500",
		}, priorities: bands, lost: []string{"class.packets"}},
		{kind: "multiq", option: "CONFIG_NET_SCH_MULTIQ", commands: []string{
			"qdisc add root handle 1: multiq",
		}, lost: []string{"class.packets"}},
	}
}

// deviceName is the name of the device for a kind.
func (s shaped) deviceName() string { return "t" + strings.ReplaceAll(s.kind, "_", "") }

// onDevice puts the device into a command of tc.
func onDevice(command, device string) string {
	object, rest, _ := strings.Cut(command, " ")
	verb, rest, _ := strings.Cut(rest, " ")
	return object + " " + verb + " dev " + device + " " + rest
}

// setUp makes the devices that this kernel can have, each a veth pair with
// four queues, and sends through them. The packets that wait stay there.
func setUp(t *testing.T, ns *netlab.Namespace) map[string]uint32 {
	t.Helper()
	var here []shaped
	var links, queues []string
	for _, s := range append(anywhere(), elsewhere()...) {
		if !testkit.Wants(t, s.option) {
			continue
		}
		here = append(here, s)
		name := s.deviceName()
		const four = " numtxqueues 4 numrxqueues 4"
		links = append(links, "link add "+name+" up"+four+" type veth peer name "+name+"p"+four, "link set "+name+"p up")
		for _, c := range s.commands {
			queues = append(queues, onDevice(c, name))
		}
	}
	batch(t, "ip", links)
	batch(t, "tc", queues)
	devices := map[string]uint32{}
	for _, s := range here {
		devices[s.kind] = deviceIndex(t, ns, s.deviceName())
		flood(t, devices[s.kind], s.priorities)
	}
	return devices
}

// flood sends datagrams of a few flows and service classes out of a device.
func flood(t *testing.T, index uint32, priorities []int) {
	t.Helper()
	if len(priorities) == 0 {
		priorities = []int{0}
	}
	const ethIP = 0x0008 // ETH_P_IP in network byte order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const packets = 96
	for i := range packets {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, priorities[i%len(priorities)]); err != nil {
			t.Fatal(err)
		}
		tos := []byte{0, 0x20, 0xb8, 0x01}[i/4%4] // best effort, bulk, voice, ECT(1)
		err := unix.Sendto(fd, udpFrame(tos, uint16(4000+i%3), 60), 0, &unix.SockaddrLinklayer{Ifindex: int(index), Protocol: ethIP})
		if err != nil && err != unix.ENOBUFS { // what the queue refuses
			t.Fatal(err)
		}
	}
}

// udpFrame is an Ethernet frame with a datagram from a port of 10.0.0.1 to the
// port 9 of 10.0.0.2, for a host that is not there.
func udpFrame(tos byte, port uint16, payload int) []byte {
	b := []byte{2, 0, 0, 0, 0, 0x99, 2, 0, 0, 0, 0, 1, 8, 0}
	ip := []byte{0x45, tos, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}
	binary.BigEndian.PutUint16(ip[2:], uint16(28+payload))
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	udp := make([]byte, 8+payload)
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+payload))
	return append(append(b, ip...), udp...)
}
