package counter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ethtoolNL is ethtool's family of generic netlink and the strings that it was
// asked for.
type ethtoolNL struct {
	genlFamily
	sets map[uint32][]string
}

// all asks about all devices at once. The kernel ends that at the first device
// whose driver answers with an error other than that it has no such thing
// (net/ethtool/netlink.c, ethnl_default_dumpit); then each is asked by itself,
// and source is missing of those that fail.
func (e *ethtoolNL) all(s *Snapshot, source string, command uint8, header uint16, flags uint32, attrs []byte) ([][]byte, error) {
	head := func(index uint32) []byte {
		var b []byte
		if index != 0 {
			b = genlNumber(b, unix.ETHTOOL_A_HEADER_DEV_INDEX, index)
		}
		b = genlNumber(b, unix.ETHTOOL_A_HEADER_FLAGS, flags)
		return append(genlNest(nil, header, b), attrs...)
	}
	messages, err := e.dump(command, head(0))
	if err == nil || genlUnsupported(err) || errors.Is(err, unix.EINVAL) {
		return messages, err
	}
	messages = nil
	var errs []error
	for _, d := range s.devices() {
		m, err := e.ask(command, 0, head(d.Index))
		if err != nil && !genlUnsupported(err) && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
		}
		messages = append(messages, m...)
	}
	if err := parseError(source, errs...); err != nil {
		s.miss(source, err)
	}
	return messages, nil
}

// learn asks for the strings of sets that are not known yet.
func (e *ethtoolNL) learn(sets ...uint32) error {
	var want []byte
	for _, set := range sets {
		if _, known := e.sets[set]; known {
			continue
		}
		e.sets[set] = nil
		want = genlNest(want, unix.ETHTOOL_A_STRINGSETS_STRINGSET, genlNumber(nil, unix.ETHTOOL_A_STRINGSET_ID, set))
	}
	if want == nil {
		return nil
	}
	attrs := genlNest(nil, unix.ETHTOOL_A_STRSET_HEADER, nil)
	messages, err := e.ask(unix.ETHTOOL_MSG_STRSET_GET, 0, append(attrs, genlNest(nil, unix.ETHTOOL_A_STRSET_STRINGSETS, want)...))
	if err != nil {
		return err
	}
	for _, m := range messages {
		if err := parseStringSets(m, e.sets); err != nil {
			return err
		}
	}
	return nil
}

// maxStrings is more than any set has that is asked for.
const maxStrings = 1 << 12

// parseStringSets adds the strings of a STRSET_GET_REPLY to sets.
func parseStringSets(m []byte, sets map[uint32][]string) error {
	var errs []error
	nested := func(b []byte, kind uint16, each func(content []byte)) {
		errs = append(errs, attributes(b, func(k uint16, content []byte) {
			if k == kind {
				each(content)
			}
		}))
	}
	nested(m, unix.ETHTOOL_A_STRSET_STRINGSETS, func(b []byte) {
		nested(b, unix.ETHTOOL_A_STRINGSETS_STRINGSET, func(b []byte) {
			var id uint64
			var strs []string
			nested(b, unix.ETHTOOL_A_STRINGSET_ID, func(b []byte) { id, _ = u32(b, 0) })
			nested(b, unix.ETHTOOL_A_STRINGSET_STRINGS, func(b []byte) {
				nested(b, stringsetString, func(b []byte) { strs = appendString(strs, b) })
			})
			sets[uint32(id)] = strs
		})
	})
	return parseError("strings of ethtool netlink", errs...)
}

// appendString puts a string in the place that its index names.
func appendString(strs []string, b []byte) []string {
	index, value := uint64(maxStrings), ""
	_ = attributes(b, func(kind uint16, content []byte) {
		switch kind {
		case stringIndex:
			index, _ = u32(content, 0)
		case stringValue:
			value = unix.ByteSliceToString(content)
		}
	})
	if index >= maxStrings {
		return strs
	}
	for uint64(len(strs)) <= index {
		strs = append(strs, "")
	}
	strs[index] = value
	return strs
}
