//go:build root

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/lab/netlab"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestCountersAsNobody: without any capability the own namespace is read, and
// what cannot be is said with the capability that it needs.
func TestCountersAsNobody(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-rcvbuf") // a namespace that nobody may enter
	space := spaceOf(t, setup.NetNS)
	// nobody may see that it is there, for it is mounted where all can look.
	named := filepath.Join("/run/netns", fmt.Sprint("whydrop-test-", os.Getpid()))
	mountSpace(t, space, named)
	r := finish(t, asNobody(t, nil, "counters", "-j"))
	list := counterReportsOf(t, r)
	if r.code != exitOK || len(list) != 1 {
		t.Fatalf("exit status %d: %s", r.code, r.err)
	}
	read := 0
	for _, s := range list[0].Stations {
		for _, c := range s.Counters {
			if c.NetNS.Inode == setup.NetNS {
				t.Errorf("of a namespace that may not be entered: %+v", c)
			}
			read++
		}
	}
	if read == 0 && list[0].Hidden == 0 {
		t.Error("nothing was read")
	}
	blind := fmt.Sprint(list[0].Blind)
	for _, want := range []string{filepath.Base(named), "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"} {
		if !strings.Contains(blind, want) {
			t.Errorf("no %q among what was not seen: %s", want, blind)
		}
	}
	r = finish(t, asNobody(t, nil, "counters", "--netns", filepath.Base(named)))
	if r.code != exitUnavailable || !strings.Contains(r.err, "CAP_SYS_ADMIN") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("one that was asked for: exit status %d: %s", r.code, r.err)
	}
}

// prepared is a loss of the lab that is closed with the test.
func prepared(t *testing.T, scenario string) *lab.Setup {
	t.Helper()
	s, err := lab.Find(scenario)
	if err != nil {
		t.Fatal(err)
	}
	setup, err := s.Prepare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { setup.Close() })
	return setup
}

// spaceOf is the way into a namespace.
func spaceOf(t *testing.T, inode uint32) netns.Namespace {
	t.Helper()
	names, err := netns.NewNames()
	if err != nil {
		t.Fatal(err)
	}
	list, _ := names.List()
	i := slices.IndexFunc(list, func(ns netns.Namespace) bool { return ns.Inode == inode })
	if i < 0 {
		t.Fatalf("nothing leads to namespace %d", inode)
	}
	return list[i]
}

// mountSpace gives a namespace a name as ip-netns(8) does.
func mountSpace(t *testing.T, space netns.Namespace, path string) {
	t.Helper()
	dir := filepath.Dir(path)
	if err := os.Mkdir(dir, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(dir) })
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	if err := space.Do(func() error { return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "") }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestCountersOfLab: what a counter grew by is the loss that was provoked, at
// its station and in its namespace, since boot and in an interval.
func TestCountersOfLab(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-rcvbuf")
	inhabit(t, spaceOf(t, setup.NetNS))
	ns := fmt.Sprintf("net:[%d]", setup.NetNS)
	const n = 23
	c := command(t, "counters", "--netns", ns, "--interval", "200ms", "-j")
	var out console
	c.Stdout = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	out.await(t, "\n")
	truth, err := setup.Provoke(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(out.String(), "\n")
	for end := time.Now().Add(time.Minute); strings.Count(out.String(), "\n") < lines+2; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no two intervals within a minute")
		}
	}
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("counters: %v", err)
	}
	var lost, delta uint64
	for _, r := range counterReportsOf(t, result{out: out.String()}) {
		s := stationOf(r, record.StationSocket)
		lost += s.Lost
		for _, c := range s.Counters {
			if c.Name == "Udp.RcvbufErrors" {
				delta += c.Delta
			}
			if c.NetNS.Inode != setup.NetNS && c.NetNS.Inode != 0 {
				t.Errorf("of another namespace: %+v", c)
			}
		}
	}
	if truth.Drops != n || lost != n || delta != n {
		t.Errorf("lost %d, at the station %d, Udp.RcvbufErrors +%d", truth.Drops, lost, delta)
	}
	r := counterReportsOf(t, run(t, "counters", "--netns", ns, "-j"))[0]
	if s := stationOf(r, record.StationSocket); s.Lost != n || s.Blind {
		t.Errorf("since boot: %+v", s)
	}
	if text := run(t, "counters", "--netns", ns).out; !strings.Contains(text, fmt.Sprintf("  socket     ├─ %d ", n)) {
		t.Errorf("not on the map:\n%s", text)
	}
}

func stationOf(r record.CounterReport, s record.Station) record.StationCounters {
	return r.Stations[slices.IndexFunc(r.Stations, func(c record.StationCounters) bool { return c.Station == s })]
}

// inhabit starts a process in a namespace, and returns its number.
func inhabit(t *testing.T, space netns.Namespace) int {
	t.Helper()
	c := command(t, "watch", "-r", "-") // waits for its input
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := space.Do(c.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait() // an empty input is no record
	})
	return c.Process.Pid
}

