//go:build root

package fact

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

const countedRules = `
table inet f {
	chain in {
		type filter hook input priority 10; policy accept;
		udp dport 20 counter drop comment "no twenty"
		udp dport 21 counter jump sub
		udp dport vmap { 22 : jump mapped, 23 : drop }
		udp dport 24 quota over 1000 bytes counter reject
	}
	chain sub {
		counter return
	}
	chain mapped {
		counter accept
	}
	chain lost {
		counter drop
	}
	chain out {
		type filter hook output priority -7; policy accept;
		udp dport 21 counter jump sub
	}
}
table inet asleep {
	flags dormant
	chain in {
		type filter hook input priority 0
		counter drop
	}
}
`

// sendTo sends n datagrams of one byte to a port of loopback.
func sendTo(t *testing.T, port string, n int) {
	t.Helper()
	for range n {
		c, err := net.Dial("udp", "127.0.0.1:"+port)
		must(t, err)
		_, err = c.Write([]byte("x"))
		must(t, err)
		c.Close()
	}
}

// TestFirewallFields: what the facts say of rules beside their text.
func TestFirewallFields(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewallTool(t, "flush ruleset", "nft", "-f", "-") // now nf_tables is there, where it is a module
		if f := facts(t, "firewall", ""); len(f) != 1 || f[0].Value != None {
			t.Errorf("at first: %+v", f)
		}
		firewallTool(t, countedRules, "nft", "-f", "-")
		for i, rule := range []string{"-p udp --dport 30 -j DROP", "-p udp --dport 31 -g own", "-p udp --dport 32 -j REJECT"} {
			if i == 0 {
				firewallTool(t, "", "iptables-legacy", "-N", "own")
				firewallTool(t, "", "iptables-legacy", "-A", "own", "-m", "comment", "--comment", "last one", "-j", "DROP")
			}
			firewallTool(t, "", "iptables-legacy", append([]string{"-A", "INPUT"}, strings.Fields(rule)...)...)
		}
		for port, count := range map[string]int{"20": 3, "21": 2, "22": 4, "30": 1, "31": 2, "32": 1} {
			sendTo(t, port, count)
		}
		got := facts(t, "firewall", "")
		const (
			nft    = "family=inet table=f"
			legacy = "family=ip table=filter priority=0 program=iptables-legacy"
		)
		for _, want := range []string{
			"policy inet f in|policy accept|chain=in drops=0 hook=input priority=10 type=filter verdict=accept " + nft,
			"rule inet f in udp dport 20|chain=in comment='no twenty' drops=1 hook=input packets=3 bytes=87 priority=10 type=filter verdict=drop " + nft,
			"rule inet f in udp dport 21|chain=in drops=0 hook=input packets=2 bytes=58 priority=10 type=filter verdict='jump sub' " + nft,
			"rule inet f in udp dport vmap|chain=in drops=0 hook=input priority=10 type=filter verdict=vmap " + nft,
			"rule inet f in udp dport 24|chain=in drops=1 hook=input packets=0 bytes=0 quota_used=0 priority=10 type=filter verdict=reject " + nft,
			"rule inet f sub counter|chain=sub drops=0 hook='input output' packets=4 bytes=116 priority='10 -7' verdict=return " + nft,
			"rule inet f mapped counter|chain=mapped drops=0 hook=input packets=4 bytes=116 priority=10 verdict=accept " + nft,
			"rule inet f lost counter|chain=lost drops=1 hook='' packets=0 bytes=0 priority='' verdict=drop " + nft,
			"rule inet asleep in counter|chain=in dormant=1 drops=1 hook=input packets=0 bytes=0 priority=0 type=filter verdict=drop family=inet table=asleep",
			"policy ip filter INPUT|chain=INPUT drops=0 hook=input verdict=ACCEPT " + legacy,
			"rule ip filter INPUT -A INPUT -p udp -m udp --dport 30|chain=INPUT drops=1 hook=input number=1 packets=1 bytes=29 verdict=DROP " + legacy,
			"rule ip filter INPUT -A INPUT -p udp -m udp --dport 31|chain=INPUT drops=0 hook=input number=2 packets=2 bytes=58 verdict=own " + legacy,
			"rule ip filter INPUT -A INPUT -p udp -m udp --dport 32|chain=INPUT drops=1 hook=input number=3 packets=1 bytes=29 verdict=REJECT " + legacy,
			"rule ip filter own -A own|chain=own comment='last one' drops=1 hook=input number=1 packets=2 bytes=58 verdict=DROP " + legacy,
		} {
			begin, list, _ := strings.Cut(want, "|")
			if first, rest, ok := strings.Cut(list, "|"); ok {
				begin, list = begin+" "+first, rest
			}
			found := false
			for _, f := range got {
				chain := f.Name
				if f.Fields["handle"] != "" || f.Fields["number"] != "" { // the last word of the name
					chain = chain[:strings.LastIndexByte(chain, ' ')]
				}
				if !strings.HasPrefix(chain+" "+f.Value, begin) {
					continue
				}
				found = true
				wanted := wordsOf(list)
				have := fields{}
				for name, v := range f.Fields {
					if _, ok := wanted[name]; ok || name != "handle" && !strings.HasPrefix(f.Name, "policy ip ") {
						have[name] = v
					}
				}
				if d := gocmp.Diff(wanted, have); d != "" {
					t.Errorf("%s: %s", f.Name, d)
				}
			}
			if !found {
				t.Errorf("no %s", begin)
			}
		}
	})
}

