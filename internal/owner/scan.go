package owner

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMore is how many files are looked at after the last socket was found, to
// see who else holds it: forked workers are near, and some hosts have millions
// of open files.
const maxMore = 100_000

// scan is one look at the open files of all processes.
type scan struct {
	proc string
	// wanted are the sockets; the PID of those not found yet is 0.
	wanted map[uint64]*Process
	found  int
	// last is the process that was last seen to hold a socket.
	last map[uint64]int
	// more is how many files may still be looked at once all are found.
	more int
	// denied is how many processes could not be looked into, why the first.
	denied int
	why    error
}

// done says whether nothing more is to be learned.
func (s *scan) done() bool { return s.found == len(s.wanted) && (s.more <= 0 || s.found == 0) }

// run goes by the numbers of processes, so that the first to hold a socket has
// the lowest. A process that ends meanwhile is passed over.
func (s *scan) run() error {
	pids, err := numbers(s.proc)
	for _, pid := range pids {
		if s.done() {
			return nil
		}
		if err := s.process(pid); err != nil && !gone(err) {
			s.denied++
			if s.why == nil {
				s.why = err
			}
		}
	}
	return err
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// process looks at the files that a process has open.
func (s *scan) process(pid int) error {
	dir, err := os.Open(filepath.Join(s.proc, strconv.Itoa(pid), "fd"))
	if err != nil {
		return err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	var buf [64]byte // enough for socket:[…]
	for {
		names, err := dir.Readdirnames(512)
		for _, name := range names {
			n, lerr := unix.Readlinkat(fd, name, buf[:])
			if lerr != nil {
				if gone(lerr) {
					continue // closed meanwhile
				}
				return &fs.PathError{Op: "readlink", Path: filepath.Join(dir.Name(), name), Err: lerr}
			}
			if s.found == len(s.wanted) {
				s.more--
			}
			if inode, ok := parseLink(buf[:n]); ok {
				s.holds(pid, inode)
			}
		}
		if errors.Is(err, io.EOF) || s.done() {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// holds notes that a process holds a socket. One process may hold it twice.
func (s *scan) holds(pid int, inode uint64) {
	p := s.wanted[inode]
	if p == nil {
		return
	}
	if p.PID == 0 {
		p.PID = pid
		s.found++
	} else if s.last[inode] != pid {
		p.Others++
	}
	s.last[inode] = pid
}

// parseLink reads socket:[4242], which links to sockets show (sockfs_dname of
// net/socket.c).
func parseLink(b []byte) (inode uint64, ok bool) {
	const head = "socket:["
	if len(b) <= len(head) || string(b[:len(head)]) != head || b[len(b)-1] != ']' {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(b[len(head):len(b)-1]), 10, 64)
	return inode, err == nil
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
		if i, err := strconv.Atoi(name); err == nil && i > 0 {
			list = append(list, i)
		}
	}
	slices.Sort(list)
	return list, err
}

// maxFile is more than /proc/PID/comm and cgroup ever hold.
const maxFile = 64 << 10

func readFile(proc string, pid int, name string) string {
	f, err := os.Open(filepath.Join(proc, strconv.Itoa(pid), name))
	if err != nil {
		return "" // the process has ended
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return ""
	}
	return string(b)
}

// comm reads the name of a process. It may end in a newline of its own.
func comm(proc string, pid int) string {
	return strings.TrimSuffix(readFile(proc, pid, "comm"), "\n")
}

func cgroup(proc string, pid int) string { return parseCgroup(readFile(proc, pid, "cgroup")) }

// parseCgroup takes the path out of lines such as 0::/system.slice/sshd.service
// (proc_cgroup_show of kernel/cgroup/cgroup.c), in which 0 is the hierarchy of
// version 2. Where both versions are used a process may be at the root of that
// one. A name has no newline (cgroup_mkdir), but may have colons.
func parseCgroup(s string) string {
	v1, v2 := "", ""
	for line := range strings.Lines(s) {
		part := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(part) != 3:
		case part[0] == "0":
			v2 = part[2]
		case v1 == "" || v1 == "/":
			v1 = part[2]
		}
	}
	if v2 == "" || v2 == "/" && v1 != "" {
		return v1
	}
	return v2
}
