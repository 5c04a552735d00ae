package counter

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/record"
)

const (
	driverSource = "ioctl ETHTOOL_GSTATS"
	phySource    = "ioctl ETHTOOL_GPHYSTATS"
)

// maxHardware bounds the values of each of the sources of drivers in a
// namespace: 2,000 veth devices have 70,000.
const maxHardware = 1 << 17

// statSet is one of the two lists of statistics that a driver may have.
type statSet struct {
	set     uint
	command uint32
	// table begins the names.
	table, source, show string
}

func statSets() []statSet {
	return []statSet{
		{setStats, unix.ETHTOOL_GSTATS, "ethtool.", driverSource, "ethtool -S "},
		{setPHYStats, unix.ETHTOOL_GPHYSTATS, "ethtool-phy.", phySource, "ethtool --phy-statistics "},
	}
}

// readEthtool adds the statistics that drivers keep under names of their own.
// It comes after readDevices, whose devices it asks.
func (s *Snapshot) readEthtool() {
	if !s.whole(linkSource) {
		s.miss(driverSource, errors.New("the list of devices could not be read to its end"))
	}
	var values []Value
	err := withoutModules(func() error {
		e, err := openEthtool()
		if err != nil {
			return err
		}
		var errs []error
		for i, d := range s.devices() {
			if len(values) >= maxHardware {
				errs = append(errs, fmt.Errorf("%d devices left out: %d values are enough", len(s.devices())-i, len(values)))
				break
			}
			v, err := e.device(d)
			values = append(values, v...)
			if err != nil {
				errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
			}
		}
		return errors.Join(parseError(driverSource, errs...), e.close())
	})
	s.Values = append(s.Values, values...)
	if err != nil {
		s.miss(driverSource, err)
	}
}

// devices are those that the list of devices gave, each once, in its order.
func (s *Snapshot) devices() []record.Device {
	var list []record.Device
	for _, v := range s.Values {
		if v.Name == "link.rx_packets" && v.Device.Index != 0 {
			list = append(list, v.Device)
		}
	}
	return list
}

// device reads both lists of a device. One that went away has none.
func (e *ethtoolIoctl) device(d record.Device) ([]Value, error) {
	const tries = 3
	var err error
	for range tries {
		name, gone := e.name(d.Index)
		if errors.Is(gone, unix.ENODEV) {
			return nil, nil
		}
		if gone != nil {
			return nil, fmt.Errorf("SIOCGIFNAME: %w", gone)
		}
		var values []Value
		values, err = e.deviceNamed(record.Device{Index: d.Index, Name: name})
		// The ioctls go by the name, which may be another device's by now.
		if now, gone := e.name(d.Index); gone == nil && now != name {
			err = errChanged
			continue
		} else if errors.Is(gone, unix.ENODEV) {
			return nil, nil
		}
		if !errors.Is(err, errChanged) {
			return values, err
		}
	}
	return nil, err
}

func (e *ethtoolIoctl) deviceNamed(d record.Device) ([]Value, error) {
	counts, err := e.counts(d.Name, setStats, setPHYStats)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var values []Value
	var errs []error
	for _, set := range statSets() {
		n := counts[set.set]
		if n > maxStats {
			errs = append(errs, fmt.Errorf("%d statistics, which is more than %d", n, maxStats))
		}
		if n == 0 || n > maxStats {
			continue
		}
		names, err := e.strings(d.Name, set.set, n)
		var numbers []uint64
		if err == nil {
			numbers, err = e.stats(d.Name, set.command, n)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		values = append(values, set.values(d, names, numbers)...)
	}
	return values, errors.Join(errs...)
}

// values makes counters of a driver's strings and numbers. Where a driver has
// no number of the whole for what it counts for each queue, the sum is added.
func (set statSet) values(d record.Device, names []string, numbers []uint64) []Value {
	stats := statNames(names, numbers)
	values := make([]Value, 0, len(stats))
	command := set.show + quote(d.Name)
	var wholes wholes
	for i, st := range stats {
		if st.header || st.name == "" || i >= len(numbers) {
			continue
		}
		v := Value{
			Name: set.table + st.name, Device: d, Object: st.object, Level: st.level, Value: numbers[i],
			Source: set.source, Command: command,
		}
		values = append(values, v)
		wholes.add(v)
	}
	return append(values, wholes.values()...)
}

// wholes are the sums of parts that have no number of the whole.
type wholes struct {
	// at is the place in list by name; -1 where there is a number of the whole
	// or a sum makes no sense.
	at   map[string]int
	list []Value
}

// add takes a value of a part or of a whole.
func (w *wholes) add(v Value) {
	if w.at == nil {
		w.at = map[string]int{}
	}
	i, known := w.at[v.Name]
	switch {
	case v.Object == "" || v.Level || strings.Contains(v.Object, "string "):
		w.at[v.Name] = -1
	case !known:
		w.at[v.Name] = len(w.list)
		v.Object = ""
		w.list = append(w.list, v)
	case i >= 0:
		sum, err := add(w.list[i].Value, v.Value)
		if err != nil {
			w.at[v.Name] = -1 // it is no sum of packets or bytes
			return
		}
		w.list[i].Value = sum
	}
}

// values are the sums, in the order in which the first parts came.
func (w *wholes) values() []Value {
	var values []Value
	for i, v := range w.list {
		if w.at[v.Name] == i {
			values = append(values, v)
		}
	}
	return values
}
