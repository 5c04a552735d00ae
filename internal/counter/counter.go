// Package counter reads the kernel's loss counters: /proc/net and rtnetlink,
// one file of code for each source, where one function reads bytes and
// another, which is pure, parses them.
//
// It keeps every counter that the kernel names, known or not, and leaves out
// the few values that are settings or levels. It must not judge a number, name
// a station, enter a namespace, or ask anything that would make the kernel
// load a module or create a table.
package counter

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/whydrop/whydrop/record"
)

// Value is one counter of one read.
type Value struct {
	// Name is TABLE.FIELD with the kernel's spelling of the field, such as
	// Udp.RcvbufErrors, softnet.dropped or link.rx_dropped.
	Name string
	// Device is set for a counter of one device. Its name is empty where the
	// device went away during the read.
	Device record.Device
	// Object is the part that the counter is of, as in record.Counter.
	Object string
	// Level says that it is no counter but a level.
	Level bool
	Value uint64
	// Source is the file or message it was read from.
	Source string
	// Command shows the number to a person who is in the same namespace.
	Command string
}

// Snapshot is what one read gave.
type Snapshot struct {
	// Time is when the read began. A snapshot without it was never taken: Diff
	// takes nothing as new against it.
	Time   time.Time
	Values []Value
	// Missing names the sources that could not be read, or not to their end.
	// What the kernel was built or started without is not among them.
	Missing []record.Blind
}

// thread is where procfs shows the network of the calling thread: /proc/net
// is that of the process's main thread (fs/proc/proc_net.c).
const thread = "/proc/thread-self/net"

// ReadNetNS reads the counters of the calling thread's network namespace. A
// goroutine that moved its thread there must still be locked to it.
func ReadNetNS() Snapshot { return readAll(netnsSources()) }

// ReadHost reads the counters that the whole host has in common. Those of
// neighbours exist only where the calling thread is in the initial network
// namespace; elsewhere they are in Missing.
func ReadHost() Snapshot { return readAll(hostSources()) }

func readAll(sources []func(*Snapshot)) Snapshot {
	s := Snapshot{Time: time.Now()}
	for _, read := range sources {
		read(&s)
	}
	return s
}

// netnsSources read what a network namespace has for itself, in the order of
// the counters.
func netnsSources() []func(*Snapshot) {
	return []func(*Snapshot){
		func(s *Snapshot) { s.readFiles(thread, netnsFiles()) },
		(*Snapshot).readDevices,
	}
}

// hostSources read what the host has in common.
func hostSources() []func(*Snapshot) {
	return []func(*Snapshot){
		func(s *Snapshot) { s.readFiles(thread, hostFiles()) },
	}
}

// file is a source below /proc/net and what makes counters of its text.
type file struct {
	name  string
	parse func(text []byte, source string) ([]Value, error)
	// always is set for a file that every kernel has in the place where it is
	// to be read, and says why it is not elsewhere.
	always string
}

func (f file) source() string { return "/proc/net/" + f.name }

// netnsFiles are the files that a namespace has for itself.
func netnsFiles() []file {
	return []file{
		{name: "snmp", parse: parseTables},
		{name: "netstat", parse: parseTables},
		{name: "snmp6", parse: parseSNMP6},
		{name: "stat/nf_conntrack", parse: parseConntrack},
		{name: "xfrm_stat", parse: parseXfrm},
	}
}

// hostFiles are the files that show the same numbers in every namespace, as
// far as they exist there.
func hostFiles() []file {
	return []file{
		{name: "softnet_stat", parse: parseSoftnetValues},
		{name: "stat/rt_cache", parse: parsePerCPU},
		// net/core/neighbour.c, neigh_table_init makes it in init_net alone.
		{name: "stat/arp_cache", parse: parsePerCPU, always: "it is in the initial network namespace alone, and this is another"},
		{name: "stat/ndisc_cache", parse: parsePerCPU},
	}
}

// readFiles adds the counters of files below dir.
func (s *Snapshot) readFiles(dir string, files []file) {
	// One look-up of the namespace for all of them.
	root, err := os.OpenRoot(dir)
	if err != nil {
		// Without procfs nothing would be there, which is not the same as a
		// kernel that lacks each of the files.
		for _, f := range files {
			s.miss(f.source(), err)
		}
		return
	}
	defer root.Close()
	for _, f := range files {
		text, err := readFile(root, f.name)
		if errors.Is(err, fs.ErrNotExist) {
			if f.always != "" {
				s.miss(f.source(), errors.New(f.always))
			}
			continue
		}
		if err == nil {
			var values []Value
			values, err = f.parse(text, f.source())
			s.Values = append(s.Values, values...)
		}
		if err != nil {
			s.miss(f.source(), err)
		}
	}
}

// readDevices adds the counters of the devices and of their qdiscs.
func (s *Snapshot) readDevices() {
	links, err := readLinks()
	if err == nil {
		var values []Value
		values, err = parseLinks(links)
		s.Values = append(s.Values, values...)
	}
	if err != nil {
		s.miss(linkSource, err)
	}
	names := map[uint32]string{}
	for _, v := range s.Values {
		if v.Device.Index != 0 {
			names[v.Device.Index] = v.Device.Name
		}
	}
	qdiscs, err := readQdiscs()
	if err == nil {
		var values []Value
		values, err = parseQdiscs(qdiscs, names)
		s.Values = append(s.Values, values...)
	}
	if err != nil {
		s.miss(qdiscSource, err)
	}
}

// blindTo is how Missing names a source.
func blindTo(source string) string { return "counters of " + source }

func (s *Snapshot) miss(source string, err error) {
	s.Missing = append(s.Missing, record.Blind{What: blindTo(source), Why: err.Error()})
}

// whole says whether a source was read to its end. It need not exist.
func (s *Snapshot) whole(source string) bool {
	what := blindTo(source)
	return !s.Time.IsZero() && !slices.ContainsFunc(s.Missing, func(b record.Blind) bool { return b.What == what })
}

// maxFile bounds what is read of a file: softnet_stat has 135 bytes for each
// of at most 8192 CPUs, the others less.
const maxFile = 4 << 20

// readFile reads a whole file of procfs, whose size is not known before.
func readFile(root *os.Root, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// Large enough for each file of a usual host to come in one read.
	text := make([]byte, 0, 16<<10)
	for {
		n, err := f.Read(text[len(text):cap(text)])
		text = text[:len(text)+n]
		switch {
		case errors.Is(err, io.EOF):
			return text, nil
		case err != nil:
			return nil, err
		case len(text) > maxFile:
			return nil, fmt.Errorf("read %s: longer than %d bytes", name, maxFile)
		case len(text) == cap(text):
			text = slices.Grow(text, len(text))
		}
	}
}
