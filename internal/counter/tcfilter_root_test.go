//go:build root

package counter

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// filtered is a device with filters.
type filtered struct {
	name, option string
	// commands are those of tc, with the device left out.
	commands []string
	// places are the arguments of tc that show them.
	places []string
	lost   []string
}

// mirror and redirect need a second device; that of redirect is down, which
// counts as an overlimit.
const sink, down = "tsink", "tdown"

func filters() []filtered {
	return []filtered{
		{name: "tua", option: "CONFIG_NET_CLS_U32", commands: []string{
			"qdisc add clsact",
			"filter add egress protocol ip pref 5 u32 match ip dst 10.0.0.9/32 action mirred egress mirror dev " + sink,
			"filter add egress protocol ip pref 6 u32 match ip sport 4001 0xffff match ip dst 10.0.0.2/32 action mirred egress mirror dev " + sink + " pipe action mirred egress redirect dev " + down + " index 70",
			"filter add egress chain 3 protocol all pref 7 u32 match u32 0 0 action mirred egress mirror dev " + sink,
			"filter add ingress protocol ip pref 8 u32 match u32 0 0 action mirred egress redirect dev " + sink,
		}, places: []string{"egress", "ingress"}, lost: []string{"tc_action.packets", "tc_action.overlimits"}},
		{name: "tub", option: "CONFIG_NET_CLS_U32", commands: []string{
			"qdisc add root handle 1: htb default 20",
			"class add parent 1: classid 1:1 htb rate 1mbit",
			"class add parent 1:1 classid 1:10 htb rate 1mbit",
			"class add parent 1:1 classid 1:20 htb rate 1mbit",
			"filter add parent 1: protocol ip pref 5 u32 match ip sport 4001 0xffff flowid 1:1 action mirred egress mirror dev " + sink,
			"filter add parent 1:1 protocol ip pref 6 u32 match u32 0 0 flowid 1:10 action mirred egress mirror dev " + sink,
		}, places: []string{"parent 1:", "parent 1:1"}, lost: []string{"tc_action.packets"}},
		{name: "tuc", option: "CONFIG_NET_CLS_U32", commands: []string{
			"qdisc add ingress_block 71 ingress",
			"filter add block 71 protocol ip pref 5 u32 match u32 0 0 action mirred egress redirect dev " + sink,
		}, places: []string{"block 71"}},
		{name: "tud", option: "CONFIG_NET_CLS_U32", commands: []string{"qdisc add ingress_block 71 ingress"}},
		{name: "tma", option: "CONFIG_NET_CLS_FLOWER", commands: []string{
			"qdisc add clsact",
			"filter add egress protocol ip pref 5 flower ip_proto udp src_port 4000 action pedit ex munge ip ttl set 10 pipe action csum ip pipe action police rate 8kbit burst 500 conform-exceed drop/pipe index 5 action drop index 77",
			"filter add egress protocol ip pref 6 basic action skbedit priority 5 continue",
			"filter add egress protocol ip pref 7 handle 5 fw action drop",
			"filter add egress protocol ip pref 8 u32 match ip sport 4001 0xffff match mark 0 0xff action goto chain 4",
			"filter add egress protocol ip chain 4 pref 1 bpf bytecode '1,6 0 0 4294967295' action simple sdata x pipe action drop",
			"filter add egress protocol all pref 99 matchall action vlan push id 5 pipe action drop random determ drop 2",
			"filter add ingress protocol ip pref 3 matchall action connmark pipe action ctinfo dscp 0xfc000000 0x1000000 pipe action nat ingress 10.0.0.2 10.0.0.3 pipe action skbmod set dmac 02:00:00:00:00:07 pipe action tunnel_key unset pipe action sample rate 100 group 1 pipe action ct pipe action drop",
		}, places: []string{"egress", "ingress"}, lost: []string{"tc_action.packets", "tc_action.drops", "tc_action.overlimits", "tc_filter.rhit", "tc_filter.rcnt", "tc_filter.kcnt"}},
	}
}

