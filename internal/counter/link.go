package counter

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

const linkSource = "rtnetlink RTM_GETLINK"

// readLinks reads all devices of the calling thread's namespace.
func readLinks(a *asker) ([][]byte, error) {
	return a.dump(unix.RTM_NEWLINK, func() *nl.NetlinkRequest {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		return req
	})
}

// stats64 are the fields of struct rtnl_link_stats64 in their order
// (include/uapi/linux/if_link.h). rx_nohandler came with 4.6 and
// rx_otherhost_dropped with 5.19; new ones come at the end.
func stats64() []string {
	return []string{
		"rx_packets", "tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors",
		"rx_dropped", "tx_dropped", "multicast", "collisions",
		"rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors", "rx_fifo_errors", "rx_missed_errors",
		"tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors", "tx_heartbeat_errors", "tx_window_errors",
		"rx_compressed", "tx_compressed", "rx_nohandler", "rx_otherhost_dropped",
	}
}

// u64table names the numbers of a structure of 64-bit counters that grows at
// its end. The names are made once for all devices.
type u64table struct {
	names []string
	more  string // begins the name of one that the kernel has added since
}

func newTable(table, more string, fields []string) u64table {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = table + "." + f
	}
	return u64table{names: names, more: table + "." + more}
}

// counts adds the counters of b.
func (t u64table) counts(a *adder, object string, b []byte) {
	for i := range len(b) / 8 {
		// What the kernel has added since has no name, but it counts.
		var name string
		if i < len(t.names) {
			name = t.names[i]
		} else {
			name = t.more + strconv.Itoa(i)
		}
		v, _ := u64(b, 8*i)
		a.count(name, object, v)
	}
}

// parseLinks makes counters of RTM_NEWLINK messages.
func parseLinks(messages [][]byte) ([]Value, error) {
	table := newTable("link", "stats64_", stats64())
	values := make([]Value, 0, (len(table.names)+3)*len(messages))
	var errs []error
	for _, m := range messages {
		var err error
		if values, err = parseLink(values, m, table); err != nil {
			errs = append(errs, err)
		}
	}
	return values, parseError(linkSource, errs...)
}

// parseLink adds the counters of one device. A device has all of them or none.
func parseLink(values []Value, m []byte, table u64table) ([]Value, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return values, fmt.Errorf("message of a device: %d bytes: %w", len(m), kernelnet.ErrShort)
	}
	index, _ := u32(m, 4)
	a := adder{source: linkSource, values: values}
	a.device.Index = uint32(index)
	var stats, info []byte
	carriers := [3][]byte{}
	err := kernelnet.Attributes(m, unix.SizeofIfInfomsg, func(kind int, content []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			a.device.Name = unix.ByteSliceToString(content)
		case unix.IFLA_STATS64:
			stats = content
		case unix.IFLA_LINKINFO:
			info = content
		case unix.IFLA_CARRIER_CHANGES:
			carriers[0] = content
		case unix.IFLA_CARRIER_UP_COUNT:
			carriers[1] = content
		case unix.IFLA_CARRIER_DOWN_COUNT:
			carriers[2] = content
		}
	})
	var extra []xvalue
	if err == nil {
		extra, err = parseLinkInfo(info)
	}
	if err != nil {
		return values, fmt.Errorf("device %d: %w", index, err)
	}
	if a.device.Index == 0 {
		return values, fmt.Errorf("device %q has no index", a.device.Name)
	}
	if len(stats) < 8 {
		return values, fmt.Errorf("device %d: statistics of %d bytes: %w", index, len(stats), kernelnet.ErrShort)
	}
	a.command = "ip -s -s link show dev " + quote(a.device.Name)
	table.counts(&a, "", stats)
	for i, name := range []string{"link.carrier_changes", "link.carrier_up_count", "link.carrier_down_count"} {
		if v, ok := u32(carriers[i], 0); ok {
			a.count(name, "", v)
		}
	}
	a.command = "ip -d -s link show dev " + quote(a.device.Name)
	for _, x := range extra {
		a.add("", x)
	}
	return a.values, nil
}

// The attributes of IFLA_LINKINFO that hold counters, with the number of 32
// bits that a kind of device or a kind of master has in its data
// (include/uapi/linux/if_link.h). fdb_n_learned came with 6.7, mcast_n_groups
// with 6.3.
const (
	brFDBLearned, brFDBMaxLearned = 48, 49
	brportGroups, brportMaxGroups = 41, 42
	bondSlaveLinkFailureCount     = 3
)

// parseLinkInfo parses what a bridge, a port of one, the member of a bond and
// a CAN device count besides.
func parseLinkInfo(info []byte) (values []xvalue, err error) {
	var kind, slaveKind string
	var data, xstats, slaveData []byte
	err = kernelnet.Attributes(info, 0, func(attr int, content []byte) {
		switch attr {
		case nl.IFLA_INFO_KIND:
			kind = unix.ByteSliceToString(content)
		case nl.IFLA_INFO_DATA:
			data = content
		case nl.IFLA_INFO_XSTATS:
			xstats = content
		case nl.IFLA_INFO_SLAVE_KIND:
			slaveKind = unix.ByteSliceToString(content)
		case nl.IFLA_INFO_SLAVE_DATA:
			slaveData = content
		}
	})
	if err != nil {
		return nil, err
	}
	number := func(name string, level bool) func([]byte) {
		return func(b []byte) {
			if v, ok := u32(b, 0); ok {
				values = append(values, xvalue{name: name, value: v, level: level})
			}
		}
	}
	switch kind {
	case "bridge":
		err = pick(data, map[int]func([]byte){
			brFDBLearned:    number("bridge.fdb_n_learned", true),
			brFDBMaxLearned: number("bridge.fdb_max_learned", true),
		})
	case "can":
		values = append(values, parseFields(canStats(), xstats)...)
	}
	if err != nil {
		return nil, err
	}
	switch slaveKind {
	case "bond":
		err = pick(slaveData, map[int]func([]byte){
			bondSlaveLinkFailureCount: number("bond.link_failure_count", false),
		})
	case "bridge":
		err = pick(slaveData, map[int]func([]byte){
			brportGroups:    number("bridge.mcast_n_groups", true),
			brportMaxGroups: number("bridge.mcast_max_groups", true),
		})
	}
	if err != nil {
		return nil, err
	}
	return values, nil
}

// pick hands the attributes that have a function to it.
func pick(b []byte, by map[int]func(content []byte)) error {
	return kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		if f, ok := by[kind]; ok {
			f(content)
		}
	})
}

// canStats are the fields of struct can_device_stats
// (include/uapi/linux/can/netlink.h).
func canStats() []xfield {
	return []xfield{
		{name: "can.bus_error", offset: 0, size: 4},
		{name: "can.error_warning", offset: 4, size: 4},
		{name: "can.error_passive", offset: 8, size: 4},
		{name: "can.bus_off", offset: 12, size: 4},
		{name: "can.arbitration_lost", offset: 16, size: 4},
		{name: "can.restarts", offset: 20, size: 4},
	}
}