// contained starts a process in a namespace and in a control group as an engine
// of containers would make it, and returns what whydrop should call it.
func contained(t *testing.T, space netns.Namespace) (name string) {
	t.Helper()
	root := t.TempDir()
	// The same hierarchy as everywhere else, wherever that is mounted.
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	id := fmt.Sprintf("%064x", os.Getpid())
	group := filepath.Join(root, "docker-"+id[52:]+id[12:]+".scope")
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(group); err != nil {
			t.Error(err)
		}
	})
	pid := inhabit(t, space)
	if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		t.Fatal(err)
	}
	return "docker/" + id[52:]
}

// TestContainer: a namespace without a name is called after its container, in
// drops, counters and commands alike, and is found by that name.
func TestContainer(t *testing.T) {
	testkit.NeedRoot(t)
	setup := prepared(t, "udp-rcvbuf")
	name := contained(t, spaceOf(t, setup.NetNS))
	window := 2 * time.Second
	if testing.Short() { // an emulated machine
		window = 5 * time.Second
	}
	d := diagnosed(t, window, func() {
		time.Sleep(window / 2) // until the counters have been read too
		if _, err := setup.Provoke(t.Context(), 20); err != nil {
			t.Error(err)
		}
	})
	i := slices.IndexFunc(d.Findings, func(f record.Finding) bool { return f.Cause == "udp-rcvbuf" })
	if i < 0 || d.Findings[i].Drops != 20 {
		t.Fatalf("findings:\n%s", describe(d.Findings))
	}
	f := d.Findings[i]
	if !slices.Equal(f.NetNS, []string{name}) || f.Confidence != record.ConfidenceCertain {
		t.Errorf("%s in %v, want %s: %+v", f.Confidence, f.NetNS, name, f)
	}
	commands, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(commands), "ip netns exec") || !strings.Contains(string(commands), "nsenter --net=/proc/") {
		t.Errorf("commands that nobody can run: %s", commands)
	}
	for _, c := range d.Counters {
		if c.NetNS.Inode == setup.NetNS && c.NetNS.Name != name {
			t.Errorf("counter %+v", c)
		}
	}
	r := here(t, "counters", "--netns", name, "-j")
	if list := counterReportsOf(t, r); r.code != exitOK || stationOf(list[0], record.StationSocket).Lost != 20 {
		t.Errorf("exit status %d: %s", r.code, r.err)
	}
	r = run(t, "diagnose", "--netns", name, "--duration", "300ms")
	if r.code != exitOK {
		t.Errorf("diagnose: exit status %d: %s", r.code, r.err)
	}
}

// TestCountersOfWhatGoes: a device is followed under another name, and what is
// gone is not taken for something that lost nothing. Without the namespace that
// was asked for there is nothing left to wait for.
func TestCountersOfWhatGoes(t *testing.T) {
	testkit.NeedRoot(t)
	n, err := netlab.New()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth9"
	if err := n.Links().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer9"}); err != nil {
		t.Fatal(err)
	}
	device, err := n.Link("eth9")
	if err != nil {
		t.Fatal(err)
	}
	there := command(t, "watch", "-r", "-") // waits for its input, in the namespace
	input, err := there.StdinPipe()
	if err == nil {
		err = n.Do(there.Start)
	}
	if err != nil {
		t.Fatal(err)
	}
	leave := sync.OnceFunc(func() {
		input.Close()
		_ = there.Wait() // an empty input is no record
	})
	t.Cleanup(leave)
	ns := fmt.Sprintf("net:[%d]", n.Inode())
	c := command(t, "counters", "--netns", ns, "--interval", "200ms", "-i", "eth9", "--all")
	var out, errOut console
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	out.await(t, "packets lost on eth9 in ")
	if err := n.Links().LinkSetName(device, "foo9"); err != nil {
		t.Fatal(err)
	}
	out.await(t, " foo9, ")
	if text := out.String(); strings.Contains(text, "not known") || strings.Contains(text, "peer9") {
		t.Errorf("of a device that is there:\n%s", text)
	}
	if err := n.Links().LinkDel(device); err != nil {
		t.Fatal(err)
	}
	out.await(t, ": not known, for nothing could be read")
	leave()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"read of device eth9.", "read of network namespace " + ns + ", device eth9."} {
		if !strings.Contains(text, "not known, for nothing could be "+want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if code := c.ProcessState.ExitCode(); code != exitPartial || !strings.Contains(errOut.String(), "incomplete: no counters of network namespace "+ns) {
		t.Errorf("exit status %d: %s", code, errOut.String())
	}
}

// A process that is gone, and an engine's name that nothing has.
func TestNoSuchNamespace(t *testing.T) {
	testkit.NeedRoot(t)
	c := exec.Command("/proc/self/exe", "-test.run=^$")
	if err := c.Run(); err != nil {
		t.Fatal(err)
	}
	for _, ns := range []string{fmt.Sprint(c.Process.Pid), "docker/000000000000"} {
		for _, args := range [][]string{{"counters"}, {"diagnose"}, {"watch"}, {"record", "-w", "-"}} {
			if r := here(t, append(args, "--netns", ns)...); r.code != exitUsage || r.out != "" {
				t.Errorf("%s --netns %s: %+v", args[0], ns, r)
			}
		}
	}
	if err := unix.Kill(c.Process.Pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the number %d was given to another process: nothing was shown", c.Process.Pid)
	}
}