// oldPolicer is set up in the way from before actions. What tc shows of its
// statistics is text, also with -j.
var oldPolicer = filtered{name: "tmb", option: "CONFIG_NET_ACT_POLICE", commands: []string{
	"qdisc add ingress",
	"filter add parent ffff: protocol ip pref 5 u32 match u32 0 0 police rate 8kbit burst 500 drop flowid :1",
}}

// setUpFilters makes the devices with their filters, and sends through them from
// both ends.
func setUpFilters(t *testing.T, ns *netlab.Namespace, all ...filtered) {
	t.Helper()
	var links, commands []string
	for _, f := range all {
		links = append(links, "link add "+f.name+" up type veth peer name "+f.name+"p", "link set "+f.name+"p up")
		for _, c := range f.commands {
			if !strings.Contains(c, "block 71 protocol") { // of no device
				c = onDevice(c, f.name)
			}
			commands = append(commands, c)
		}
	}
	batch(t, "ip", links)
	batch(t, "tc", commands)
	for _, f := range all {
		flood(t, deviceIndex(t, ns, f.name), nil)
		flood(t, deviceIndex(t, ns, f.name+"p"), nil)
	}
}

// filterSettings are the numbers of `tc -s -j filter` that are no statistics.
var filterSettings = notCompared{
	`pref|chain|block|options\.(handle|order|ht_divisor)`:          "the name of the filter",
	`options\.bytecode\..*`:                                        "the program of the filter",
	`options\.(keys\.|match|mask|value|rates?|in_hw_count).*`:      "what the filter looks for",
	`options\.actions\.\d+\.(order|index|ref|bind)`:                "the name of the action, and how many use it",
	`options\.actions\.\d+\.(installed|last_used|first_used)`:      "seconds since then",
	`options\.actions\.\d+\.(nkeys|keys\..*|id|zone|priority)`:     "parameters of the action",
	`options\.actions\.\d+\.(rate|group|control_action\..*|val)`:   "parameters of the action",
	`options\.actions\.\d+\.(prob\..*|overhead|mtu|burst|nat_.*)`:  "parameters of the action",
	`options\.actions\.\d+\.(dscp(state)?mask|cpmark)`:             "parameters of the action",
	`options\.(ematch|ematches)\..*|options\.(sel|fwmark_).*value`: "what the filter looks for",
}

// filterField is the name of whydrop for a field, with what is behind the
// name of the filter.
func filterField(s shown, path string) (name, part string) {
	kind := s.text("kind")
	if rest, ok := strings.CutPrefix(path, "options.actions."); ok {
		number, rest, _ := strings.Cut(rest, ".")
		at := "options.actions." + number + "."
		kind := s.text(at + "kind")
		if kind == "" {
			kind = "connmark" // of tc 6.1, which does not say so
		}
		action := " action " + kind
		if index := s.text(at + "index"); index != "" {
			action += " " + index
		}
		if stat, ok := strings.CutPrefix(rest, "stats."); ok {
			if stat == "rate" {
				stat = "bps"
			}
			return "tc_action." + stat, action
		}
		if stat, ok := map[string]string{"dscpset": "dscp_set", "dscperror": "dscp_error", "cpmarkset": "cpmark_set"}[rest]; ok {
			return "tc_action." + stat, action
		}
		return "", ""
	}
	switch {
	case path == "options.rule_hit" && kind == "matchall":
		return "tc_filter.rhit", ""
	case path == "options.rule_hit":
		return "tc_filter.rcnt", ""
	case path == "options.success":
		return "tc_filter.rhit", ""
	case path == "options.fwmark_success":
		return "tc_filter.mark_success", ""
	}
	// The first is that of the filter, then there is one for each key.
	if rest, ok := strings.CutPrefix(path, "options.success#"); ok {
		if n, err := strconv.Atoi(rest); err == nil {
			return "tc_filter.kcnt", " key " + strconv.Itoa(n-2)
		}
	}
	return "", ""
}

// filterObject is how whydrop names the filter that tc shows.
func filterObject(s shown, place string) string {
	h := s.text("options.fh")
	if h == "" {
		h = s.text("options.handle")
		if n, err := strconv.ParseUint(h, 0, 32); err == nil {
			h = strconv.FormatUint(n, 16)
		}
		h = "0x" + strings.TrimPrefix(h, "0x")
	}
	return "filter " + strings.TrimPrefix(place, "parent ") + " chain " + s.text("chain") + " pref " + s.text("pref") + " handle " + h
}

