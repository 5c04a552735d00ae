package diagnose

import (
	"slices"

	"github.com/whydrop/whydrop/record"
)

// Devices chooses devices by their names. One that was found once stays chosen
// under any name that it gets.
type Devices struct {
	names []string
	found map[deviceAt]string
}

type deviceAt struct{ netns, index uint32 }

// NewDevices chooses the devices of these names, in all namespaces.
func NewDevices(names []string) *Devices {
	return &Devices{names: names, found: map[deviceAt]string{}}
}

// Find looks for the devices among those that the counters are of. It returns
// the names of which there is none, in their order.
func (d *Devices) Find(cs []record.Counter) (missing []string) {
	there := map[string]bool{}
	for i := range cs {
		c := &cs[i]
		at := deviceAt{c.NetNS.Inode, c.Device.Index}
		if at.index == 0 {
			continue
		}
		if slices.Contains(d.names, c.Device.Name) {
			d.found[at] = c.Device.Name
			there[c.Device.Name] = true
		} else if name, ok := d.found[at]; ok {
			there[name] = true
		}
	}
	for _, name := range d.names {
		if !there[name] && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// has says whether a counter is of a device that was chosen.
func (d *Devices) has(c *record.Counter) bool {
	_, ok := d.found[deviceAt{c.NetNS.Inode, c.Device.Index}]
	return ok && c.Device.Index != 0
}
