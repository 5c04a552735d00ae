package counter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"

	"github.com/whydrop/whydrop/record"
)

// devSNMP6Source names all the files at once: what is only there above 0 can
// be new only where each of them was read before.
const devSNMP6Source = "/proc/net/dev_snmp6"

// maxSNMP6Devices is how many devices' files are read. Each takes the kernel
// some 10 µs.
const maxSNMP6Devices = 256

// readDevSNMP6 adds the IPv6 counters of each device of the thread's
// namespace that is not 0.
func (s *Snapshot) readDevSNMP6() { s.readDevSNMP6In(thread + "/dev_snmp6") }

func (s *Snapshot) readDevSNMP6In(dir string) {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return // without IPv6
	}
	if err != nil {
		s.miss(devSNMP6Source, err)
		return
	}
	defer root.Close()
	names, err := devicesOf(root)
	if err != nil {
		s.miss(devSNMP6Source, err)
		return
	}
	set := fileSet{}
	var errs []error
	for _, name := range names[:min(len(names), maxSNMP6Devices)] {
		f := openFile{file: file{name: name}}
		text, err := set.content(&directory{root: root}, &f)
		f.close()
		if err == errAbsent {
			continue // the device is gone
		}
		if err == nil {
			var values []Value
			values, err = parseDevSNMP6(text, name)
			s.Values = append(s.Values, values...)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := parseError(devSNMP6Source, errs...); err != nil {
		s.miss(devSNMP6Source, err)
	}
	if over := len(names) - maxSNMP6Devices; over > 0 {
		s.miss(devSNMP6Source, fmt.Errorf("it has files of more than %d devices", maxSNMP6Devices))
	}
}

// devicesOf are the names of the files, at most one more than are read.
func devicesOf(root *os.Root) ([]string, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxSNMP6Devices + 1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// parseDevSNMP6 makes counters of the file of a device: a line with its index,
// then a line for each counter (net/ipv6/proc.c, snmp6_dev_seq_show). They have
// a table of their own, because they do not add up to those of the namespace:
// what belongs to no device is only there.
func parseDevSNMP6(text []byte, device string) ([]Value, error) {
	first, rest, ok := bytes.Cut(text, []byte{'\n'})
	if len(text) == 0 {
		return nil, nil
	}
	name, index := word(first)
	number, _ := word(index)
	v, isNumber := decimal(number)
	if !ok || !bytes.Equal(name, []byte("ifIndex")) || !isNumber || v == 0 || v > math.MaxInt32 {
		return nil, fmt.Errorf("device %q: line %q is not its index", device, clip(first))
	}
	command := "cat " + devSNMP6Source + "/" + quote(device)
	s := sheet{
		source: devSNMP6Source, table: []byte("dev_snmp6"), device: record.Device{Index: uint32(v), Name: device},
		command: func(string, string, bool) string { return command },
	}
	if err := scanOneTable(&s, rest); err != nil {
		return nil, fmt.Errorf("device %q: %w", device, err)
	}
	return slices.DeleteFunc(s.all(), func(v Value) bool { return v.Value == 0 }), nil
}
