package fact

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	// devices are the fields that hold the index of a device.
	devices []string
	// xdp is IFLA_XDP.
	xdp []byte
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
	d.resolve(deviceNames{})
	d.addPeer()
	speed, duplex, err := d.speed()
	if err == nil {
		d.fields["speed"], d.fields["duplex"] = speed, duplex
	}
	q.add(q.arg, d.state, d.fields)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // which says that the driver has none
		q.missing(fmt.Sprintf("speed: %v", err))
	}
	return nil
}

// resolve puts the names of devices in the place of their indexes. One that is
// gone, or is in another namespace, keeps its number.
func (d *device) resolve(names deviceNames) {
	for _, f := range d.devices {
		n, err := strconv.ParseUint(d.fields[f], 10, 32)
		if err != nil || n == 0 {
			delete(d.fields, f)
			continue
		}
		if name := names.of(uint32(n)); name != "" {
			d.fields[f] = name
		}
	}
	if d.peer == 0 || d.peer == d.index && !d.elsewhere {
		return
	}
	d.fields["link"] = decimal(d.peer)
	if name := names.of(d.peer); name != "" && !d.elsewhere {
		d.fields["link"] = name
	}
}

// addPeer asks for the other end of a veth or netkit pair. In another
// namespace that needs CAP_NET_ADMIN there, and that it has a number here,
// which the kernel gives it when asked for the link (rtnl_fill_link_netnsid of
// net/core/rtnetlink.c).
func (d *device) addPeer() {
	if kind := d.fields["kind"]; kind != "veth" && kind != "netkit" || d.peer == 0 {
		return
	}
	var ns *uint32
	if d.elsewhere {
		ns = &d.peerNS
	}
	peer, err := getDevice(d.peer, ns)
	if err != nil {
		return
	}
	d.fields["peer"], d.fields["peer_mtu"], d.fields["peer_up"] = peer.name, peer.fields["mtu"], peer.fields["up"]
}

// ifinfo is struct ifinfomsg of include/uapi/linux/rtnetlink.h.
func ifinfo(index uint32) message {
	return message{}.U8(unix.AF_UNSPEC, 0).U16(0).U32(index).U32(0).U32(0)
}

