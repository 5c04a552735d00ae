package fact

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// readEthtool gives the driver of a device and its settings, in one fact whose
// fields are those that the driver has.
func readEthtool(q *query) error {
	name := shell(q.arg)
	q.source = "SIOCETHTOOL, ethtool netlink"
	q.command = "for o in -i -g -l -c -k -a --show-fec -n -S; do ethtool $o " + name + "; done; ethtool " + name
	d, err := deviceByName(q.arg)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	f := fields{}
	err = errors.Join(driverFields(d.name, f), ethtoolFields(d.index, f))
	q.add(q.arg, f["driver"], f)
	if err != nil {
		q.missing(err.Error())
	}
	return nil
}

// ethtoolQuestion is a request of ethtool's netlink and what becomes of its
// answer. What the driver does not support is left out by the kernel.
type ethtoolQuestion struct {
	command      uint8
	what, prefix string
	params       []param
}

// ethtoolQuestions are the requests whose answers are numbers, with those of
// include/uapi/linux/ethtool_netlink.h (7.2) for their attributes.
func ethtoolQuestions() []ethtoolQuestion {
	return []ethtoolQuestion{
		{unix.ETHTOOL_MSG_LINKINFO_GET, "port", "", []param{{2, "port", asPort}}},
		{unix.ETHTOOL_MSG_LINKMODES_GET, "speed", "", []param{
			{2, "autoneg", asNumber}, {5, "speed", asSpeed}, {6, "duplex", asDuplex}, {9, "lanes", asNumber},
		}},
		{unix.ETHTOOL_MSG_LINKSTATE_GET, "link", "", []param{
			{2, "link", asNumber}, {3, "sqi", asNumber}, {4, "sqi_max", asNumber}, {7, "link_down_count", asNumber},
		}},
		{unix.ETHTOOL_MSG_RINGS_GET, "ring sizes", "ring_", append(
			inARow(2, "rx_max", "rx_mini_max", "rx_jumbo_max", "tx_max", "rx", "rx_mini", "rx_jumbo", "tx", "rx_buf_len"),
			append([]param{{11, "tcp_data_split", asSplit}},
				inARow(12, "cqe_size", "tx_push", "rx_push", "tx_push_buf_len", "tx_push_buf_len_max", "hds_thresh", "hds_thresh_max")...)...)},
		{unix.ETHTOOL_MSG_CHANNELS_GET, "channels", "channels_", inARow(2,
			"rx_max", "tx_max", "other_max", "combined_max", "rx", "tx", "other", "combined")},
		{unix.ETHTOOL_MSG_COALESCE_GET, "coalescing", "coalesce_", append(inARow(2,
			"rx_usecs", "rx_frames", "rx_usecs_irq", "rx_frames_irq", "tx_usecs", "tx_frames", "tx_usecs_irq", "tx_frames_irq",
			"stats_block_usecs", "adaptive_rx", "adaptive_tx",
			"pkt_rate_low", "rx_usecs_low", "rx_frames_low", "tx_usecs_low", "tx_frames_low",
			"pkt_rate_high", "rx_usecs_high", "rx_frames_high", "tx_usecs_high", "tx_frames_high",
			"sample_interval", "cqe_mode_tx", "cqe_mode_rx", "tx_aggr_max_bytes", "tx_aggr_max_frames", "tx_aggr_time_usecs"),
			// 29 and 30 are the profiles of adaptive coalescing.
			inARow(31, "rx_cqe_frames", "rx_cqe_nsecs")...)},
		{unix.ETHTOOL_MSG_PAUSE_GET, "pause", "pause_", inARow(2, "autoneg", "rx", "tx")},
	}
}

// inARow are params of numbers whose attributes follow each other.
func inARow(first int, names ...string) []param {
	var list []param
	for i, name := range names {
		list = append(list, param{first + i, name, asNumber})
	}
	return list
}

// asPort is a PORT_* of include/uapi/linux/ethtool.h.
func asPort(b []byte) (string, bool) {
	names := map[uint64]string{0: "tp", 1: "aui", 2: "mii", 3: "fibre", 4: "bnc", 5: "da", 0xef: "none", 0xff: "other"}
	n, ok := numeral(b)
	if name := names[n]; name != "" {
		return name, ok
	}
	return decimal(n), ok
}

