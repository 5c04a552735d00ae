// Package netlab makes throw-away network namespaces and joins them with veth
// pairs. The lab reproduces losses in them, and tests use them too.
//
// A namespace has no name: nothing is mounted under /run/netns, so the kernel
// removes it with all its devices when the last file descriptor goes away, and
// that also happens when the process is killed. The package must not touch the
// namespace that the process was started in, nor leave an OS thread of the
// process in another namespace where other goroutines could meet it.
package netlab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/netns/thread"
)

// Namespace is an unnamed network namespace with its loopback up and IPv6
// disabled.
type Namespace struct {
	fd    netns.NsHandle
	inode uint32
	links *netlink.Handle
}

// New makes a namespace. It needs CAP_SYS_ADMIN and a writable /proc/sys.
func New() (*Namespace, error) {
	n := &Namespace{fd: netns.None()}
	if err := thread.Do(n.create); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// create runs on the thread that moves into the new namespace.
func (n *Namespace) create() error {
	var err error
	if n.fd, err = netns.New(); err != nil {
		return fmt.Errorf("unshare network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(n.fd), &st); err != nil {
		return fmt.Errorf("stat network namespace: %w", err)
	}
	n.inode = uint32(st.Ino) // an unsigned int in the kernel: fs/proc/generic.c, proc_alloc_inum
	if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err)
	}
	// Without this every device that comes up sends and receives neighbour
	// discovery and multicast reports, and some of those are dropped.
	for _, dev := range []string{"all", "default"} {
		err := writeSysctl("net.ipv6.conf."+dev+".disable_ipv6", "1")
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6 in this kernel
			return err
		}
	}
	return n.up("lo")
}

// Close releases the namespace. The kernel removes it, and every device in it,
// a moment after its last socket and file are closed too. Close may be called
// again.
func (n *Namespace) Close() error {
	if n.links != nil {
		n.links.Close()
		n.links = nil
	}
	if !n.fd.IsOpen() {
		return nil
	}
	if err := n.fd.Close(); err != nil {
		return fmt.Errorf("close network namespace: %w", err)
	}
	return nil
}

// Inode is the number that /proc/PID/ns/net shows for the namespace.
func (n *Namespace) Inode() uint32 { return n.inode }

// Links is an rtnetlink handle of the namespace. It must not be used after
// Close: a closed handle of that library silently works on the namespace of
// the calling thread.
func (n *Namespace) Links() *netlink.Handle { return n.links }

// Do runs fn on an OS thread inside the namespace and returns its error.
// Sockets and files opened there stay in the namespace and may be used from
// anywhere afterwards. Goroutines that fn starts are not in the namespace.
func (n *Namespace) Do(fn func() error) error {
	return thread.Do(func() error {
		if err := netns.Set(n.fd); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return fn()
	})
}

// Open opens /proc/net/NAME of the namespace for reading. The file belongs to
// the namespace for as long as it is open, whichever thread reads it, and
// gives new content when it is read from its start again.
func (n *Namespace) Open(name string) (*os.File, error) {
	var f *os.File
	err := n.Do(func() error {
		var err error
		f, err = os.Open(filepath.Join("/proc/thread-self/net", name))
		return err
	})
	return f, err
}

// Sysctl sets a network setting of the namespace by its name as sysctl(8)
// spells it, for instance net.ipv4.conf.all.rp_filter. Device names with dots
// are not supported.
func (n *Namespace) Sysctl(name, value string) error {
	return n.Do(func() error { return writeSysctl(name, value) })
}

func writeSysctl(name, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	// Not os.WriteFile: it would create a file where the setting is missing.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s=%s: %w", name, value, err)
	}
	return nil
}

// Link is a device of the namespace as it is now, with its counters.
func (n *Namespace) Link(device string) (netlink.Link, error) {
	link, err := n.links.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", device, err)
	}
	return link, nil
}

func (n *Namespace) up(device string) error {
	link, err := n.Link(device)
	if err != nil {
		return err
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", device, err)
	}
	return nil
}
