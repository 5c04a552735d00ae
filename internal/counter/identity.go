package counter

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/whydrop/whydrop/internal/kernelnet"
)

// identity is what a device is recognised by. Whatever of it may change, the
// rest stays: a device that moves to another namespace keeps its index unless
// that is taken there (net/core/dev.c, __dev_change_net_namespace), its name
// likewise, and its addresses until somebody sets them.
type identity struct {
	index uint32
	name  string
	// address and permanent are IDs of the two link-layer addresses; 0 where it
	// has none.
	address, permanent uint64
}

// identities are those of the devices of RTM_NEWLINK messages, by their index.
// A message that is not understood is left out: who makes values of it says so.
func identities(messages [][]byte) []identity {
	list := make([]identity, 0, len(messages))
	for _, m := range messages {
		if len(m) < unix.SizeofIfInfomsg {
			continue
		}
		index, _ := u32(m, 4)
		d := identity{index: uint32(index)}
		err := kernelnet.Attributes(m, unix.SizeofIfInfomsg, func(kind int, content []byte) {
			switch kind {
			case unix.IFLA_IFNAME:
				d.name = unix.ByteSliceToString(content)
			case unix.IFLA_ADDRESS:
				d.address = addressID(content)
			case unix.IFLA_PERM_ADDRESS: // since 5.6
				d.permanent = addressID(content)
			}
		})
		if err == nil {
			list = append(list, d)
		}
	}
	slices.SortFunc(list, func(a, b identity) int { return cmp.Compare(a.index, b.index) })
	return list
}

// addressID is 0 for no address, or one of zeros alone.
func addressID(b []byte) uint64 {
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return 0
	}
	return idOf(string(b))
}

// device finds one by its index.
func (s *Snapshot) device(index uint32) (identity, bool) {
	i, ok := slices.BinarySearchFunc(s.links, index, func(d identity, index uint32) int { return cmp.Compare(d.index, index) })
	if !ok {
		return identity{}, false
	}
	return s.links[i], true
}

// same says whether two devices with one index of one namespace can be the
// same device: it may have another name by now, or another address.
func (d identity) same(o identity) bool {
	if d.permanent != 0 && o.permanent != 0 {
		return d.permanent == o.permanent
	}
	return d.name == o.name || d.address == o.address
}

// Moves are the devices that left a network namespace between two reads. One
// that is new in another may be one of them, and bring all that it has counted
// before.
type Moves struct {
	partial bool
	left    map[trait]bool
	came    int
}

// trait is one of the things that a device is recognised by.
type trait struct {
	what byte
	id   uint64
	name string
}

func (d identity) traits() []trait {
	list := []trait{{what: 'i', id: uint64(d.index)}, {what: 'n', name: d.name}}
	if d.address != 0 {
		list = append(list, trait{what: 'a', id: d.address})
	}
	if d.permanent != 0 {
		list = append(list, trait{what: 'p', id: d.permanent})
	}
	return list
}

// Add notes the devices of before that are not there after. An after that was
// never taken stands for a namespace that is gone.
func (m *Moves) Add(before, after Snapshot) {
	m.partial = m.partial || !before.whole(linkSource)
	for _, d := range before.links {
		if now, ok := after.device(d.index); ok && d.same(now) {
			continue
		}
		if m.left == nil {
			m.left = map[trait]bool{}
		}
		for _, t := range d.traits() {
			m.left[t] = true
		}
	}
}

// Partly notes that not every namespace was read, so that a device may have
// come from one of the others.
func (m *Moves) Partly() { m.partial = true }

// Came is how many devices Diff found new in a namespace that may have been in
// another one before.
func (m *Moves) Came() int { return m.came }

// mayHave says whether a device that is new in a namespace may have left
// another one.
func (m *Moves) mayHave(d identity) bool {
	return m.partial || slices.ContainsFunc(d.traits(), func(t trait) bool { return m.left[t] })
}
