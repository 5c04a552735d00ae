package record

// Class says what a cause or drop means for the people who run the host.
type Class string

// The classes. Only the first three are shown unless all are asked for; the
// others are counted and summed up in one line.
const (
	// ClassFault is loss to fix.
	ClassFault Class = "fault"
	// ClassCapacity is a queue or budget too small.
	ClassCapacity Class = "capacity"
	// ClassPolicy is loss that someone asked for: a firewall, rp_filter.
	ClassPolicy Class = "policy"
	// ClassExpected is normal protocol life.
	ClassExpected Class = "expected"
	// ClassBenign is noise: nothing was lost.
	ClassBenign Class = "benign"
)

// Severity orders the classes for --fail-on: fault 3, capacity 2, policy 1,
// anything else 0.
func (c Class) Severity() int {
	switch c {
	case ClassFault:
		return 3
	case ClassCapacity:
		return 2
	case ClassPolicy:
		return 1
	}
	return 0
}

// Shown says whether findings of the class are shown by default.
func (c Class) Shown() bool { return c.Severity() > 0 }

// Station is a place on the packet's way through the host.
type Station string

// The stations, in the order of the packet's way.
const (
	StationNIC         Station = "nic"
	StationRing        Station = "ring"
	StationXDP         Station = "xdp"
	StationSoftirq     Station = "softirq"
	StationBacklog     Station = "backlog"
	StationTCIngress   Station = "tc-ingress"
	StationBridge      Station = "bridge"
	StationNetfilter   Station = "netfilter"
	StationRouting     Station = "routing"
	StationIP          Station = "ip"
	StationTransport   Station = "transport"
	StationSocket      Station = "socket"
	StationSocketTX    Station = "socket-tx"
	StationTransportTX Station = "transport-tx"
	StationRoutingTX   Station = "routing-tx"
	StationNetfilterTX Station = "netfilter-tx"
	StationNeigh       Station = "neigh"
	StationQdisc       Station = "qdisc"
	StationDriverTX    Station = "driver-tx"
	StationNICTX       Station = "nic-tx"
	StationTunnel      Station = "tunnel"
	StationRDMA        Station = "rdma"
	StationRemote      Station = "remote"
	StationApp         Station = "app"
	StationUnknown     Station = "unknown"
)

// Stations returns every station in the order of the packet's way.
func Stations() []Station {
	return []Station{
		StationNIC, StationRing, StationXDP, StationSoftirq, StationBacklog,
		StationTCIngress, StationBridge, StationNetfilter, StationRouting,
		StationIP, StationTransport, StationSocket, StationSocketTX,
		StationTransportTX, StationRoutingTX, StationNetfilterTX, StationNeigh,
		StationQdisc, StationDriverTX, StationNICTX, StationTunnel,
		StationRDMA, StationRemote, StationApp, StationUnknown,
	}
}

// Confidence says how sure a finding is.
type Confidence string

// The confidences.
const (
	ConfidenceCertain  Confidence = "certain"
	ConfidenceLikely   Confidence = "likely"
	ConfidencePossible Confidence = "possible"
)

// CauseNotKnown is the cause of a finding that no cause explains.
const CauseNotKnown = "not-known"

