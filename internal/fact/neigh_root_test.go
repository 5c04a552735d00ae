//go:build root

package fact

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

func TestAddressesMatchIP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		withIPv6(t, n)
		sh(t, each("ip addr add",
			"198.51.100.1/24 brd + dev a0 label a0:1", "198.51.100.2/24 dev a0", "203.0.113.1 peer 203.0.113.2/32 dev a0 metric 5",
			"10.0.0.1/8 dev a0 valid_lft 1000 preferred_lft 500 noprefixroute", "2001:db8:1::1/48 dev a0 nodad valid_lft 2000 preferred_lft 0",
			"2001:db8:2::1 peer 2001:db8:2::2/128 dev a0 nodad home", "2001:db8:3::1/64 dev a0 mngtmpaddr nodad noprefixroute",
		)...)
		var want, got []object
		for _, dev := range objects(t, "ip -j addr") {
			for _, a := range dev["addr_info"].([]any) {
				want = append(want, toolAddress(flat(a.(map[string]any)), dev["ifname"].(string)))
			}
		}
		for _, f := range facts(t, "addresses", "") {
			o := valueAnd(f, "dev")
			o["address"] = f.Name
			o["flags"] = sortedWords(o["flags"])
			if o["flags"] == "" {
				delete(o, "flags")
			}
			got = append(got, without(o, map[string]string{"valid": "counts down", "preferred": "counts down", "protocol": "came to ip with 6.3"}))
		}
		if len(got) < 10 {
			t.Errorf("only %d addresses", len(got))
		}
		sameSets(t, "addresses", want, got)
		f := named(t, facts(t, "addresses", ""), "10.0.0.1")
		valid, err := strconv.Atoi(f.Fields["valid"])
		if preferred, err2 := strconv.Atoi(f.Fields["preferred"]); err != nil || err2 != nil || valid < 500 || valid > 1000 || preferred > 500 || preferred < 1 {
			t.Errorf("lifetimes: %+v", f)
		}
	})
}

// toolAddress is an address of ip -j addr in the words of the fact.
func toolAddress(o object, dev string) object {
	rename(o, "address", "peer")
	rename(o, "local", "address")
	rename(o, "prefixlen", "prefix")
	o["family"] = map[string]string{"inet": "ip", "inet6": "ip6"}[o["family"]]
	o["dev"] = dev
	var flags []string
	for _, f := range []string{"nodad", "optimistic", "dadfailed", "home", "deprecated", "tentative", "mngtmpaddr", "noprefixroute", "autojoin", "stable-privacy", "temporary", "secondary", "dynamic"} {
		if _, ok := o[f]; ok {
			flags = append(flags, f)
			delete(o, f)
		}
	}
	if len(flags) > 0 {
		o["flags"] = sortedWords(strings.Join(flags, ","))
	}
	return without(o, map[string]string{"valid_life_time": "counts down", "preferred_life_time": "counts down"})
}

func TestNeighboursMatchIP(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		pair(t, n)
		withIPv6(t, n)
		var lines []string
		for i, line := range []string{
			"permanent", "permanent", "noarp", "stale", "reachable", "delay", "probe", "failed", "stale extern_learn", "permanent router",
		} {
			lladdr := fmt.Sprintf("lladdr 02:00:00:00:01:%02x", i)
			if line == "failed" {
				continue // cannot be set
			}
			lines = append(lines, fmt.Sprintf("ip neigh add 192.0.2.%d dev a0 %s nud %s", 100+i, lladdr, line),
				fmt.Sprintf("ip neigh add 2001:db8::%x dev a0 %s nud %s", 100+i, lladdr, line))
		}
		sh(t, lines...)
		for fact, flag := range map[string]string{"arp": "-4", "ndisc": "-6"} {
			within(t, "nothing moves", func() bool { // delay and probe go on by themselves
				f := named(t, facts(t, "neighbours", ""), fact)
				states := map[string]int{}
				gc, total := 0, 0
				for _, v := range objects(t, "ip "+flag+" -j neigh show nud all") {
					state := None
					if s, ok := v["state"].([]any); ok && len(s) > 0 {
						state = strings.ToLower(s[0].(string))
					}
					_, learned := v["extern_learn"]
					if state != "permanent" && !learned {
						gc++
					}
					states[state]++
					total++
				}
				for _, s := range append([]string{None}, nudStates...) {
					if f.Fields[s] != decimal(states[s]) {
						return false
					}
				}
				host, err := strconv.Atoi(f.Fields["host_entries"])
				return err == nil && host >= total && f.Value == decimal(total) && f.Fields["gc_entries"] == decimal(gc) && total >= 9
			})
		}
		// One by one.
		for _, v := range objects(t, "ip -s -j neigh show nud all dev a0") {
			o := flat(v)
			f := one(t, "neigh", o["dst"]+" a0")
			if f.Value != "permanent" && f.Value != "noarp" {
				continue // it moves
			}
			if f.Value != strings.ToLower(o["state"]) || f.Fields["lladdr"] != o["lladdr"] || f.Fields["probes"] != o["probes"] || f.Fields["updated"] == "" ||
				(f.Fields["flags"] == "router") != (o["router"] != "") {
				t.Errorf("%s: %+v, ip says %v", f.Name, f, o)
			}
		}
		if f := one(t, "neigh", "2001:db8::6d a0"); f.Fields["flags"] != "router" {
			t.Errorf("a router: %+v", f)
		}
	})
}

// The limits are those of the files that only the host's namespace has.
func TestNeighbourLimits(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		f := named(t, facts(t, "neighbours", ""), "arp")
		r := Reader{Host: hostNamespace}
		for i := 1; i <= 3; i++ {
			name := fmt.Sprintf("gc_thresh%d", i)
			s := r.Read(recordRequest("sysctl", "net/ipv4/neigh/default/"+name), ns)
			if len(s) != 1 || s[0].Value != f.Fields[name] || s[0].Value == "" {
				t.Errorf("%s: %s, sysctl says %+v", name, f.Fields[name], s)
			}
		}
		if !slices.Contains([]string{"0"}, f.Value) || f.Fields["gc_entries"] != "0" {
			t.Errorf("an empty namespace: %+v", f)
		}
		if d := gocmp.Diff(ns, f.NetNS); d != "" {
			t.Error(d)
		}
	})
}
