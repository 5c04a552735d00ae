// Package record holds the types of an observation: what was watched, what
// was counted exactly, what was sampled, what could not be seen, and the
// findings drawn from it. It also reads and writes the file that carries an
// observation from one machine to another.
//
// It is the only public package and the only thing diagnose and report know
// about a host. It must not look at the host itself: it imports the standard
// library alone, opens no file and reads no clock.
package record

import "time"

// SchemaVersion is the version of the types in this package, printed as
// schema_version in every JSON object. It grows when a field changes its
// meaning or goes away; new fields do not change it.
const SchemaVersion = 1

// Observation is everything that is known about one window of watching.
type Observation struct {
	SchemaVersion int        `json:"schema_version"`
	Host          Host       `json:"host"`
	Kernel        Kernel     `json:"kernel"`
	Window        Window     `json:"window"`
	Sources       []Source   `json:"sources"`
	Accounting    Accounting `json:"accounting"`
	// Counts is exact: their sum is Accounting.DropsAggregated.
	Counts []Count `json:"counts"`
	// Samples is a bounded selection of drops with all their detail.
	Samples  []Drop    `json:"samples"`
	Counters []Counter `json:"counters"`
	// CountersWindow is the time between the two reads of Counters: it lies
	// within Window.
	CountersWindow Window    `json:"counters_window,omitzero"`
	Facts          []Fact    `json:"facts"`
	Findings       []Finding `json:"findings"`
	Blind          []Blind   `json:"blind"`
}

// Host says which machine was watched and with what.
type Host struct {
	Hostname string `json:"hostname"`
	// BootID is /proc/sys/kernel/random/boot_id.
	BootID string `json:"boot_id"`
	// CPUs is the number of possible CPUs (per-CPU tables have that many rows).
	CPUs int `json:"cpus"`
	// Program is the version of whydrop that made the observation.
	Program string `json:"program"`
}

// Kernel identifies the kernel whose names the observation uses.
type Kernel struct {
	// Release is uname -r, Version uname -v.
	Release string `json:"release"`
	Version string `json:"version"`
	Machine string `json:"machine"`
	// KfreeSkbArgs is how many arguments the tracepoint skb:kfree_skb has;
	// 0 where that is not known.
	KfreeSkbArgs int `json:"kfree_skb_args"`
	// ReasonsFrom says where the names of drop reasons came from: btf,
	// tracefs, dropmon (each alert has the name), or none (the kernel has no
	// reasons, they are numbers, or the source does not tell them).
	ReasonsFrom string `json:"reasons_from"`
	// BuildID is the GNU build id of the kernel's ELF file, in hexadecimal;
	// empty where it has none.
	BuildID string `json:"build_id,omitempty"`
}

// Anchor is a place of the kernel itself that has a name.
type Anchor struct {
	Symbol  string  `json:"symbol"`
	Address Address `json:"address"`
}

// Window is the time that was watched.
type Window struct {
	Start    time.Time     `json:"start"`
	End      time.Time     `json:"end"`
	Duration time.Duration `json:"duration_ns"`
}

// SourceState is how well a source worked.
type SourceState string

// The states of a source.
const (
	SourceOK       SourceState = "ok"
	SourceDegraded SourceState = "degraded"
	SourceOff      SourceState = "off"
	SourceFailed   SourceState = "failed"
)

// Source is one way of seeing loss, and whether it worked.
type Source struct {
	Name  string      `json:"name"`
	State SourceState `json:"state"`
	// Why says what is not as it should be, or how it is where State is ok.
	Why string `json:"why,omitempty"`
}

// Accounting says what became of every drop. All fields count packets
// (skbs) unless they say otherwise.
type Accounting struct {
	// DropsSeen = DropsAggregated + DropsFiltered + MapFull + DropsUnattributed +
	// DropsLost.
	DropsSeen uint64 `json:"drops_seen"`
	// DropsAggregated are in Counts.
	DropsAggregated uint64 `json:"drops_aggregated"`
	// DropsFiltered were counted but asked not to be shown (-i, --reason …).
	DropsFiltered uint64 `json:"drops_filtered"`
	// DropsUnattributed happened while the program already ran on that CPU,
	// so the kernel did not let it look (recursion_misses).
	DropsUnattributed uint64 `json:"drops_unattributed"`
	// DropsLost are known by their number alone: what tells of each drop had no
	// room left in a queue of the drop monitor, or in the socket to it.
	DropsLost        uint64 `json:"drops_lost"`
	DropsExplained   uint64 `json:"drops_explained"`
	DropsUnexplained uint64 `json:"drops_unexplained"`
	// DropsHiddenBenign and DropsHiddenExpected are aggregated but not shown.
	DropsHiddenBenign   uint64 `json:"drops_hidden_benign"`
	DropsHiddenExpected uint64 `json:"drops_hidden_expected"`
	// Samples are full records that arrived.
	Samples uint64 `json:"samples"`
	// SamplesLost are full records that found the ring buffer full.
	SamplesLost uint64 `json:"samples_lost"`
	// MapFull are drops counted only in total, because the table of keys
	// had no room left for theirs.
	MapFull uint64 `json:"map_full"`
	// AlertsLost are messages that had no room in the socket to the drop
	// monitor. Each told of drops whose number is not known, and which are in no
	// other field.
	AlertsLost uint64 `json:"alerts_lost"`
	// DecodeErrors are records from the kernel that could not be decoded.
	DecodeErrors uint64 `json:"decode_errors"`
}

