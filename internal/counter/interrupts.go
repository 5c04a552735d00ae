package counter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/whydrop/whydrop/record"
)

const interruptsSource = "/proc/interrupts"

// maxVectors is how many numbers of one vector on one CPU are kept.
const maxVectors = 4096

// nic is a network device that has a device of the machine behind it.
type nic struct {
	record.Device
	// bus is that device's name, such as 0000:03:00.0 or virtio2.
	bus string
	// irqs are its message-signalled interrupts; none where it has another kind.
	irqs map[uint64]bool
}

// readInterrupts adds the interrupts of network devices. /sys shows the devices
// of the namespace in which it was mounted, which for the host's is that of the
// host.
func (s *Snapshot) readInterrupts() {
	nics, err := readNICs("/sys")
	if err != nil {
		s.miss(interruptsSource, err)
	}
	if len(nics) == 0 {
		return
	}
	set := fileSet{}
	f := openFile{file: file{name: "interrupts"}}
	in := directory{path: procfs}
	defer in.close()
	text, err := set.content(&in, &f)
	f.close()
	if err == nil {
		var values []Value
		values, err = parseInterrupts(text, nics)
		s.Values = append(s.Values, values...)
	}
	if err != nil && err != errAbsent {
		s.miss(interruptsSource, err)
	}
}

// maxNICs bounds the devices that are looked at: what the machine has, and not
// the kernel alone.
const maxNICs = 256

// readNICs finds the devices of the machine below /sys, in the order of their
// numbers.
func readNICs(sys string) ([]nic, error) {
	dir, err := os.Open(filepath.Join(sys, "class/net"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	var nics []nic
	for {
		names, err := dir.Readdirnames(256)
		for _, name := range names {
			if n, ok := readNIC(sys, name); ok && len(nics) < maxNICs {
				nics = append(nics, n)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(nics, func(a, b nic) int { return int(a.Index) - int(b.Index) })
	return nics, nil
}

// readNIC reads one device. It is false for one that the kernel made itself,
// or that went away.
func readNIC(sys, name string) (nic, bool) {
	home := filepath.Join(sys, "class/net", name)
	path, err := filepath.EvalSymlinks(filepath.Join(home, "device"))
	if err != nil {
		return nic{}, false
	}
	text, err := os.ReadFile(filepath.Join(home, "ifindex"))
	index, ok := decimal(bytes.TrimSpace(text))
	if err != nil || !ok {
		return nic{}, false
	}
	n := nic{Device: record.Device{Index: uint32(index), Name: name}, bus: filepath.Base(path), irqs: map[uint64]bool{}}
	// A virtio device has the interrupts of the PCI device that it is on.
	for range 3 {
		entries, err := os.ReadDir(filepath.Join(path, "msi_irqs"))
		for _, e := range entries {
			if irq, err := strconv.ParseUint(e.Name(), 10, 32); err == nil {
				n.irqs[irq] = true
			}
		}
		if err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return n, true
}

// parseInterrupts makes counters of the lines of /proc/interrupts that are of
// a network device: of each vector on each CPU where it is not 0, and of each
// device (fs/proc/interrupts.c; kernel/irq/proc.c, show_interrupts). The kernel
// counts with 32 bits.
func parseInterrupts(text []byte, nics []nic) ([]Value, error) {
	var cut error
	var errs []error
	cpus := sheet{}
	width, over := -1, 0
	totals := make([]uint64, len(nics))
	var parts []Value
	for line := range lines(text, &cut) {
		if width < 0 {
			var err error
			if width, err = cpus.cpuNames(line); err != nil {
				return nil, parseError(interruptsSource, err)
			}
			continue
		}
		irq, counts, what, ok, err := interruptLine(line, width)
		if err != nil {
			errs = append(errs, err)
		}
		owner := ownerOf(nics, irq, what)
		if !ok || owner < 0 {
			continue
		}
		for i, n := range counts {
			totals[owner] += n // 32 bits each
			switch {
			case n == 0:
			case len(parts) == maxVectors:
				over++
			default:
				parts = append(parts, interrupts(nics[owner], fmt.Sprintf("irq %d cpu %d", irq, cpus.rows[i]), n))
			}
		}
	}
	if over > 0 {
		errs = append(errs, fmt.Errorf("%d numbers of a vector on a CPU are only in the sums", over))
	}
	var values []Value
	for i, n := range nics {
		values = append(values, interrupts(n, "", totals[i]))
	}
	return append(values, parts...), parseErrors(interruptsSource, errs, cut)
}

func interrupts(n nic, object string, v uint64) Value {
	return Value{
		Name: "interrupts.count", Device: n.Device, Object: object, Value: v,
		Source: interruptsSource, Command: "cat " + interruptsSource,
	}
}

// interruptLine parses a line of a numbered interrupt: a number for each CPU
// that is online, then what it is of. It is false for the others, which have
// letters: NMI, LOC …
func interruptLine(line []byte, cpus int) (irq uint64, counts []uint64, what []byte, ok bool, err error) {
	name, rest := word(line)
	irq, number := decimal(bytes.TrimSuffix(name, []byte{':'}))
	if !number {
		return 0, nil, nil, false, nil
	}
	for range cpus {
		var w []byte
		if w, rest = word(rest); len(w) == 0 {
			return 0, nil, nil, false, fmt.Errorf("interrupt %d: %d CPUs but %d numbers", irq, cpus, len(counts))
		}
		v, ok := decimal(w)
		if !ok || v>>32 != 0 {
			return 0, nil, nil, false, fmt.Errorf("interrupt %d: %q is no number of 32 bits", irq, clip(w))
		}
		counts = append(counts, v)
	}
	return irq, counts, rest, true, nil
}

// ownerOf says whose interrupt it is, or -1. Devices that share a card, such as
// a switch and its ports, share its interrupts: then the one that is named, or
// else the first.
func ownerOf(nics []nic, irq uint64, what []byte) int {
	owner := -1
	for i, n := range nics {
		switch {
		case n.irqs[irq]:
			if isMentioned(what, n.Name) {
				return i
			}
			if owner < 0 {
				owner = i
			}
		case len(n.irqs) == 0 && owner < 0 && (isMentioned(what, n.Name) || isMentioned(what, n.bus)):
			owner = i
		}
	}
	return owner
}

// isMentioned says whether a name stands in a text by itself: eth1 is in
// i40e-eth1-TxRx-0, and not in eth10.
func isMentioned(text []byte, name string) bool {
	for from := 0; name != ""; {
		i := bytes.Index(text[from:], []byte(name))
		if i < 0 {
			return false
		}
		begin, end := from+i, from+i+len(name)
		if (begin == 0 || !isWordByte(text[begin-1])) && (end == len(text) || !isWordByte(text[end])) {
			return true
		}
		from = begin + 1
	}
	return false
}

func isWordByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_'
}
