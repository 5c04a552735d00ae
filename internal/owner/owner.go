// Package owner finds the processes that hold sockets: by the inode of a
// socket their number, name and control group.
//
// It only reads procfs. It must not know who asks, nor keep what it found: a
// socket may go to another process at any time.
package owner

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"github.com/whydrop/whydrop/record"
)

// Process is a process that holds a socket.
type Process struct {
	// PID is the lowest number of a process that holds the socket.
	PID int
	// Comm is the name of the process, as the kernel gives it: any bytes.
	Comm string
	// Cgroup is its path in the hierarchy of version 2, or in the first of
	// version 1 where that is the root; empty where it could not be read.
	Cgroup string
	// Inode is that of the socket.
	Inode uint64
	// Others is how many more processes were seen to hold the same socket.
	Others int
}

// String gives name[pid].
func (p Process) String() string { return fmt.Sprintf("%s[%d]", p.Comm, p.PID) }

// Find looks for the processes that hold sockets, by the inodes of these. Where
// a socket was not found it also says which processes it could not look into.
func Find(inodes []uint64) (map[uint64]Process, []record.Blind) { return find("/proc", inodes) }

func find(proc string, inodes []uint64) (map[uint64]Process, []record.Blind) {
	s := scan{proc: proc, wanted: map[uint64]*Process{}, last: map[uint64]int{}, more: maxMore}
	for _, inode := range inodes {
		if inode != 0 { // a socket that no process has, such as one in time-wait
			s.wanted[inode] = &Process{Inode: inode}
		}
	}
	err := s.run()
	found := make(map[uint64]Process, len(s.wanted))
	for inode, p := range s.wanted {
		if p.PID != 0 {
			p.Comm, p.Cgroup = comm(proc, p.PID), cgroup(proc, p.PID)
			found[inode] = *p
		}
	}
	switch {
	case err != nil:
		return found, []record.Blind{{What: "the processes that hold sockets", Why: err.Error()}}
	case s.denied == 0 || len(found) == len(s.wanted):
		return found, nil
	}
	b := record.Blind{What: fmt.Sprintf("the sockets of %d process(es)", s.denied), Why: s.why.Error()}
	if errors.Is(s.why, fs.ErrPermission) {
		b.Fix = "run as root, or with CAP_SYS_PTRACE"
	}
	return found, []record.Blind{b}
}

// Fact answers the request "owner INODE" for a socket of a namespace: the
// process as name[pid], "none", or why it is not known.
func Fact(inode uint64, ns record.NetNS) record.Fact { return Facts([]uint64{inode}, ns)[0] }

// Facts answers the request "owner INODE" for several sockets of a namespace,
// in their order, with one look at the processes.
func Facts(inodes []uint64, ns record.NetNS) []record.Fact { return facts("/proc", inodes, ns) }

func facts(proc string, inodes []uint64, ns record.NetNS) []record.Fact {
	found, blind := find(proc, inodes)
	list := make([]record.Fact, len(inodes))
	for i, inode := range inodes {
		arg := strconv.FormatUint(inode, 10)
		f := record.Fact{
			Kind: "owner", Request: arg, Name: arg, NetNS: ns,
			Source: "/proc/PID/fd", Command: "ss -aenp | grep -w ino:" + arg,
		}
		p, ok := found[inode]
		switch {
		case ok:
			f.Value = p.String()
			f.Fields = map[string]string{"pid": strconv.Itoa(p.PID), "comm": p.Comm, "cgroup": p.Cgroup}
			f.Source = fmt.Sprintf("/proc/%d/fd", p.PID)
		case len(blind) > 0:
			f.Missing = "not found, and not seen: " + blind[0].What + ": " + blind[0].Why
		default:
			f.Value = "none"
		}
		list[i] = f
	}
	return list
}
