package fact

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// checkCgroup accepts the number of a process, or "socket" and an inode.
func checkCgroup(arg string) error {
	number := strings.TrimPrefix(arg, "socket ")
	if n, err := strconv.ParseUint(number, 10, 32); err != nil || n == 0 || strconv.FormatUint(n, 10) != number {
		return fmt.Errorf("argument %q: want PID or socket INODE", arg)
	}
	return nil
}

// readCgroup gives the control group of a process or socket and those above
// it, the nearest first: the memory of sockets is charged to each of them. The
// value is the limit, or max.
func readCgroup(q *query) error {
	text, err := q.readFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	mounts := parseMounts(text)
	if inode, ok := strings.CutPrefix(q.arg, "socket "); ok {
		return q.socketCgroup(mounts, inode)
	}
	q.source, q.command = "/proc/"+q.arg+"/cgroup", "cat /proc/"+q.arg+"/cgroup"
	text, err = q.readFile("/proc/" + q.arg + "/cgroup")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	v1, v2 := parseMembership(text)
	if v1 != "" {
		return q.groups(mounts.v1, v1, v2, memoryV1)
	}
	return q.groups(mounts.v2, v2, v2, memoryV2)
}

// parseMembership finds the paths in lines such as 4:memory:/x and 0::/y
// (kernel/cgroup/cgroup.c, proc_cgroup_show). That of version 1 is empty where
// the controller of memory is not there.
func parseMembership(text string) (v1, v2 string) {
	for line := range strings.Lines(text) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(part) != 3:
		case part[0] == "0":
			v2 = part[2]
		case slices.Contains(strings.Split(part[1], ","), "memory"):
			v1 = part[2]
		}
	}
	return v1, v2
}

// cgroupMount is where a hierarchy is to be seen: the group root at the path
// point.
type cgroupMount struct{ root, point string }

type cgroupMounts struct{ v1, v2 cgroupMount }

// parseMounts reads /proc/self/mountinfo (fs/proc_namespace.c,
// show_mountinfo): the hierarchy of version 2, and the one of version 1 that
// has memory.
func parseMounts(text string) (m cgroupMounts) {
	for line := range strings.Lines(text) {
		head, tail, _ := strings.Cut(line, " - ")
		at, kind := strings.Fields(head), strings.Fields(tail)
		if len(at) < 5 || len(kind) < 3 {
			continue
		}
		mount := cgroupMount{unescape(at[3]), unescape(at[4])}
		switch {
		case kind[0] == "cgroup2" && m.v2.point == "":
			m.v2 = mount
		case kind[0] == "cgroup" && m.v1.point == "" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			m.v1 = mount
		}
	}
	return m
}

// unescape undoes mangle of fs/seq_file.c: \040 is a space.
func unescape(s string) string {
	var out strings.Builder
	for ; s != ""; s = s[1:] {
		if len(s) >= 4 && s[0] == '\\' {
			if n, err := strconv.ParseUint(s[1:4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				s = s[3:]
				continue
			}
		}
		out.WriteByte(s[0])
	}
	return out.String()
}

// dir is where the files of a group are. It is empty where it cannot be seen.
func (m cgroupMount) dir(group string) string {
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.root, "/"))
	if m.point == "" || !ok || below != "" && below[0] != '/' || slices.Contains(strings.Split(group, "/"), "..") {
		return ""
	}
	return path.Join(m.point, below)
}

// groups adds a group and those above it that say something of memory.
func (q *query) groups(m cgroupMount, group, v2 string, read func(q *query, dir string) fields) error {
	if m.dir(group) == "" {
		return fmt.Errorf("control group %s: it is not below what is mounted here", group)
	}
	for g := group; ; g = path.Dir(g) {
		dir := m.dir(g)
		if dir == "" {
			return nil // above what can be seen
		}
		f := read(q, dir)
		q.source, q.command = dir, "grep . "+shell(dir+"/")+"memory.*"
		if len(f) > 0 || g == group {
			f = withPath(f, v2)
			limit := f["max"]
			if limit == "" { // the root, or memory is not controlled here
				limit = "max"
			}
			q.add(g, limit, f)
		}
		if g == "/" || g == "." {
			return nil
		}
	}
}

func withPath(f fields, v2 string) fields {
	out := fields{"v2_path": v2}
	for k, v := range f {
		out[k] = v
	}
	return out
}

