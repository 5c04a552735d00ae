package fact

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// localAddr is an address of the host.
type localAddr struct {
	index  uint32
	addr   string
	prefix uint8
}

// readAddresses gives each local address; the value is its device.
func readAddresses(q *query) error {
	q.source, q.command = "RTM_GETADDR", "ip address show"
	var list []localAddr
	m := message{}.u8(unix.AF_UNSPEC, 0, 0, 0).u32(0)
	err := dump(unix.NETLINK_ROUTE, unix.RTM_GETADDR, unix.RTM_NEWADDR, m, func() { list = nil }, func(b []byte) error {
		a, err := parseLocalAddr(b)
		if a.addr != "" {
			list = append(list, a)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	names := deviceNames{}
	for _, a := range list {
		dev := names.of(a.index)
		q.add(a.addr, dev, fields{"dev": dev, "prefix": decimal(a.prefix)})
	}
	return nil
}

// deviceNames keeps the names of devices that were asked for.
type deviceNames map[uint32]string

// of returns "" for a device that is gone.
func (n deviceNames) of(index uint32) string {
	name, ok := n[index]
	if !ok {
		if d, err := getDevice(index, nil); err == nil {
			name = d.name
		}
		n[index] = name
	}
	return name
}

// parseLocalAddr reads struct ifaddrmsg and its attributes. On a
// point-to-point device IFA_ADDRESS is that of the peer and IFA_LOCAL the own
// (include/uapi/linux/if_addr.h).
func parseLocalAddr(b []byte) (localAddr, error) {
	var addr, local string
	err := eachAttr(b, unix.SizeofIfAddrmsg, func(t int, v []byte) {
		a := address(v)
		if !a.IsValid() {
			return
		}
		switch t {
		case unix.IFA_ADDRESS:
			addr = a.String()
		case unix.IFA_LOCAL:
			local = a.String()
		}
	})
	if err != nil {
		return localAddr{}, err
	}
	if local != "" {
		addr = local
	}
	return localAddr{index: native.Uint32(b[4:]), addr: addr, prefix: b[1]}, nil
}
