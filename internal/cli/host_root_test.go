//go:build root

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/lab"
	"github.com/whydrop/whydrop/internal/testkit"
	"github.com/whydrop/whydrop/record"
)

// TestLabSeesADifference: the comparison of `lab run` must be able to fail.
func TestLabSeesADifference(t *testing.T) {
	want := lab.Expectation{Class: record.ClassFault, Station: record.StationTransport, Reasons: []string{"NO_SOCKET"}, Symbols: []string{"udp_rcv"}}
	key := record.Key{Reason: record.Reason{Name: "NO_SOCKET"}, Location: record.Location{Symbol: "udp_rcv"}}
	good := labResult{Truth: 5, Counted: 5, Diagnosis: record.Diagnosis{Findings: []record.Finding{{Class: want.Class, Station: want.Station, Reasons: want.Reasons}}}}
	if got := mismatch(good, []record.Count{{Key: key, Drops: 5}}, want); len(got) != 0 {
		t.Errorf("what is as expected: %v", got)
	}
	bad := good
	bad.Counted = 4
	if len(mismatch(bad, []record.Count{{Key: key}}, want)) == 0 {
		t.Error("a drop too few is not seen")
	}
	bad = good
	bad.Diagnosis = record.Diagnosis{Findings: []record.Finding{{Class: record.ClassBenign, Station: want.Station, Reasons: want.Reasons}}}
	if len(mismatch(bad, nil, want)) == 0 {
		t.Error("a wrong class is not seen")
	}
	for _, k := range []record.Key{
		{Reason: record.Reason{Name: "UDP_CSUM"}, Location: key.Location},
		{Reason: key.Reason, Location: record.Location{Symbol: "icmp_rcv"}},
	} {
		if len(mismatch(good, []record.Count{{Key: k}}, want)) == 0 {
			t.Errorf("a wrong key is not seen: %+v", k)
		}
	}
}

// objects lists the eBPF programs, maps and links of this kernel that are
// whydrop's by name.
func objects(t *testing.T) (list []string) {
	t.Helper()
	ours := map[string]bool{"kfree_skb_btf": true, "kfree_skb_raw": true, "qdisc_drop_btf": true, "trap_report_raw": true, "pending": true, "traps": true, "slots": true, "state": true, "samples": true}
	programs := map[ebpf.ProgramID]string{}
	for id, err := ebpf.ProgramGetNextID(0); !errors.Is(err, os.ErrNotExist); id, err = ebpf.ProgramGetNextID(id) {
		if err != nil {
			t.Fatal(err)
		}
		p, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if info, err := p.Info(); err == nil && ours[info.Name] {
			list = append(list, "program "+info.Name)
			programs[id] = info.Name
		}
		p.Close()
	}
	for id, err := ebpf.MapGetNextID(0); !errors.Is(err, os.ErrNotExist); id, err = ebpf.MapGetNextID(id) {
		if err != nil {
			t.Fatal(err)
		}
		m, err := ebpf.NewMapFromID(id)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if info, err := m.Info(); err == nil && ours[info.Name] {
			list = append(list, "map "+info.Name)
		}
		m.Close()
	}
	var links link.Iterator
	defer links.Close()
	for links.Next() {
		if info, err := links.Link.Info(); err == nil && programs[info.Program] != "" {
			list = append(list, "link "+programs[info.Program])
		}
	}
	// What is being made or freed is listed, but cannot be opened.
	if err := links.Err(); errors.Is(err, unix.EAGAIN) {
		list = append(list, "unfinished")
	} else if err != nil {
		t.Fatal(err)
	}
	return list
}

// begin starts a watch and waits until its program is attached.
func begin(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill() })
	for end := time.Now().Add(time.Minute); !attached(c.Process.Pid); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) { // an emulated machine takes its time
			t.Fatal("no program is attached a minute after the start")
		}
	}
}

// attached says whether a process holds the link of a program that watches
// kfree_skb.
func attached(pid int) bool {
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, fd := range fds {
		if kind, err := os.Readlink(fd); err != nil || kind != "anon_inode:bpf_link" {
			continue
		}
		info, err := os.ReadFile(strings.Replace(fd, "/fd/", "/fdinfo/", 1))
		_, rest, found := strings.Cut(string(info), "prog_id:")
		var id uint32
		if _, serr := fmt.Sscan(rest, &id); err != nil || !found || serr != nil {
			continue
		}
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err != nil {
			continue
		}
		about, err := p.Info()
		p.Close()
		if err == nil && strings.HasPrefix(about.Name, "kfree_skb") {
			return true
		}
	}
	return false
}

