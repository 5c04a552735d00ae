package netns

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Cookie is a number that no other network namespace of this boot has, unlike
// the inode, which the kernel gives again: that of the calling thread's. Kernels
// before 5.14 do not tell it (net/core/sock.c, SO_NETNS_COOKIE), which is an
// error too.
func Cookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("cookie of network namespace: %w", os.NewSyscallError("getsockopt", err))
	}
	return cookie, nil
}