// memoryV2 reads the files of version 2 (mm/memcontrol.c), in bytes; events
// are how often the limits were met. All but the root have them.
func memoryV2(q *query, dir string) fields {
	f := fields{}
	for name, file := range map[string]string{"max": "max", "high": "high", "current": "current"} {
		q.putFile(f, name, dir+"/memory."+file)
	}
	q.putPairs(f, dir+"/memory.events", func(name string) string { return "events_" + name })
	q.putPairs(f, dir+"/memory.stat", func(name string) string {
		if name == "sock" {
			return name
		}
		return ""
	})
	return versioned(f, "2")
}

// unlimited is what version 1 shows where there is no limit: PAGE_COUNTER_MAX
// in bytes (include/linux/page_counter.h).
const unlimited = "9223372036854771712"

// memoryV1 reads the files of version 1 (mm/memcontrol-v1.c). Those of tcp
// are a limit of their own.
func memoryV1(q *query, dir string) fields {
	f := fields{}
	for name, file := range map[string]string{
		"max": "limit_in_bytes", "current": "usage_in_bytes", "failcnt": "failcnt",
		"tcp_max": "kmem.tcp.limit_in_bytes", "tcp_current": "kmem.tcp.usage_in_bytes", "tcp_failcnt": "kmem.tcp.failcnt",
	} {
		q.putFile(f, name, dir+"/memory."+file)
	}
	for _, name := range []string{"max", "tcp_max"} {
		if f[name] == unlimited {
			f[name] = "max"
		}
	}
	return versioned(f, "1")
}

func versioned(f fields, version string) fields {
	if len(f) > 0 {
		f["version"] = version
	}
	return f
}

// putFile adds the first word of a file that can be read.
func (q *query) putFile(f fields, name, file string) {
	if text, err := q.readFile(file); err == nil {
		if words := strings.Fields(text); len(words) == 1 {
			f[name] = words[0]
		}
	}
}

// putPairs adds lines of a name and a number, under the names that rename
// gives; those without one are left out.
func (q *query) putPairs(f fields, file string, rename func(string) string) {
	text, err := q.readFile(file)
	if err != nil {
		return
	}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 2 {
			continue
		}
		if name := rename(words[0]); name != "" {
			f[name] = words[1]
		}
	}
}

// socketCgroup finds the group that a socket was made in (sock_cgroup_ptr of
// include/net/sock.h), which sock_diag tells by its number since 5.8.
func (q *query) socketCgroup(mounts cgroupMounts, inode string) error {
	q.command = "ss -tuwane | grep -w ino:" + inode
	id, found, err := q.cgroupID(inode)
	if err != nil || !found {
		return err
	}
	q.source = "INET_DIAG_CGROUP_ID"
	if id == 0 {
		return errors.New("the kernel does not tell the control group of that socket")
	}
	if mounts.v2.point == "" {
		return errors.New("no hierarchy of version 2 is mounted")
	}
	dir, err := cgroupByID(q.path(mounts.v2.point), id)
	if err != nil {
		return kernelnet.NeedsCap(err, "CAP_DAC_READ_SEARCH")
	}
	group := path.Join("/", mounts.v2.root, strings.TrimPrefix(dir, q.path(mounts.v2.point)))
	if mounts.v1.point != "" {
		return fmt.Errorf("its group is %s, but memory is controlled by version 1, of which sockets do not tell", group)
	}
	return q.groups(mounts.v2, group, group, memoryV2)
}

// cgroupID looks for a socket; id is 0 where the kernel does not tell it.
func (q *query) cgroupID(inode string) (id uint64, found bool, err error) {
	for _, p := range sockProtos() {
		if p.name == "unix" {
			return id, found, nil // and the rest: they do not tell it
		}
		_, err := q.tell(p, func(t telling, raw []byte) error {
			l, err := t.brief(raw)
			if err != nil || strconv.FormatUint(uint64(l.inode), 10) != inode {
				return err
			}
			_, f, err := t.detail(raw)
			id, _ = strconv.ParseUint(f["cgroup_id"], 10, 64)
			found = true
			return err
		})
		if found || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return id, found, err
		}
	}
	return id, found, nil
}

// fileidKernfs is FILEID_KERNFS of include/linux/exportfs.h: the handle is the
// number of the group.
const fileidKernfs = 0xfe

// cgroupByID is the path of a group below the point where the hierarchy is
// mounted.
func cgroupByID(point string, id uint64) (string, error) {
	mount, err := os.Open(point)
	if err != nil {
		return "", err
	}
	defer mount.Close()
	handle := unix.NewFileHandle(fileidKernfs, native.AppendUint64(nil, id))
	fd, err := unix.OpenByHandleAt(int(mount.Fd()), handle, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("find control group %d: %w", id, err)
	}
	defer unix.Close(fd)
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}
