package observe

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"time"

	"github.com/whydrop/whydrop/internal/fact"
	"github.com/whydrop/whydrop/internal/netns"
	"github.com/whydrop/whydrop/internal/owner"
	"github.com/whydrop/whydrop/record"
)

// maxEndpoints bounds what is remembered of the sockets of a process.
const maxEndpoints = 200_000

// dearLook is the time of a look at a process's sockets from which on they are
// looked at when the watching begins and ends, and not in between.
const dearLook = 10 * time.Millisecond

// Process is a process whose traffic is asked for: its network namespace and the
// sockets that it has been seen to have. Its methods must not be called at the same
// time.
type Process struct {
	pid   int
	space netns.Namespace
	// inodes are its sockets, ends the ends of those of TCP and UDP by their
	// protocol and local port; known is how many both are.
	inodes map[uint64]bool
	ends   map[localEnd]map[fact.Endpoint]bool
	known  int
	dear   bool
}

// localEnd is what packets of a socket are looked up by.
type localEnd struct {
	proto uint8
	port  uint16
}

// FindProcess looks at a process. It returns *FilterError where there is none of
// that number, or where it may not be looked at.
func FindProcess(pid int) (*Process, error) {
	if pid <= 0 || pid >= netns.FirstInode {
		return nil, &FilterError{fmt.Errorf("process %d: no number of a process", pid)}
	}
	inode, err := netns.OfProcess(pid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &FilterError{fmt.Errorf("process %d: there is none of that number", pid)}
	case err != nil:
		return nil, &FilterError{fmt.Errorf("process %d: %w", pid, err)}
	}
	p := &Process{
		pid: pid, space: netns.Namespace{Inode: inode, Path: fmt.Sprintf("/proc/%d/ns/net", pid), PID: pid},
		inodes: map[uint64]bool{}, ends: map[localEnd]map[fact.Endpoint]bool{},
	}
	if err := p.Look(); err != nil {
		return nil, &FilterError{err}
	}
	return p, nil
}

// NetNS is the inode of the network namespace that the process was in.
func (p *Process) NetNS() uint32 { return p.space.Inode }

// Sockets is how many sockets the process was seen to have.
func (p *Process) Sockets() int { return len(p.inodes) }

// Glance is Look where that takes little time, and nothing where it does not. What
// it does not see is left to the last Look.
func (p *Process) Glance() {
	if p.dear {
		return
	}
	begin := time.Now()
	_ = p.Look() // the process may have ended: what it had is known
	p.dear = time.Since(begin) > dearLook
}

// Look adds the sockets that the process has now to those that it had before, and
// the ends that they have now: a socket gets its port long after it was opened.
func (p *Process) Look() error {
	list, err := owner.Sockets(p.pid)
	if err != nil {
		return err
	}
	now := map[uint64]bool{}
	for _, inode := range list {
		if !p.inodes[inode] && p.known < maxEndpoints {
			p.known++
			p.inodes[inode] = true
		}
		now[inode] = p.inodes[inode]
	}
	if len(now) == 0 {
		return nil
	}
	err = p.space.Do(func() error {
		var r fact.Reader
		return r.Endpoints(func(e fact.Endpoint) {
			if now[e.Inode] {
				p.add(e)
			}
		})
	})
	if err != nil {
		return fmt.Errorf("find sockets of process %d: %w", p.pid, err)
	}
	return nil
}

func (p *Process) add(e fact.Endpoint) {
	at := localEnd{e.Proto, e.Local.Port()}
	if p.ends[at][e] || p.known >= maxEndpoints {
		return
	}
	if p.ends[at] == nil {
		p.ends[at] = map[fact.Endpoint]bool{}
	}
	p.known++
	p.ends[at][e] = true
}

// Match says whether a dropped packet is of the process: by its socket, or by the
// addresses and ports of one, in its namespace.
func (p *Process) Match(d *record.Drop) bool {
	if d.NetNS.Inode != 0 && d.NetNS.Inode != p.space.Inode {
		return false
	}
	if d.Socket != nil && d.Socket.Inode != 0 && p.inodes[d.Socket.Inode] {
		return true
	}
	for packet := d.Packet; packet != nil; packet = packet.Inner {
		f := packet.Flow
		if f.IsValid() && (p.has(f.Proto, f.Dst, f.Src) || p.has(f.Proto, f.Src, f.Dst)) {
			return true
		}
	}
	return false
}

// has says whether a socket has these ends.
func (p *Process) has(proto uint8, local, peer netip.AddrPort) bool {
	if local.Port() == 0 {
		return false
	}
	for e := range p.ends[localEnd{proto, local.Port()}] {
		at, to := e.Local.Addr().Unmap(), e.Peer.Addr().Unmap()
		if !at.IsUnspecified() && at != local.Addr().Unmap() {
			continue
		}
		if e.Peer.Port() == 0 || e.Peer.Port() == peer.Port() && to == peer.Addr().Unmap() {
			return true
		}
	}
	return false
}
