//go:build root

package fact

import (
	"os"
	"regexp"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// unread are beginnings of matches and targets of which the facts give the name
// and the size alone, with the reason.
var unread = map[string]string{
	"u32 ": "a program of its own", "bpf ": "a program of its own", "string ": "bytes to look for", "time ": "a calendar",
	"quota ": "what is left of it is hidden from programs", "eui64": "it has no options",
	"connbytes ": "rare", "socket ": "rare", "cgroup ": "rare", "policy ": "rare", "esp ": "rare", "frag ": "rare", "rt ": "rare",
	"cpu ": "rare", "devgroup ": "rare", "realm ": "rare", "sctp ": "rare", "RATEEST ": "rare",
	"hashlimit --hashlimit-above 512kb": "rates of bytes are rare", "CT --zone-orig": "rare", "CT --ctevents": "rare",
}

// TestFirewallMatchesIptables: every rule and policy of iptables-save -c, with
// its counters.
func TestFirewallMatchesIptables(t *testing.T) {
	testkit.InNetNS(t, func(n *netlab.Namespace) {
		for program, family := range map[string]string{"iptables-legacy": "ip", "ip6tables-legacy": "ip6"} {
			addLegacy(t, program, "testdata/firewall/rules."+program)
			var mine []record.Fact
			for _, f := range facts(t, "firewall", "") {
				if f.Fields["program"] == program {
					mine = append(mine, f)
				}
			}
			compareLegacy(t, family, firewallTool(t, "", program+"-save", "-c"), mine)
		}
	})
}

// addLegacy adds rules, but for those that this kernel does not know. A line is
// a table, and a rule of it.
func addLegacy(t *testing.T, program, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, err)
	tables := map[string][]string{}
	count := 0
	for line := range strings.Lines(string(b)) {
		table, rule, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && !strings.HasPrefix(line, "#") {
			tables[table] = append(tables[table], rule)
			count++
		}
	}
	var refused []string
	for table, rules := range tables {
		for len(rules) > 0 {
			text := "*" + table + "\n:sub - [0:0]\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
			_, err := tryTool(text, program+"-restore", "-c")
			if err == nil {
				break
			}
			m := regexp.MustCompile(`line:? (\d+)`).FindStringSubmatch(err.Error())
			if m == nil {
				t.Fatal(err)
			}
			line := 0
			for _, c := range m[1] {
				line = 10*line + int(c-'0')
			}
			at := line - 3
			if at == len(rules) { // the kernel refused one and does not say which
				at = badRule(t, program, table, rules)
			}
			if at < 0 || at >= len(rules) {
				t.Fatalf("%s: %v", table, err)
			}
			refused = append(refused, rules[at])
			rules = append(rules[:at:at], rules[at+1:]...)
		}
	}
	t.Logf("%s refused %d of %d rules: %q", program, len(refused), count, refused)
	if len(refused) > 12 {
		t.Error("too many")
	}
}

// badRule is the first rule that the kernel refuses. Rules are halved, not
// tried one by one: in a virtual machine each program takes its time.
func badRule(t *testing.T, program, table string, rules []string) int {
	t.Helper()
	good, bad := 0, len(rules) // rules[:good] are taken, rules[:bad] are not
	for bad-good > 1 {
		half := (good + bad) / 2
		text := "*" + table + "\n:sub - [0:0]\n" + strings.Join(rules[good:half], "\n") + "\nCOMMIT\n"
		if _, err := tryTool(text, program+"-restore"); err == nil {
			good = half
		} else {
			bad = half
		}
	}
	return bad - 1
}

// compareLegacy holds the facts to the list of iptables-save -c.
func compareLegacy(t *testing.T, family, list string, got []record.Fact) {
	t.Helper()
	type line struct{ table, spec, packets, bytes string }
	var want, have []line
	table := ""
	policy, rule := regexp.MustCompile(`^:(\S+) (\S+) \[(\d+):(\d+)\]$`), regexp.MustCompile(`^\[(\d+):(\d+)\] (-A .*)$`)
	for s := range strings.Lines(list) {
		s = strings.TrimSuffix(s, "\n")
		if name, ok := strings.CutPrefix(s, "*"); ok {
			table = name
		}
		if m := policy.FindStringSubmatch(s); m != nil && m[2] != "-" {
			want = append(want, line{table, m[1] + " policy " + m[2], m[3], m[4]})
		}
	}
	for s := range strings.Lines(list) {
		s = strings.TrimSuffix(s, "\n")
		if name, ok := strings.CutPrefix(s, "*"); ok {
			table = name
		}
		if m := rule.FindStringSubmatch(s); m != nil {
			want = append(want, line{table, withoutUnread(protocolNames(m[3])), m[1], m[2]})
		}
	}
	for _, policies := range []bool{true, false} {
		for _, f := range got {
			spec := regexp.MustCompile(`\[\d+ bytes\]`).ReplaceAllString(f.Value, "[N bytes]")
			isPolicy := strings.HasPrefix(f.Name, "policy ")
			if isPolicy {
				spec = f.Fields["chain"] + " " + f.Value
			}
			if isPolicy == policies {
				have = append(have, line{f.Fields["table"], spec, f.Fields["packets"], f.Fields["bytes"]})
			}
		}
	}
	byTable := func(list []line) map[string][]line {
		m := map[string][]line{}
		for _, l := range list {
			m[l.table] = append(m[l.table], l)
		}
		return m
	}
	if d := gocmp.Diff(byTable(want), byTable(have), gocmp.AllowUnexported(line{})); d != "" {
		t.Errorf("%s: iptables-save (-) and whydrop (+): %s", family, d)
	}
	if len(want) < 20 {
		t.Errorf("only %d compared", len(want))
	}
}

// withoutUnread leaves the name of what is not read further.
func withoutUnread(spec string) string {
	option := regexp.MustCompile(` -[mj] `)
	parts, marks := option.Split(spec, -1), option.FindAllString(spec, -1)
	s := parts[0]
	for i, part := range parts[1:] {
		for begin := range unread {
			if strings.HasPrefix(part, begin) {
				name, _, _ := strings.Cut(part, " ")
				part = name + " [N bytes]"
			}
		}
		s += marks[i] + part
	}
	return s
}
