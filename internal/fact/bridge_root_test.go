//go:build root

package fact

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

func TestBridge(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		if !can(t, "CONFIG_BRIDGE", "ip link add br0 type bridge mcast_snooping 0") {
			return
		}
		sh(t, "ip link add x0 mtu 1400 type veth peer y0", "ip link set x0 master br0", "ip link set y0 master br0",
			"ip link set x0 type bridge_slave isolated on flood off")
		sh(t, "bridge fdb add 02:00:00:00:00:77 dev x0 master static")
		for _, name := range []string{"br0", "x0"} {
			got := facts(t, "bridge-ports", name)
			if len(got) != 3 || got[0].Name != "br0" || got[0].Value != "bridge" {
				t.Fatalf("%s: %+v", name, got)
			}
			x, y := named(t, got, "x0").Fields, named(t, got, "y0")
			if x["port_isolated"] != "1" || x["port_flood"] != "0" || x["mtu"] != "1400" || y.Fields["port_isolated"] != "0" || y.Value != "disabled" {
				t.Errorf("%s: %+v, %+v", name, x, y)
			}
		}
		got := one(t, "bridge-fdb", "02:00:00:00:00:77 y0")
		if got.Value != "x0" || got.Fields["bridge"] != "br0" || got.Fields["port_isolated"] != "1" {
			t.Errorf("%+v", got)
		}
		own := one(t, "link", "y0").Fields["address"]
		if got := one(t, "bridge-fdb", own+" br0"); got.Value != "y0" {
			t.Errorf("%+v", got)
		}
		for request, arg := range map[string]string{"bridge-fdb": "02:00:00:00:00:78 br0", "bridge-ports": "a0"} {
			if got := one(t, request, arg); got.Value != None {
				t.Errorf("%+v", got)
			}
		}
		if got := one(t, "bridge-fdb", "02:00:00:00:00:77 none0"); got.Value != None {
			t.Errorf("%+v", got)
		}
		if !can(t, "CONFIG_BRIDGE_VLAN_FILTERING", "ip link set br0 type bridge vlan_filtering 1") {
			return
		}
		sh(t, "bridge vlan add dev x0 vid 7-9")
		sh(t, "bridge vlan add dev x0 vid 40")
		sh(t, "bridge vlan del dev y0 vid 1")
		got2 := facts(t, "bridge-ports", "br0")
		type vlans struct{ vlans, pvid string }
		have := map[string]vlans{}
		for _, f := range got2 {
			have[f.Name] = vlans{f.Fields["vlans"], f.Fields["pvid"]}
		}
		want := map[string]vlans{"br0": {"1", "1"}, "x0": {"1 7-9 40", "1"}, "y0": {"", "0"}}
		if d := gocmp.Diff(want, have, gocmp.AllowUnexported(vlans{})); d != "" {
			t.Error(d)
		}
	})
}

func TestFilterActions(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		sh(t, "ip link add x0 type veth peer y0")
		if !can(t, "CONFIG_NET_ACT_MIRRED", "tc qdisc add dev a0 clsact") {
			return
		}
		sh(t, "tc filter add dev a0 ingress pref 5 u32 match u32 0 0 action mirred egress mirror dev y0 action mirred egress redirect dev x0")
		f := one(t, "tc-filters", "a0").Fields
		want := map[string]string{
			"direction": "ingress", "kind": "u32", "pref": "5", "handle": "0x80000800",
			"actions": "mirred egress mirror, mirred egress redirect", "redirect": "x0", "redirect_up": "0", "redirect_carrier": f["redirect_carrier"], "redirect_overlimits": "0",
		}
		if f["redirect_carrier"] == "" {
			delete(want, "redirect_carrier") // kernels say it of devices that are up only
		}
		if d := gocmp.Diff(want, f); d != "" {
			t.Error(d)
		}
	})
}
