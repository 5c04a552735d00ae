package record

// Ledger sets the loss counters that moved beside the drops that raise them,
// and sums up the loss by station.
type Ledger struct {
	// Stations are those with a loss, in the order of the packet's way.
	Stations []StationLoss `json:"stations"`
	Entries  []LedgerEntry `json:"entries"`
}

// StationLoss is what was lost at a station, in packets: drops, and what only
// counters tell.
type StationLoss struct {
	Station Station `json:"station"`
	// Explained has a cause, Unexplained has none: they are the drops of the
	// findings at the station. Frees that are normal are in neither.
	Explained   uint64 `json:"explained"`
	Unexplained uint64 `json:"unexplained"`
}

// Relation says how a counter's delta stands to the drops that raise it.
type Relation string

// The relations.
const (
	RelationEqual Relation = "equal"
	// RelationGreater: the counter moved by more than there were drops.
	RelationGreater Relation = "greater"
	// RelationLess: there were more drops than the counter moved by.
	RelationLess Relation = "less"
	// RelationNoDrops: the counter moved, and no drop raises it or was seen.
	RelationNoDrops Relation = "no-drops"
)

// LedgerEntry is a loss counter that moved.
type LedgerEntry struct {
	Counter string  `json:"counter"`
	Station Station `json:"station"`
	NetNS   NetNS   `json:"netns"`
	Device  Device  `json:"device,omitzero"`
	Object  string  `json:"object,omitempty"`
	Delta   uint64  `json:"delta"`
	// Drops are those seen that raise the counter. Of drops that may have raised
	// it (a kernel without reasons does not tell) they are as many as it needs.
	Drops    uint64   `json:"drops"`
	Relation Relation `json:"relation"`
	// Why says why the two may differ; empty where they are equal or nothing
	// is known to make them differ.
	Why string `json:"why,omitempty"`
	// Closed says that nothing is left open: the two are equal, or the
	// difference is explained by Why or by the findings in ExplainedBy.
	Closed bool `json:"closed"`
	// ExplainedBy names the causes of the findings that account for the delta,
	// or for the drops that raise it; CauseNotKnown is among them where one has
	// no cause.
	ExplainedBy []string `json:"explained_by"`
	// Chain is the same number for entries that count the same packets and moved
	// by as much, such as Udp.SndbufErrors, Ip.OutDiscards and qdisc.drops; 0 for
	// those without such others. Never add up a chain.
	Chain int `json:"chain,omitempty"`
}
