//go:build root

package counter

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// firewallTool runs a program of netfilter in the namespace of the calling
// thread and returns what it printed.
func firewallTool(t testing.TB, input string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v: %s (apt-get install nftables iptables conntrack)", name, strings.Join(args, " "), err, complaint.String())
	}
	return out.String()
}

// netfilter reads the sources of netfilter alone; nothing may be missing.
func netfilter(t testing.TB) []Value {
	t.Helper()
	var s Snapshot
	s.readNft()
	s.readIptables()
	s.readConntrackCPUs()
	s.readNetfilterFiles()
	for _, m := range s.Missing {
		if !strings.Contains(m.Why, "modules.builtin") { // nobody may know what is built in
			t.Fatalf("missing: %+v", m)
		}
	}
	return s.Values
}

// byKey are the values of a table by name and object; each may be there once.
func byKey(t testing.TB, values []Value, table string) map[string]uint64 {
	t.Helper()
	m := map[string]uint64{}
	for _, v := range values {
		if name, _, _ := strings.Cut(v.Name, "."); name != table {
			continue
		}
		key := strings.TrimSuffix(v.Name+" "+v.Object, " ")
		if _, ok := m[key]; ok {
			t.Errorf("%s is there twice", key)
		}
		if v.Source == "" || v.Command == "" {
			t.Errorf("incomplete: %+v", v)
		}
		m[key] = v.Value
	}
	return m
}

// datagrams sends datagrams of different lengths to ports of loopback. The
// kernel refuses what a chain of output drops.
func datagrams(t testing.TB, to string, ports ...int) {
	t.Helper()
	for i, port := range ports {
		c, err := net.Dial("udp", net.JoinHostPort(to, strconv.Itoa(port)))
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Write(make([]byte, i+1))
		if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		c.Close()
	}
}

// ruleset has every kind of counter that nft lists, before drops, rejects and
// what lets packets pass.
const ruleset = `
table ip t {
	counter used { }
	counter dropped { }
	counter both { }
	quota some { over 100 mbytes }
	set seen { type ipv4_addr; counter; elements = { 127.0.0.1 } }
	chain in {
		type filter hook input priority -10; policy drop;
		udp dport 20 counter drop
		udp dport 21 counter log prefix "x" drop
		udp dport 22 counter limit rate 1/day burst 1 packets drop
		counter udp dport 23 drop
		udp dport 24 counter accept
		udp dport 25 counter reject
		udp dport 26 counter meta mark set 1 counter drop
		udp dport 27 counter name "dropped" drop
		udp dport 28 counter name "used" accept
		udp dport 29 counter name "both" accept
		udp dport 30 counter name "both" drop
		udp dport 32 quota over 1 bytes counter drop
		udp dport 33 quota name "some" drop
		ip daddr @seen udp dport 34 counter drop
		udp dport 35 counter jump sub
		udp dport 36 counter goto sub
		udp dport 37 counter ct count over 1000 drop
		udp dport vmap { 38 : drop }
		meta l4proto icmp counter accept
	}
	chain sub {
		counter packets 5 bytes 77 return
	}
	chain out {
		type filter hook output priority 0; policy accept;
		udp dport 50 counter drop
	}
}
table ip maps {
	counter mapped { }
	counter also { }
	map which { type inet_service : counter ; elements = { 31 : "mapped" } }
	chain in {
		type filter hook input priority -20
		counter name udp dport map @which
		udp dport 31 counter name "also" drop
	}
}
table ip6 t6 {
	chain in {
		type filter hook input priority 0
		udp dport 20 counter drop
	}
}
table netdev d {
	chain ing {
		type filter hook ingress device lo priority 0
		udp dport 60 counter drop
	}
}
`

// setElements says why nft shows a counter that is not read.
const setElements = "a set may have a million elements, each with a counter"

