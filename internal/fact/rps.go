package fact

import (
	"cmp"
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// queueFiles are the settings of a queue, and those of its byte queue limits
// (net/core/net-sysfs.c).
var queueFiles = map[string][]string{
	"rx": {"rps_cpus", "rps_flow_cnt"},
	"tx": {
		"xps_cpus", "xps_rxqs", "tx_timeout", "tx_maxrate",
		"byte_queue_limits/limit", "byte_queue_limits/limit_max", "byte_queue_limits/limit_min", "byte_queue_limits/inflight",
	},
}

// readRPS gives the queues of a device and which processors work for them.
func readRPS(q *query) error {
	q.source = "/sys/class/net/" + q.arg + "/queues"
	q.command = "grep -r . /sys/class/net/" + shell(q.arg) + "/queues"
	sys, err := q.sys()
	if err != nil {
		return err
	}
	defer sys.close()
	dir := path.Join("class/net", q.arg, "queues")
	list, err := sys.list(dir)
	if noDevice(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range queueNames(list) {
		kind, _, _ := strings.Cut(name, "-")
		f := fields{}
		for _, file := range queueFiles[kind] {
			value, err := sys.read(path.Join(dir, name, file))
			switch {
			case err == nil:
				f[path.Base(file)] = value
			// Built without it, or a device that has one queue for sending only
			// (xps_cpus_show).
			case noDevice(err), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
			default:
				errs = append(errs, err)
			}
		}
		value := f["rps_cpus"]
		if kind == "tx" {
			value = f["xps_cpus"]
		}
		q.add(name, cpuList(value), f)
	}
	if err := errors.Join(errs...); err != nil {
		q.missing(err.Error())
	}
	return nil
}

// queueNames are the names of queues, rx before tx, by their numbers.
func queueNames(list []string) []string {
	var names []string
	for _, name := range list {
		kind, _, ok := strings.Cut(name, "-")
		if ok && queueFiles[kind] != nil {
			names = append(names, name)
		}
	}
	number := func(s string) int {
		n, _ := strconv.Atoi(s[strings.IndexByte(s, '-')+1:])
		return n
	}
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(a[:2], b[:2]), cmp.Compare(number(a), number(b)), cmp.Compare(a, b))
	})
	return names
}

// cpuList turns a mask of processors, words of 32 bits in hexadecimal with the
// highest first ("00000001,0000000f"), into a list ("0-3,32"); "none" for an
// empty one. What is no mask is returned as it is.
func cpuList(mask string) string {
	var cpus []int
	words := strings.Split(mask, ",")
	for i, w := range words {
		bits, err := strconv.ParseUint(w, 16, 32)
		if err != nil {
			return mask
		}
		for bit := range 32 {
			if bits&(1<<bit) != 0 {
				cpus = append(cpus, (len(words)-1-i)*32+bit)
			}
		}
	}
	slices.Sort(cpus)
	if len(cpus) == 0 {
		return None
	}
	var b strings.Builder
	for i := 0; i < len(cpus); {
		end := i
		for end+1 < len(cpus) && cpus[end+1] == cpus[end]+1 {
			end++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(cpus[i]))
		if end > i {
			b.WriteString("-" + strconv.Itoa(cpus[end]))
		}
		i = end + 1
	}
	return b.String()
}
