package fact

import (
	"errors"
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

// errRenamed is the error where a name may have been another device's.
var errRenamed = errors.New("the device was renamed meanwhile")

// speed asks for the speed of the device in Mbit/s, and whether it sends and
// receives at once. A device without a speed, or without carrier, gives
// "unknown".
func (d *device) speed() (speed, duplex string, err error) {
	err = kernelnet.WithoutModules(func() (err error) {
		speed, duplex, err = linkSpeed(d.name)
		return err
	})
	if err != nil {
		return "", "", err
	}
	now, err := getDevice(d.index, nil)
	if err != nil {
		return "", "", err
	}
	if now.name != d.name {
		return "", "", errRenamed
	}
	return speed, duplex, nil
}

// linkSpeed asks for the device that has a name now. For one that nothing has,
// the kernel may look for a module: see kernelnet.WithoutModules.
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