func TestMatchesNft(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewallTool(t, ruleset, "nft", "-f", "-")
		for round := range 2 {
			for port := 20; port <= 40; port++ {
				datagrams(t, "127.0.0.1", port, port)
			}
			datagrams(t, "127.0.0.1", 50, 60, 60)
			got := byKey(t, netfilter(t), "nft")
			want, left := nftCounters(t, firewallTool(t, "", "nft", "-j", "list", "ruleset"))
			if d := gocmp.Diff(want, got); d != "" {
				t.Fatalf("round %d: nft (-) and whydrop (+): %s", round, d)
			}
			if len(left) != 1 || left[0] != "counter of an element of set seen: "+setElements {
				t.Errorf("left out: %v", left)
			}
			n := uint64(round+1) * 2
			var sum uint64
			moved := 0
			for key, v := range got {
				if strings.HasPrefix(key, "nft.drop_packets ") {
					sum += v
				}
				if v > 0 {
					moved++
				}
			}
			// Ports 20, 21, 25, 26, 34, ingress, half of output: two each; with a
			// quota of one byte 32 drops the second only.
			if got["nft.drop_packets"] != sum || sum < 7*n || moved < 30 {
				t.Errorf("%d dropped, the parts have %d; %d counters above 0", got["nft.drop_packets"], sum, moved)
			}
		}
	})
}

// nftCounters makes of nft's list what whydrop must say of it, and what it
// leaves out, with the reason.
func nftCounters(t *testing.T, list string) (want map[string]uint64, left []string) {
	t.Helper()
	var doc struct {
		Nftables []map[string]struct {
			Family, Table, Chain, Name string
			Handle                     uint64
			Expr                       []map[string]json.RawMessage
			Elem                       []json.RawMessage
			Packets, Bytes, Used       *uint64
		}
	}
	if err := json.Unmarshal([]byte(list), &doc); err != nil {
		t.Fatal(err)
	}
	want = map[string]uint64{}
	var packets, count uint64
	for _, item := range doc.Nftables {
		for kind, o := range item {
			id := o.Family + " " + o.Table + " "
			switch kind {
			case "rule":
				object := fmt.Sprintf("rule %s%s %d", id, o.Chain, o.Handle)
				p, b := nftRuleCounters(t, want, object, o.Expr)
				packets, count = packets+p, count+b
			case "counter":
				prefix := "nft.counter_"
				if o.Name == "dropped" {
					prefix = "nft.drop_counter_"
				}
				want[prefix+"packets counter "+id+o.Name], want[prefix+"bytes counter "+id+o.Name] = *o.Packets, *o.Bytes
			case "quota":
				want["nft.quota_bytes quota "+id+o.Name], want["nft.quota_limit quota "+id+o.Name] = *o.Used, *o.Bytes
			case "set", "map":
				for _, e := range o.Elem {
					if bytes.Contains(e, []byte(`"packets"`)) {
						left = append(left, "counter of an element of set "+o.Name+": "+setElements)
					}
				}
			case "metainfo", "table", "chain": // nothing that counts
			default:
				t.Errorf("nft lists %s, of which this test knows nothing", kind)
			}
		}
	}
	want["nft.drop_packets"], want["nft.drop_bytes"] = packets, count
	return want, left
}

// nftRuleCounters adds those of a rule and returns what it dropped.
func nftRuleCounters(t *testing.T, want map[string]uint64, object string, exprs []map[string]json.RawMessage) (packets, count uint64) {
	t.Helper()
	names := make([]string, len(exprs))
	for i, e := range exprs {
		names[i] = slices.Collect(maps.Keys(e))[0]
	}
	counters, quotas := 0, 0
	for i, e := range exprs {
		// Between a counter that drops and its verdict there are only these.
		rest := strings.Join(names[i+1:], " ")
		drops := regexp.MustCompile(`^((log|mangle) )*(drop|reject)$`).MatchString(rest)
		switch names[i] {
		case "counter":
			var c struct{ Packets, Bytes uint64 }
			if !bytes.Contains(e["counter"], []byte(`"packets"`)) || json.Unmarshal(e["counter"], &c) != nil {
				continue // the name of an object, or a map of them
			}
			prefix, suffix := "nft.", ""
			if drops {
				prefix = "nft.drop_"
				packets, count = packets+c.Packets, count+c.Bytes
			}
			if counters++; counters > 1 {
				suffix = fmt.Sprintf(" counter %d", counters)
			}
			want[prefix+"packets "+object+suffix], want[prefix+"bytes "+object+suffix] = c.Packets, c.Bytes
		case "quota":
			var q struct {
				Val, Used         uint64
				ValUnit, UsedUnit string
			}
			if json.Unmarshal(e["quota"], &q) != nil {
				continue
			}
			if quotas++; quotas > 1 {
				t.Errorf("%s: several quotas", object)
			}
			want["nft.quota_bytes "+object], want["nft.quota_limit "+object] = q.Used, q.Val
		}
	}
	return packets, count
}
