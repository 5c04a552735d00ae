package counter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
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
	err := kernelnet.WithoutModules(func() error {
		e, err := openEthtool()
		if err != nil {
			return err
		}
		return errors.Join(s.drivers(e, s.devices()), e.close())
	})
	if err != nil {
		s.miss(driverSource, err)
	}
}

// drivers adds the statistics of devices.
func (s *Snapshot) drivers(e *ethtoolIoctl, devices []record.Device) error {
	var errs []error
	first := len(s.Values)
	for i, d := range devices {
		before := len(s.Values)
		if before-first >= maxHardware {
			errs = append(errs, fmt.Errorf("%d devices left out: %d values are enough", len(devices)-i, before-first))
			break
		}
		var err error
		if s.Values, err = e.device(s.Values, d); err != nil {
			errs = append(errs, fmt.Errorf("device %s: %w", d.Name, err))
		}
		// Most of many devices are alike.
		if n := len(s.Values) - before; cap(s.Values)-len(s.Values) < n {
			s.Values = slices.Grow(s.Values, min(n*(len(devices)-i), maxHardware))
		}
	}
	return parseError(driverSource, errs...)
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

// device adds both lists of a device to values. One that went away has none.
func (e *ethtoolIoctl) device(values []Value, d record.Device) ([]Value, error) {
	const tries = 3
	before := values
	var err error
	for range tries {
		name, gone := e.name(d.Index)
		if errors.Is(gone, unix.ENODEV) {
			return before, nil
		}
		if gone != nil {
			return before, fmt.Errorf("SIOCGIFNAME: %w", gone)
		}
		values, err = e.deviceNamed(before, record.Device{Index: d.Index, Name: name})
		// The ioctls go by the name, which may be another device's by now.
		if now, gone := e.name(d.Index); gone == nil && now != name {
			err = errChanged
			continue
		} else if errors.Is(gone, unix.ENODEV) {
			return before, nil
		}
		if !errors.Is(err, errChanged) {
			return values, err
		}
	}
	return before, err
}

func (e *ethtoolIoctl) deviceNamed(values []Value, d record.Device) ([]Value, error) {
	counts, err := e.counts(d.Name, setStats, setPHYStats)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return values, nil
	}
	if err != nil {
		return values, err
	}
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
		values = set.add(values, d, names, numbers)
	}
	return values, errors.Join(errs...)
}

// add makes counters of a driver's strings and numbers. Where a driver has no
// number of the whole for what it counts for each queue, the sum is added.
func (set statSet) add(values []Value, d record.Device, names *gstrings, numbers []uint64) []Value {
	command := set.show + quote(d.Name)
	sums := &names.sums
	sums.reset()
	for i, st := range names.of(set.table, numbers) {
		if st.header || st.name == "" || i >= len(numbers) {
			continue
		}
		v := Value{
			Name: st.counter, Device: d, Object: st.object, Level: st.level, Value: numbers[i],
			Source: set.source, Command: command,
		}
		values = append(values, v)
		sums.add(v)
	}
	return sums.addTo(values)
}

// wholes are the sums of parts that have no number of the whole.
type wholes struct {
	// at is the place in list by name; -1 where there is a number of the whole
	// or a sum makes no sense.
	at   map[string]int
	list []Value
}

func (w *wholes) reset() {
	clear(w.at)
	w.list = w.list[:0]
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
func (w *wholes) values() []Value { return w.addTo(nil) }

func (w *wholes) addTo(values []Value) []Value {
	for i, v := range w.list {
		if w.at[v.Name] == i {
			values = append(values, v)
		}
	}
	return values
}
