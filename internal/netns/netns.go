// Package netns names, lists, finds and enters network namespaces.
//
// A namespace is entered only by a thread that ends afterwards, so that the
// program itself never leaves its own. The package must not make a namespace,
// change one, or keep one alive by holding it open.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Host is the name of the namespace that PID 1 lives in.
const Host = "host"

// All stands for every network namespace that can be entered, where names of
// namespaces are given.
const All = "all"

// Own is the name of this program's namespace where that of PID 1 is not
// known (readlink of /proc/1/ns/net needs the rights of ptrace).
const Own = "own"

// FirstInode is below every inode number of a namespace (PROC_DYNAMIC_FIRST
// and the initial namespaces' numbers in include/linux/proc_ns.h). A number
// given by a user is an inode from here on, a PID below.
const FirstInode = 0xe0000000

// rescan is the least time between two looks at the directory of names.
const rescan = time.Second

// Names gives the names of namespaces by inode. It must not be used by two
// goroutines at once.
type Names struct {
	// Dir holds the named namespaces of ip-netns(8); Proc is procfs.
	Dir, Proc string

	names   map[uint32]string
	scanned time.Time
	// groups are the names of the containers, pods and units in namespaces that
	// have no name of their own, as far as List has found them.
	groups map[uint32]group
	// tried are the inodes that had no name when somebody asked; true once List
	// has looked for them.
	tried map[uint32]bool
	own   uint32
	// dev is the file system of namespaces, which has just one device.
	dev      uint64
	host     uint32
	hostPath string
	hostErr  error
}

// NewNames reads the names of the live system: those under /run/netns, "host"
// for the namespace of PID 1.
func NewNames() (*Names, error) { return newNames("/run/netns", "/proc") }

func newNames(dir, proc string) (*Names, error) {
	n := &Names{Dir: dir, Proc: proc, tried: map[uint32]bool{}}
	own, err := stat(filepath.Join(proc, "self/ns/net"))
	if err != nil {
		return nil, fmt.Errorf("find own network namespace: %w", err)
	}
	n.own, n.dev = uint32(own.Ino), own.Dev
	n.hostPath, n.host, n.hostErr = findHost(proc)
	n.scan()
	return n, nil
}

// findHost finds the namespace of PID 1 or, where that may not be read, of
// the first kernel thread, which lives in the initial one (kernel/kthread.c).
func findHost(proc string) (path string, ino uint32, err error) {
	path = filepath.Join(proc, "1/ns/net")
	if ino, err = inode(path); err == nil {
		return path, ino, nil
	}
	if comm, cerr := os.ReadFile(filepath.Join(proc, "2/comm")); cerr != nil || string(comm) != "kthreadd\n" {
		return "", 0, err
	}
	path = filepath.Join(proc, "2/ns/net")
	if ino, kerr := inode(path); kerr == nil {
		return path, ino, nil
	}
	return "", 0, err
}

// Own returns the inode of this program's namespace.
func (n *Names) Own() uint32 { return n.own }

// HostError says why the namespace of PID 1 could not be told, or is nil.
func (n *Names) HostError() error { return n.hostErr }

// maxTried bounds what is remembered of namespaces without a name.
const maxTried = 1 << 12

// Name returns the name of the namespace with that inode: the one under
// /run/netns, "host", "own", or that of the container, pod or unit in it, which
// has a slash in it: docker/ID, pod/UID, unit/NAME. It is "" where there is
// none, or where List has not found the namespace yet.
func (n *Names) Name(ino uint32) string {
	if name := n.names[ino]; name != "" {
		return name
	}
	if g, ok := n.groups[ino]; ok {
		return g.name
	}
	if _, known := n.tried[ino]; !known && ino != 0 && len(n.tried) < maxTried {
		n.tried[ino] = false
	}
	return ""
}

// Refresh looks at the directory of names again, if it has not for a second,
// and says whether a name has changed. The kernel gives the inode of a
// namespace that is gone to the next one, so names grow old. It looks at the
// processes too, where since the last time a namespace turned up without a name.
func (n *Names) Refresh() bool {
	if time.Since(n.scanned) < rescan {
		return false
	}
	old, oldGroups := n.names, n.groups
	n.scan()
	for _, tried := range n.tried {
		if !tried {
			n.List()
			break
		}
	}
	return !maps.Equal(old, n.names) || !maps.Equal(oldGroups, n.groups)
}

// Find returns the inode of a namespace given as "host", "own", a name under
// /run/netns, net:[INODE], a number, or the name of a container, pod or unit as
// Name gives it. A number is that of a process, from FirstInode on an inode.
func (n *Names) Find(s string) (uint32, error) {
	if s == Host {
		if n.hostErr != nil {
			return 0, fmt.Errorf("find network namespace of pid 1: %w", n.hostErr)
		}
		return n.host, nil
	}
	if s == Own {
		return n.own, nil
	}
	if filepath.Base(s) == s && s != "." && s != ".." {
		if ino, err := inode(filepath.Join(n.Dir, s)); err == nil {
			return ino, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return 0, fmt.Errorf("find network namespace %q: %w", s, err)
		}
	}
	if ino, ok := parseLink(s); ok {
		return ino, nil
	}
	num, err := strconv.ParseUint(s, 10, 32)
	switch {
	case err != nil:
		return n.findGroup(s)
	case num >= FirstInode:
		return uint32(num), nil
	}
	ino, err := inode(filepath.Join(n.Proc, s, "ns/net"))
	if err != nil {
		return 0, fmt.Errorf("find network namespace %q: no such name under %s, and no process of that number may be read: %w", s, n.Dir, err)
	}
	return ino, nil
}

// OfProcess returns the inode of the namespace that a process is in. It is no name
// that is looked for, so a namespace whose name is a number is never meant.
func OfProcess(pid int) (uint32, error) {
	return inode(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"))
}

// findGroup looks for a container, pod or unit by its name.
func (n *Names) findGroup(s string) (uint32, error) {
	if !strings.Contains(s, "/") {
		return 0, fmt.Errorf("find network namespace %q: no such name under %s", s, n.Dir)
	}
	n.List()
	for ino, g := range n.groups {
		if g.name == s {
			return ino, nil
		}
	}
	return 0, fmt.Errorf("find network namespace %q: no container, pod or unit of that name has one that may be read", s)
}

func (n *Names) scan() {
	n.scanned = time.Now()
	n.names = map[uint32]string{}
	// A missing or unreadable directory means that nothing has a name.
	entries, _ := os.ReadDir(n.Dir)
	for _, e := range entries {
		if ino, err := inode(filepath.Join(n.Dir, e.Name())); err == nil {
			n.names[ino] = e.Name()
		}
	}
	if n.hostErr == nil {
		n.names[n.host] = Host
	} else if _, ok := n.names[n.own]; !ok {
		n.names[n.own] = Own
	}
}

// inode returns the inode number of the file that path leads to.
func inode(path string) (uint32, error) {
	st, err := stat(path)
	if err != nil {
		return 0, err
	}
	return uint32(st.Ino), nil
}

func stat(path string) (*syscall.Stat_t, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("stat %s: no inode", path)
	}
	return st, nil
}
