//go:build root

package counter

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// linkSettings are the numbers of `ip -s -s -d -j link` that are no
// statistics. The fact link has most of them.
var linkSettings = notCompared{
	"ifindex|link_index|link_netnsid|mtu|min_mtu|max_mtu|group|txqlen|num_tx_queues|num_rx_queues": "settings of the device",
	"gso_max_size|gso_max_segs|tso_max_size|tso_max_segs|gro_max_size|gso_ipv4.*|gro_ipv4.*":       "limits of the device",
	"promiscuity|allmulti": "how many asked for all packets",
	`linkinfo\.info_data\..*|linkinfo\.info_slave_data\.(priority|cost|queue_id|prio|ad_.*|designated_.*|hold_timer|message_age_timer|forward_delay_timer|no|hairpin|multicast_router|backup_nhid|topology_change_ack|config_pending)`: "settings and states of the kind of device",
	`vfinfo_list\..*`: "SR-IOV: the driver asks its firmware about each; docs/limitations.md",
}

// linkField is the name of whydrop for a field below stats64 or its like.
func linkField(table, rest string) string {
	side, key, _ := strings.Cut(rest, ".")
	switch key {
	case "multicast", "collisions", "carrier_changes":
		return table + "." + key
	case "nohandler":
		return table + ".rx_nohandler"
	case "otherhost":
		return table + ".rx_otherhost_dropped"
	case "noroute":
		return table + ".rx_noroute"
	}
	return table + "." + side + "_" + key
}

// statsField is the name of whydrop for a field of `ip -j stats show`, or of
// the details of a link; empty for what is no statistics.
func statsField(path string) string {
	table, rest, _ := strings.Cut(path, ".")
	switch table {
	case "stats64":
		return linkField("link", rest)
	case "mpls_stats":
		return linkField("mpls", rest)
	case "stp":
		return "bridge_stp." + rest
	case "multicast":
		group, key, nested := strings.Cut(rest, ".")
		if !nested {
			return "bridge_mcast." + rest // igmp_parse_errors
		}
		protocol, what, _ := strings.Cut(group, "_") // igmp, queries
		side, version, _ := strings.Cut(key, "_")    // rx, v1
		return "bridge_mcast." + protocol + "_" + version + what + "_" + side
	}
	if rest, ok := strings.CutPrefix(path, "802.3ad."); ok {
		return "bond." + strings.Replace(rest, "response", "resp", 1)
	}
	if path == "linkinfo.info_slave_data.link_failure_count" {
		return "bond.link_failure_count"
	}
	return ""
}

// veths are the commands for a pair of devices that are up.
func veths(names ...string) (commands []string) {
	for _, n := range names {
		commands = append(commands, "link add "+n+" up type veth peer name "+n+"p", "link set "+n+"p up")
	}
	return commands
}

// links makes devices of many kinds, sends through them and loses some of it.
// It returns the counters that must not be 0.
func links(t *testing.T, ns *netlab.Namespace) []string {
	t.Helper()
	lost := []string{"link.rx_packets", "link.tx_packets", "link.rx_dropped", "link.carrier_changes", "bridge_mcast.igmp_v2reports_rx", "bridge_mcast.igmp_parse_errors", "bridge_stp.tx_bpdu"}
	send := func(device string, n int, frame []byte) {
		t.Helper()
		sendFrames(t, deviceIndex(t, ns, device), n, frame)
	}
	payload := udpFrame(0, 1, 40)[14:]
	batch(t, "ip", append(veths("va", "vb", "vd"),
		// With the protocol a port forwards only seconds later: one bridge each.
		"link add br0 up type bridge stp_state 1 hello_time 100",
		"link add br1 up type bridge mcast_stats_enabled 1",
		"link set vb master br0", "link set vd master br1"))
	send("vap", 7, append(etherHead(0x88cc), make([]byte, 46)...)) // LLDP, which nobody takes
	send("vdp", 5, igmpReport(0))
	send("vdp", 3, igmpReport(1))
	if testkit.Wants(t, "CONFIG_VLAN_8021Q") {
		batch(t, "ip", append(veths("vc"), "link add link vc name vc.5 up type vlan id 5"))
		for _, id := range []byte{5, 5, 6} {
			send("vcp", 2, append(append(etherHead(0x8100), 0, id, 8, 0), payload...))
		}
		send("vc.5", 3, udpFrame(0, 1, 40))
	}
	if testkit.Wants(t, "CONFIG_DUMMY") {
		batch(t, "ip", []string{"link add du0 up type dummy"})
		send("du0", 3, udpFrame(0, 1, 40))
	}
	if testkit.Wants(t, "CONFIG_BONDING") {
		bond(t)
		lost = append(lost, "bond.link_failure_count", "bond.lacpdu_tx")
	}
	if testkit.Wants(t, "CONFIG_MPLS_ROUTING") {
		batch(t, "ip", append(veths("vm"), "link set vm address 02:00:00:00:00:99", "addr add 198.51.100.1/24 dev vm",
			"route add 203.0.113.0/24 encap mpls 100 via inet 198.51.100.2")) // has the kernel load it
		for name, value := range map[string]string{"platform_labels": "100", "conf.vm.input": "1"} {
			if err := ns.Sysctl("net.mpls."+name, value); err != nil {
				t.Fatal(err)
			}
		}
		// A label without a route.
		send("vmp", 6, append(append(udpFrame(0, 1, 40)[:12:12], 0x88, 0x47, 0, 0x01, 0x01, 64), payload...))
		lost = append(lost, "mpls.rx_noroute")
	}
	return lost
}