// wordsOf reads name=value pairs; a value with spaces is in quotes.
func wordsOf(s string) fields {
	f := fields{}
	for s != "" {
		name, rest, _ := strings.Cut(s, "=")
		end := " "
		if strings.HasPrefix(rest, "'") {
			rest, end = rest[1:], "'"
		}
		value, left, _ := strings.Cut(rest, end)
		f[name], s = value, strings.TrimPrefix(left, " ")
	}
	return f
}

// TestFirewallReadChangesNothing reads rules and entries and looks whether any
// of the tools sees a difference.
func TestFirewallReadChangesNothing(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		look := func() (all []string) {
			for _, file := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names"} {
				b, err := os.ReadFile(filepath.Join("/proc/thread-self/net", file))
				all = append(all, file+": "+string(b))
				if err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
			if b, err := os.ReadFile("/proc/modules"); err == nil {
				for line := range strings.Lines(string(b)) {
					all = append(all, line[:strings.IndexByte(line, ' ')])
				}
			}
			return all
		}
		read := func() {
			for _, kind := range []string{"firewall", "conntrack-entries", "conntrack", "nft-chains", "iptables-legacy", "nfqueues"} {
				for _, f := range (&Reader{}).Read(record.FactRequest{Kind: kind}, ns) {
					if f.Missing != "" && !strings.Contains(f.Missing, "modules.builtin") { // nobody may know what is built in
						t.Errorf("%s: %s", kind, f.Missing)
					}
				}
			}
		}
		before := look()
		read()
		if d := gocmp.Diff(before, look()); d != "" {
			t.Errorf("without a firewall: %s", d)
		}
		firewallTool(t, countedRules, "nft", "-f", "-")
		firewallTool(t, "", "iptables-legacy", "-A", "INPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT")
		sendTo(t, "20", 2)
		lists := func() []string {
			all := look()
			for _, c := range [][]string{{"nft", "-a", "list", "ruleset"}, {"iptables-legacy-save", "-c"}, {"conntrack", "-C"}} {
				for line := range strings.Lines(firewallTool(t, "", c[0], c[1:]...)) {
					if !strings.HasPrefix(line, "#") { // the time
						all = append(all, line)
					}
				}
			}
			return all
		}
		before = lists()
		read()
		if d := gocmp.Diff(before, lists()); d != "" {
			t.Errorf("with a firewall: %s", d)
		}
	})
}
