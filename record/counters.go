package record

// TypeCounters is the type of a CounterReport in a stream of JSON lines.
const TypeCounters = "counters"

// CounterReport is what `whydrop counters -j` prints: the kernel's counters by
// the stations of the packet's way, as they are or as they moved in an interval.
type CounterReport struct {
	// Type is TypeCounters.
	Type          string `json:"type"`
	SchemaVersion int    `json:"schema_version"`
	Host          Host   `json:"host"`
	Kernel        Kernel `json:"kernel"`
	// SinceBoot says that there was no interval: numbers count since boot, or
	// since their device, namespace or socket was made.
	SinceBoot bool `json:"since_boot"`
	// Window is the interval; since boot, it is when the counters were read.
	Window Window `json:"window"`
	Source Source `json:"source"`
	// Interfaces are the devices that were asked for; none is everything.
	Interfaces []string `json:"interfaces,omitempty"`
	// Unread is what was asked for and could not be read: "network namespace
	// blue", "device eth0".
	Unread []string `json:"unread,omitempty"`
	// Stations are all of them, in the order of the packet's way.
	Stations []StationCounters `json:"stations"`
	// Hidden is how many counters were read and left out.
	Hidden int     `json:"hidden"`
	Blind  []Blind `json:"blind"`
}

// StationCounters are the counters of a station. What was lost is what the
// interval adds, or all since boot.
type StationCounters struct {
	Station Station `json:"station"`
	// Lost is in packets (skbs or TCP segments). Counters that count the same
	// packet within the station are not added up.
	Lost uint64 `json:"lost"`
	// Shared of them may be the same packets that stations in AlsoAt count,
	// which lie further along the same way.
	Shared uint64    `json:"shared"`
	AlsoAt []Station `json:"also_at"`
	// LossEvents are losses whose counters do not count packets.
	LossEvents uint64 `json:"loss_events"`
	// Blind says that no counter of a loss at this station was read, or none that
	// was asked for.
	Blind    bool             `json:"blind"`
	Counters []StationCounter `json:"counters"`
}

// KindUnknown is the kind of a counter that is not in the catalogue.
const KindUnknown = "unknown"

// StationCounter is a counter at its station.
type StationCounter struct {
	Name string `json:"name"`
	// Kind is that of the catalogue (loss, retransmission, pressure, activity,
	// nothing), or KindUnknown.
	Kind      string    `json:"kind"`
	Direction Direction `json:"direction"`
	// Unit is packets, segments, bytes or events; empty where not known.
	Unit   string `json:"unit"`
	NetNS  NetNS  `json:"netns"`
	Device Device `json:"device,omitzero"`
	// Object is set for a part without a total.
	Object string `json:"object,omitempty"`
	// Level says that it is no counter; see Counter.
	Level  bool   `json:"level,omitempty"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
	Delta  uint64 `json:"delta"`
	// Rate is Delta in a second; 0 since boot.
	Rate float64 `json:"rate"`
	// Reset says that Delta is only the least; see Counter.
	Reset   bool   `json:"reset,omitempty"`
	Source  string `json:"source,omitempty"`
	Command string `json:"command,omitempty"`
	// Parts are what the number is made of, as far as that is known and shown.
	Parts []CounterPart `json:"parts"`
}

// CounterPart is a part of a counter: of a CPU, a queue, a class, a socket.
type CounterPart struct {
	Object string  `json:"object"`
	Before uint64  `json:"before"`
	After  uint64  `json:"after"`
	Delta  uint64  `json:"delta"`
	Rate   float64 `json:"rate"`
	Reset  bool    `json:"reset,omitempty"`
}
