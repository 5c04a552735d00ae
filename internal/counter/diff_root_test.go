//go:build root

package counter

import (
	"testing"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// grown are the counters of that name with their deltas, as growth gives them.
func grown(before, after Snapshot, name string) map[string]string {
	var list []record.Counter
	for _, c := range Diff(before, after, record.NetNS{}) {
		if c.Name == name {
			list = append(list, c)
		}
	}
	return growth(list)
}

// TestRulesThatGo: what the rule before it had counted is neither taken for the
// rule that follows, nor does it hide what that one drops.
func TestRulesThatGo(t *testing.T) {
	firewall := func() (s Snapshot) {
		s = snapshot()
		s.readNft()
		s.readIptables()
		return s
	}
	same := func(t *testing.T, want map[string]string, got map[string]string) {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("%v, want %v", got, want)
		}
		for object, delta := range want {
			if got[object] != delta {
				t.Errorf("%q: %s, want %s", object, got[object], delta)
			}
		}
	}
	t.Run("iptables-legacy", func(t *testing.T) {
		testkit.InNetNS(t, func(*netlab.Namespace) {
			firewallTool(t, `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:sub - [0:0]
[5:500] -A INPUT -p udp --dport 20 -j DROP
[1000000:100] -A INPUT -p udp --dport 21 -j DROP
[7:70] -A INPUT -p udp --dport 22 -j sub
[0:0] -A sub -j DROP
COMMIT
`, "iptables-legacy-restore", "-c")
			before := firewall()
			firewallTool(t, "", "iptables-legacy", "-D", "INPUT", "1")
			datagrams(t, "127.0.0.1", 22, 22)
			after := firewall()
			same(t, map[string]string{"": "2?", "rule ip filter INPUT 1": "0", "rule ip filter sub 1": "2"}, grown(before, after, "iptables.drop_packets"))
			const jump = "iptables.packets rule ip filter INPUT 2"
			if got := grown(before, after, "iptables.packets"); got[jump] != "2" {
				t.Errorf("%s: %v", jump, got)
			}
		})
	})
	t.Run("nftables", func(t *testing.T) {
		testkit.InNetNS(t, func(*netlab.Namespace) {
			firewallTool(t, `table inet t {
	chain in {
		type filter hook input priority 0
		udp dport 20 counter packets 1000000 bytes 5 drop
		udp dport 21 counter drop
	}
}
`, "nft", "-f", "-")
			before := firewall()
			firewallTool(t, "", "nft", "delete", "rule", "inet", "t", "in", "handle", "2")
			firewallTool(t, "", "nft", "add", "rule", "inet", "t", "in", "udp", "dport", "22", "counter", "drop")
			datagrams(t, "127.0.0.1", 21, 22, 22)
			same(t, map[string]string{"": "3?", "rule inet t in 3": "1", "rule inet t in 4": "2"}, grown(before, firewall(), "nft.drop_packets"))
		})
	})
}

// TestQdiscThatIsReplaced: what the new one drops is the device's loss, whatever
// the old one had dropped.
func TestQdiscThatIsReplaced(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		batch(t, "ip", []string{
			"link add v0 type veth peer name v1", "link set v1 up", "link set v0 up", "addr add 10.1.1.1/24 dev v0",
			"neigh add 10.1.1.2 lladdr 02:00:00:00:00:09 dev v0",
		})
		program(t, "tc", "qdisc", "add", "dev", "v0", "root", "handle", "1:", "pfifo", "limit", "0")
		drop := func(packets int) {
			for range packets {
				datagrams(t, "10.1.1.2", 9)
			}
		}
		devices := func() Snapshot {
			s := snapshot()
			s.readDevices()
			return s
		}
		drop(40)
		before := devices()
		program(t, "tc", "qdisc", "replace", "dev", "v0", "root", "handle", "2:", "pfifo", "limit", "0")
		drop(9)
		after := devices()
		got := find(t, Diff(before, after, record.NetNS{}), "qdisc.drops", indexOf(t, n, "v0"))
		if got.Delta != 9 || !got.Reset {
			t.Errorf("%+v", got)
		}
		drop(3)
		if got := find(t, Diff(after, devices(), record.NetNS{}), "qdisc.drops", indexOf(t, n, "v0")); got.Delta != 3 || got.Reset {
			t.Errorf("later: %+v", got)
		}
	})
}

// indexOf is the index of a device.
func indexOf(t *testing.T, n *netlab.Namespace, name string) uint32 {
	t.Helper()
	l, err := n.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(l.Attrs().Index)
}
