package counter

import (
	"fmt"
	"strconv"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

const linkSource = "rtnetlink RTM_GETLINK"

// readLinks reads all devices of the calling thread's namespace.
func readLinks() ([][]byte, error) {
	return dump(unix.RTM_NEWLINK, func() *nl.NetlinkRequest {
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

// parseLinks makes counters of RTM_NEWLINK messages.
func parseLinks(messages [][]byte) ([]Value, error) {
	var values []Value
	var errs []error
	for _, m := range messages {
		v, err := parseLink(m)
		values = append(values, v...)
		errs = append(errs, err)
	}
	return values, parseError(linkSource, errs...)
}

// parseLink makes counters of one device. A device has all of them or none.
func parseLink(m []byte) ([]Value, error) {
	if len(m) < unix.SizeofIfInfomsg {
		return nil, fmt.Errorf("message of a device: %d bytes: %w", len(m), errShort)
	}
	index, _ := u32(m, 4)
	d := record.Device{Index: uint32(index)}
	var stats []byte
	var carrier []Value
	err := attributes(m[unix.SizeofIfInfomsg:], func(kind uint16, content []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			d.Name = unix.ByteSliceToString(content)
		case unix.IFLA_STATS64:
			stats = content
		case unix.IFLA_CARRIER_CHANGES:
			carrier = appendU32(carrier, "link.carrier_changes", content)
		case unix.IFLA_CARRIER_UP_COUNT:
			carrier = appendU32(carrier, "link.carrier_up_count", content)
		case unix.IFLA_CARRIER_DOWN_COUNT:
			carrier = appendU32(carrier, "link.carrier_down_count", content)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("device %d: %w", index, err)
	}
	if d.Index == 0 {
		return nil, fmt.Errorf("device %q has no index", d.Name)
	}
	if len(stats) < 8 {
		return nil, fmt.Errorf("device %d: statistics of %d bytes: %w", index, len(stats), errShort)
	}
	values := make([]Value, 0, len(stats)/8+len(carrier))
	names := stats64()
	for i := range len(stats) / 8 {
		// What the kernel has added since has no name, but it counts.
		name := "stats64_" + strconv.Itoa(i)
		if i < len(names) {
			name = names[i]
		}
		v, _ := u64(stats, 8*i)
		values = append(values, Value{Name: "link." + name, Value: v})
	}
	values = append(values, carrier...)
	command := "ip -s -s link show dev " + quote(d.Name)
	for i := range values {
		values[i].Device, values[i].Source, values[i].Command = d, linkSource, command
	}
	return values, nil
}

func appendU32(values []Value, name string, content []byte) []Value {
	if v, ok := u32(content, 0); ok {
		values = append(values, Value{Name: name, Value: v})
	}
	return values
}
