//go:build root

package fact

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// firewallTool runs a program of netfilter in the namespace of the calling
// thread and returns what it printed.
func firewallTool(t testing.TB, input, name string, args ...string) string {
	t.Helper()
	out, err := tryTool(input, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v (apt-get install nftables iptables conntrack)", name, strings.Join(args, " "), err)
	}
	return out
}

func tryTool(input, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		return "", &toolError{err, complaint.String()}
	}
	return out.String(), nil
}

type toolError struct {
	err       error
	complaint string
}

func (e *toolError) Error() string { return e.err.Error() + ": " + e.complaint }

// skeleton are tables of all families, with sets and objects for the rules.
const skeleton = `
table inet f {
	counter c1 { }
	quota q1 { over 10 mbytes }
	limit l1 { rate 400/minute }
	set s4 { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.168.1.1-192.168.1.20 } }
	set cat { type ipv4_addr . inet_service; elements = { 10.0.0.1 . 80 } }
	set dyn { type ipv4_addr; size 100; flags dynamic,timeout; timeout 1m; }
	map m1 { type inet_service : verdict; elements = { 22 : accept, 23 : drop } }
	map mark1 { type inet_service : mark; elements = { 22 : 5 } }
	chain c { type filter hook input priority -5; policy drop; }
	chain other { }
	chain third { }
}
table ip g {
	chain c { type filter hook output priority 0; }
	chain pre { type nat hook prerouting priority -100; }
	chain post { type nat hook postrouting priority 100; }
}
table inet n {
	chain pre { type nat hook prerouting priority -100; }
	chain post { type nat hook postrouting priority 100; }
}
table ip6 six {
	chain c { type filter hook input priority 0; }
}
table netdev nd {
	chain c { type filter hook ingress device lo priority 0; }
}
table bridge br {
	chain c { type filter hook forward priority 0; }
}
table arp a {
	chain c { type filter hook input priority 0; }
}
`

// nftCorpus are rules by the chain that they go to. Every one must come out of
// the facts as nft lists it; a rule that this kernel does not know is left out.
func nftCorpus(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("testdata/firewall/rules.nft")
	must2(t, err)
	var list []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

func must2(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// unlike are rules that nft writes in another way, with what whydrop says, and
// the reason.
var unlike = map[string]struct{ want, why string }{
	`iifgroup "default" drop`:       {`iifgroup 0 drop`, "the name is from a file of iproute2"},
	`iifname != { ""-"" }`:          {`iifname != { "a"-"b" }`, "nft loses both ends of a range of names"},
	`tcp flags { syn | ack, syn }`:  {`tcp flags { syn, syn | ack }`, "nft does not sort what it writes as an expression"},
	`tcp flags != 0x3 drop`:         {`tcp flags != fin,syn drop`, "nft has the number of several flags here"},
	`@th,0,32 0x50006`:              {`th sport 5 th dport 6`, "nft does not take it for two ports where it knows no protocol"},
	`@ll,0,8 0x3`:                   {`ether daddr 03:00:00:00:00:00/8`, "nft does so only in bridge"},
	`ether type 8021q vlan type ip`: {`vlan type ip`, "nft repeats what vlan means"},
	`meta nfproto ipv4 (@nh,8,8 & 0xfc) >> 2 & 0x38 == 0x18 accept`: {`ip dscp & 0x38 == 0x18 accept`, "nft does not see that this is ip dscp"},
}

func TestFirewallMatchesNft(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		firewallTool(t, strings.ReplaceAll(skeleton, "; }", "\n}\n"), "nft", "-f", "-")
		addRules(t, nftCorpus(t))
		got := map[string]record.Fact{}
		for _, f := range facts(t, "firewall", "") {
			got[f.Name] = f
		}
		compareNft(t, firewallTool(t, "", "nft", "-a", "-s", "-y", "list", "ruleset"), got)
	})
}

// addRules adds rules, but for those that this kernel does not know.
func addRules(t *testing.T, corpus []string) {
	t.Helper()
	var refused []string
	// The kernel refuses all of a file for one rule, and nft says which, so a
	// short file is quickly tried again; and it begins a file anew for each module
	// that it loads.
	for rules := range slices.Chunk(corpus, 40) {
		refused = append(refused, addSome(t, slices.Clone(rules))...)
	}
	t.Logf("%d of %d rules refused: %q", len(refused), len(corpus), refused)
	if len(refused) > 20 {
		t.Error("too many")
	}
}

