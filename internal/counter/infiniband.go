package counter

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const infinibandSource = "/sys/class/infiniband"

// readInfiniband adds the counters of RDMA devices: of a port as the standard
// has them (counters), and as the driver names them (hw_counters), which a
// device may have too. They are of all namespaces; the devices are those that
// /sys shows.
func (s *Snapshot) readInfiniband() {
	root, err := os.OpenRoot("/sys")
	if err != nil {
		s.miss(infinibandSource, err)
		return
	}
	defer root.Close()
	values, err := readInfinibandTree(root.FS())
	s.Values = append(s.Values, values...)
	if err != nil {
		s.miss(infinibandSource, err)
	}
}

// readInfinibandTree reads the devices below class/infiniband of sysfs.
func readInfinibandTree(sys fs.FS) ([]Value, error) {
	const class = "class/infiniband"
	devices, err := fs.ReadDir(sys, class)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := infinibandTree{sys: sys}
	for _, d := range devices {
		dir := path.Join(class, d.Name())
		grep := "grep -H . /" + path.Join("sys", class, quote(d.Name())) + "/"
		ports, err := fs.ReadDir(sys, path.Join(dir, "ports"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.errs = append(t.errs, err)
		}
		for _, p := range ports {
			object, of := "port "+d.Name()+"/"+p.Name(), path.Join(dir, "ports", p.Name())
			t.read(path.Join(of, "counters"), infinibandFolder{
				"infiniband", object, grep + "ports/" + quote(p.Name()) + "/counters/*", "grep -H . /sys/class/infiniband/*/ports/*/counters/*", &t.wholes,
			})
			t.read(path.Join(of, "hw_counters"), infinibandFolder{
				"infiniband-hw", object, "rdma -p statistic show link " + quote(d.Name()) + "/" + quote(p.Name()), "rdma -p statistic show", &t.wholes,
			})
		}
		t.read(path.Join(dir, "hw_counters"), infinibandFolder{
			"infiniband-hw", "device " + d.Name(), grep + "hw_counters/*", "grep -H . /sys/class/infiniband/*/hw_counters/*", &t.ofDevices,
		})
	}
	for _, v := range t.ofDevices.values() {
		if _, ports := t.wholes.at[v.Name]; !ports {
			t.values = append(t.values, v)
		}
	}
	return append(t.values, t.wholes.values()...), parseError(infinibandSource, t.errs...)
}

// infinibandTree is what was read so far.
type infinibandTree struct {
	sys    fs.FS
	values []Value
	// wholes sums the ports of all devices; ofDevices what devices count beside
	// them, which may be the same.
	wholes, ofDevices wholes
	errs              []error
}

// infinibandFolder is what a folder of counters is: their table and object,
// what shows them to a person, what shows all of the kind, and where they are
// summed up.
type infinibandFolder struct {
	table, object, show, showAll string
	sum                          *wholes
}

// read adds the counters of a folder, a file each.
func (t *infinibandTree) read(dir string, of infinibandFolder) {
	files, err := fs.ReadDir(t.sys, dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			t.errs = append(t.errs, err)
		}
		return
	}
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		if len(t.values) >= maxHardware {
			t.errs = append(t.errs, fmt.Errorf("counters left out: %d values are enough", len(t.values)))
			return
		}
		text, err := fs.ReadFile(t.sys, path.Join(dir, f.Name()))
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
			continue // the device has no such counter (drivers/infiniband/core/sysfs.c, get_perf_mad)
		}
		var n uint64
		ok := false
		if err == nil {
			n, ok, err = parseSysNumber(text)
		}
		if err != nil {
			t.errs = append(t.errs, fmt.Errorf("%s: %w", path.Join(dir, f.Name()), err))
		}
		if !ok {
			continue
		}
		v := Value{
			Name: of.table + "." + f.Name(), Object: of.object, Value: n, Level: f.Name() == "lifespan",
			Source: infinibandSource, Command: of.show,
		}
		t.values = append(t.values, v)
		v.Command = of.showAll
		of.sum.add(v)
	}
}

// parseSysNumber reads a file that holds one number. It says false for one
// that says that there is none, as "N/A (no PMA)" (drivers/infiniband/core/sysfs.c).
func parseSysNumber(text []byte) (v uint64, ok bool, err error) {
	s := strings.TrimSpace(string(text))
	if strings.HasPrefix(s, "N/A") {
		return 0, false, nil
	}
	return parseCount([]byte(s))
}
