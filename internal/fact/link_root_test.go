//go:build root

package fact

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// manyLinks makes devices of every kind that this kernel has and returns their
// names. The ip of these tests is older than netkit: TestProgramsOnNetkit.
func manyLinks(t *testing.T, n *netlab.Namespace) []string {
	t.Helper()
	pair(t, n)
	lines := []string{
		"ip link set a0 alias some-alias txqueuelen 77 gso_max_size 32768 gso_max_segs 100 group 5",
		"ip link property add dev a0 altname other-name altname third-name",
		"ip link add x0 type veth peer y0",
		"ip link add bond0 numtxqueues 2 type veth peer bondpeer numrxqueues 3",
	}
	list := []string{"lo", "a0", "x0", "y0", "bond0", "bondpeer"}
	for _, dev := range []struct{ name, option, kind string }{
		{"br0", "CONFIG_BRIDGE", "type bridge stp_state 1 ageing_time 4200 priority 4096 mcast_snooping 0 group_fwd_mask 8"},
		{"br1", "CONFIG_BRIDGE_VLAN_FILTERING", "type bridge vlan_filtering 1 vlan_default_pvid 7 vlan_protocol 802.1ad vlan_stats_enabled 1"},
		{"vx0", "CONFIG_VXLAN", "type vxlan id 42 remote 192.0.2.9 local 192.0.2.1 dev a0 dstport 4789 nolearning ttl 9 tos 0x10 ageing 55 maxaddress 77 srcport 1000 2000 df set proxy l2miss"},
		{"vx1", "CONFIG_VXLAN", "type vxlan id 43 group 239.1.1.1 dev a0 dstport 8472 noudpcsum gbp"},
		{"vx2", "CONFIG_VXLAN", "type vxlan external dstport 4790"},
		{"mv0", "CONFIG_MACVLAN", "link a0 type macvlan mode bridge bcqueuelen 333"},
		{"mv1", "CONFIG_MACVLAN", "link a0 type macvlan mode source macaddr add 02:00:00:00:00:77"},
		{"vl0", "CONFIG_VLAN_8021Q", "link a0 type vlan id 42 protocol 802.1ad reorder_hdr off gvrp on"},
		{"bo0", "CONFIG_BONDING", "type bond mode active-backup miimon 123 updelay 246 fail_over_mac active xmit_hash_policy layer3+4 min_links 1"},
		{"bo1", "CONFIG_BONDING", "type bond mode 802.3ad lacp_rate fast ad_select bandwidth"},
		{"bo2", "CONFIG_BONDING", "type bond mode balance-xor arp_interval 500 arp_ip_target 192.0.2.5,192.0.2.6 arp_validate active"},
		{"ipv0", "CONFIG_IPVLAN", "link y0 type ipvlan mode l3 private"},
		{"vrf0", "CONFIG_NET_VRF", "type vrf table 77"},
		{"gnv0", "CONFIG_GENEVE", "type geneve id 9 remote 192.0.2.8 dstport 6082"},
		{"du0", "CONFIG_DUMMY", "type dummy"},
	} {
		line := "ip link add " + dev.name + " " + dev.kind
		if before, rest, ok := strings.Cut(dev.kind, "type "); ok && strings.HasPrefix(before, "link ") {
			line = "ip link add " + before + "name " + dev.name + " type " + rest
		}
		if testkit.Wants(t, dev.option) {
			lines, list = append(lines, line), append(list, dev.name)
		}
	}
	if slices.Contains(list, "br0") {
		lines = append(lines, "ip link set x0 master br0",
			"ip link set x0 type bridge_slave cost 11 priority 3 isolated on learning off hairpin on mcast_flood off fastleave on guard on")
	}
	if slices.Contains(list, "bo0") {
		lines = append(lines, "ip link set bondpeer master bo0", "ip link set bo0 type bond primary bondpeer", "ip link set bo0 up")
	}
	if slices.Contains(list, "vrf0") {
		lines = append(lines, "ip link set bond0 master vrf0")
	}
	sh(t, lines...)
	addTap(t, "tap0")
	return append(list, "tap0")
}

