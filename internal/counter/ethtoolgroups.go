package counter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
	"github.com/whydrop/whydrop/record"
)

// Sources of ethtool's netlink.
const (
	groupSource = "ethtool netlink STATS_GET"
	pauseSource = "ethtool netlink PAUSE_GET"
	fecSource   = "ethtool netlink FEC_GET"
)

// Attributes of include/uapi/linux/ethtool_netlink.h that x/sys does not name.
const (
	// ETHTOOL_A_STATS_*
	statsHeader, statsGroups, statsGroup = 2, 3, 4
	// ETHTOOL_A_STATS_GRP_*
	groupID, groupSet, groupStat              = 2, 3, 4
	groupHistRX, groupHistTX                  = 5, 6
	bucketLow, bucketHigh, bucketValue        = 7, 8, 9
	fecStats                                  = 5 // ETHTOOL_A_FEC_STATS
	fecHistLow, fecHistHigh, fecHistValue     = 2, 3, 4
	setStandard                               = 16 // ETH_SS_STATS_STD
	stringsetString, stringIndex, stringValue = 1, 1, 2
)

// readGenetlink adds the statistics that drivers keep under the names of the
// standards, and those of devlink. Both are families of generic netlink.
func (s *Snapshot) readGenetlink() {
	families, err := kernelnet.Families()
	if err != nil {
		s.miss("generic netlink", err)
		return
	}
	if f, ok := families[unix.ETHTOOL_GENL_NAME]; ok { // since 5.6
		e := ethtoolNL{Family: f, sets: map[uint32][]string{}}
		s.readGroups(&e)
		s.readEthtoolStats(&e, pauseSource, unix.ETHTOOL_MSG_PAUSE_GET, parsePause)
		s.readEthtoolStats(&e, fecSource, unix.ETHTOOL_MSG_FEC_GET, parseFEC)
	}
	if f, ok := families["devlink"]; ok {
		s.readDevlink(f)
	}
}

// readGroups adds the groups of STATS_GET, since 5.13: all that this kernel has.
func (s *Snapshot) readGroups(e *ethtoolNL) {
	err := e.learn(setStandard)
	if err != nil {
		// EOPNOTSUPP before 5.13.
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL) {
			s.miss(groupSource, err)
		}
		return
	}
	n := len(e.sets[setStandard])
	if n == 0 || n > 32 {
		s.miss(groupSource, fmt.Errorf("%d groups", n))
		return
	}
	bits := kernelnet.Message{}.Attr(unix.ETHTOOL_A_BITSET_NOMASK, nil).
		Attr32(unix.ETHTOOL_A_BITSET_SIZE, uint32(n)).Attr32(unix.ETHTOOL_A_BITSET_VALUE, uint32(1<<n-1))
	messages, err := e.all(s, groupSource, unix.ETHTOOL_MSG_STATS_GET, statsHeader, 0, kernelnet.Message{}.Nest(statsGroups, bits))
	if err == nil {
		err = e.learn(setsOf(messages)...)
	}
	if err != nil {
		s.missUnlessUnsupported(groupSource, err)
		return
	}
	s.addParsed(groupSource, messages, func(m []byte) ([]Value, error) { return parseGroups(m, e.sets) })
}

// readEthtoolStats adds the statistics that come with a setting if they are
// asked for (ETHTOOL_FLAG_STATS): of pause frames since 5.10, of FEC since 5.13.
func (s *Snapshot) readEthtoolStats(e *ethtoolNL, source string, command uint8, parse func([]byte) ([]Value, error)) {
	messages, err := e.all(s, source, command, 1, unix.ETHTOOL_FLAG_STATS, nil)
	if err != nil {
		s.missUnlessUnsupported(source, err)
		return
	}
	s.addParsed(source, messages, parse)
}

func (s *Snapshot) missUnlessUnsupported(source string, err error) {
	if !genlUnsupported(err) {
		s.miss(source, err)
	}
}

