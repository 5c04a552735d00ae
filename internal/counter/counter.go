// Package counter reads the kernel's loss counters: /proc/net and rtnetlink,
// one file of code for each source, where one function reads bytes and
// another, which is pure, parses them.
//
// It keeps every counter that the kernel names, known or not, and its levels
// and settings as far as they are beside counters. It must not judge a number,
// name a station, enter a namespace, or ask anything that would make the kernel
// load a module or create a table.
package counter

import (
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
	// ID, where it is not 0, is what such a part is known by in its stead: two
	// qdiscs may have one handle after another, and a rule of iptables-legacy
	// has only its place for a name. A part with an ID is listed from the moment
	// that it is made, and begins at 0.
	ID uint64
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
	// links are the devices of the namespace by their index, queues the qdiscs
	// among the values.
	links  []identity
	queues []qdiscPlace
}

// ReadHost reads the counters that the whole host has in common. Those of
// neighbours exist only where the calling thread is in the initial network
// namespace; elsewhere they are in Missing.
func ReadHost() Snapshot { return NewHostReader().once() }

// netnsSources read what a network namespace has for itself beside the files
// of /proc/net, in the order of the counters.
func netnsSources() []func(*Snapshot) {
	return []func(*Snapshot){
		(*Snapshot).readDevSNMP6,
		(*Snapshot).readStats,
		(*Snapshot).readDevices,
		(*Snapshot).readEthtool,   // of those devices
		(*Snapshot).readGenetlink, // likewise
		(*Snapshot).readSockets,
		(*Snapshot).readNft,
		(*Snapshot).readIptables,
		(*Snapshot).readConntrackCPUs,
		(*Snapshot).readNetfilterFiles,
	}
}

// hostSources read what the host has in common, likewise.
func hostSources() []func(*Snapshot) {
	return []func(*Snapshot){
		(*Snapshot).readInterrupts,
		(*Snapshot).readInfiniband,
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