// asSpeed is a speed in Mbit/s.
func asSpeed(b []byte) (string, bool) {
	n, ok := u32(b)
	if n == 0 || n == 0xffffffff { // SPEED_UNKNOWN
		return "unknown", ok
	}
	return decimal(n), ok
}

func asDuplex(b []byte) (string, bool) {
	n, ok := numeral(b)
	switch n {
	case 0:
		return "half", ok
	case 1:
		return "full", ok
	}
	return "unknown", ok
}

// asSplit is an ETHTOOL_TCP_DATA_SPLIT_*; 0 is unknown, and left out.
func asSplit(b []byte) (string, bool) {
	n, ok := numeral(b)
	switch n {
	case 1:
		return "off", ok
	case 2:
		return "on", ok
	}
	return "", false
}

// ethtoolFields asks each of the questions over netlink, which has them since
// 5.6 or 5.8.
func ethtoolFields(index uint32, f fields) error {
	families, err := kernelnet.Families()
	family, ok := families[unix.ETHTOOL_GENL_NAME]
	if !ok {
		return err
	}
	var errs []error
	get := func(command uint8, what string, parse func(b []byte) error) {
		header := message{}.Attr(unix.ETHTOOL_A_HEADER_DEV_INDEX, native.AppendUint32(nil, index))
		if err := family.Ask(command, 0, message{}.Nest(1, header), parse); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, e := range ethtoolQuestions() {
		get(e.command, e.what, func(b []byte) error { return decode(b, 0, e.params, e.prefix, f) })
	}
	get(unix.ETHTOOL_MSG_FEATURES_GET, "features", func(b []byte) error { return parseFeatures(b, f) })
	return errors.Join(errs...)
}

// parseFeatures adds a field for each feature, under the kernel's name: "on"
// or "off", then "fixed" where it cannot be changed, and "requested on" or
// "requested off" where it is not as somebody wanted it.
func parseFeatures(b []byte, f fields) error {
	const hw, wanted, active, nochange = 2, 3, 4, 5 // ETHTOOL_A_FEATURES_*
	sets := map[int]map[string]bool{}
	var errs []error
	errs = append(errs, kernelnet.Attributes(b, 0, func(t int, v []byte) {
		if t >= hw && t <= nochange {
			set, err := parseBitset(v)
			sets[t] = set
			errs = append(errs, err)
		}
	}))
	// The mask of HW has all that this kernel knows (net/ethtool/features.c,
	// features_fill_reply).
	for name, changeable := range sets[hw] {
		word := map[bool]string{true: "on", false: "off"}
		state := word[sets[active][name]]
		switch {
		case !changeable || sets[nochange][name]:
			state += " fixed"
		case sets[active][name] != sets[wanted][name]:
			state += " requested " + word[sets[wanted][name]]
		}
		f[name] = state
	}
	return errors.Join(errs...)
}

// parseBitset reads the names of a bit set and whether each is set
// (Documentation/networking/ethtool-netlink.rst). Of a set without a mask only
// those that are set are there.
func parseBitset(b []byte) (map[string]bool, error) {
	noMask := false
	set := map[string]bool{}
	var errs []error
	each := func(b []byte, fn func(t int, v []byte)) { errs = append(errs, kernelnet.Attributes(b, 0, fn)) }
	each(b, func(t int, _ []byte) { noMask = noMask || t == unix.ETHTOOL_A_BITSET_NOMASK })
	each(b, func(t int, v []byte) {
		if t != unix.ETHTOOL_A_BITSET_BITS {
			return
		}
		each(v, func(_ int, v []byte) {
			name, on := "", noMask
			each(v, func(t int, v []byte) {
				switch t {
				case unix.ETHTOOL_A_BITSET_BIT_NAME:
					name = text(v)
				case unix.ETHTOOL_A_BITSET_BIT_VALUE:
					on = true
				}
			})
			if name != "" {
				set[name] = on
			}
		})
	})
	return set, errors.Join(errs...)
}

// fecNames names the ETHTOOL_FEC_* of include/uapi/linux/ethtool.h.
func fecNames(bits uint32) string {
	var names []string
	for i, name := range []string{"none", "auto", "off", "rs", "baser", "llrs"} {
		if bits&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " ")
}
