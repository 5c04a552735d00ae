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
	"syscall"
	"time"
)

// Host is the name of the namespace that PID 1 lives in.
const Host = "host"

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
	own     uint32
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
	n := &Names{Dir: dir, Proc: proc}
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

// Name returns the name of the namespace with that inode, or "" where it has
// none.
func (n *Names) Name(ino uint32) string { return n.names[ino] }

// Refresh looks at the directory of names again, if it has not for a second,
// and says whether a name has changed. The kernel gives the inode of a
// namespace that is gone to the next one, so names grow old.
func (n *Names) Refresh() bool {
	if time.Since(n.scanned) < rescan {
		return false
	}
	old := n.names
	n.scan()
	return !maps.Equal(old, n.names)
}

// Find returns the inode of a namespace given as a name under /run/netns,
// "host", an inode number, or the number of a process in it.
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
	num, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("find network namespace %q: no such name under %s", s, n.Dir)
	}
	if num >= FirstInode {
		return uint32(num), nil
	}
	ino, err := inode(filepath.Join(n.Proc, s, "ns/net"))
	if err != nil {
		return 0, fmt.Errorf("find network namespace %q: no such name under %s, and no process of that number may be read: %w", s, n.Dir, err)
	}
	return ino, nil
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