// addTap makes a tap device. Where the module is not loaded, opening a node
// with its number loads it.
func addTap(t *testing.T, name string) {
	t.Helper()
	const node = "/dev/net/tun"
	if _, err := os.Stat(node); errors.Is(err, os.ErrNotExist) {
		must(t, os.MkdirAll("/dev/net", 0o755))
		must(t, unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(10, 200))))
	}
	must(t, netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}))
}

// toolLink is a device of ip -j -d link in the words of the fact.
func toolLink(v map[string]any) object {
	o := object{}
	kind := ""
	if info, ok := v["linkinfo"].(map[string]any); ok {
		kind, _ = info["info_kind"].(string)
		data, _ := info["info_data"].(map[string]any)
		for k, s := range flat(data) {
			o[kind+"_"+k] = s
		}
		if port, ok := info["info_slave_kind"].(string); ok {
			o["port_kind"] = port
		}
		data, _ = info["info_slave_data"].(map[string]any)
		for k, s := range flat(data) {
			o["port_"+k] = s
		}
	}
	delete(v, "linkinfo")
	o["kind"] = kind
	for k, s := range flat(v) {
		o[k] = s
	}
	for from, to := range map[string]string{
		"ifindex": "index", "txqlen": "qlen", "num_tx_queues": "tx_queues", "num_rx_queues": "rx_queues", "ifalias": "alias",
		"parentbus": "parent_bus", "parentdev": "parent_dev", "link_index": "link", "permaddr": "perm_address",
		"vxlan_group6": "vxlan_group", "vxlan_remote": "vxlan_group", "vxlan_remote6": "vxlan_group", "vxlan_local6": "vxlan_local",
		"ipvlan_private_": "",
	} {
		rename(o, from, to)
	}
	o["operstate"] = strings.ToLower(o["operstate"])
	o["link_mode"] = strings.ToLower(o["linkmode"])
	delete(o, "linkmode")
	if o["group"] == "default" {
		o["group"] = "0"
	}
	for _, f := range []string{"private", "vepa", "bridge"} {
		if _, ok := o["ipvlan_"+f]; ok {
			delete(o, "ipvlan_"+f)
			o["ipvlan_flags"] = f
		}
	}
	// Those two are no flags of the device.
	o["flags"] = sortedWords(strings.NewReplacer("NO-CARRIER", "", "M-DOWN", "").Replace(o["flags"]))
	o["vlan_flags"] = sortedWords(o["vlan_flags"])
	if o["vlan_flags"] == "" {
		delete(o, "vlan_flags")
	}
	if o["bond_arp_validate"] == "1" { // null, if it is none
		o["bond_arp_validate"] = None
	}
	o["port_state"], o["port_mii_status"] = strings.ToLower(o["port_state"]), strings.ToLower(o["port_mii_status"])
	for _, k := range []string{"port_state", "port_mii_status"} {
		if o[k] == "" {
			delete(o, k)
		}
	}
	for k, s := range o { // print_on_off gives words in newer versions
		if s == "on" && k != "bond_ad_lacp_active" {
			o[k] = "1"
		} else if s == "off" && k != "bond_ad_lacp_active" {
			o[k] = "0"
		}
	}
	for _, k := range []string{"port_group_fwd_mask", "bridge_group_fwd_mask"} {
		if o[k] == "0" {
			o[k] = "0x0"
		}
	}
	return o
}

func sortedWords(s string) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == ',' })
	slices.Sort(words)
	return strings.Join(words, ",")
}

