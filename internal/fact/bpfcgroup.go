package fact

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// cgroupHook is an attach type of cgroups where a program can keep packets or
// calls of sockets back.
type cgroupHook struct {
	attachType uint32
	name       string
}

// cgroupHooks are named as libbpf names them. Programs for devices and sysctls
// are none of them.
var cgroupHooks = []cgroupHook{
	{0, "cgroup_inet_ingress"},
	{1, "cgroup_inet_egress"},
	{2, "cgroup_inet_sock_create"},
	{3, "cgroup_sock_ops"},
	{8, "cgroup_inet4_bind"},
	{9, "cgroup_inet6_bind"},
	{10, "cgroup_inet4_connect"},
	{11, "cgroup_inet6_connect"},
	{12, "cgroup_inet4_post_bind"},
	{13, "cgroup_inet6_post_bind"},
	{14, "cgroup_udp4_sendmsg"},
	{15, "cgroup_udp6_sendmsg"},
	{19, "cgroup_udp4_recvmsg"},
	{20, "cgroup_udp6_recvmsg"},
	{21, "cgroup_getsockopt"},
	{22, "cgroup_setsockopt"},
	{29, "cgroup_inet4_getpeername"},
	{30, "cgroup_inet6_getpeername"},
	{31, "cgroup_inet4_getsockname"},
	{32, "cgroup_inet6_getsockname"},
	{34, "cgroup_inet_sock_release"},
	{43, "lsm_cgroup"},
	{49, "cgroup_unix_connect"},
	{50, "cgroup_unix_sendmsg"},
	{51, "cgroup_unix_recvmsg"},
	{52, "cgroup_unix_getpeername"},
	{53, "cgroup_unix_getsockname"},
}

// Bounds of the walk through the cgroups: as many, and as long.
const (
	maxCgroups = 16384
	cgroupTime = time.Second
)

// attachFlags are BPF_F_*.
var attachFlags = map[uint32]string{1: "override", 2: "multi", 64: "preorder"}

// cgroups adds the programs of every cgroup of the second version that can be
// reached.
func (p *programs) cgroups() error {
	p.source, p.command = "BPF_PROG_QUERY", "bpftool cgroup tree"
	mounts, err := p.readFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	root := unifiedMount(mounts)
	if root == "" {
		return nil
	}
	root = p.path(root)
	end := time.Now().Add(cgroupTime)
	todo := []string{""}
	for n := 0; len(todo) > 0; n++ {
		if n == maxCgroups || time.Now().After(end) {
			return fmt.Errorf("%d cgroups were looked at, and there are more", n)
		}
		dir := todo[0]
		todo = todo[1:]
		below, err := p.cgroup(root, dir)
		if err != nil {
			return err
		}
		todo = append(todo, below...)
	}
	return nil
}

// unifiedMount finds where the hierarchy of the second version is mounted (proc_pid_mountinfo(5)).
func unifiedMount(mounts string) string {
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		f := strings.Fields(before)
		if ok && strings.HasPrefix(after, "cgroup2 ") && len(f) >= 5 {
			return unescapeMount(f[4])
		}
	}
	return ""
}

// unescapeMount puts back what the kernel writes as \040 and the like.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// cgroup adds the programs of one cgroup and returns those below it. One that
// is gone has neither.
func (p *programs) cgroup(root, dir string) (below []string, err error) {
	f, err := os.Open(filepath.Join(root, dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return nil, fmt.Errorf("cgroup %s: %w", dir, err)
	}
	for _, h := range cgroupHooks {
		if err := p.cgroupHook(uint32(f.Fd()), stat.Ino, "/"+dir, h); err != nil {
			return nil, err
		}
	}
	entries, err := f.ReadDir(-1)
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() {
			below = append(below, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(below)
	return below, nil
}

// cgroupHook adds the programs of one hook of a cgroup.
func (p *programs) cgroupHook(fd uint32, inode uint64, path string, h cgroupHook) error {
	if p.silent[h.attachType] {
		return nil
	}
	a, err := p.ask.at(fd, h.attachType)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP): // newer than this kernel
		p.silent[h.attachType] = true
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EBADF): // gone, or not of a cgroup
		return nil
	case err != nil:
		return kernelnet.NeedsCap(err, capsQuery)
	}
	for i, id := range slices.Clone(a.progs) {
		f := fields{"hook": "cgroup", "attach": h.name, "cgroup": path, "order": strconv.Itoa(i)}
		if s, ok := bitNames(a.flags, attachFlags); ok {
			f["flags"] = s
		}
		p.setLink(f, func(l linkInfo) bool {
			return l.kind == linkCgroup && l.cgroup == inode && l.attachType == h.attachType && l.prog == id
		})
		p.program(fmt.Sprintf("cgroup %s %s %d", path, h.name, i), id, f)
	}
	return nil
}