// deviceByName finds a device. The old way (SIOCGIFINDEX) would have the
// kernel look for a module of that name (dev_load of net/core/dev_ioctl.c).
func deviceByName(name string) (*device, error) {
	d, err := askDevice(ifinfo(0).Text(unix.IFLA_IFNAME, name))
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
		m = m.Attr(unix.IFLA_IF_NETNSID, native.AppendUint32(nil, *ns))
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

// deviceFlags are IFF_* (include/uapi/linux/if.h) under the names of ip.
var deviceFlags = map[uint32]string{
	1 << 0: "UP", 1 << 1: "BROADCAST", 1 << 2: "DEBUG", 1 << 3: "LOOPBACK", 1 << 4: "POINTOPOINT", 1 << 5: "NOTRAILERS",
	1 << 7: "NOARP", 1 << 8: "PROMISC", 1 << 9: "ALLMULTI", 1 << 10: "MASTER", 1 << 11: "SLAVE", 1 << 12: "MULTICAST",
	1 << 13: "PORTSEL", 1 << 14: "AUTOMEDIA", 1 << 15: "DYNAMIC", 1 << 16: "LOWER_UP", 1 << 17: "DORMANT", 1 << 18: "ECHO",
}

// deviceParams are those of IFLA_* that need no more than their value.
var deviceParams = []param{
	{unix.IFLA_ADDRESS, "address", asMAC},
	{unix.IFLA_MTU, "mtu", asNumber},
	{unix.IFLA_QDISC, "qdisc", asText},
	{unix.IFLA_TXQLEN, "qlen", asNumber},
	{unix.IFLA_LINKMODE, "link_mode", asName("default", "dormant")},
	{unix.IFLA_IFALIAS, "alias", asText},
	{unix.IFLA_NUM_VF, "vfs", asNumber},
	{unix.IFLA_GROUP, "group", asNumber},
	{unix.IFLA_PROMISCUITY, "promiscuity", asNumber},
	{unix.IFLA_ALLMULTI, "allmulti", asNumber},
	{unix.IFLA_NUM_TX_QUEUES, "tx_queues", asNumber},
	{unix.IFLA_NUM_RX_QUEUES, "rx_queues", asNumber},
	{unix.IFLA_CARRIER, "carrier", asBool},
	{unix.IFLA_PHYS_PORT_NAME, "phys_port_name", asText},
	{unix.IFLA_PHYS_SWITCH_ID, "phys_switch_id", asPlainHex},
	{unix.IFLA_LINK_NETNSID, "link_netnsid", asSigned},
	{unix.IFLA_PROTO_DOWN, "proto_down", asBool},
	{unix.IFLA_GSO_MAX_SEGS, "gso_max_segs", asNumber},
	{unix.IFLA_GSO_MAX_SIZE, "gso_max_size", asNumber},
	{unix.IFLA_MIN_MTU, "min_mtu", asNumber},
	{unix.IFLA_MAX_MTU, "max_mtu", asNumber},
	{unix.IFLA_PERM_ADDRESS, "perm_address", asMAC},
	{unix.IFLA_PARENT_DEV_NAME, "parent_dev", asText},
	{unix.IFLA_PARENT_DEV_BUS_NAME, "parent_bus", asText},
	{unix.IFLA_GRO_MAX_SIZE, "gro_max_size", asNumber},
	{unix.IFLA_TSO_MAX_SIZE, "tso_max_size", asNumber},
	{unix.IFLA_TSO_MAX_SEGS, "tso_max_segs", asNumber},
	{unix.IFLA_GSO_IPV4_MAX_SIZE, "gso_ipv4_max_size", asNumber},
	{unix.IFLA_GRO_IPV4_MAX_SIZE, "gro_ipv4_max_size", asNumber},
	{iflaPacing, "max_pacing_offload_horizon", asNumber},
}

// iflaPacing is IFLA_MAX_PACING_OFFLOAD_HORIZON, nanoseconds (6.13).
const iflaPacing = 66

// parseDevice reads struct ifinfomsg and its attributes.
func parseDevice(b []byte) (*device, error) {
	if len(b) < unix.SizeofIfInfomsg {
		return nil, kernelnet.ErrShort
	}
	flags := native.Uint32(b[8:])
	d := &device{index: native.Uint32(b[4:]), state: operstates[0], fields: fields{
		"kind": "", "up": bit(flags&unix.IFF_UP != 0), "xdp": None, "index": decimal(native.Uint32(b[4:])),
	}}
	if s, ok := bitNames(flags, deviceFlags); ok {
		d.fields["flags"] = s
	}
	var bad error
	err := kernelnet.Attributes(b, unix.SizeofIfInfomsg, func(t int, v []byte) {
		switch t {
		case unix.IFLA_IFNAME:
			d.name = text(v)
		case unix.IFLA_TXQLEN:
			d.qlen, _ = u32(v)
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
		case unix.IFLA_PROP_LIST:
			bad = errors.Join(bad, d.altNames(v))
		case unix.IFLA_LINKINFO:
			bad = errors.Join(bad, d.linkInfo(v))
		case unix.IFLA_XDP:
			d.xdp = v
			bad = errors.Join(bad, parseXDP(v, d.fields))
		}
	})
	return d, errors.Join(err, bad, decode(b, unix.SizeofIfInfomsg, deviceParams, "", d.fields))
}

// altNames reads IFLA_PROP_LIST.
func (d *device) altNames(b []byte) error {
	var list []string
	err := kernelnet.Attributes(b, 0, func(t int, v []byte) {
		if t == unix.IFLA_ALT_IFNAME {
			list = append(list, text(v))
		}
	})
	if len(list) > 0 {
		d.fields["altnames"] = strings.Join(list, " ")
	}
	return err
}

// linkInfo reads IFLA_LINKINFO: what kind of device it is and of what kind it
// is a port, each with its parameters.
func (d *device) linkInfo(b []byte) error {
	var kind, port string
	var data, portData []byte
	err := kernelnet.Attributes(b, 0, func(t int, v []byte) {
		switch t {
		case unix.IFLA_INFO_KIND:
			kind = text(v)
		case unix.IFLA_INFO_DATA:
			data = v
		case unix.IFLA_INFO_SLAVE_KIND:
			port = text(v)
		case unix.IFLA_INFO_SLAVE_DATA:
			portData = v
		}
	})
	d.fields["kind"] = kind
	if port != "" {
		d.fields["port_kind"] = port
	}
	d.devices = slices.Concat(kindDevices[kind], portDevices[port])
	return errors.Join(err, decode(data, 0, kindParams[kind], kind+"_", d.fields), decode(portData, 0, portParams[port], "port_", d.fields))
}

// xdpMode is a mode that a program of XDP is attached in.
type xdpMode struct {
	name string
	id   uint32
}

// xdpModes reads IFLA_XDP (include/uapi/linux/if_link.h). Programs may be
// attached in several modes at once; the one that sees packets first is the
// first.
func xdpModes(b []byte) ([]xdpMode, error) {
	var attached uint8
	ids := map[int]uint32{}
	err := kernelnet.Attributes(b, 0, func(t int, v []byte) {
		if t == unix.IFLA_XDP_ATTACHED && len(v) == 1 {
			attached = v[0]
		} else if n, ok := u32(v); ok {
			ids[t] = n
		}
	})
	var list []xdpMode
	for _, m := range []struct {
		name     string
		attached uint8
		attr     int
	}{
		{"offload", 3, unix.IFLA_XDP_HW_PROG_ID},
		{"driver", 1, unix.IFLA_XDP_DRV_PROG_ID},
		{"generic", 2, unix.IFLA_XDP_SKB_PROG_ID},
	} {
		id, has := ids[m.attr]
		if attached == m.attached && !has {
			id = ids[unix.IFLA_XDP_PROG_ID]
		}
		if attached == m.attached || attached == xdpMulti && has {
			list = append(list, xdpMode{m.name, id})
		}
	}
	return list, err
}

// parseXDP sets the fields of the program that sees packets first.
func parseXDP(b []byte, f fields) error {
	modes, err := xdpModes(b)
	if len(modes) > 0 {
		f["xdp"], f["xdp_id"] = modes[0].name, decimal(modes[0].id)
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
