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
	// Name is the one under /run/netns, "host", "own", that of a container, pod
	// or unit as Names.Name gives it, or empty.
	Name string
	// Path is the file to enter it by: /proc/PID/ns/net, /run/netns/NAME,
	// another file that it is mounted on, or /proc/self/fd/N.
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
// those that are mounted elsewhere, and those that this program itself holds
// open. It also says what it could not look at.
//
// The kernel has no list of namespaces. One that is mounted only where other
// programs see it, held open by another program, or used by a single thread of
// a process is not found.
func (n *Names) List() ([]Namespace, []record.Blind) {
	l := lister{Names: n, index: map[uint32]int{}}
	if n.hostErr == nil {
		l.add(Namespace{Inode: n.host, Name: Host, Path: n.hostPath})
	} else {
		l.cannot("the network namespace of pid 1", n.hostErr)
		if errors.Is(n.hostErr, fs.ErrNotExist) { // PID 1 is always there
			l.blind[0].Fix = "run as root: procfs is mounted so that it hides the processes of others (hidepid)"
		}
	}
	l.named()
	l.processes()
	l.mounted()
	l.held()
	l.call()
	return l.found, l.blind
}

// group is the container, pod or unit that a namespace is called after.
type group struct{ base, name string }

// call names the namespaces that have no name of their own after what lives in
// them. A name that is taken already gets the number of the process as well. A
// namespace keeps its name for as long as it would be called that.
func (l *lister) call() {
	groups, taken := map[uint32]group{}, map[string]bool{}
	bases := make([]string, len(l.found))
	for i, ns := range l.found {
		if ns.Name != "" || ns.PID == 0 {
			continue
		}
		bases[i] = groupOf(l.Proc, ns.PID)
		if g := l.groups[ns.Inode]; g.base == bases[i] && g.base != "" {
			groups[ns.Inode], taken[g.name] = g, true
		}
	}
	for i := range l.found {
		ns := &l.found[i]
		g, known := groups[ns.Inode]
		if !known && bases[i] != "" {
			g = group{bases[i], bases[i]}
			if taken[g.name] {
				g.name = fmt.Sprintf("%s:%d", g.base, ns.PID)
			}
			groups[ns.Inode], taken[g.name] = g, true
		}
		if ns.Name == "" {
			ns.Name = g.name
		}
	}
	l.groups = groups
	for ino := range l.tried {
		l.tried[ino] = true
	}
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

// mounted adds the namespaces that are mounted anywhere, as container engines
// do it below directories of their own.
func (l *lister) mounted() {
	text, err := os.ReadFile(filepath.Join(l.Proc, "self/mountinfo"))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.cannot("mounted network namespaces", err)
		}
		return
	}
	for _, m := range parseMounts(string(text)) {
		if _, known := l.index[m.inode]; known {
			continue
		}
		// Something else may be mounted over it.
		if st, err := stat(m.path); err == nil && st.Dev == l.dev && uint32(st.Ino) == m.inode {
			l.add(Namespace{Inode: m.inode, Name: l.names[m.inode], Path: m.path})
		}
	}
}

// mount is a place where a network namespace is mounted.
type mount struct {
	inode uint32
	path  string
}

// parseMounts finds the network namespaces in the text of /proc/PID/mountinfo:
// 36 35 0:4 net:[4026532281] /run/netns/blue rw shared:7 - nsfs nsfs rw
// (show_mountinfo of fs/proc_namespace.c).
func parseMounts(text string) []mount {
	var list []mount
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		ino, ok := parseLink(f[3])
		i := slices.Index(f, "-")
		if ok && i > 4 && i+1 < len(f) && f[i+1] == "nsfs" {
			list = append(list, mount{ino, unescape(f[4])})
		}
	}
	return list
}

// unescape turns the octal numbers back that the kernel writes for blanks and
// backslashes in paths (mangle_path of fs/seq_file.c).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
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
