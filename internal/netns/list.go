package netns

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/whydrop/whydrop/record"
)

// Namespace is a network namespace that can be entered.
type Namespace struct {
	// Inode is the number in /proc/PID/ns/net.
	Inode uint32
	// Name is the one under /run/netns, "host", "own", or empty.
	Name string
	// Path is the file to enter it by: /proc/PID/ns/net, /run/netns/NAME or
	// /proc/self/fd/N.
	Path string
	// PID is the lowest number of a process in it, 0 where there is none.
	PID int
}

// lister gathers namespaces, one for each inode.
type lister struct {
	*Names
	found []Namespace
	index map[uint32]int
	blind []record.Blind
}

// List gives the namespaces that can be entered: that of PID 1 first, then
// those with a name by their names, those of processes by the lowest number,
// and those that this program itself holds open. It also says what it could
// not look at.
//
// The kernel has no list of namespaces. One that is only mounted elsewhere,
// held open by another program, or used by a single thread of a process is
// not found.
func (n *Names) List() ([]Namespace, []record.Blind) {
	l := lister{Names: n, index: map[uint32]int{}}
	if n.hostErr == nil {
		l.add(Namespace{Inode: n.host, Name: Host, Path: n.hostPath})
	} else {
		l.cannot("the network namespace of pid 1", n.hostErr)
	}
	l.named()
	l.processes()
	l.held()
	return l.found, l.blind
}

// add takes a namespace that has not been seen, and a process of one that has.
func (l *lister) add(ns Namespace) {
	i, known := l.index[ns.Inode]
	if !known {
		l.index[ns.Inode] = len(l.found)
		l.found = append(l.found, ns)
	} else if l.found[i].PID == 0 {
		l.found[i].PID = ns.PID
	}
}

func (l *lister) cannot(what string, err error) {
	b := record.Blind{What: what, Why: err.Error()}
	if errors.Is(err, fs.ErrPermission) {
		b.Fix = "run as root, or with CAP_SYS_PTRACE"
	}
	l.blind = append(l.blind, b)
}

// named adds the namespaces of ip-netns(8). A file there on which nothing is
// mounted, as ip leaves it behind at times, is no namespace.
func (l *lister) named() {
	entries, err := os.ReadDir(l.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.cannot("named network namespaces", err)
	}
	for _, e := range entries {
		path := filepath.Join(l.Dir, e.Name())
		st, err := stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			l.cannot(fmt.Sprintf("network namespace %q", e.Name()), err)
		case st.Dev == l.dev:
			l.add(Namespace{Inode: uint32(st.Ino), Name: e.Name(), Path: path})
		}
	}
}

// processes adds the namespaces that processes live in. A process that ends
// meanwhile is passed over.
func (l *lister) processes() {
	pids, err := numbers(l.Proc)
	if err != nil {
		l.cannot("network namespaces of processes", err)
	}
	var denied int
	var why error
	for _, pid := range pids {
		path := filepath.Join(l.Proc, strconv.Itoa(pid), "ns/net")
		link, err := os.Readlink(path)
		if errors.Is(err, fs.ErrPermission) {
			denied++
			why = cmp.Or(why, err)
			continue
		}
		if ino, ok := parseLink(link); err == nil && ok {
			l.add(Namespace{Inode: ino, Name: l.names[ino], Path: path, PID: pid})
		}
	}
	if denied > 0 {
		l.cannot(fmt.Sprintf("the network namespaces of %d process(es)", denied), why)
	}
}

// held adds the namespaces that this program holds open.
func (l *lister) held() {
	dir := filepath.Join(l.Proc, "self/fd")
	fds, err := numbers(dir)
	if err != nil {
		l.cannot("network namespaces held by this program", err)
	}
	for _, fd := range fds {
		path := filepath.Join(dir, strconv.Itoa(fd))
		link, err := os.Readlink(path)
		if ino, ok := parseLink(link); err == nil && ok {
			l.add(Namespace{Inode: ino, Path: path})
		}
	}
}

// numbers returns the entries of a directory that are numbers, sorted.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var list []int
	for _, name := range names {
		if i, err := strconv.Atoi(name); err == nil && i >= 0 {
			list = append(list, i)
		}
	}
	slices.Sort(list)
	return list, err
}

// parseLink reads net:[4026531840], which links to network namespaces show
// (ns_get_name of fs/nsfs.c).
func parseLink(s string) (inode uint32, ok bool) {
	s, prefix := strings.CutPrefix(s, "net:[")
	s, suffix := strings.CutSuffix(s, "]")
	if !prefix || !suffix {
		return 0, false
	}
	num, err := strconv.ParseUint(s, 10, 32)
	return uint32(num), err == nil
}
