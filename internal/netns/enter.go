package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/netns/thread"
)

// Do runs fn on an OS thread in the network namespace that path leads to
// (/proc/PID/ns/net, /run/netns/NAME, /proc/self/fd/N) and returns its error.
// Goroutines that fn starts are not in the namespace, but sockets and files
// that it opens belong to it and may be used from anywhere; files of the
// namespace under /proc/net are found at /proc/thread-self/net. Nothing is
// left open, and the thread ends a moment after fn.
//
// To enter any namespace but its own, the program needs CAP_SYS_ADMIN. An
// error from before fn ran says what path is and names the capability.
func Do(path string, fn func() error) error { return do(path, 0, fn) }

// Do runs fn in the namespace, as [Do] does. It is an error if Path leads to
// another namespace by now: the numbers of processes and files are given again.
func (ns Namespace) Do(fn func() error) error { return do(ns.Path, ns.Inode, fn) }

func do(path string, want uint32, fn func() error) error {
	return thread.Do(func() error {
		if err := enter(path, want); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return fn()
	})
}

// errMoved is the error of a Namespace whose path leads elsewhere.
var errMoved = errors.New("it is another namespace by now")

// enter moves the calling thread. A want of 0 is any namespace.
func enter(path string, want uint32) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return needs(err, unix.EACCES, "CAP_SYS_PTRACE") // proc_ns_get_link of fs/proc/namespaces.c
	}
	defer unix.Close(fd)
	var to, here unix.Stat_t
	if err := unix.Fstat(fd, &to); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if want != 0 && uint32(to.Ino) != want {
		return errMoved
	}
	// setns asks for the capability even where it would change nothing
	// (netns_install of net/core/net_namespace.c).
	err = unix.Stat("/proc/thread-self/ns/net", &here)
	if err == nil && here.Dev == to.Dev && here.Ino == to.Ino {
		return nil
	}
	return needs(unix.Setns(fd, unix.CLONE_NEWNET), unix.EPERM, "CAP_SYS_ADMIN")
}

// needs adds the capability to an error that means that it is missing.
func needs(err error, missing unix.Errno, capability string) error {
	if errors.Is(err, missing) {
		return fmt.Errorf("%w: it needs %s", err, capability)
	}
	return err
}
