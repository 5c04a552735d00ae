package fact

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/record"
)

func TestEffective(t *testing.T) {
	for _, tt := range []struct {
		name     string
		all, dev string
		// more are further settings of the device.
		more map[string]string
		want string
		rule string
	}{
		{"ipv4 rp_filter", "1", "0", nil, "1", "max"},
		{"ipv4 rp_filter", "1", "2", nil, "2", "max"},
		{"ipv4 accept_local", "0", "1", nil, "1", "or"},
		{"ipv4 accept_local", "0", "0", nil, "0", "or"},
		{"ipv4 arp_filter", "1", "0", nil, "1", "or"},
		{"ipv4 log_martians", "2", "0", nil, "1", "or"},
		{"ipv4 forwarding", "1", "0", nil, "0", "device"},
		{"ipv4 accept_source_route", "1", "0", nil, "0", "and"},
		{"ipv4 accept_redirects", "1", "0", map[string]string{"forwarding": "0"}, "1", "or"},
		{"ipv4 accept_redirects", "1", "0", map[string]string{"forwarding": "1"}, "0", "and"},
		{"ipv6 forwarding", "1", "0", nil, "1", "all"},
		{"ipv6 forwarding", "0", "1", nil, "0", "all"},
		{"ipv6 forwarding", "0", "0", map[string]string{"force_forwarding": "1"}, "1", "all or force_forwarding"},
		{"ipv6 forwarding", "0", "0", map[string]string{"force_forwarding": "0"}, "0", "all"},
		{"ipv6 accept_source_route", "-1", "0", nil, "-1", "min"},
		{"ipv6 accept_dad", "0", "1", nil, "1", "max"},
		{"ipv6 force_mld_version", "0", "2", nil, "2", "all, else device"},
		{"ipv6 force_mld_version", "1", "2", nil, "1", "all, else device"},
	} {
		family, setting, _ := strings.Cut(tt.name, " ")
		dir := "proc/sys/net/" + family + "/conf/"
		files := map[string]string{dir + "all/" + setting: tt.all + "\n", dir + "eth0.100/" + setting: tt.dev + "\n"}
		for name, v := range tt.more {
			files[dir+"eth0.100/"+name] = v + "\n"
		}
		got := tree(t, files).Read(record.FactRequest{Kind: "sysctl", Arg: "net/" + family + "/conf/eth0.100/" + setting}, ns)
		if len(got) != 1 || got[0].Value != tt.dev {
			t.Fatalf("%s: %+v", tt.name, got)
		}
		f := got[0].Fields
		if f["effective"] != tt.want || f["rule"] != tt.rule || f["all"] != tt.all || f["device"] != tt.dev || !strings.Contains(f["rule_source"], " of ") {
			t.Errorf("%+v: %v", tt, f)
		}
	}
}

// Where conf/all is not asked, or cannot be read, nothing is said.
func TestNotCombined(t *testing.T) {
	r := tree(t, map[string]string{
		"proc/sys/net/ipv4/conf/all/rp_filter":                     "1\n",
		"proc/sys/net/ipv4/conf/eth0/accept_local":                 "1\n",
		"proc/sys/net/ipv4/conf/eth0/tag":                          "0\n",
		"proc/sys/net/ipv4/conf/all/tag":                           "0\n",
		"proc/sys/net/ipv4/neigh/eth0/ucast_solicit":               "3\n",
		"proc/sys/net/ipv6/conf/eth0/accept_ra":                    "1\n",
		"proc/sys/net/ipv6/conf/all/accept_ra":                     "1\n",
		"proc/sys/net/ipv4/conf/default/rp_filter":                 "1\n",
		"proc/sys/net/ipv4/conf/eth1/accept_redirects":             "1\n",
		"proc/sys/net/ipv4/conf/all/accept_redirects":              "1\n",
		"proc/sys/net/ipv4/conf/eth0/rp_filter":                    "odd\n",
		"proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent": "120\n",
	})
	for _, name := range []string{
		"ipv4/conf/all/rp_filter", "ipv4/conf/eth0/accept_local", "ipv4/conf/eth0/tag", "ipv4/neigh/eth0/ucast_solicit", "ipv6/conf/eth0/accept_ra",
		"ipv4/conf/default/rp_filter", "ipv4/conf/eth1/accept_redirects", "ipv4/conf/eth0/rp_filter", "netfilter/nf_conntrack_tcp_timeout_syn_sent",
	} {
		got := r.Read(record.FactRequest{Kind: "sysctl", Arg: "net/" + name}, ns)
		if len(got) != 1 || got[0].Value == "" || got[0].Value == None || got[0].Fields != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestSettingsOfDirectory(t *testing.T) {
	const dir = "proc/sys/net/ipv4/conf/eth0.100/"
	r := tree(t, map[string]string{
		dir + "rp_filter": "0\n", dir + "stable_secret": "x\n", dir + "below/deep": "1\n", dir + "tag": "4\n",
		"proc/sys/net/ipv4/conf/all/rp_filter": "2\n",
	})
	got := r.Read(record.FactRequest{Kind: "sysctl", Arg: "net/ipv4/conf/eth0.100/*"}, ns)
	want := []record.Fact{
		{
			Name: "net/ipv4/conf/eth0.100/rp_filter", Value: "0", Source: "/proc/sys/net/ipv4/conf/eth0.100/rp_filter", Command: "sysctl net.ipv4.conf.eth0/100.rp_filter",
			Fields: fields{"all": "2", "device": "0", "effective": "2", "rule": "max", "rule_source": "IN_DEV_RPFILTER of include/linux/inetdevice.h"},
		},
		{Name: "net/ipv4/conf/eth0.100/tag", Value: "4", Source: "/proc/sys/net/ipv4/conf/eth0.100/tag", Command: "sysctl net.ipv4.conf.eth0/100.tag"},
	}
	for i := range want {
		want[i].Kind, want[i].Request, want[i].NetNS = "sysctl", "net/ipv4/conf/eth0.100/*", ns
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := r.Read(record.FactRequest{Kind: "sysctl", Arg: "net/ipv4/conf/none0/*"}, ns); len(got) != 1 || got[0].Value != None {
		t.Errorf("no directory: %+v", got)
	}
	for _, bad := range []string{"net/*/x", "*", "net/ipv4/*/*", "net/ipv4/a*", "net*"} {
		if checkSysctl(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if !slices.Contains([]string{"net/ipv4/conf/eth0.100/tag"}, got[1].Name) {
		t.Error(got[1].Name)
	}
}
