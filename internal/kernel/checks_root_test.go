//go:build root

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// leftBehind is what a check could have changed: mounts of the kernel's own
// filesystems, modules, and eBPF objects that this process holds.
func leftBehind(t *testing.T) string {
	t.Helper()
	var seen []string
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); slices.Contains([]string{"tracefs", "debugfs", "securityfs", "bpf"}, f[2]) {
			seen = append(seen, line)
		}
	}
	modules, err := Host{}.modules()
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for name := range modules {
		seen = append(seen, "module "+name)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.Contains(link, "bpf") {
			seen = append(seen, link)
		}
	}
	slices.Sort(seen)
	return strings.Join(seen, "\n")
}

func TestChecksLive(t *testing.T) {
	before := leftBehind(t)
	got := map[string]Answer{}
	for _, check := range (Host{}).Checks(t.Context()) {
		got[check.Name] = check.Answer
		if check.State == StateNo && check.Why == "" || check.State == StateUnknown && check.Why == "" {
			t.Errorf("%s: %+v", check.Name, check.Answer)
		}
	}
	if after := leftBehind(t); after != before {
		t.Errorf("checks changed the host: before\n%s\nafter\n%s", before, after)
	}
	release, err := Host{}.Release()
	if err != nil {
		t.Fatal(err)
	}
	version, err := ParseVersion(release)
	if err != nil {
		t.Fatal(err)
	}
	came := map[string]Version{
		"reason": {5, 17, 0}, "reason_names": {5, 17, 0}, "subsystems": {6, 4, 0}, "rx_sk": {6, 11, 0},
		"recursion_misses": {5, 12, 0}, "recursion_guard": {6, 2, 0},
	}
	for _, name := range []string{
		"kernel", "btf", "tracepoint", "reason", "rx_sk", "reason_names", "subsystems", "tp_btf", "raw_tracepoint",
		"ringbuf", "recursion_misses", "recursion_guard", "user_namespace", "cap_bpf", "cap_perfmon", "cap_syslog",
		"cap_net_admin", "cap_sys_admin", "cap_sys_ptrace", "memlock", "lockdown", "kptr_restrict", "netns",
	} {
		a := got[name]
		if since, ok := came[name]; ok && !version.AtLeast(since.Major, since.Minor) {
			if a.State == StateUnknown {
				t.Errorf("%s: %+v, want yes or no", name, a)
			}
			continue // distributions backport: either is right
		}
		if a.State != StateYes {
			t.Errorf("%s: %+v, want yes on this kernel as root", name, a)
		}
	}
	if a := got["net_dm"]; a.State == StateUnknown {
		t.Errorf("net_dm: %+v", a)
	}
}

func TestChecksWithoutCapabilities(t *testing.T) {
	aside(t, func() error {
		if err := dropCapabilities(); err != nil {
			return err
		}
		c := Host{}.newChecker()
		if a := c.tracing(); a.State != StateUnknown || !strings.Contains(a.Fix, "CAP_BPF") {
			return fmt.Errorf("tp_btf: %+v", a)
		}
		for _, capability := range []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_SYS_ADMIN} {
			if a := c.capability(capability)(); a.State != StateNo {
				return fmt.Errorf("capability %d: %+v", capability, a)
			}
		}
		return nil
	})
}

func TestChecksInNetworkNamespace(t *testing.T) {
	aside(t, func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if a := (Host{}).newChecker().netns(); a.State != StateNo || a.Fix == "" {
			return fmt.Errorf("netns: %+v", a)
		}
		return nil
	})
}

// TestChecksInUserNamespace runs itself as root of another user namespace,
// which a process of several threads cannot enter.
func TestChecksInUserNamespace(t *testing.T) {
	const inside = "WHYDROP_TEST_IN_USER_NAMESPACE"
	if os.Getenv(inside) != "" {
		c := Host{}.newChecker()
		for what, a := range map[string]Answer{"namespace": c.userNamespace(), "capability": c.capability(unix.CAP_BPF)()} {
			if a.State != StateNo || !strings.Contains(a.Why, "user namespace") {
				t.Errorf("%s: %+v", what, a)
			}
		}
		fmt.Println("was inside")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("was inside")) {
		t.Errorf("%v: %s", err, out)
	}
}