// gone checks that nothing is left within two seconds.
func gone(t *testing.T) {
	t.Helper()
	var left []string
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if left = objects(t); len(left) == 0 {
			return
		}
	}
	t.Errorf("2 s after the end there are still %v", left)
}

func TestNothingStaysBehind(t *testing.T) {
	testkit.NeedRoot(t)
	for name, sig := range map[string]syscall.Signal{"SIGKILL": unix.SIGKILL, "SIGINT": unix.SIGINT, "SIGTERM": unix.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			c := command(t, "watch")
			var errOut strings.Builder
			c.Stderr = &errOut
			begin(t, c)
			if err := c.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			_ = c.Wait()
			gone(t)
			if sig == unix.SIGKILL {
				return
			}
			if code := c.ProcessState.ExitCode(); code != exitOK {
				t.Errorf("exit status %d", code)
			}
			if !strings.Contains(errOut.String(), "drops seen") {
				t.Errorf("no summary with the accounting:\n%s", errOut.String())
			}
		})
	}
}

// forAnyone is the test binary where any user may run it: where it is, or a link
// to it or a copy of it.
func forAnyone(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	open := true
	for path := self; open && path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		open = err == nil && info.Mode().Perm()&0o005 == 0o005
	}
	if open {
		return self
	}
	dir, err := os.MkdirTemp("/tmp", "whydrop-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "whydrop")
	if err := os.Link(self, path); err == nil { // quicker, where it is on the same disk
		return path
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// asNobody makes a process of uid 65534 with these capabilities alone.
func asNobody(t *testing.T, caps []uintptr, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.CommandContext(bounded(t), forAnyone(t), args...)
	c.Dir = "/"
	c.Env = append(os.Environ(), asWhydrop+"=1", "HOME=/")
	c.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: caps,
	}
	return c
}

// oneLine checks that nothing can be watched, and that one line says why.
func oneLine(t *testing.T, r result, words ...string) {
	t.Helper()
	if r.code != exitUnavailable {
		t.Errorf("exit status %d, want %d\n%s", r.code, exitUnavailable, r.err)
	}
	if r.out != "" {
		t.Errorf("printed on stdout:\n%s", r.out)
	}
	if strings.Count(r.err, "\n") != 1 {
		t.Errorf("want one line:\n%s", r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("no %q in: %s", w, r.err)
		}
	}
}

func TestWithoutCapabilities(t *testing.T) {
	testkit.NeedRoot(t)
	commands := [][]string{{"watch"}, {"record", "-w", "/tmp/never-written", "--source", "bpf"}, {"diagnose", "--source", "bpf"}, {"--source", "bpf"}}
	if testing.Short() { // an emulated machine: the first two ask what the others ask
		commands = commands[:2]
	}
	for _, args := range commands {
		oneLine(t, finish(t, asNobody(t, nil, args...)), "CAP_BPF", "CAP_PERFMON", "sudo whydrop")
	}
	if _, err := os.Stat("/tmp/never-written"); err == nil {
		t.Error("a file was made although nothing could be watched")
	}
	// Without --source the counters of its own namespace are what there is.
	d := finish(t, asNobody(t, nil, "--duration", "300ms"))
	if d.code != exitPartial || !strings.Contains(d.err, "CAP_BPF") || !strings.Contains(d.err, "no drop was watched") || !strings.Contains(d.out, "skbdrop failed") {
		t.Errorf("exit status %d\n%s%s", d.code, d.out, d.err)
	}
	r := finish(t, asNobody(t, nil, "doctor"))
	if r.code != exitUnavailable || !strings.Contains(r.out, "CAP_BPF") || !strings.Contains(r.out, "to change it:") {
		t.Errorf("doctor: exit status %d\n%s", r.code, r.out)
	}
}

// TestWithFourCapabilities is the promise of least privilege.
func TestWithFourCapabilities(t *testing.T) {
	testkit.NeedRoot(t)
	caps := []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYSLOG, unix.CAP_NET_ADMIN}
	setup := prepared(t, "udp-noport")
	// Before 5.11 maps count as locked memory, which these do not let grow.
	locked := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &locked); err != nil && !errors.Is(err, unix.EPERM) {
		t.Fatal(err)
	}
	c := asNobody(t, caps, "watch", "--netns", fmt.Sprint(setup.NetNS), "--interval", "200ms")
	var out console
	var errOut strings.Builder
	c.Stdout, c.Stderr = &out, &errOut
	defer func() {
		if t.Failed() {
			t.Logf("it said: %s", errOut.String())
		}
	}()
	begin(t, c)
	truth, err := setup.Provoke(t.Context(), 25)
	if err != nil {
		t.Fatal(err)
	}
	out.await(t, "\n")
	l, _, _ := strings.Cut(out.String(), "\n")
	for _, want := range []string{fmt.Sprintf("%d drops at ", truth.Drops), "udp 192.0.2.2:40000 > 192.0.2.1:7777", "dev " + setup.Device} {
		if !strings.Contains(l, want) {
			t.Errorf("no %q in %q", want, l)
		}
	}
	if err := c.Process.Signal(unix.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("watch: %v", err)
	}
}

