package fact

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// device is what RTM_GETLINK says of a device.
type device struct {
	index uint32
	name  string
	qlen  uint32
	// state is the operstate; fields those of the fact.
	state  string
	fields fields
	// master is the index of the bridge, bond or VRF that it belongs to; peer
	// that of the device it is joined to; both are 0 where there is none.
	master, peer uint32
	// peerNS is the number that the namespace of the peer has in this one;
	// elsewhere is false where both are in the same.
	peerNS    uint32
	elsewhere bool
}

// readLink gives the state of a device.
func readLink(q *query) error {
	q.source, q.command = "RTM_GETLINK", "ip -d link show dev "+shell(q.arg)
	d, err := deviceByName(q.arg)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	d.fields["master"] = ""
	if d.master != 0 {
		m, err := getDevice(d.master, nil)
		if err != nil {
			return fmt.Errorf("master of %s: %w", q.arg, err)
		}
		d.fields["master"] = m.name
	}
	if mtu, ok := d.peerMTU(); ok {
		d.fields["peer_mtu"] = mtu
	}
	q.add(q.arg, d.state, d.fields)
	return nil
}

// peerMTU asks for the other end of a veth pair. In another namespace that
// needs CAP_NET_ADMIN there, and that it has a number here, which the kernel
// gives it when asked for the link (rtnl_fill_link_netnsid of
// net/core/rtnetlink.c).
func (d *device) peerMTU() (mtu string, ok bool) {
	if d.fields["kind"] != "veth" || d.peer == 0 {
		return "", false
	}
	var ns *uint32
	if d.elsewhere {
		ns = &d.peerNS
	}
	peer, err := getDevice(d.peer, ns)
	if err != nil {
		return "", false
	}
	mtu, ok = peer.fields["mtu"]
	return mtu, ok
}

// ifinfo is struct ifinfomsg of include/uapi/linux/rtnetlink.h.
func ifinfo(index uint32) message {
	return message{}.u8(unix.AF_UNSPEC, 0).u16(0).u32(index).u32(0).u32(0)
}

// deviceByName finds a device. The old way (SIOCGIFINDEX) would have the
// kernel look for a module of that name (dev_load of net/core/dev_ioctl.c).
func deviceByName(name string) (*device, error) {
	d, err := askDevice(ifinfo(0).text(unix.IFLA_IFNAME, name))
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", name, err)
	}
	return d, nil
}

// getDevice asks for the device of that index; ns is the number of another
// namespace as this one knows it.
func getDevice(index uint32, ns *uint32) (*device, error) {
	m := ifinfo(index)
	if ns != nil {
		m = m.attr(unix.IFLA_IF_NETNSID, native.AppendUint32(nil, *ns))
	}
	d, err := askDevice(m)
	if err != nil {
		return nil, fmt.Errorf("find device %d: %w", index, err)
	}
	return d, nil
}

func askDevice(m message) (*device, error) {
	b, err := get(unix.RTM_GETLINK, unix.RTM_NEWLINK, m)
	if err != nil {
		return nil, err
	}
	return parseDevice(b)
}

// operstates are the names of IF_OPER_* (include/uapi/linux/if.h) that
// /sys/class/net/DEV/operstate shows (net/core/net-sysfs.c).
var operstates = []string{"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}

// parseDevice reads struct ifinfomsg and its attributes.
func parseDevice(b []byte) (*device, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, errShort
	}
	flags := native.Uint32(b[8:])
	d := &device{index: native.Uint32(b[4:]), state: operstates[0], fields: fields{
		"kind": "", "up": bit(flags&unix.IFF_UP != 0), "xdp": None,
	}}
	var bad error
	var port string
	var portData []byte
	err := eachAttr(b, unix.SizeofIfInfomsg, func(t int, v []byte) {
		switch t {
		case unix.IFLA_IFNAME:
			d.name = text(v)
		case unix.IFLA_ADDRESS:
			if len(v) == 6 {
				d.fields["address"] = net.HardwareAddr(v).String()
			}
		case unix.IFLA_MTU:
			put32(d.fields, "mtu", v)
		case unix.IFLA_TXQLEN:
			d.qlen, _ = u32(v)
			put32(d.fields, "qlen", v)
		case unix.IFLA_PROMISCUITY:
			put32(d.fields, "promiscuity", v)
		case unix.IFLA_CARRIER:
			if len(v) == 1 {
				d.fields["carrier"] = bit(v[0] != 0)
			}
		case unix.IFLA_OPERSTATE:
			if len(v) == 1 && int(v[0]) < len(operstates) {
				d.state = operstates[v[0]]
			}
		case unix.IFLA_MASTER:
			d.master, _ = u32(v)
		case unix.IFLA_LINK:
			d.peer, _ = u32(v)
		case unix.IFLA_LINK_NETNSID:
			d.peerNS, d.elsewhere = u32(v)
		case unix.IFLA_LINKINFO:
			bad = errors.Join(bad, eachAttr(v, 0, func(t int, v []byte) {
				switch t {
				case unix.IFLA_INFO_KIND:
					d.fields["kind"] = text(v)
				case unix.IFLA_INFO_SLAVE_KIND:
					port = text(v)
				case unix.IFLA_INFO_SLAVE_DATA:
					portData = v
				}
			}))
		case unix.IFLA_XDP:
			bad = errors.Join(bad, parseXDP(v, d.fields))
		}
	})
	if port == "bridge" {
		bad = errors.Join(bad, parseBridgePort(portData, d.fields))
	}
	return d, errors.Join(err, bad)
}

// portStates are the names of BR_STATE_* (include/uapi/linux/if_bridge.h) that
// bridge -d link shows.
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

// parseBridgePort reads IFLA_BRPORT_* (include/uapi/linux/if_link.h).
func parseBridgePort(b []byte, f fields) error {
	const state, isolated = 1, 33 // IFLA_BRPORT_STATE, IFLA_BRPORT_ISOLATED
	return eachAttr(b, 0, func(t int, v []byte) {
		switch {
		case len(v) != 1:
		case t == state && int(v[0]) < len(portStates):
			f["port_state"] = portStates[v[0]]
		case t == isolated:
			f["port_isolated"] = bit(v[0] != 0)
		}
	})
}

// parseXDP reads IFLA_XDP (include/uapi/linux/if_link.h). Programs may be
// attached in several modes at once; the one that sees packets first counts.
func parseXDP(b []byte, f fields) error {
	modes := []struct {
		name     string
		attached uint8
		id       int
	}{
		{"offload", 3, unix.IFLA_XDP_HW_PROG_ID},
		{"driver", 1, unix.IFLA_XDP_DRV_PROG_ID},
		{"generic", 2, unix.IFLA_XDP_SKB_PROG_ID},
	}
	var attached uint8
	ids := map[int][]byte{}
	err := eachAttr(b, 0, func(t int, v []byte) {
		if t == unix.IFLA_XDP_ATTACHED && len(v) == 1 {
			attached = v[0]
		}
		ids[t] = v
	})
	for _, m := range modes {
		id, has := ids[m.id]
		if attached == m.attached && !has {
			id, has = ids[unix.IFLA_XDP_PROG_ID]
		}
		if attached == m.attached || attached == xdpMulti && has {
			f["xdp"] = m.name
			put32(f, "xdp_id", id)
			break
		}
	}
	return err
}

// xdpMulti is XDP_ATTACHED_MULTI.
const xdpMulti = 4

func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}
