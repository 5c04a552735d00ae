package counter

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// ethtoolNL is ethtool's family of generic netlink and the strings that it was
// asked for.
type ethtoolNL struct {
	kernelnet.Family
	sets map[uint32][]string
}

// all asks about all devices at once. The kernel ends that at the first device
// whose driver answers with an error other than that it has no such thing
// (net/ethtool/netlink.c, ethnl_default_dumpit); then each is asked by itself,
// and source is missing of those that fail.
func (e *ethtoolNL) all(s *Snapshot, source string, command uint8, header int, flags uint32, attrs kernelnet.Message) ([][]byte, error) {
	head := func(index uint32) kernelnet.Message {
		var b kernelnet.Message
		if index != 0 {
			b = b.Attr32(unix.ETHTOOL_A_HEADER_DEV_INDEX, index)
		}
		return append(kernelnet.Message{}.Nest(header, b.Attr32(unix.ETHTOOL_A_HEADER_FLAGS, flags)), attrs...)
	}
	messages, err := genlDump(e.Family, command, head(0))
	if err == nil || genlUnsupported(err) || errors.Is(err, unix.EINVAL) {
		return messages, err
	}
	messages = nil
	var errs []error
	for _, d := range s.devices() {
		m, err := genlAsk(e.Family, command, 0, head(d.Index))
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
	var want kernelnet.Message
	for _, set := range sets {
		if _, known := e.sets[set]; known {
			continue
		}
		e.sets[set] = nil
		want = want.Nest(unix.ETHTOOL_A_STRINGSETS_STRINGSET, kernelnet.Message{}.Attr32(unix.ETHTOOL_A_STRINGSET_ID, set))
	}
	if want == nil {
		return nil
	}
	attrs := kernelnet.Message{}.Nest(unix.ETHTOOL_A_STRSET_HEADER, nil).Nest(unix.ETHTOOL_A_STRSET_STRINGSETS, want)
	messages, err := genlAsk(e.Family, unix.ETHTOOL_MSG_STRSET_GET, 0, attrs)
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
	nested := func(b []byte, kind int, each func(content []byte)) {
		errs = append(errs, kernelnet.Attributes(b, 0, func(k int, content []byte) {
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
	_ = kernelnet.Attributes(b, 0, func(kind int, content []byte) {
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