// moreOfIP is what ip -j -d link has and the fact has not.
var moreOfIP = map[string]string{
	"ifname": "the name of the fact", "link_type": "of ARP, says nothing about loss", "broadcast": "of the kind of hardware",
	"address": "compared apart: the fact has only those of Ethernet", "inet6_addr_gen_mode": "how addresses are made, not the link",
	"operstate":          "the value of the fact",
	"bridge_hello_timer": "runs", "bridge_tcn_timer": "runs", "bridge_topology_change_timer": "runs", "bridge_gc_timer": "runs",
	"port_hold_timer": "runs", "port_message_age_timer": "runs", "port_forward_delay_timer": "runs",
	"port_topology_change_ack": "a step of the spanning tree", "port_config_pending": "a step of the spanning tree",
	"port_group_fwd_mask_str": "the same as a text", "port_ad_actor_oper_port_state_str": "the same as a text", "port_ad_partner_oper_port_state_str": "the same as a text",
	"macvlan_macaddr_data": "a list of addresses, whose number the fact has",
	"bridge_fdb_n_learned": "grows by itself",
	"xdp_mode":             "TestLinkXDP", "linkinfo": "",
	"link_pointtopoint": "of the kind of hardware",
	"master":            "compared apart: empty where there is none", "xdp": "TestLinkXDP",
	"tun_user": "a name for the number", "tun_group": "a name for the number",
}

// moreOfFact is what the fact has and the ip of these tests has not.
var moreOfFact = map[string]string{
	"address": "compared apart", "master": "compared apart", "up": "of the flags", "xdp": "TestLinkXDP", "carrier": "of the flags",
	"peer": "of the other end", "peer_mtu": "of the other end", "peer_up": "of the other end", "speed": "TestLinkSpeed", "duplex": "TestLinkSpeed",
	"allmulti": "came to ip with 6.2", "gro_max_size": "came to ip with 5.18 and is 0 before", "gso_ipv4_max_size": "came to ip with 6.3",
	"gro_ipv4_max_size": "came to ip with 6.3", "max_pacing_offload_horizon": "not in ip", "proto_down": "ip shows it only if it is set",
	"port_backup_nhid": "came to ip with 6.5", "port_neigh_vlan_suppress": "came to ip with 6.4", "vxlan_localbypass": "came to ip with 6.4",
	"bond_coupled_control": "came to ip with 6.9", "bond_broadcast_neighbor": "came to ip with 6.16",
	"bridge_mst_enabled": "came to ip with 6.16", "bridge_fdb_n_learned": "grows by itself", "bridge_fdb_max_learned": "came to ip with 6.8",
	"macvlan_bclim": "came to ip with 6.4", "vxlan_ttl_inherit": "ip shows it only if it is set", "vxlan_vnifilter": "ip shows it only if it is set",
	"tun_user": "ip has a name", "tun_group": "ip has a name", "netkit_type": "ip has no netkit yet", "netkit_scrub": "ip has no netkit yet",
	"netkit_peer_scrub": "ip has no netkit yet", "port_mab": "came to ip with 6.2", "geneve_external": "ip shows it only if it is set",
	"max_mtu": "ip leaves out 0", "min_mtu": "ip leaves out 0", "phys_switch_id": "", "vfs": "",
}

func TestLinkMatchesIP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		devices := manyLinks(t, n)
		found, answers := calmLinks(t, devices)
		for i, dev := range devices {
			f, v := found[i], answers[i]
			if len(v) != 1 {
				t.Fatalf("%s: %v", dev, v)
			}
			whole := toolLink(v[0])
			if f.Value != whole["operstate"] || f.Fields["address"] != "" && f.Fields["address"] != whole["address"] || f.Fields["master"] != whole["master"] {
				t.Errorf("%s: %s %v, ip says %v", dev, f.Value, f.Fields, whole)
			}
			want, got := without(whole, moreOfIP), without(f.Fields, moreOfFact)
			if got["perm_address"] == whole["address"] { // ip shows it only if it differs
				delete(got, "perm_address")
			}
			got["flags"] = sortedWords(got["flags"])
			if v, ok := got["vlan_flags"]; ok {
				got["vlan_flags"] = sortedWords(v)
			}
			for _, k := range []string{"max_mtu", "min_mtu", "allmulti", "gro_max_size", "proto_down"} {
				if whole[k] != "" && f.Fields[k] != whole[k] {
					t.Errorf("%s: %s is %s, ip says %s", dev, k, f.Fields[k], whole[k])
				}
				delete(want, k)
			}
			for k, v := range got { // ip shows it only if it is set
				if _, ok := want[k]; !ok && v == "0" && (strings.HasPrefix(k, "vxlan_") || k == "macvlan_macaddr_count") {
					delete(got, k)
				}
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Errorf("%s: - ip, + whydrop\n%s", dev, d)
			}
		}
	})
}