// TestMatchesTCFilters compares every counter of every filter and action.
func TestMatchesTCFilters(t *testing.T) {
	testkit.InNetNS(t, func(ns *netlab.Namespace) {
		batch(t, "ip", []string{"link add " + sink + " up type veth peer name " + sink + "p", "link add " + down + " type veth peer name " + down + "p"})
		var here []filtered
		var lines []string
		for _, f := range filters() {
			if !testkit.Wants(t, f.option) {
				continue
			}
			here = append(here, f)
			for _, place := range f.places {
				line := "filter show dev " + f.name + " " + place
				if strings.HasPrefix(place, "block") {
					line = "filter show " + place
				}
				lines = append(lines, line)
			}
		}
		setUpFilters(t, ns, here...)
		m, out := around(t, func() []byte { return batch(t, "tc -s -j", lines) })
		lists := readLists(t, out)
		if len(lists) != len(lines) {
			t.Fatalf("tc answered %d of %d:\n%s", len(lists), len(lines), out)
		}
		for _, f := range here {
			compareFilters(t, m, f, deviceIndex(t, ns, f.name), lists[:len(f.places)])
			lists = lists[len(f.places):]
		}
		if testkit.Wants(t, oldPolicer.option) {
			testOldPolicer(t, ns)
		}
	})
}

// compareFilters compares the filters of each place of a device, of which some must
// have counted.
func compareFilters(t *testing.T, m *matcher, f filtered, index uint32, lists [][]shown) {
	t.Helper()
	stats := 0
	for i, place := range f.places {
		device := index
		if strings.HasPrefix(place, "block") {
			device = 0
		}
		for _, s := range lists[i] {
			stats += compareFilter(t, m, device, s, place)
		}
	}
	if stats == 0 && len(f.places) > 0 {
		t.Errorf("%s: tc showed no counter", f.name)
	}
	for _, name := range f.lost {
		above := false
		for id := range m.above0 {
			above = above || id.device == index && id.name == name
		}
		if !above {
			t.Errorf("%s: %s is 0", f.name, name)
		}
	}
}

// compareFilter returns how many fields it compared.
func compareFilter(t *testing.T, m *matcher, device uint32, s shown, place string) (compared int) {
	t.Helper()
	object := filterObject(s, place)
	for _, f := range s {
		name, part := filterField(s, f.path)
		switch {
		case name != "":
			m.same(ident{device, name, object + part}, f.text, 0)
			compared++
		case f.number && !filterSettings.has(f.path):
			t.Errorf("%s: tc shows %s = %s, which is neither compared nor left out with a reason", object, f.path, f.text)
		}
	}
	return compared
}

// testOldPolicer compares a policer of which tc writes text.
func testOldPolicer(t *testing.T, ns *netlab.Namespace) {
	setUpFilters(t, ns, oldPolicer)
	index := deviceIndex(t, ns, oldPolicer.name)
	m, out := around(t, func() []byte {
		return program(t, "tc", "-s", "filter", "show", "dev", oldPolicer.name, "parent", "ffff:")
	})
	numbers := regexp.MustCompile(`Sent (\d+) bytes (\d+) pkts \(dropped (\d+), overlimits (\d+)\)`).FindStringSubmatch(string(out))
	where := regexp.MustCompile(`police 0x([0-9a-f]+)`).FindStringSubmatch(string(out))
	if numbers == nil || where == nil {
		t.Fatalf("tc says\n%s", out)
	}
	n, err := strconv.ParseUint(where[1], 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"bytes", "packets", "drops", "overlimits"} {
		found := false
		for id := range m.after {
			if id.device == index && id.name == "tc_action."+name && strings.HasSuffix(id.object, "handle 800::800 action police "+strconv.FormatUint(n, 10)) {
				m.same(id, numbers[i+1], 0)
				found = true
			}
		}
		if !found {
			t.Errorf("no tc_action.%s of the policer", name)
		}
	}
	if numbers[3] == "0" {
		t.Error("the policer dropped nothing")
	}
}