// Finding is a cause that the evidence of one observation supports.
type Finding struct {
	// Cause is the id of a cause, or CauseNotKnown.
	Cause     string    `json:"cause"`
	Class     Class     `json:"class"`
	Station   Station   `json:"station"`
	Direction Direction `json:"direction"`
	Title     string    `json:"title"`
	Drops     uint64    `json:"drops"`
	// Events is set where a counter tells of losses and not of how many packets
	// they were, such as damaged blocks of a line; Drops is 0 then.
	Events uint64 `json:"events,omitempty"`
	// LostBy says what Drops counts: drops (events of the kernel) or counters
	// (the kernel raised no event, or not for all of them).
	LostBy string `json:"lost_by"`
	// Rate is in drops per second over the window.
	Rate       float64     `json:"rate"`
	Confidence Confidence  `json:"confidence"`
	Reasons    []string    `json:"reasons"`
	Locations  []string    `json:"locations"`
	Devices    []string    `json:"devices"`
	NetNS      []string    `json:"netns"`
	Owners     []string    `json:"owners"`
	Flows      []FlowShare `json:"flows"`
	Evidence   []Evidence  `json:"evidence"`
	Remedy     []Remedy    `json:"remedy"`
	Verify     []string    `json:"verify"`
	// Unchecked is what the cause would have been tested by, but could not
	// be: what is missing, and why.
	Unchecked []string `json:"unchecked"`
	// Next is what to look at where the cause is not known or not certain.
	Next []string `json:"next"`
	// Symptoms are findings that are only the consequence of this one: what is
	// done about this one helps against them. Their drops are not in Drops.
	Symptoms []Finding `json:"symptoms,omitempty"`
	// Contributors make the loss worse and are none themselves: their Drops are 0.
	Contributors []Finding `json:"contributors,omitempty"`
	// Concerns is set where a part of the traffic was asked for.
	Concerns *Concern `json:"concerns,omitempty"`
}

// Concern says how much of a finding is of the traffic that was asked for.
type Concern struct {
	// Samples of the finding's samples match, Of is how many it has.
	Samples uint64 `json:"samples"`
	Of      uint64 `json:"of"`
	// WholeHost says that the cause meets all traffic of the host, so the
	// finding concerns the one that was asked for also without such a sample.
	WholeHost bool `json:"whole_host"`
}

// Explains is how many packets the finding explains: its own drops and those of
// its symptoms.
func (f *Finding) Explains() uint64 {
	n := f.Drops
	for i := range f.Symptoms {
		n += f.Symptoms[i].Explains()
	}
	return n
}

// FlowShare is a flow and how many of the samples were of it.
type FlowShare struct {
	Flow    Flow   `json:"flow"`
	Samples uint64 `json:"samples"`
	Of      uint64 `json:"of"`
}

// Evidence is a number that was read and what it says.
type Evidence struct {
	// Kind is drop, counter or fact.
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Value  string `json:"value"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
	Source string `json:"source"`
	// Command shows the number to a person.
	Command string `json:"command,omitempty"`
	// Supports is false for evidence against the cause.
	Supports bool `json:"supports"`
	// Says is what the number means for the cause, in a few words.
	Says string `json:"says,omitempty"`
}

// Remedy is a change that a person may make. whydrop never makes it.
type Remedy struct {
	Command string `json:"command"`
	Persist string `json:"persist"`
	Undo    string `json:"undo"`
	Risk    string `json:"risk"`
	Why     string `json:"why"`
}

// Diagnosis is what `whydrop diagnose -j` prints: an observation reduced to
// its findings.
type Diagnosis struct {
	SchemaVersion int        `json:"schema_version"`
	Host          Host       `json:"host"`
	Kernel        Kernel     `json:"kernel"`
	Window        Window     `json:"window"`
	Sources       []Source   `json:"sources"`
	Accounting    Accounting `json:"accounting"`
	// Findings has one for each root cause: first those that concern the traffic
	// that was asked for, then by the packets that they explain.
	Findings []Finding `json:"findings"`
	// Conclusions are troubles that are no loss on this host: their Events is how
	// often, where that is known, and their Drops are 0.
	Conclusions []Finding `json:"conclusions,omitempty"`
	// Elsewhere is what was left out because it is of other traffic than that
	// which was asked for; nil where all traffic was.
	Elsewhere *Elsewhere `json:"elsewhere,omitempty"`
	// Checked is what was looked at, a line each: with no finding it is what "no
	// loss" rests on.
	Checked  []string  `json:"checked,omitempty"`
	Counters []Counter `json:"counters"`
	Ledger   Ledger    `json:"ledger"`
	Blind    []Blind   `json:"blind"`
}

// Elsewhere are the findings about other traffic than that which was asked for.
// Their drops are in the accounting.
type Elsewhere struct {
	Findings uint64 `json:"findings"`
	Drops    uint64 `json:"drops"`
	// Causes are their causes, each once, the one with most drops first.
	Causes []string `json:"causes"`
}
