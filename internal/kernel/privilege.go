package kernel

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// procStatus is what /proc/self/status says about privileges.
type procStatus struct {
	// effective are the effective capabilities, a bit each.
	effective uint64
	// last is the last capability that this kernel knows.
	last int
}

func (h Host) procStatus() (procStatus, error) {
	b, err := os.ReadFile(h.path("/proc/thread-self/status"))
	if err != nil {
		return procStatus{}, fmt.Errorf("read capabilities: %w", err)
	}
	effective, err := parseCapEff(string(b))
	if err != nil {
		return procStatus{}, fmt.Errorf("read capabilities: %w", err)
	}
	s, err := h.line("/proc/sys/kernel/cap_last_cap")
	if err != nil {
		return procStatus{}, fmt.Errorf("read capabilities: %w", err)
	}
	last, err := strconv.Atoi(s)
	if err != nil {
		return procStatus{}, fmt.Errorf("read capabilities: cap_last_cap: %w", err)
	}
	return procStatus{effective: effective, last: last}, nil
}

// parseCapEff finds the effective capabilities in /proc/PID/status
// (task_cap of fs/proc/array.c).
func parseCapEff(status string) (uint64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, errors.New("no line CapEff")
}

func (s procStatus) has(capability int) bool {
	return s.effective&(1<<capability) != 0
}

// capability answers for one capability. CAP_SYS_ADMIN implies CAP_BPF and
// CAP_PERFMON (bpf_capable of include/linux/capability.h), and stands for them
// before 5.8, which brought them.
func (c *checker) capability(capability int) func() Answer {
	return func() Answer {
		if c.statusErr != nil {
			return unknown(c.statusErr)
		}
		if a := c.userNamespace(); a.State == StateNo {
			return no("capabilities of a user namespace do not count", a.Fix)
		}
		split := capability == unix.CAP_BPF || capability == unix.CAP_PERFMON
		switch {
		case capability <= c.status.last && c.status.has(capability):
			return yes("")
		case split && c.status.has(unix.CAP_SYS_ADMIN):
			return yes("implied by CAP_SYS_ADMIN")
		case split && capability > c.status.last:
			return no("not held; this kernel wants CAP_SYS_ADMIN in its place", "run as root")
		}
		return no("not held", "run as root, or with this capability")
	}
}

// initialUserNS is the inode of the initial user namespace, the same on every
// kernel since 3.8 (PROC_USER_INIT_INO of include/linux/proc_ns.h).
const initialUserNS = "user:[4026531837]"

