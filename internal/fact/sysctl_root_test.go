//go:build root

package fact

import (
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// setSysctl writes a setting, whose name has the form net/ipv4/ip_forward, in
// the namespace of the thread.
func setSysctl(t *testing.T, name string, value int) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/"+name, []byte(fmt.Sprint(value)), 0))
}

// What is said to hold for a device is what the kernel does: it is asked for
// the route of a packet that comes in, for every combination of settings.
func TestEffectiveIsWhatTheKernelDoes(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		sh(t, "ip route add 203.0.113.0/24 dev lo") // not by a0
		for _, tt := range []struct {
			setting, route string
			values         int
			accepted       func(effective string) bool
		}{
			{"rp_filter", "192.0.2.1 from 203.0.113.9 iif a0", 3, func(e string) bool { return e != "1" }},
			{"rp_filter", "192.0.2.1 from 198.51.100.9 iif a0", 3, func(e string) bool { return e == "0" }}, // no route at all
			{"accept_local", "192.0.2.1 from 192.0.2.1 iif a0", 2, func(e string) bool { return e == "1" }},
			{"route_localnet", "127.0.0.1 from 192.0.2.2 iif a0", 2, func(e string) bool { return e == "1" }},
			{"forwarding", "203.0.113.1 from 192.0.2.2 iif a0", 2, func(e string) bool { return e == "1" }},
		} {
			for all := range tt.values {
				for dev := range tt.values {
					setSysctl(t, "net/ipv4/conf/all/"+tt.setting, all)
					setSysctl(t, "net/ipv4/conf/a0/"+tt.setting, dev) // writing all may set every device
					f := one(t, "sysctl", "net/ipv4/conf/a0/"+tt.setting)
					r := one(t, "route", tt.route)
					accepted := r.Value == "local" || r.Value == "unicast"
					if f.Value != fmt.Sprint(dev) || f.Fields["effective"] == "" || accepted != tt.accepted(f.Fields["effective"]) {
						t.Errorf("all.%s=%d a0.%s=%d: %v, and the kernel gives %s %v", tt.setting, all, tt.setting, dev, f.Fields, r.Value, r.Fields)
					}
				}
			}
			setSysctl(t, "net/ipv4/conf/all/"+tt.setting, 0)
			setSysctl(t, "net/ipv4/conf/a0/"+tt.setting, 0)
		}
	})
}

// Every setting of a device is there as its file has it, also of one with a
// dot in its name; all rules are about settings that exist.
func TestSettingsOfDevice(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		sh(t, "ip link add x0.42 type veth peer y0")
		for _, dir := range []string{"net/ipv4/conf/x0.42", "net/ipv6/conf/x0.42", "net/ipv4/neigh/x0.42", "net/ipv4/conf/all"} {
			entries, err := os.ReadDir("/proc/sys/" + dir)
			must(t, err)
			got := map[string]string{}
			for _, f := range facts(t, "sysctl", dir+"/*") {
				got[path.Base(f.Name)] = f.Value
			}
			for _, e := range entries {
				if e.Name() == "stable_secret" {
					continue
				}
				b, err := os.ReadFile("/proc/sys/" + dir + "/" + e.Name())
				must(t, err)
				if v, ok := got[e.Name()]; !ok || v != strings.Join(strings.Fields(string(b)), " ") {
					t.Errorf("%s/%s: %q, want %q", dir, e.Name(), v, b)
				}
				delete(got, e.Name())
			}
			if len(got) > 0 {
				t.Errorf("%s: %v", dir, got)
			}
		}
		newer := map[string]bool{"arp_evict_nocarrier": true, "ndisc_evict_nocarrier": true} // 5.16
		for family, rules := range map[string]map[string]effectiveRule{"ipv4": effective4, "ipv6": effective6} {
			for setting := range rules {
				if _, err := os.Stat("/proc/sys/net/" + family + "/conf/x0.42/" + setting); err != nil && !newer[setting] {
					t.Errorf("%s: %v", setting, err)
				}
			}
		}
	})
}