// addParsed adds what parse makes of each message, up to a bound.
func (s *Snapshot) addParsed(source string, messages [][]byte, parse func([]byte) ([]Value, error)) {
	var values []Value
	var errs []error
	for i, m := range messages {
		if len(values) >= maxHardware {
			errs = append(errs, fmt.Errorf("%d answers left out: %d values are enough", len(messages)-i, len(values)))
			break
		}
		v, err := parse(m)
		values = append(values, v...)
		errs = append(errs, err)
	}
	s.Values = append(s.Values, values...)
	if err := parseError(source, errs...); err != nil {
		s.miss(source, err)
	}
}

// setsOf are the string sets that the groups of the answers name and need.
func setsOf(messages [][]byte) []uint32 {
	var sets []uint32
	for _, m := range messages {
		_ = kernelnet.Attributes(m, 0, func(kind int, content []byte) {
			var set uint64
			var full bool
			if kind != statsGroup {
				return
			}
			_ = kernelnet.Attributes(content, 0, func(kind int, content []byte) {
				switch kind {
				case groupSet:
					set, _ = u32(content, 0)
				case groupStat:
					full = true
				}
			})
			if full {
				sets = append(sets, uint32(set))
			}
		})
	}
	return sets
}

// parseHeader reads the header of an answer: the device.
func parseHeader(b []byte) (d record.Device, err error) {
	err = kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case unix.ETHTOOL_A_HEADER_DEV_INDEX:
			v, _ := u32(content, 0)
			d.Index = uint32(v)
		case unix.ETHTOOL_A_HEADER_DEV_NAME:
			d.Name = unix.ByteSliceToString(content)
		}
	})
	return d, err
}

// parseGroups makes counters of a STATS_GET_REPLY: TABLE is the group, such as
// eth-mac, and FIELD the name that the standard gives the counter. sets are
// the kernel's strings.
func parseGroups(m []byte, sets map[uint32][]string) ([]Value, error) {
	var values []Value
	var d record.Device
	var errs []error
	errs = append(errs, kernelnet.Attributes(m, 0, func(kind int, content []byte) {
		switch kind {
		case statsHeader:
			var err error
			d, err = parseHeader(content)
			errs = append(errs, err)
		case statsGroup:
			v, err := parseGroup(content, sets)
			values = append(values, v...)
			errs = append(errs, err)
		}
	}))
	return deviceValues(values, d, groupSource, "ethtool -S "+quote(d.Name)+" --all-groups"), errors.Join(errs...)
}

// deviceValues says of values whose they are.
func deviceValues(values []Value, d record.Device, source, command string) []Value {
	if d.Index == 0 {
		return nil
	}
	for i := range values {
		values[i].Device, values[i].Source, values[i].Command = d, source, command
	}
	return values
}

func parseGroup(b []byte, sets map[uint32][]string) ([]Value, error) {
	var id, set uint64
	var values []Value
	err := kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case groupID:
			id, _ = u32(content, 0)
		case groupSet:
			set, _ = u32(content, 0)
		}
	})
	table := stringAt(sets[setStandard], int(uint16(id)), "group_")
	var errs []error
	errs = append(errs, err, kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case groupStat:
			errs = append(errs, kernelnet.Attributes(content, 0, func(kind int, content []byte) {
				if v, ok := u64(content, 0); ok {
					values = append(values, Value{Name: table + "." + stringAt(sets[uint32(set)], kind, "stat_"), Value: v})
				}
			}))
		case groupHistRX, groupHistTX:
			way := map[int]string{groupHistRX: "rx", groupHistTX: "tx"}[kind]
			v, err := parseBucket(content, table+"."+way+"-etherStatsPkts")
			values = append(values, v...)
			errs = append(errs, err)
		}
	}))
	return values, errors.Join(errs...)
}

// stringAt is a name of the kernel, or the number where it gave none.
func stringAt(strs []string, i int, otherwise string) string {
	if i < len(strs) && strs[i] != "" {
		return strs[i]
	}
	return otherwise + strconv.Itoa(i)
}

// parseBucket reads how many frames had a length: of low to high octets, where
// a high of 0 is no bound.
func parseBucket(b []byte, name string) ([]Value, error) {
	var low, high, n uint64
	has := false
	err := kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case bucketLow:
			low, _ = u32(content, 0)
		case bucketHigh:
			high, _ = u32(content, 0)
		case bucketValue:
			n, has = u64(content, 0)
		}
	})
	if err != nil || !has {
		return nil, err
	}
	switch { // as RFC 2819 and ethtool have it
	case high == 0:
		name += fmt.Sprintf("%dtoMaxOctets", low)
	case low == 0:
		name += fmt.Sprintf("%dOctets", high)
	default:
		name += fmt.Sprintf("%dto%dOctets", low, high)
	}
	return []Value{{Name: name, Value: n}}, nil
}