func (c *checker) userNamespace() Answer {
	link, err := os.Readlink(c.host.path("/proc/self/ns/user"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return yes("the kernel has no user namespaces")
	case err != nil:
		return unknown(fmt.Errorf("read user namespace: %w", err))
	case link != initialUserNS:
		return no("running in a user namespace ("+link+")", "run outside of the user namespace: on the host, or in a privileged container").see(link)
	}
	return yes("")
}

// memlock matters before 5.11, where maps were charged to RLIMIT_MEMLOCK and
// not to the memory cgroup.
func (c *checker) memlock() Answer {
	if c.versionErr != nil {
		return unknown(c.versionErr)
	}
	if c.version.AtLeast(5, 11) {
		return yes("not limited since Linux 5.11")
	}
	if c.statusErr == nil && c.status.has(unix.CAP_SYS_RESOURCE) {
		return yes("CAP_SYS_RESOURCE lifts the limit")
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return unknown(fmt.Errorf("read RLIMIT_MEMLOCK: %w", err))
	}
	// Well above what tables of exact counts and samples take together.
	const enough = 64 << 20
	detail := fmt.Sprintf("RLIMIT_MEMLOCK is %d bytes", limit.Cur)
	if limit.Cur >= enough {
		return yes(detail)
	}
	return no("RLIMIT_MEMLOCK is too low, and raising it needs CAP_SYS_RESOURCE on kernels before 5.11", "ulimit -l unlimited, or run with CAP_SYS_RESOURCE").see(detail)
}

// lockdown asks whether eBPF programs may read kernel memory. The mode
// confidentiality forbids it (LOCKDOWN_BPF_READ_KERNEL, 5.4); the mode
// integrity does not.
func (c *checker) lockdown() Answer {
	const fix = "boot without lockdown=confidentiality"
	s, err := c.host.line("/sys/kernel/security/lockdown")
	if err == nil {
		switch mode := lockdownMode(s); mode {
		case "confidentiality":
			return no("lockdown is in mode confidentiality", fix).see(s)
		case "":
			return unknown(fmt.Errorf("lockdown %q: no mode in brackets", s))
		default:
			return yes("mode " + mode)
		}
	}
	// securityfs is not mounted, or there is no lockdown: try.
	switch err := c.tryProbeRead(); {
	case err == nil:
		return yes("programs may read kernel memory (tried)")
	case errors.Is(err, ebpf.ErrNotSupported):
		return no("programs may not read kernel memory (tried)", fix)
	}
	return unknown(fmt.Errorf("read lockdown: %w", err))
}

// lockdownMode returns the mode in brackets: none [integrity] confidentiality.
func lockdownMode(s string) string {
	_, s, _ = strings.Cut(s, "[")
	s, _, _ = strings.Cut(s, "]")
	return s
}

// kernelAddresses asks the first function of /proc/kallsyms whether addresses
// are shown to this process.
func (c *checker) kernelAddresses() Answer {
	restrict, err := c.host.line("/proc/sys/kernel/kptr_restrict")
	if err != nil {
		return unknown(err)
	}
	detail := "kernel.kptr_restrict is " + restrict
	f, err := os.Open(c.host.path("/proc/kallsyms"))
	if errors.Is(err, fs.ErrNotExist) {
		return no("no /proc/kallsyms", "a kernel built with CONFIG_KALLSYMS=y").see(detail)
	}
	if err != nil {
		return unknown(err)
	}
	defer f.Close()
	// Only a function's address says anything: on older kernels hundreds of
	// per-CPU symbols at low addresses come first.
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		addr, rest, _ := strings.Cut(lines.Text(), " ")
		if !strings.HasPrefix(rest, "T ") && !strings.HasPrefix(rest, "t ") {
			continue
		}
		if strings.Trim(addr, "0") != "" {
			return yes(detail)
		}
		return no("the kernel hides its addresses from this process", c.host.showAddresses()).see(detail)
	}
	return unknown(fmt.Errorf("read %s: no functions: %w", f.Name(), cmp.Or(lines.Err(), io.EOF)))
}

// netns asks whether this is the initial network namespace. Comparing with
// that of PID 1 would not do: PID 1 may be that of a container. This setting
// exists in the initial namespace only (net/core/sysctl_net_core.c,
// net_core_table).
func (c *checker) netns() Answer {
	const mark = "/proc/sys/net/core/netdev_max_backlog"
	link, err := os.Readlink(c.host.path("/proc/thread-self/ns/net"))
	if err != nil {
		return unknown(fmt.Errorf("read network namespace: %w", err))
	}
	_, err = os.Stat(c.host.path(mark))
	if err == nil {
		return yes(link)
	}
	// /proc/sys may not be there at all.
	if _, err2 := os.Stat(c.host.path("/proc/sys/net/core")); err2 != nil || !errors.Is(err, fs.ErrNotExist) {
		return unknown(err)
	}
	return no("running in another network namespace; drops of all namespaces are seen, settings of the host are not", "nsenter --target 1 --net, or a container with the host's network").see(link)
}

func (c *checker) runNetns() Answer {
	const dir = "/run/netns"
	entries, err := os.ReadDir(c.host.path(dir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return yes("none")
	case errors.Is(err, fs.ErrPermission):
		return no(err.Error(), "run as root")
	case err != nil:
		return unknown(err)
	}
	return yes(fmt.Sprintf("%d in %s", len(entries), dir))
}
