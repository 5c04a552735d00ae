package fact

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// readBridgePorts gives a bridge and each of its ports, by the name of the
// bridge or of any of its ports.
func readBridgePorts(q *query) error {
	q.source, q.command = "RTM_GETLINK", "bridge -d link show; bridge vlan show"
	bridge, err := bridgeOf(q.arg)
	if err != nil || bridge == nil {
		return err
	}
	vlans, err := bridgeVLANs()
	if err != nil {
		return fmt.Errorf("%s: %w", q.arg, err)
	}
	q.add(bridge.name, "bridge", bridgeFields(bridge, vlans))
	ports, err := portsOf(bridge.index)
	if err != nil {
		return fmt.Errorf("%s: %w", q.arg, err)
	}
	shown := min(len(ports), maxPorts)
	for _, p := range ports[:shown] {
		q.add(p.name, p.fields["port_state"], bridgeFields(p, vlans))
	}
	q.left(len(ports)-shown, "ports of "+bridge.name)
	return nil
}

// maxPorts is how many ports of a bridge are given. A bridge can have 1023
// (BR_MAX_PORTS of net/bridge/br_private.h).
const maxPorts = 1023

// portFields are the fields of a link that matter on the way through a bridge.
var portFields = []string{
	"address", "kind", "mtu", "up", "carrier", "bridge_vlan_filtering", "bridge_nf_call_iptables", "bridge_stp_state",
	"port_state", "port_isolated", "port_hairpin", "port_learning", "port_flood", "port_mcast_flood", "port_bcast_flood", "port_locked",
}

func bridgeFields(d *device, vlans map[uint32]portVLANs) fields {
	out := fields{"vlans": "", "pvid": "0"}
	for _, name := range portFields {
		if v, ok := d.fields[name]; ok {
			out[name] = v
		}
	}
	if v, ok := vlans[d.index]; ok {
		out["vlans"], out["pvid"] = strings.Join(v.list, " "), decimal(v.pvid)
	}
	return out
}

// bridgeOf is the bridge of that name, or the one that the device of that name
// is a port of; nil where it is neither.
func bridgeOf(name string) (*device, error) {
	d, err := deviceByName(name)
	switch {
	case errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, err
	case d.fields["kind"] == "bridge":
		return d, nil
	case d.fields["port_kind"] != "bridge" || d.master == 0:
		return nil, nil
	}
	return getDevice(d.master, nil)
}

// portsOf are the ports of a bridge by their names.
func portsOf(bridge uint32) ([]*device, error) {
	var ports []*device
	m := ifinfo(0).Attr32(unix.IFLA_MASTER, bridge)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, m, func() { ports = nil }, func(b []byte) error {
		d, err := parseDevice(b)
		if err == nil && d.master == bridge {
			ports = append(ports, d)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list ports: %w", err)
	}
	slices.SortFunc(ports, func(a, b *device) int { return strings.Compare(a.name, b.name) })
	return ports, nil
}

// portVLANs are the VLANs that a port, or the bridge itself, lets through: "5"
// or "7-9", and the one of frames without a tag, 0 where they are refused.
type portVLANs struct {
	list []string
	pvid uint16
}

// bridgeVLANs are those of all ports and bridges of the namespace. A bridge
// without VLAN filtering has them too, and does not look at them.
func bridgeVLANs() (map[uint32]portVLANs, error) {
	const compressed = 4 // RTEXT_FILTER_BRVLAN_COMPRESSED of include/uapi/linux/rtnetlink.h
	all := map[uint32]portVLANs{}
	m := message{}.U8(unix.AF_BRIDGE, 0).U16(0).U32(0).U32(0).U32(0).Attr32(unix.IFLA_EXT_MASK, compressed)
	err := kernelnet.Dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, unix.RTM_NEWLINK, m, func() { clear(all) }, func(b []byte) error {
		index, v, err := parseVLANs(b)
		if len(v.list) > 0 {
			all[index] = v
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list VLANs: %w", err)
	}
	return all, nil
}

// parseVLANs reads IFLA_BRIDGE_VLAN_INFO of a link of the family AF_BRIDGE
// (include/uapi/linux/if_bridge.h, struct bridge_vlan_info).
func parseVLANs(b []byte) (index uint32, v portVLANs, err error) {
	const (
		vlanInfo                   = 2
		pvid, rangeBegin, rangeEnd = 1 << 1, 1 << 3, 1 << 4
	)
	if len(b) < unix.SizeofIfInfomsg {
		return 0, v, kernelnet.ErrShort
	}
	var first uint16
	var bad error
	one := func(t int, info []byte) {
		if t != vlanInfo || len(info) != 4 {
			return
		}
		flags, id := native.Uint16(info), native.Uint16(info[2:])
		if flags&pvid != 0 {
			v.pvid = id
		}
		switch {
		case flags&rangeBegin != 0:
			first = id
		case flags&rangeEnd != 0:
			v.list = append(v.list, decimal(first)+"-"+decimal(id))
		default:
			v.list = append(v.list, decimal(id))
		}
	}
	err = kernelnet.Attributes(b, unix.SizeofIfInfomsg, func(t int, content []byte) {
		if t == unix.IFLA_AF_SPEC {
			bad = errors.Join(bad, kernelnet.Attributes(content, 0, one))
		}
	})
	return native.Uint32(b[4:]), v, errors.Join(err, bad)
}

// checkFDB accepts MAC DEV.
func checkFDB(arg string) error {
	_, _, err := parseFDBArg(arg)
	return err
}

func parseFDBArg(arg string) (mac net.HardwareAddr, dev string, err error) {
	words := strings.Split(arg, " ")
	if len(words) != 2 {
		return nil, "", fmt.Errorf("argument %q: want MAC DEV", arg)
	}
	mac, err = net.ParseMAC(words[0])
	if err != nil || len(mac) != 6 {
		return nil, "", fmt.Errorf("argument %q: not a MAC address", words[0])
	}
	return mac, words[1], checkDevice(words[1])
}

// readFDB asks to which port a bridge sends frames for a MAC address, which
// kernels answer since 5.0 (rtnl_fdb_get of net/core/rtnetlink.c).
func readFDB(q *query) error {
	mac, dev, err := parseFDBArg(q.arg)
	if err != nil {
		return err
	}
	q.source, q.command = "RTM_GETNEIGH", "bridge fdb show | grep -i "+mac.String()
	bridge, err := bridgeOf(dev)
	if err != nil || bridge == nil {
		return err
	}
	q.command = fmt.Sprintf("bridge fdb get %s br %s", mac, shell(bridge.name))
	m := message{}.U8(unix.AF_BRIDGE, 0).U16(0).U32(0).U32(0).Attr(unix.NDA_LLADDR, mac).Attr32(unix.NDA_MASTER, bridge.index)
	b, err := get(unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, m)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w", q.arg, err)
	}
	n, err := neighHead(b)
	if err != nil {
		return err
	}
	if n.index == bridge.index {
		q.add(q.arg, bridge.name, fields{"bridge": bridge.name})
		return nil
	}
	port, err := getDevice(n.index, nil)
	if err != nil {
		return fmt.Errorf("port of %s: %w", q.arg, err)
	}
	f := bridgeFields(port, nil)
	f["bridge"] = bridge.name
	delete(f, "vlans")
	delete(f, "pvid")
	q.add(q.arg, port.name, f)
	return nil
}