var nftError = regexp.MustCompile(`(?m)/dev/stdin:(\d+):.*Error: (.*)$`)

// addSome adds rules and returns those that the kernel refused.
func addSome(t *testing.T, list []string) (refused []string) {
	t.Helper()
	for len(list) > 0 {
		_, err := tryTool("add rule "+strings.Join(list, "\nadd rule ")+"\n", "nft", "-f", "-")
		if err == nil {
			break
		}
		// The kernel refuses what follows the first bad rule too.
		m := nftError.FindStringSubmatch(err.Error())
		// nft says so where the kernel has no such expression; all else is an
		// error of the corpus.
		if m == nil || !strings.HasPrefix(m[2], "Could not process rule") && !strings.HasPrefix(m[2], "No such file or directory") {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(m[1])
		refused = append(refused, list[n-1])
		list = slices.Delete(list, n-1, n)
	}
	return refused
}

// compareNft holds the facts to the list of nft, line by line.
func compareNft(t *testing.T, list string, got map[string]record.Fact) {
	t.Helper()
	table, chain, compared := "", "", 0
	rule := regexp.MustCompile(`^\t\t(.*) # handle (\d+)$`)
	left := maps.Clone(got)
	for line := range strings.Lines(list) {
		line = strings.TrimSuffix(line, "\n")
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "table "):
			table = f[1] + " " + f[2]
		case strings.HasPrefix(line, "\tchain "):
			chain = f[1]
		case strings.HasPrefix(line, "\t}"):
			chain = ""
		case chain == "":
		case strings.HasPrefix(line, "\t\ttype "):
			name := "policy " + table + " " + chain
			want := fields{"type": f[1], "hook": f[3], "priority": strings.TrimSuffix(f[5], ";"), "policy": strings.TrimSuffix(f[7], ";")}
			if f[4] == "device" {
				want["priority"], want["policy"] = strings.TrimSuffix(f[7], ";"), strings.TrimSuffix(f[9], ";")
			}
			fact := got[name]
			have := fields{"type": fact.Fields["type"], "hook": fact.Fields["hook"], "priority": fact.Fields["priority"], "policy": fact.Fields["verdict"]}
			if d := gocmp.Diff(want, have); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			delete(left, name)
		case rule.MatchString(line):
			m := rule.FindStringSubmatch(line)
			name := "rule " + table + " " + chain + " " + m[2]
			text, comment, _ := strings.Cut(protocolNames(m[1]), ` comment "`)
			if u, ok := unlike[text]; ok {
				text = u.want
			}
			fact, ok := got[name]
			if !ok || fact.Value != text || fact.Fields["comment"] != strings.TrimSuffix(comment, `"`) {
				t.Errorf("%s (%v):\n nft     %s\n whydrop %s", name, ok, text, fact.Value)
			}
			compared++
			delete(left, name)
		}
	}
	if len(left) > 0 {
		t.Errorf("nft has no %v", slices.Sorted(maps.Keys(left)))
	}
	if compared < 200 {
		t.Errorf("only %d compared", compared)
	}
}

// protocolNames puts the names of protocols where a tool wrote their numbers,
// as it does on a host without /etc/protocols.
func protocolNames(rule string) string {
	if _, err := os.Stat("/etc/protocols"); err == nil {
		return rule
	}
	name := func(number string) string {
		n, err := strconv.ParseUint(number, 10, 8)
		if err != nil {
			return number
		}
		return nameOr(protoNames, n)
	}
	one := regexp.MustCompile(`((?:l4proto|protocol|nexthdr)(?: !=)? |-p )(\d+)`)
	rule = one.ReplaceAllStringFunc(rule, func(s string) string {
		m := one.FindStringSubmatch(s)
		return m[1] + name(m[2])
	})
	if !regexp.MustCompile(`(l4proto|protocol)( \. th dport)?( vmap)? \{`).MatchString(rule) {
		return rule
	}
	element := regexp.MustCompile(`(\{ |, )(\d+)`)
	return element.ReplaceAllStringFunc(rule, func(s string) string {
		m := element.FindStringSubmatch(s)
		return m[1] + name(m[2])
	})
}