// Add adds b to a, field by field.
func (a *Accounting) Add(b Accounting) {
	a.DropsSeen += b.DropsSeen
	a.DropsAggregated += b.DropsAggregated
	a.DropsFiltered += b.DropsFiltered
	a.DropsUnattributed += b.DropsUnattributed
	a.DropsLost += b.DropsLost
	a.DropsExplained += b.DropsExplained
	a.DropsUnexplained += b.DropsUnexplained
	a.DropsHiddenBenign += b.DropsHiddenBenign
	a.DropsHiddenExpected += b.DropsHiddenExpected
	a.Samples += b.Samples
	a.SamplesLost += b.SamplesLost
	a.MapFull += b.MapFull
	a.AlertsLost += b.AlertsLost
	a.DecodeErrors += b.DecodeErrors
}

// Counter is a number of the kernel that only grows, read before and after.
type Counter struct {
	// Name is TABLE.FIELD: Udp.RcvbufErrors, softnet.dropped, link.rx_dropped,
	// qdisc.drops. Fields keep the kernel's spelling.
	Name string `json:"name"`
	// Station is empty for a counter that the knowledge base does not know.
	Station string `json:"station"`
	// NetNS is the zero value for a counter of the whole host.
	NetNS NetNS `json:"netns"`
	// Device is set for a counter of one device.
	Device Device `json:"device,omitzero"`
	// Object says of which part it is, where the device, the namespace or the
	// host has several of the same: "cpu 1", "class 1:10", "queue rx-0",
	// "socket 4242", "rule inet filter input 7". A counter of the whole, where
	// there is one, has none; never add the parts to it.
	Object string `json:"object,omitempty"`
	// Level says that it is no counter but a level, such as sockets in use or
	// bytes that wait: it goes down too, and Delta is 0.
	Level  bool   `json:"level,omitempty"`
	Before uint64 `json:"before"`
	After  uint64 `json:"after"`
	// Delta is After - Before; 0 where the counter went back (a driver that
	// was loaded anew).
	Delta uint64 `json:"delta"`
	// Reset says that the counter went back, or that a part of it did or is
	// gone: Delta is what is known for certain, and it grew by that or more.
	Reset bool `json:"reset,omitempty"`
	// Source is the file or message it was read from, Command what shows it
	// to a person.
	Source  string `json:"source,omitempty"`
	Command string `json:"command,omitempty"`
	// ExplainedBy names the findings that account for the delta.
	ExplainedBy []string `json:"explained_by"`
}

// FactRequest asks for facts: a kind and its argument, such as sysctl
// net/ipv4/ip_forward. It is comparable.
type FactRequest struct {
	Kind string `json:"kind"`
	Arg  string `json:"arg,omitempty"`
	// NetNS is the inode of the namespace to look in; 0 is the host's.
	NetNS uint32 `json:"netns,omitempty"`
}

// Fact is a setting or state of the host, read on demand. One request may
// give several facts, such as one for each socket.
type Fact struct {
	// Kind is that of the request; Request is its argument.
	Kind    string `json:"kind"`
	Request string `json:"request,omitempty"`
	// Name says which of the facts of a kind this is: the argument, or
	// 0.0.0.0:80 for a socket.
	Name string `json:"name"`
	// NetNS is the zero value for a fact of the whole host.
	NetNS NetNS  `json:"netns"`
	Value string `json:"value"`
	// Fields are the parts of a fact that has several. Numbers are decimal.
	Fields map[string]string `json:"fields,omitempty"`
	Source string            `json:"source,omitempty"`
	// Command shows the same value to a person.
	Command string `json:"command,omitempty"`
	// Missing says why the fact could not be read; Value is empty then. It is
	// how a record tells "none" from "not known".
	Missing string `json:"missing,omitempty"`
}

// Blind is something that could not be seen.
type Blind struct {
	What string `json:"what"`
	Why  string `json:"why"`
	// Fix says what would change it; empty when nothing does.
	Fix string `json:"fix,omitempty"`
}
