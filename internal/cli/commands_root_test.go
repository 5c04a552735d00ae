//go:build root

package cli

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/whydrop/whydrop/internal/diagnose"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/knowledge"
	"github.com/whydrop/whydrop/record"
)

var (
	// intoNamespace is what leads a command into the finding's namespace.
	intoNamespace = regexp.MustCompile(`(ip netns exec \S+|nsenter --net=\S+) `)
	// placeholder is a word that a person has to fill in.
	placeholder = regexp.MustCompile(`\b[A-Z]{2,}[A-Z0-9]*\b`)
	// misread is what the tools say of a command line that they do not understand.
	misread = regexp.MustCompile(`(?i)usage: |unknown (argument|command|option|keyword|parameter|match)|is unknown|syntax error|invalid option|unrecognized option|garbage|what is "|bad command line|command line is not complete|incomplete command|not supported by this version|bad argument`)
	// lacking is what they say where only the kernel lacks something.
	lacking = regexp.MustCompile(`(?i)specified qdisc kind is unknown`)
)

// run here are tools that change nothing outside the network namespace that they
// are run in.
var runHere = []string{"ip", "tc", "nft", "ss", "nstat", "ethtool", "bridge", "conntrack", "iptables", "iptables-legacy", "ip6tables", "lnstat"}

// notRunHere are commands whose words are not for a network namespace, or that
// need hardware, a hypervisor or a peer.
var notRunHere = []string{
	"echo", "cat", "grep", "dmesg", "whydrop", "lspci", "virsh", "dcb", "rdma", "cma_roce_tos", "systemctl", "mtr", "ping",
	"tcpdump", "bpftool", "free", "nc", "dig", "top", "at", "in", "the", "for", "kill", "lsof", "modprobe", "sh", "captures", "mpstat", "ls", "prlimit", "ps", "arping", "make", "uname",
}

// TestPrintedCommands: the tools understand every remedy and verify command that
// is printed about a recorded loss, also of those that need hardware. They are run
// in a namespace with a device of each name in question.
func TestPrintedCommands(t *testing.T) {
	testkit.NeedRoot(t)
	if testing.Short() {
		t.Skip("-short: 259 processes are too much for an emulated machine, which has the very tools of this host (e2e/internal/guest); which settings another kernel has is not looked at")
	}
	said := printed(t)
	ran, settings, left := 0, 0, map[string]int{}
	testkit.InNetNS(t, func(*netlab.Namespace) {
		for _, dev := range []string{"eth0", "lab0", "br0", "vx0", "tun0"} {
			if err := tool(t, "ip", "link", "add", dev, "type", "veth", "peer", "name", "p-"+dev); err != nil {
				t.Fatal(err)
			}
		}
		for command, by := range said {
			first, _, _ := strings.Cut(command, " ")
			switch {
			case first == "sysctl":
				settings += len(settingsOf(t, command, by))
				continue
			case slices.Contains(notRunHere, first):
				left[first]++
				continue
			case !slices.Contains(runHere, first):
				if _, err := exec.LookPath(first); err == nil {
					t.Errorf("%s: %q begins with a tool that this test does not know", by.cause, command)
				}
				left["in words, or a tool that is not here"]++
				continue
			case placeholder.MatchString(command):
				left["to be filled in"]++
				continue
			}
			ran++
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			out, err := exec.CommandContext(ctx, "sh", "-c", command).CombinedOutput()
			cancel()
			if misread.Match(lacking.ReplaceAll(out, nil)) || err != nil && strings.Contains(err.Error(), "exit status 127") {
				t.Errorf("%s: %s\n%s", by.cause, command, out)
			}
		}
	})
	t.Logf("%d commands were run, %d settings are there, left out: %v", ran, settings, left)
	if ran < 150 || settings < 50 {
		t.Errorf("only %d commands and %d settings", ran, settings)
	}
}

// settingsOf are the settings that a command of sysctl names. They must be there;
// they are not set, for some are of the whole host.
func settingsOf(t *testing.T, command string, by printer) (names []string) {
	t.Helper()
	command, _, _ = strings.Cut(command, ";")
	for _, word := range strings.Fields(command)[1:] {
		name, value, set := strings.Cut(word, "=")
		if strings.HasPrefix(word, "-") || !strings.Contains(name, ".") || placeholder.MatchString(word) {
			continue
		}
		file := "/proc/sys/" + strings.NewReplacer(".", "/", "/", ".").Replace(strings.Trim(name, `"'`))
		switch _, err := os.Stat(file); {
		case err == nil || slices.Contains(ofOldKernels, name):
		case by.inside:
			t.Errorf("%s: %s: printed for a namespace: %v", by.cause, command, err)
		case !onHost(file):
			t.Errorf("%s: %s: neither in a namespace nor on the host: %v", by.cause, command, err)
		}
		if set && strings.Trim(value, `"'`) == "" {
			t.Errorf("%s: %s: %s gets no value", by.cause, command, name)
		}
		names = append(names, name)
	}
	return names
}

// ofOldKernels are settings that later kernels do not have (tcp_tw_recycle: until 4.11).
var ofOldKernels = []string{"net.ipv4.tcp_tw_recycle"}

// onHost says whether a setting is there outside the namespace of this thread.
func onHost(file string) bool {
	there := make(chan bool)
	go func() {
		_, err := os.Stat(file)
		there <- err == nil
	}()
	return <-there
}

// printer is who prints a command: a cause, and whether for a namespace.
type printer struct {
	cause  string
	inside bool
}

// printed are the commands of all findings of all cases.
func printed(t *testing.T) map[string]printer {
	t.Helper()
	k, err := loadKnowledge()
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(knowledge.FS, "causes/*/cases/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	said := map[string]printer{}
	var add func(fs []record.Finding)
	add = func(fs []record.Finding) {
		for _, f := range fs {
			list := slices.Clone(f.Verify)
			for _, r := range f.Remedy {
				list = append(list, r.Command, r.Undo)
			}
			for _, command := range list {
				command, _, _ = strings.Cut(command, "   #")
				inside := intoNamespace.MatchString(command)
				if command = strings.TrimSpace(intoNamespace.ReplaceAllString(command, "")); command != "" && f.Cause != record.CauseNotKnown {
					said[command] = printer{f.Cause, inside || said[command].inside}
				}
			}
			add(f.Symptoms)
			add(f.Contributors)
		}
	}
	for _, name := range files {
		text, err := fs.ReadFile(knowledge.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range txtar.Parse(text).Files {
			if path.Ext(file.Name) != ".json" {
				continue
			}
			var o record.Observation
			if err := json.Unmarshal(file.Data, &o); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			d := diagnose.Run(&o, k, diagnose.Options{All: true})
			add(d.Findings)
			add(d.Conclusions)
		}
	}
	return said
}
