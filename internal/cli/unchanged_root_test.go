//go:build root

package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/knowledge"
)

// TestNothingChanges: modules, tables of iptables, nftables, qdiscs, mounts and
// settings are the same before and after every command, on the host and in a
// namespace that is observed. In a virtual machine all modules that can be are
// unloaded before, so that one that is asked for is seen.
func TestNothingChanges(t *testing.T) {
	testkit.NeedRoot(t)
	if machine() {
		unloadModules(t)
	}
	// What a diagnosis of these asks for: sockets, processes, listeners, routes.
	losses := []*lab.Setup{prepared(t, "udp-rcvbuf"), prepared(t, "tcp-no-listener")}
	spaces := []netns.Namespace{{Name: "host", Path: "/proc/self/ns/net"}}
	for _, l := range losses {
		spaces = append(spaces, spaceOf(t, l.NetNS))
	}
	during := func() {
		for _, l := range losses {
			if _, err := l.Provoke(t.Context(), 5); err != nil {
				t.Error(err)
			}
		}
	}
	file := filepath.Join(t.TempDir(), "f.whydrop")
	asked := requests(t)
	fickle, before := settledState(t, spaces)
	every, since := 3, ""
	if testing.Short() { // an emulated machine: reading all of the state takes its time
		every = 11
	}
	commands := []struct {
		args []string
		loss bool // is provoked meanwhile
	}{
		{[]string{"counters"}, false},
		{[]string{"counters", "--all", "-j"}, false},
		{[]string{"counters", "--map", "--interval", "200ms", "--count", "2"}, false},
		{[]string{"diagnose", "--duration", "2s", "--netns", "all"}, true},
		{[]string{"diagnose", "--duration", "300ms", "-j", "-i", "lo"}, false},
		{[]string{"record", "-w", file, "--duration", "2s"}, true},
		{[]string{"diagnose", "--until-loss", "--timeout", "2s", "--pid", fmt.Sprint(os.Getpid()), "udp", "port", "4"}, false},
		{[]string{"diagnose", "-r", file}, false},
		{[]string{"watch", "-r", file}, false},
		{[]string{"report", "-r", file}, false},
		{[]string{"diagnose", "--source", "counters", "--duration", "300ms"}, false},
		{[]string{"watch", "--interval", "200ms", "--count", "2"}, false},
		{[]string{"watch", "--each", "--duration", "2s", "--netns", "host"}, true},
		{[]string{"doctor"}, false},
		// Nothing may load the drop monitor for a question.
		{[]string{"dump", "--query"}, false},
		{[]string{"dump", "--stats"}, false},
		{[]string{"explain"}, false},
		{[]string{"explain", "Udp.RcvbufErrors"}, false},
		{[]string{"knowledge", "lint", smallBase(t)}, false},
		{[]string{"lab", "list"}, false},
		{[]string{"version", "-j"}, false},
		{[]string{"--help"}, false},
	}
	for i, c := range commands {
		name := strings.Join(c.args, " ")
		want := exitOK
		if c.args[0] == "dump" { // there is none: not here, and in a machine it was unloaded
			want = exitUnavailable
		}
		if code, said := ran(t, c.args, c.loss, during); code != want {
			t.Errorf("whydrop %s: exit status %d, want %d\n%s", name, code, want, said)
		}
		if now := requests(t); now != asked {
			t.Errorf("whydrop %s asked for modules:\n%s", name, strings.TrimPrefix(now, asked))
		}
		asked = requests(t)
		if since += ", whydrop " + name; (i+1)%every != 0 && i+1 < len(commands) {
			continue
		}
		after := stateOf(t, spaces, fickle)
		for what := range maps.Keys(after) {
			if d := changed(before[what], after[what]); d != "" {
				t.Errorf("%s changed %s:\n%s", strings.TrimPrefix(since, ", "), what, d)
			}
		}
		before, since = after, ""
	}
}

