//go:build root

package counter

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// TestMatchesIptablesNft: a policy has a counter where iptables-nft made one.
func TestMatchesIptablesNft(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewallTool(t, "", "iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "9", "-j", "DROP")
		firewallTool(t, "", "iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "10", "-j", "REJECT")
		firewallTool(t, "", "iptables-nft", "-A", "INPUT", "-p", "udp", "--dport", "11", "-j", "ACCEPT")
		firewallTool(t, "", "iptables-nft", "-P", "INPUT", "DROP")
		firewallTool(t, "", "iptables-nft", "-P", "OUTPUT", "ACCEPT")
		datagrams(t, "127.0.0.1", 9, 9, 10, 11, 11, 12, 12, 12)
		got := byKey(t, netfilter(t), "nft")
		// The answers to 10 and 11 are ICMP and meet the policy.
		save := firewallTool(t, "", "iptables-nft-save", "-c")
		for line, key := range map[string]string{
			`:INPUT DROP `: "nft.drop_%s policy ip filter INPUT", `:OUTPUT ACCEPT `: "nft.%s policy ip filter OUTPUT",
			`--dport 9 `: "nft.drop_%s rule ip filter INPUT", `--dport 10 `: "nft.drop_%s rule ip filter INPUT", `--dport 11 `: "nft.%s rule ip filter INPUT",
		} {
			packets, count := savedCounters(t, save, line)
			if packets == 0 || !hasPair(got, key, packets, count) {
				t.Errorf("%s: %d packets, %d bytes are not in %v", line, packets, count, got)
			}
		}
		if got["nft.drop_packets"] < 6 {
			t.Errorf("%d dropped", got["nft.drop_packets"])
		}
	})
}

// savedCounters are those of the line of iptables-save that has part in it.
func savedCounters(t *testing.T, save, part string) (packets, count uint64) {
	t.Helper()
	for line := range strings.Lines(save) {
		if m := regexp.MustCompile(`\[(\d+):(\d+)\]`).FindStringSubmatch(line); m != nil && strings.Contains(line, part) {
			packets, _ = strconv.ParseUint(m[1], 10, 64)
			count, _ = strconv.ParseUint(m[2], 10, 64)
			return packets, count
		}
	}
	t.Fatalf("no line with %q in:\n%s", part, save)
	return 0, 0
}

// hasPair says whether some object that begins as key says has the numbers.
func hasPair(got map[string]uint64, key string, packets, count uint64) bool {
	for k, v := range got {
		object, ok := strings.CutPrefix(k, fmt.Sprintf(key, "packets"))
		if ok && v == packets && got[fmt.Sprintf(key, "bytes")+object] == count {
			return true
		}
	}
	return false
}

// restore is a table of each kind that iptables-restore loads, for a family.
const restore = `*filter
:INPUT DROP [3:400]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:sub - [0:0]
:empty - [0:0]
-A INPUT -p udp --dport 20 -j DROP
-A INPUT -p udp --dport 21 -j REJECT
-A INPUT -p udp --dport 22 -j sub
-A INPUT -p udp --dport 23
-A INPUT -p udp --dport 24 -g sub
-A INPUT -p udp --dport 25 -m limit --limit 1/day --limit-burst 1 -j DROP
-A OUTPUT -p udp --dport 50 -j DROP
-A sub -p udp --dport 22 -j RETURN
-A sub -j DROP
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p udp --dport 26 -j DROP
-A PREROUTING -p udp --dport 27 -j TRACE
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p udp -j MARK --set-mark 5
COMMIT
`

func TestMatchesIptablesLegacy(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		if err := n.Sysctl("net.ipv6.conf.all.disable_ipv6", "0"); err != nil {
			t.Fatal(err)
		}
		if err := n.Sysctl("net.ipv6.conf.lo.disable_ipv6", "0"); err != nil {
			t.Fatal(err)
		}
		if got := byKey(t, netfilter(t), "iptables"); len(got) > 0 {
			t.Errorf("without a table: %v", got)
		}
		if b, err := os.ReadFile(filepath.Join(thread, "ip_tables_names")); err == nil && len(b) > 0 {
			t.Errorf("the question made tables: %s", b)
		}
		firewallTool(t, restore, "iptables-legacy-restore", "-c")
		firewallTool(t, restore, "ip6tables-legacy-restore", "-c")
		for range 2 {
			for port := 20; port <= 28; port++ {
				datagrams(t, "127.0.0.1", port, port)
				datagrams(t, "::1", port)
			}
			datagrams(t, "127.0.0.1", 50)
			// The list of a chain makes a table that is not there: save does not.
			got := byKey(t, netfilter(t), "iptables")
			want := map[string]uint64{"iptables.drop_packets": 0, "iptables.drop_bytes": 0}
			for program, family := range map[string]string{"iptables-legacy": "ip", "ip6tables-legacy": "ip6"} {
				for _, table := range []string{"filter", "raw", "mangle"} {
					listedCounters(t, want, family+" "+table, firewallTool(t, "", program, "-t", table, "-vnxL", "--line-numbers"))
				}
			}
			if d := gocmp.Diff(want, got); d != "" {
				t.Fatalf("iptables-legacy (-) and whydrop (+): %s", d)
			}
			if got["iptables.drop_packets"] < 15 {
				t.Errorf("%d dropped", got["iptables.drop_packets"])
			}
		}
	})
}

