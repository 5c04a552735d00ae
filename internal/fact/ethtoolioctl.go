package fact

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	fd, err := kernelnet.IoctlSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return kernelnet.WithoutModules(func() error {
		var info unix.EthtoolDrvinfo
		info.Cmd = unix.ETHTOOL_GDRVINFO
		fec := fecParam{cmd: unix.ETHTOOL_GFECPARAM}
		rules := rxnfc{cmd: unix.ETHTOOL_GRXCLSRLCNT}
		var errs []error
		get := func(what string, data unsafe.Pointer) bool {
			err := kernelnet.Ethtool(fd, device, data)
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