// parsePause makes counters of a PAUSE_GET_REPLY.
func parsePause(m []byte) ([]Value, error) {
	names := []string{unix.ETHTOOL_A_PAUSE_STAT_TX_FRAMES: "tx_pause_frames", unix.ETHTOOL_A_PAUSE_STAT_RX_FRAMES: "rx_pause_frames", 4: "tx_pause_storm_events"}
	return parseStats(m, unix.ETHTOOL_A_PAUSE_STATS, pauseSource, "ethtool --include-statistics -a ", func(kind int, content []byte) ([]Value, error) {
		v, ok := u64(content, 0)
		if !ok {
			return nil, fmt.Errorf("statistic %d: %d bytes: %w", kind, len(content), kernelnet.ErrShort)
		}
		return []Value{{Name: "pause." + stringAt(names, kind, "stat_"), Value: v}}, nil
	})
}

// parseStats makes counters of an answer that holds statistics besides a
// setting; each reads one of them.
func parseStats(m []byte, nest int, source, command string, each func(kind int, content []byte) ([]Value, error)) ([]Value, error) {
	var values []Value
	var d record.Device
	var errs []error
	errs = append(errs, kernelnet.Attributes(m, 0, func(kind int, content []byte) {
		switch kind {
		case 1: // ETHTOOL_A_*_HEADER
			var err error
			d, err = parseHeader(content)
			errs = append(errs, err)
		case nest:
			errs = append(errs, kernelnet.Attributes(content, 0, func(kind int, content []byte) {
				if kind == 1 { // padding
					return
				}
				v, err := each(kind, content)
				values = append(values, v...)
				errs = append(errs, err)
			}))
		}
	}))
	return deviceValues(values, d, source, command+quote(d.Name)), errors.Join(errs...)
}

// parseFEC makes counters of a FEC_GET_REPLY. Each is an array: the sum, and
// then each lane of the link where the device tells them apart
// (net/ethtool/fec.c, fec_stats_recalc).
func parseFEC(m []byte) ([]Value, error) {
	names := []string{2: "corrected_blocks", 3: "uncorrectable_blocks", 4: "corrected_bits"}
	const hist = 5 // since 6.18
	return parseStats(m, fecStats, fecSource, "ethtool --include-statistics --show-fec ", func(kind int, content []byte) ([]Value, error) {
		if kind == hist {
			return parseFECBin(content)
		}
		var values []Value
		name := "fec." + stringAt(names, kind, "stat_")
		for i := range len(content) / 8 {
			v := Value{Name: name, Value: binary.NativeEndian.Uint64(content[8*i:])}
			if i > 0 {
				v.Object = "lane " + strconv.Itoa(i-1)
			}
			values = append(values, v)
		}
		if len(content)%8 != 0 {
			return values, fmt.Errorf("statistic %d: %d bytes: %w", kind, len(content), kernelnet.ErrShort)
		}
		return values, nil
	})
}

// parseFECBin reads how many blocks had so many corrected symbols.
func parseFECBin(b []byte) ([]Value, error) {
	var low, high, n uint64
	has := false
	err := kernelnet.Attributes(b, 0, func(kind int, content []byte) {
		switch kind {
		case fecHistLow:
			low, _ = u32(content, 0)
		case fecHistHigh:
			high, _ = u32(content, 0)
		case fecHistValue:
			n, has = uintOf(content)
		}
	})
	if err != nil || !has {
		return nil, err
	}
	return []Value{{Name: "fec.hist", Object: fmt.Sprintf("bin %d-%d", low, high), Value: n}}, nil
}

// uintOf reads a number that takes 4 or 8 bytes as its value needs (NLA_UINT).
func uintOf(b []byte) (uint64, bool) {
	if len(b) == 4 {
		return u32(b, 0)
	}
	return u64(b, 0)
}