// bond makes a bond with LACP of two members, of which one loses its carrier.
func bond(t *testing.T) {
	t.Helper()
	batch(t, "ip", []string{
		"link add bo0 type bond mode 802.3ad miimon 10",
		"link add ba type veth peer name bap", "link set ba master bo0", "link set bap up",
		"link add bb type veth peer name bbp", "link set bb master bo0", "link set bbp up",
		"link set bo0 up",
	})
	// bond notices the carrier of its members on a timer.
	wait := func(name, what string) {
		eventually(t, func() string {
			for _, v := range devicesNow(t).Values {
				if v.Name == name && v.Value > 0 {
					return ""
				}
			}
			return what
		})
	}
	wait("bond.lacpdu_tx", "no LACPDU was sent")
	batch(t, "ip", []string{"link set bap down"})
	wait("bond.link_failure_count", "no failure of a link was counted")
}

func etherHead(kind uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1}, kind)
}

// igmpReport is a report of IGMP version 2 for 239.1.2.3, whose checksum is
// wrong by some.
func igmpReport(wrong uint16) []byte {
	ip := []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 1, 239, 1, 2, 3}
	igmp := []byte{0x16, 0, 0, 0, 239, 1, 2, 3}
	binary.BigEndian.PutUint16(ip[10:], checksum(ip))
	binary.BigEndian.PutUint16(igmp[2:], checksum(igmp)+wrong)
	return append(append(etherHead(0x0800), ip...), igmp...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum + sum>>16)
}

// sendFrames sends a frame n times out of a device of the thread's namespace.
func sendFrames(t *testing.T, index uint32, n int, frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for range n {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(index)}); err != nil {
			t.Fatal(err)
		}
	}
}

// compareLinks compares what ip shows with what whydrop reads, until nothing
// moved meanwhile and everything that should have moved has.
func compareLinks(t *testing.T, args string, settings notCompared, lost []string) {
	t.Helper()
	eventually(t, func() string {
		m, out := around(t, func() []byte { return program(t, "ip", strings.Fields(args)...) })
		list := readShown(t, out)
		above := map[string]bool{}
		for id := range m.after {
			above[id.name] = above[id.name] || m.after[id] > 0
		}
		for _, name := range lost {
			if !above[name] {
				return name + " is 0"
			}
		}
		for _, s := range list {
			var index uint32
			if _, err := fmt.Sscan(s.text("ifindex"), &index); err != nil {
				t.Fatalf("%v has no index", s)
			}
			for _, f := range s {
				switch name := statsField(f.path); {
				case !f.number:
				case name != "":
					m.same(ident{index, name, ""}, f.text, 0)
				case !settings.has(f.path):
					t.Errorf("%s: ip shows %s = %s, which is neither compared nor left out with a reason", s.text("ifname"), f.path, f.text)
				}
			}
		}
		if len(m.above0) < 10 && !t.Failed() {
			return fmt.Sprintf("only %d compared that are above 0", len(m.above0))
		}
		return ""
	})
}

func TestMatchesIPStats(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		lost := links(t, ns)
		compareLinks(t, "-s -s -d -j link", linkSettings, lost)
		compareLinks(t, "-j stats show", notCompared{"ifindex": "the device"}, lost)
	})
}