// listedCounters adds the counters of iptables -vnxL --line-numbers.
func listedCounters(t *testing.T, want map[string]uint64, table, list string) {
	t.Helper()
	chain := ""
	head := regexp.MustCompile(`^Chain (\S+) \((?:policy (\S+) (\d+) packets, (\d+) bytes|\d+ references)\)`)
	add := func(object, verdict, packets, count string) {
		prefix := "iptables."
		p, err := strconv.ParseUint(packets, 10, 64)
		b, err2 := strconv.ParseUint(count, 10, 64)
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if verdict == "DROP" || verdict == "REJECT" {
			prefix = "iptables.drop_"
			want["iptables.drop_packets"] += p
			want["iptables.drop_bytes"] += b
		}
		want[prefix+"packets "+object], want[prefix+"bytes "+object] = p, b
	}
	for line := range strings.Lines(list) {
		if m := head.FindStringSubmatch(line); m != nil {
			if chain = m[1]; m[2] != "" {
				add("policy "+table+" "+chain, m[2], m[3], m[4])
			}
			continue
		}
		if f := strings.Fields(line); len(f) > 3 && f[0] != "num" {
			add("rule "+table+" "+chain+" "+f[0], f[3], f[1], f[2])
		}
	}
}

// TestMatchesConntrack: every field of conntrack -S, for each CPU, and the sums
// of the file.
func TestMatchesConntrack(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewallTool(t, "table ip t {\nchain o {\ntype filter hook output priority 0\nct state new accept\n}\n}", "nft", "-f", "-")
		datagrams(t, "127.0.0.1", 9, 9, 10, 11, 12)
		invalidSegment(t)
		// Only now is ctnetlink there, where it is a module.
		firewallTool(t, "", "conntrack", "-C")
		values := netfilter(t)
		got := byKey(t, values, "nf_conntrack")
		sums := map[string]uint64{}
		compared := 0
		rename := map[string]string{"error": "icmp_error", "clash_resolve": "clashres", "chaintoolong": "chainlength"}
		for _, kind := range []string{"", "expect"} {
			for line := range strings.Lines(firewallTool(t, "", "conntrack", append([]string{"-S"}, strings.Fields(kind)...)...)) {
				cpu := ""
				for _, f := range strings.Fields(line) {
					name, number, ok := strings.Cut(f, "=")
					v, err := strconv.ParseUint(number, 10, 64)
					if !ok || err != nil {
						t.Fatalf("conntrack says %q", line)
					}
					if name == "cpu" {
						cpu = number
						continue
					}
					if kind == "expect" {
						name = "expect_" + strings.TrimPrefix(strings.TrimPrefix(name, "expect_"), "exp_")
					}
					if to, ok := rename[name]; ok {
						name = to
					}
					key := "nf_conntrack." + name + " cpu " + cpu
					have, ok := got[key]
					if !ok || have != v {
						t.Errorf("%s is %d (%v), conntrack says %d", key, have, ok, v)
					}
					sums[name] += v
					compared++
				}
			}
		}
		text, err := os.ReadFile(filepath.Join(thread, "stat/nf_conntrack"))
		if err != nil {
			t.Fatal(err)
		}
		total, err := parseConntrack(text, "x")
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range total {
			if v.Level { // entries
				if count := strings.TrimSpace(firewallTool(t, "", "conntrack", "-C")); strconv.FormatUint(v.Value, 10) != count {
					t.Errorf("%s is %d, conntrack counts %s", v.Name, v.Value, count)
				}
				continue
			}
			if field := strings.TrimPrefix(v.Name, "nf_conntrack."); v.Value != sums[field] {
				t.Errorf("%s is %d, the CPUs have %d", v.Name, v.Value, sums[field])
			}
		}
		if compared < 11 || sums["invalid"] != 6 {
			t.Errorf("%d compared, %d invalid", compared, sums["invalid"])
		}
	})
}

// invalidSegment sends three segments with all flags, which connection tracking
// refuses, on their way out and on their way in.
func invalidSegment(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	segment := make([]byte, 20)
	segment[1], segment[3], segment[12], segment[13] = 5, 6, 5<<4, 0x3f
	for range 3 {
		if err := unix.Sendto(fd, segment, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
}
