package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunFullRing sends into a tun device whose program does not read.
func tunFullRing() Scenario {
	return Scenario{
		Name:  "tun-full-ring",
		Title: "packets for a tun device whose reader is too slow: its ring is full",
		build: buildTun,
	}
}

const tunDevice = "tun0"

func buildTun(t *topology) (*rig, error) {
	const ring = 10
	fd, err := t.openTun()
	if err != nil {
		return nil, err
	}
	if err := t.configureTun(ring); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.host, wayOutNet.Addr(), farNet.Addr()); err != nil {
		return nil, err
	}
	r.device = tunDevice
	r.arm = func(context.Context) (sent uint64, err error) {
		err = t.host.Do(func() error {
			for ; sent < ring; sent++ {
				if err := r.emit(); err != nil {
					return err
				}
			}
			return nil
		})
		return sent, err
	}
	r.disarm = func() (uint64, error) { return drainTun(fd) }
	r.count(t.txDropped(tunDevice), tunDevice+" tx_dropped", "rtnetlink", "ip -s link show dev "+tunDevice)
	return r, nil
}

// openTun makes the device, which exists for as long as the file is open.
func (t *topology) openTun() (fd int, err error) {
	const file = "/dev/net/tun"
	err = t.host.Do(func() error {
		if fd, err = unix.Open(file, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return fmt.Errorf("open %s: %w", file, err)
		}
		req, err := unix.NewIfreq(tunDevice)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err != nil {
		return -1, fmt.Errorf("add tun device %s: %w", tunDevice, err)
	}
	t.onClose(func() error { return unix.Close(fd) })
	return fd, nil
}

// configureTun sets the length of the ring, gives the device an address and
// brings it up. It gets no queue in front of it: newer kernels have that wait
// for the ring, and without one they drop as they always did.
func (t *topology) configureTun(ring int) error {
	link, err := t.host.Link(tunDevice)
	if err != nil {
		return err
	}
	links := t.host.Links()
	if err := links.LinkSetTxQLen(link, ring); err != nil {
		return fmt.Errorf("set txqueuelen %d of %s: %w", ring, tunDevice, err)
	}
	if err := links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", tunDevice, err)
	}
	err = links.QdiscReplace(&netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Parent: netlink.HANDLE_ROOT},
		QdiscType:  "noqueue",
	})
	if err != nil {
		return fmt.Errorf("replace qdisc of %s: %w", tunDevice, err)
	}
	return t.host.AddAddr(tunDevice, wayOutNet)
}

// drainTun reads all that is in the ring and returns how many packets it was.
func drainTun(fd int) (read uint64, err error) {
	buf := make([]byte, 1<<11)
	for {
		_, err := unix.Read(fd, buf)
		switch {
		case err == nil:
			read++
		case errors.Is(err, unix.EAGAIN):
			return read, nil
		case !errors.Is(err, unix.EINTR):
			return read, fmt.Errorf("read from %s: %w", tunDevice, err)
		}
	}
}
