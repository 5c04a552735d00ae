package kernelnet

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// IoctlSocket opens a socket of the calling thread's namespace for ioctls of
// devices. The caller closes it.
func IoctlSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		// A kernel without IPv4; netlink takes the same requests.
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	}
	if err != nil {
		return -1, fmt.Errorf("socket for ioctls: %w", err)
	}
	return fd, nil
}

// Ethtool hands a structure of include/uapi/linux/ethtool.h, which begins with
// its command, to the driver of a device. The kernel writes to it. The device
// must exist, or the call stand in WithoutModules.
func Ethtool(fd int, device string, data unsafe.Pointer) error {
	r := struct { // struct ifreq with ifr_data; it has at most 40 bytes
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [40 - unix.IFNAMSIZ - unsafe.Sizeof(uintptr(0))]byte
	}{data: data}
	if len(device) >= len(r.name) {
		return unix.EINVAL
	}
	copy(r.name[:], device)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(data)
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); e != 0 {
		return e
	}
	return nil
}

// WithoutModules runs fn, which may give an ioctl the name of a device that has
// gone. For such a name the kernel looks for a module netdev-NAME, and for one
// that is called so, if the thread has CAP_NET_ADMIN or CAP_SYS_MODULE
// (net/core/dev_ioctl.c, dev_load). Reading needs neither, so the thread does
// without for as long.
func WithoutModules(fn func() error) (err error) {
	runtime.LockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var now [2]unix.CapUserData
	if err := unix.Capget(&header, &now[0]); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("capget", err)
	}
	less := now
	less[0].Effective &^= 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_SYS_MODULE
	if less == now {
		defer runtime.UnlockOSThread()
		return fn()
	}
	if err := unix.Capset(&header, &less[0]); err != nil {
		runtime.UnlockOSThread()
		return os.NewSyscallError("capset", err)
	}
	defer func() {
		if back := unix.Capset(&header, &now[0]); back != nil {
			// Locked for good, the thread ends with the goroutine.
			err = errors.Join(err, fmt.Errorf("take back capabilities: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return fn()
}
