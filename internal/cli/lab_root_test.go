//go:build root

package cli

import (
	"os"
	"strings"
	"testing"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/testkit"
)

// A remedy that would change the host is printed and not run, and one of the
// lab's own namespace is run, helps, and is taken back.
func TestLabRemedies(t *testing.T) {
	testkit.NeedRoot(t)
	const setting = "/proc/sys/net/core/netdev_max_backlog"
	before := readText(t, setting)
	r := here(t, "lab", "run", "cpu-backlog", "-j")
	l := labLineOf(t, r.out)
	if r.code != exitOK || l.Remedy == nil || l.Remedy.Command == nil || l.Remedy.Command.Refused == "" || l.Remedy.Tried ||
		!strings.Contains(l.Remedy.Command.Command, "netdev_max_backlog") {
		t.Errorf("a remedy for the host: %+v, exit status %d: %s", l.Remedy, r.code, r.err)
	}
	if after := readText(t, setting); after != before {
		t.Errorf("netdev_max_backlog was %s and is %s", before, after)
	}
	r = here(t, "lab", "run", "icmp-echo-ignored", "-j")
	l = labLineOf(t, r.out)
	c := l.Remedy
	if r.code != exitOK || c == nil || !c.Tried || c.Sent != 100 || c.Lost != 0 || c.Again != 0 || c.Undo == nil || c.Undo.Code != 0 || len(c.Verify) == 0 {
		t.Errorf("a remedy for the namespace: %+v, exit status %d: %s", c, r.code, r.err)
	}
	r = here(t, "lab", "run", "icmp-echo-ignored", "--no-remedy", "-j")
	if l = labLineOf(t, r.out); l.Remedy != nil || l.Counted != 100 {
		t.Errorf("without a remedy: %+v", l.Remedy)
	}
}

// A person is told what is built, how the loss comes about and what helps.
func TestLabRunTells(t *testing.T) {
	testkit.NeedRoot(t)
	r := here(t, "lab", "run", "udp-noport")
	at := 0
	for _, want := range []string{
		"lab udp-noport: UDP datagrams to a port that nothing listens on\n",
		"\n1. What is built", "lab0 (veth, MTU 1500) 192.0.2.1/24", "\n2. How the loss comes about\n", "No socket is bound",
		"\n3. What was lost", "Udp.NoPorts", "(0 → 100)", "\n4. What whydrop found\n", "udp-noport", "lost 100, counted 100: equal",
		"\n5. The remedy\n", "the lab did itself", "\n6. Its effect\n", "sent again 100, lost 0", "nstat -az UdpNoPorts",
	} {
		i := strings.Index(r.out[at:], want)
		if i < 0 {
			t.Fatalf("no %q behind what comes before it:\n%s", want, r.out)
		}
		at += i
	}
}

// What is only for a machine that is thrown away does not run without being
// asked for.
func TestLabMachineOnly(t *testing.T) {
	testkit.NeedRoot(t)
	some := ""
	for _, s := range lab.List() {
		if want, err := lab.Expected(s.Name); err != nil {
			t.Fatal(err)
		} else if want.MachineOnly != "" && len(want.NotOn) == 0 {
			some = s.Name
		}
	}
	if some == "" {
		t.Fatal("no scenario is for virtual machines only, so nothing shows that such a one is refused")
	}
	r := run(t, "lab", "run", some)
	if r.code != exitUnavailable || !strings.Contains(r.err, "--whole-host") || r.out != "" {
		t.Errorf("%s: exit status %d: %s%s", some, r.code, r.err, r.out)
	}
	if r := here(t, "lab", "list"); !strings.Contains(r.out, "\n* only in a virtual machine") {
		t.Errorf("the list does not tell:\n%s", r.out)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}
