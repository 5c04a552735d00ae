package fact

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fecParam is struct ethtool_fecparam (include/uapi/linux/ethtool.h).
type fecParam struct {
	cmd, active, configured, _ uint32
}

// rxnfc is struct ethtool_rxnfc; what a rule matches (struct
// ethtool_rx_flow_spec) is only room here.
type rxnfc struct {
	cmd, flow uint32
	data      uint64
	rule      struct {
		_      [148]byte
		cookie uint64
		at     uint32
	}
	count uint32
}

// driverFields adds what netlink does not tell, or not on every kernel: the
// driver, the modes of error correction, and how many ntuple rules there are.
func driverFields(device string, f fields) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	return withoutModules(func() error {
		var info unix.EthtoolDrvinfo
		info.Cmd = unix.ETHTOOL_GDRVINFO
		fec := fecParam{cmd: unix.ETHTOOL_GFECPARAM}
		rules := rxnfc{cmd: unix.ETHTOOL_GRXCLSRLCNT}
		var errs []error
		get := func(what string, data unsafe.Pointer) bool {
			err := ethtoolIoctl(fd, device, data)
			if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
				errs = append(errs, fmt.Errorf("%s: %w", what, err))
			}
			return err == nil
		}
		if get("driver", unsafe.Pointer(&info)) {
			f["driver"], f["version"] = text(info.Driver[:]), text(info.Version[:])
			f["firmware"], f["bus"] = text(info.Fw_version[:]), text(info.Bus_info[:])
		}
		if get("FEC", unsafe.Pointer(&fec)) {
			f["fec"], f["fec_active"] = fecNames(fec.configured), fecNames(fec.active)
		}
		if get("ntuple rules", unsafe.Pointer(&rules)) {
			f["ntuple_rules"] = decimal(rules.count)
		}
		return errors.Join(errs...)
	})
}

// withoutModules runs fn, which may give an ioctl the name of a device that has
// gone. For such a name the kernel looks for a module netdev-NAME, and for one
// that is called so, if the thread has CAP_NET_ADMIN or CAP_SYS_MODULE
// (net/core/dev_ioctl.c, dev_load). Reading needs neither, so the thread does
// without for as long.
func withoutModules(fn func() error) (err error) {
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
