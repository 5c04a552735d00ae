package fact

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// linkSettings is struct ethtool_link_settings without its masks, and room for
// them (include/uapi/linux/ethtool.h).
type linkSettings struct {
	cmd, speed                       uint32
	duplex, port, phyAddress         uint8
	autoneg, mdioSupport, tpMDIX     uint8
	tpMDIXCtrl                       uint8
	words                            int8
	transceiver, masterCfg, masterSt uint8
	rateMatching                     uint8
	_                                [7]uint32
	_                                [3 * 127]uint32
}

// linkSpeed asks for the speed of a device in Mbit/s, and whether it sends and
// receives at once. A device without a speed, or without carrier, gives
// "unknown". The device must exist: for a name that does not, the kernel would
// look for a module (dev_load of net/core/dev_ioctl.c).
func linkSpeed(dev string) (speed, duplex string, err error) {
	fd, err := kernelnet.IoctlSocket()
	if err != nil {
		return "", "", err
	}
	defer unix.Close(fd)
	s := &linkSettings{cmd: unix.ETHTOOL_GLINKSETTINGS}
	// The first answer says, below 0, how many words the masks have.
	for range 2 {
		if err := kernelnet.Ethtool(fd, dev, unsafe.Pointer(s)); err != nil {
			return "", "", fmt.Errorf("ask for the link settings of %s: %w", dev, err)
		}
		if s.words >= 0 {
			break
		}
		s.cmd, s.words = unix.ETHTOOL_GLINKSETTINGS, -s.words
	}
	speed, duplex = "unknown", "unknown"
	const speedUnknown = 0xffffffff // SPEED_UNKNOWN
	if s.speed != 0 && s.speed != speedUnknown {
		speed = decimal(s.speed)
	}
	switch s.duplex {
	case 0:
		duplex = "half"
	case 1:
		duplex = "full"
	}
	return speed, duplex, nil
}