// inMounts makes a process that sees the mounts that setup has changed.
func inMounts(t *testing.T, setup string, args ...string) *exec.Cmd {
	t.Helper()
	c := command(t)
	script := "set -e; mount --make-rprivate /; " + setup + `; exec "$0" "$@"`
	sh := exec.CommandContext(bounded(t), "unshare", append([]string{"--mount", "sh", "-c", script, c.Path}, args...)...)
	sh.Env = c.Env
	return sh
}

func TestWithoutBTF(t *testing.T) {
	testkit.NeedRoot(t)
	empty := t.TempDir()
	for _, cmd := range []string{"watch", "diagnose"} {
		r := finish(t, inMounts(t, "mount --bind "+empty+" /sys/kernel/btf", cmd, "--source", "bpf"))
		oneLine(t, r, "BTF", "CONFIG_DEBUG_INFO_BTF")
	}
}

// TestWithoutTracepoint hands whydrop the types of a kernel that has no
// kfree_skb.
func TestWithoutTracepoint(t *testing.T) {
	testkit.NeedRoot(t)
	b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "sk_buff", Size: 8, Members: []btf.Member{{Name: "len", Type: &btf.Int{Name: "int", Size: 4}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	fake := filepath.Join(t.TempDir(), "vmlinux")
	if err := os.WriteFile(fake, blob, 0o444); err != nil {
		t.Fatal(err)
	}
	oneLine(t, finish(t, inMounts(t, "mount --bind "+fake+" /sys/kernel/btf/vmlinux", "watch", "--source", "bpf")),
		"tracepoint skb:kfree_skb", "doctor")
}

// works says whether a source lacks nothing but what came with later kernels.
func works(s record.Source) bool {
	return s.State == record.SourceOK ||
		s.State == record.SourceDegraded && strings.Contains(s.Why, "the kernel has no drop reasons")
}

func TestReadOnlySys(t *testing.T) {
	testkit.NeedRoot(t)
	r := finish(t, inMounts(t, "mount -o remount,ro,bind /sys", "diagnose", "--duration", "300ms", "-j"))
	var d record.Diagnosis
	if err := json.Unmarshal([]byte(r.out), &d); r.code != exitOK || err != nil || !works(d.Sources[0]) {
		t.Errorf("exit status %d, %v\n%s%s", r.code, err, r.out, r.err)
	}
}

// TestTrapNeedsNothingBesideIt: no compiler, no object file, no kprobes, no
// tool on the PATH.
func TestTrapNeedsNothingBesideIt(t *testing.T) {
	testkit.NeedRoot(t)
	c := command(t, "diagnose", "--duration", "200ms")
	c.Dir, c.Env = t.TempDir(), []string{asWhydrop + "=1"}
	if r := finish(t, c); r.code != exitOK || !strings.Contains(r.out, "drop") {
		t.Errorf("exit status %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestDoctor(t *testing.T) {
	testkit.NeedRoot(t)
	r := run(t, "doctor", "-j")
	var d doctor
	if err := json.Unmarshal([]byte(r.out), &d); err != nil || r.code != exitOK {
		t.Fatalf("exit status %d, %v\n%s", r.code, err, r.out)
	}
	if !works(d.Source) || d.Program != "tp_btf" || d.Kernel.KfreeSkbArgs < 2 {
		t.Errorf("source %+v, program %q, kernel %+v", d.Source, d.Program, d.Kernel)
	}
	seen := map[string]bool{}
	for _, c := range d.Checks {
		seen[c.Name] = true
		if c.State == "no" && c.Why == "" {
			t.Errorf("%s: no, and no reason why", c.Name)
		}
	}
	for _, want := range []string{"btf", "tracepoint", "reason", "rx_sk", "net_dm", "cap_bpf", "cap_perfmon", "cap_syslog", "lockdown", "kptr_restrict", "memlock", "netns"} {
		if !seen[want] {
			t.Errorf("no check %q", want)
		}
	}
	if text := here(t, "doctor"); !strings.Contains(text.out, "(eBPF program of type tp_btf on tracepoint skb:kfree_skb)") {
		t.Errorf("text:\n%s", text.out)
	}
}