// ran runs whydrop, with what is to happen meanwhile, if loss, and returns its exit
// status and all that it said.
func ran(t *testing.T, args []string, loss bool, during func()) (code int, said string) {
	t.Helper()
	reads := slices.Contains(args, "-r") || slices.Contains([]string{"explain", "knowledge", "lab", "version", "--help"}, args[0])
	if reads && testing.Short() { // an emulated machine: what looks at no host needs no process
		r := here(t, args...)
		return r.code, r.out + r.err
	}
	p := command(t, args...)
	var out strings.Builder
	p.Stdout, p.Stderr = &out, &out
	if loss {
		begin(t, p)
		during()
	} else if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = p.Wait() // the exit status is looked at
	return p.ProcessState.ExitCode(), out.String()
}

// smallBase is a directory with the built-in knowledge, but of one cause only: the
// cases of all take a second, and fifteen in an emulated machine.
func smallBase(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"reasons", "locations", "counters", "causes/icmp-echo-ignored"} {
		of, err := fs.Sub(knowledge.FS, part)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(filepath.Join(dir, part), of); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestChangesAreSeen: the comparison must be able to fail.
func TestChangesAreSeen(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-rcvbuf")
	space := spaceOf(t, setup.NetNS)
	spaces := []netns.Namespace{space}
	tables := nftThere()
	for what, change := range map[string][]string{
		// Those of the kernel change by themselves (random/entropy_avail).
		"settings in ": {"sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/log_martians"},
		"qdiscs":       {"tc", "qdisc", "add", "dev", setup.Device, "root", "pfifo", "limit", "7"},
		"nftables":     {"nft", "add", "table", "inet", "whydrop"},
	} {
		if what == "nftables" && !tables {
			continue // which loading it would make visible
		}
		before := stateOf(t, spaces, nil)
		if err := space.Do(func() error { return tool(t, change...) }); err != nil {
			t.Fatal(err)
		}
		after := stateOf(t, spaces, nil)
		found := 0
		for k := range after {
			if strings.HasPrefix(k, what) && changed(before[k], after[k]) != "" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%v is not seen in %v", change, slices.Sorted(maps.Keys(after)))
		}
	}
	if !machine() {
		return // on somebody's host no module is loaded or unloaded
	}
	unloadModules(t)
	asked, loaded := requests(t), modules(t)
	for _, kind := range []string{"dummy", "whydrop"} { // one that is there, one that is not
		if err := tool(t, "ip", "link", "add", "name", kind+"-0", "type", kind); (err == nil) != (kind == "dummy") {
			t.Fatal(err)
		}
		if now := requests(t); !strings.Contains(strings.TrimPrefix(now, asked), "rtnl-link-"+kind) {
			t.Errorf("that %s was asked for is not seen in %q", kind, now)
		}
	}
	if d := changed(loaded, modules(t)); !strings.Contains(d, "+dummy") {
		t.Errorf("a module that was loaded is not seen in %q", d)
	}
	if err := tool(t, "ip", "link", "del", "dummy-0"); err != nil {
		t.Error(err)
	}
}

func tool(t *testing.T, args ...string) error {
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

// machine says whether this is a virtual machine of e2e, which is thrown away.
func machine() bool {
	init, err := os.ReadFile("/init")
	return err == nil && strings.Contains(string(init), "@@ vmtest")
}

// unloadModules unloads what nothing uses, and loads it again after the test.
func unloadModules(t *testing.T) {
	t.Helper()
	var gone []string
	for again := true; again; {
		again = false
		for _, name := range modules(t) {
			if unix.DeleteModule(name, unix.O_NONBLOCK) == nil {
				gone = append(gone, name)
				again = true
			}
		}
	}
	t.Logf("unloaded %d modules, still there: %v", len(gone), modules(t))
	t.Cleanup(func() {
		slices.Reverse(gone)
		// The test's context has ended.
		if out, err := exec.Command("modprobe", append([]string{"-a"}, gone...)...).CombinedOutput(); err != nil {
			t.Errorf("load %v again: %v: %s", gone, err, out)
		}
	})
	// Each request of the kernel for a module is an event, also one for a
	// module that is nowhere.
	if err := os.WriteFile(requestEvents+"/enable", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(requestEvents+"/enable", []byte("0"), 0); err != nil {
			t.Error(err)
		}
	})
}

const requestEvents = "/sys/kernel/tracing/events/module/module_request"

// requests are the kernel's requests for modules, in a machine.
func requests(t *testing.T) string {
	t.Helper()
	if !machine() {
		return ""
	}
	text, err := os.ReadFile("/sys/kernel/tracing/trace")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for l := range strings.Lines(string(text)) {
		if strings.Contains(l, "module_request:") {
			b.WriteString(l)
		}
	}
	return b.String()
}

// modules are the names of those that are loaded; none where the kernel has no
// modules.
func modules(t *testing.T) (names []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/modules")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		name, _, _ := strings.Cut(l, " ")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// nftThere says whether asking for nftables loads nothing.
func nftThere() bool {
	_, err := os.Stat("/proc/modules")
	if errors.Is(err, fs.ErrNotExist) {
		return true
	}
	_, err = os.Stat("/sys/module/nf_tables")
	return err == nil
}

// stateOf is what whydrop must not change, by what it is.
func stateOf(t *testing.T, spaces []netns.Namespace, fickle map[string]bool) map[string][]string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	state := map[string][]string{
		"modules": modules(t), "mounts": strings.Split(string(mounts), "\n"),
		"settings of the kernel": settings("/proc/sys/kernel", fickle),
	}
	for _, s := range spaces {
		in := " in " + s.Path
		err := s.Do(func() error {
			state["settings"+in] = settings("/proc/sys/net", fickle)
			for _, name := range []string{"ip_tables_names", "ip6_tables_names", "arp_tables_names", "ip_tables_matches", "ip_tables_targets"} {
				text, err := os.ReadFile("/proc/thread-self/net/" + name)
				state[name+in] = append(strings.Split(string(text), "\n"), fmt.Sprint(err))
			}
			out, err := exec.CommandContext(t.Context(), "tc", "qdisc", "show").CombinedOutput()
			if err != nil {
				return fmt.Errorf("tc qdisc show: %w: %s", err, out)
			}
			state["qdiscs"+in] = strings.Split(string(out), "\n")
			if !nftThere() {
				return nil
			}
			if out, err = exec.CommandContext(t.Context(), "nft", "-s", "list", "ruleset").CombinedOutput(); err != nil {
				return fmt.Errorf("nft list ruleset: %w: %s", err, out)
			}
			state["nftables"+in] = strings.Split(string(out), "\n")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return state
}

// byItself are settings that are none: numbers that the kernel changes.
var byItself = regexp.MustCompile(`^/proc/sys/(kernel/(random/|ns_last_pid|pty/nr|perf_event_max_sample_rate)|net/netfilter/nf_conntrack_count)`)

// settings are all that can be read below a directory, but those that change.
func settings(dir string, fickle map[string]bool) (list []string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || byItself.MatchString(path) || fickle[path] {
			return nil
		}
		// Some may only be written.
		if text, err := os.ReadFile(path); err == nil {
			list = append(list, path+" = "+strings.TrimSpace(string(text)))
		}
		return nil
	})
	return list
}

// settledState reads the state twice. It returns the settings that change while
// nothing is done, and the state without them.
func settledState(t *testing.T, spaces []netns.Namespace) (fickle map[string]bool, state map[string][]string) {
	t.Helper()
	fickle = map[string]bool{}
	first := stateOf(t, spaces, nil)
	time.Sleep(300 * time.Millisecond)
	state = stateOf(t, spaces, nil)
	path := func(line string) string { path, _, _ := strings.Cut(line, " = "); return path }
	for what, lines := range state {
		if !strings.HasPrefix(what, "settings") {
			continue
		}
		for _, l := range lines {
			if !slices.Contains(first[what], l) {
				fickle[path(l)] = true
			}
		}
	}
	for what, lines := range state {
		if strings.HasPrefix(what, "settings") {
			state[what] = slices.DeleteFunc(lines, func(l string) bool { return fickle[path(l)] })
		}
	}
	if len(fickle) > 0 {
		t.Logf("settings that change by themselves: %v", slices.Sorted(maps.Keys(fickle)))
	}
	return fickle, state
}

// changed lists the lines that went and that came.
func changed(before, after []string) string {
	var b strings.Builder
	for _, side := range []struct {
		sign   string
		in, of []string
	}{{"-", after, before}, {"+", before, after}} {
		have := map[string]int{}
		for _, l := range side.in {
			have[l]++
		}
		for _, l := range side.of {
			if have[l]--; have[l] < 0 {
				b.WriteString(side.sign + l + "\n")
			}
		}
	}
	return b.String()
}
