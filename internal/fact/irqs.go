package fact

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// irq is a line of /proc/interrupts.
type irq struct {
	number string
	// chip and hardware number as they stand there, and who asked for it.
	how, actions string
	// counts are those of the processors in cpus.
	counts []uint64
}

// readIRQs gives the interrupts of a device's queues: which processors may
// take them, and which did.
func readIRQs(q *query) error {
	q.source = "/proc/interrupts, /proc/irq"
	q.command = "grep -e CPU -e " + shell(q.arg) + " /proc/interrupts; grep . /proc/irq/*/*affinity_list"
	sys, err := q.sys()
	if err != nil {
		return err
	}
	defer sys.close()
	if _, err := sys.Stat(path.Join("class/net", q.arg)); noDevice(err) {
		return nil
	} else if err != nil {
		return err
	}
	own, err := sys.interruptsOf(q.arg)
	if err != nil {
		return err
	}
	text, err := os.Open(q.path("/proc/interrupts"))
	if err != nil {
		return err
	}
	defer text.Close()
	cpus, some, err := parseInterrupts(text, func(i irq) bool { return own[i.number] || namesDevice(i.actions, q.arg) })
	if err != nil {
		return err
	}
	for _, i := range interruptsFor(q.arg, some) {
		q.addIRQ(cpus, i)
	}
	return nil
}

// addIRQ adds the fact of an interrupt. Processors that took none have no
// field.
func (q *query) addIRQ(cpus []string, i irq) {
	f := fields{"name": i.actions, "how": i.how}
	var total uint64
	for n, count := range i.counts {
		total += count
		if count > 0 {
			f["cpu"+cpus[n]] = decimal(count)
		}
	}
	f["total"] = decimal(total)
	for field, file := range map[string]string{"affinity": "smp_affinity_list", "effective": "effective_affinity_list", "node": "node"} {
		// The second since 4.15, and only where one processor is chosen.
		if text, err := q.readFile("/proc/irq/" + i.number + "/" + file); err == nil {
			f[field] = strings.TrimSpace(text)
		}
	}
	q.add(i.number, cmp.Or(f["effective"], f["affinity"]), f)
}

// parseInterrupts reads /proc/interrupts: the numbers of the online processors,
// and those of the numbered interrupts that are wanted (kernel/irq/proc.c,
// show_interrupts). With 500 processors it has 10 MB.
func parseInterrupts(r io.Reader, want func(irq) bool) (cpus []string, some []irq, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxFile)
	if lines.Scan() {
		for _, word := range strings.Fields(lines.Text()) {
			n, isCPU := strings.CutPrefix(word, "CPU")
			if !isCPU {
				return nil, nil, errors.New("/proc/interrupts: the first line names something else than processors")
			}
			cpus = append(cpus, n)
		}
	}
	if len(cpus) == 0 {
		return nil, nil, errors.Join(errors.New("/proc/interrupts: no processor"), lines.Err())
	}
	for lines.Scan() {
		number, line, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		if _, err := strconv.ParseUint(number, 10, 32); err != nil {
			continue // those of the processor itself, such as NMI
		}
		i := irq{number: number}
		for range cpus {
			var word string
			word, line = cutWord(line)
			n, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				break
			}
			i.counts = append(i.counts, n)
		}
		if len(i.counts) != len(cpus) {
			return nil, nil, fmt.Errorf("/proc/interrupts: interrupt %s has %d counts of %d", number, len(i.counts), len(cpus))
		}
		if i.how, i.actions = splitActions(line); want(i) {
			some = append(some, i)
		}
	}
	return cpus, some, lines.Err()
}

// cutWord takes the first word of a line.
func cutWord(line string) (word, rest string) {
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	if end := strings.IndexFunc(line, unicode.IsSpace); end >= 0 {
		return line[:end], line[end:]
	}
	return line, ""
}

// splitActions takes apart what follows the counts: the chip and its number,
// then, after two spaces or more, the names of those who asked for the
// interrupt, with commas.
func splitActions(line string) (how, actions string) {
	line = strings.TrimSpace(line)
	at := strings.LastIndex(line, "  ")
	if at < 0 {
		return line, ""
	}
	return strings.Join(strings.Fields(line[:at]), " "), strings.TrimSpace(line[at:])
}

// interruptsOf are the numbers of the interrupts of the hardware behind a
// device: of its bus device, or of the one that has that in it, as a virtio
// device is in one of PCI.
func (s *sysfs) interruptsOf(device string) (map[string]bool, error) {
	own := map[string]bool{}
	dir := path.Join("class/net", device, "device")
	for range 3 {
		numbers, err := s.list(dir + "/msi_irqs")
		if err != nil && !noDevice(err) {
			return nil, err
		}
		for _, n := range numbers {
			own[n] = true
		}
		// The old kind of interrupt; with MSI it is not used, and 0 is none. What
		// has it is the hardware itself, above which there are bridges.
		irq, err := s.read(dir + "/irq")
		if err == nil && irq != "0" && len(own) == 0 {
			own[irq] = true
		}
		if err == nil || len(own) > 0 {
			return own, nil
		}
		if _, err := s.Stat(dir); noDevice(err) {
			return own, nil
		}
		dir += "/.."
	}
	return own, nil
}

// interruptsFor chooses the interrupts of a device from those of its hardware
// and those that name it: the latter, if there are any, because several devices
// may share the hardware.
func interruptsFor(device string, some []irq) []irq {
	named := slices.DeleteFunc(slices.Clone(some), func(i irq) bool { return !namesDevice(i.actions, device) })
	if len(named) > 0 {
		return named
	}
	return some
}

// namesDevice says whether the name of an interrupt has that of a device in it
// as a word: eth0, eth0-TxRx-3, mlx5_comp1@eth0.
func namesDevice(actions, device string) bool {
	inName := func(c byte) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.'
	}
	for at := 0; ; {
		i := strings.Index(actions[at:], device)
		if i < 0 {
			return false
		}
		begin, end := at+i, at+i+len(device)
		if (begin == 0 || !inName(actions[begin-1])) && (end == len(actions) || !inName(actions[end])) {
			return true
		}
		at = begin + 1
	}
}