// calmLinks are the facts of devices and what ip says of each, while no state
// changed: before 6.8 the kernel may tell one a second late (net/core/link_watch.c).
func calmLinks(t *testing.T, devices []string) (found []record.Fact, said [][]map[string]any) {
	t.Helper()
	ask := func() (states string) {
		said = batchObjects(t, "ip -j -d", each("link show dev", devices...)...)
		for _, v := range said {
			for _, o := range v {
				states += fmt.Sprintln(o["ifname"], o["operstate"], o["flags"])
			}
		}
		return states
	}
	before := ask()
	for range 20 {
		found = nil
		for _, dev := range devices {
			found = append(found, one(t, "link", dev))
		}
		after := ask()
		if after == before {
			return found, said
		}
		before = after
	}
	t.Fatalf("the states of links changed each time:\n%s", before)
	return nil, nil
}

func TestLinkPeer(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		sh(t, "ip link add x0 type veth peer y0")
		for dev, want := range map[string][2]string{"a0": {"b0", "1"}, "x0": {"y0", "0"}} {
			if f := one(t, "link", dev); f.Fields["peer"] != want[0] || f.Fields["peer_up"] != want[1] {
				t.Errorf("%s: %v", dev, f.Fields)
			}
		}
		if f := one(t, "link", "x0"); f.Fields["link"] != "y0" {
			t.Errorf("x0: %v", f.Fields)
		}
		if f := one(t, "link", "a0"); f.Fields["link_netnsid"] == "" {
			t.Errorf("a0: %v", f.Fields)
		}
	})
}

func speedError(d *device) error {
	_, _, err := d.speed()
	return err
}

// veth and tap say what their drivers always say (drivers/net/veth.c,
// veth_get_link_ksettings; drivers/net/tun.c, tun_get_link_ksettings).
func TestLinkSpeed(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		addTap(t, "tap0")
		for dev, want := range map[string]int{"a0": 10000, "tap0": 10} {
			f := one(t, "link", dev)
			speed, err := strconv.Atoi(f.Fields["speed"])
			if err != nil || f.Fields["duplex"] != "full" || speed != want && !(dev == "tap0" && speed == 10000) { // since 6.6
				t.Errorf("%s: %v", dev, f.Fields)
			}
		}
		if f := one(t, "link", "lo"); f.Fields["speed"] != "" {
			t.Errorf("lo has no speed: %v", f.Fields)
		}
		d, err := deviceByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		if d.name = "tap0"; !errors.Is(speedError(d), errRenamed) {
			t.Errorf("another device has the name: %v", speedError(d))
		}
		// Such a question must not load a module that is called so.
		const module = "em_cmp"
		if d.name = module; !errors.Is(speedError(d), unix.ENODEV) {
			t.Errorf("nothing has the name: %v", speedError(d))
		}
		if _, err := os.Stat("/sys/module/" + module); err == nil {
			t.Errorf("module %s is loaded", module)
		}
		if got := (&Reader{}).Read(record.FactRequest{Kind: "link", Arg: "none0"}, ns); len(got) != 1 || got[0].Value != None {
			t.Errorf("got %+v", got)
		}
	})
}
