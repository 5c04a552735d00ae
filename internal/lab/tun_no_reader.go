package lab

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tunNoReader sends by a tun device whose program has ended.
func tunNoReader() Scenario {
	return Scenario{
		Name:  "tun-no-reader",
		Title: "packets for a tun device that outlived its program, as when a VPN daemon has died",
		build: buildTunNoReader,
	}
}

func buildTunNoReader(t *topology) (*rig, error) {
	fd, err := t.attachTun()
	if err != nil {
		return nil, err
	}
	err = errors.Join(unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1), t.routeTun(), unix.Close(fd))
	if err != nil {
		return nil, fmt.Errorf("leave tun device %s: %w", tunDevice, err)
	}
	down := func(s netlink.LinkOperState) bool { return s == netlink.OperDown || s == netlink.OperLowerLayerDown }
	if err := t.awaitState(tunDevice, down); err != nil {
		return nil, err
	}
	r := newRig(t)
	if err := r.sendUDP(t, t.host, wayOutNet.Addr(), farNet.Addr()); err != nil {
		return nil, err
	}
	r.device = tunDevice
	r.repair = func() error { // the program is started again
		if fd, err = t.attachTun(); err != nil {
			return err
		}
		t.onClose(func() error { return unix.Close(fd) })
		return t.awaitState(tunDevice, func(s netlink.LinkOperState) bool { return !down(s) })
	}
	r.prove = func(_ context.Context, n uint64) (uint64, error) { return r.throughTun(fd, n) }
	return r, r.countUnsent(t, tunDevice)
}

// throughTun sends n packets, has the program of the device read them, and
// returns how many it did not get.
func (r *rig) throughTun(fd int, n uint64) (lost uint64, err error) {
	for sent := uint64(0); sent < n; {
		some := min(batch, n-sent)
		err := r.from.Do(func() error {
			for range some {
				if err := r.emit(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return lost, err
		}
		read, err := drainTun(fd)
		if err != nil {
			return lost, err
		}
		lost += some - min(some, read)
		sent += some
	}
	return lost, nil
}

// attachTun is the program of the tun device, which it makes if it is not
// there. The caller closes the file.
func (t *topology) attachTun() (fd int, err error) {
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
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return errors.Join(err, unix.Close(fd))
		}
		return nil
	})
	if err != nil {
		return -1, fmt.Errorf("attach to tun device %s: %w", tunDevice, err)
	}
	return fd, nil
}

// routeTun brings the device up and gives it an address.
func (t *topology) routeTun() error {
	link, err := t.host.Link(tunDevice)
	if err != nil {
		return err
	}
	if err := t.host.Links().LinkSetUp(link); err != nil {
		return fmt.Errorf("set device %s up: %w", tunDevice, err)
	}
	return t.host.AddAddr(tunDevice, wayOutNet)
}
