package record

// TypeComparison is the type of a Comparison in JSON.
const TypeComparison = "comparison"

// Comparison is what `whydrop verify` prints: what became of the findings of an
// observation after something was changed.
type Comparison struct {
	// Type is TypeComparison.
	Type          string `json:"type"`
	SchemaVersion int    `json:"schema_version"`
	Host          Host   `json:"host"`
	Kernel        Kernel `json:"kernel"`
	// Before and After are the windows of the two observations.
	Before Window `json:"before"`
	After  Window `json:"after"`
	// Changes are those of the findings that were there before, in their order,
	// then the new ones.
	Changes []FindingChange `json:"changes"`
	// LeftOut is how many findings of other traffic than that which was asked for
	// are not in Changes.
	LeftOut int `json:"left_out"`
	// Notes are what makes the two less comparable, such as another host, a
	// reboot between them, or a source that worked only once.
	Notes []string `json:"notes"`
}

// Outcome is what became of a finding.
type Outcome string

// The outcomes.
const (
	// OutcomeGone: traffic flowed, and nothing of it was lost by this cause.
	OutcomeGone Outcome = "gone"
	// OutcomeLess: a smaller part of the traffic was lost.
	OutcomeLess Outcome = "less"
	// OutcomeSame: the difference is within what chance and the reading of two
	// numbers at two instants can make.
	OutcomeSame Outcome = "same"
	// OutcomeWorse: a greater part of the traffic was lost.
	OutcomeWorse Outcome = "worse"
	// OutcomeNew: it was not there before.
	OutcomeNew Outcome = "new"
	// OutcomeNotKnown: the second observation cannot tell; Why says what it
	// lacks, mostly traffic.
	OutcomeNotKnown Outcome = "not-known"
)

// FindingChange is what became of one finding.
type FindingChange struct {
	Outcome Outcome `json:"outcome"`
	// Finding is that of the first observation, of the second where it is new.
	Finding Finding `json:"finding"`
	// Now is the finding in the second observation, nil where it is not there.
	Now *Finding `json:"now,omitempty"`
	// Before and After are the loss and the traffic that it is measured against.
	Before LossShare `json:"before"`
	After  LossShare `json:"after"`
	// Traffic says which counters the traffic is of, such as "Udp.InDatagrams of
	// netns blue"; "time" where none was there and loss a second is compared.
	Traffic string `json:"traffic"`
	// Change is by how much the share of traffic that is lost changed: -1 is all
	// of it gone, -0.5 half, 1 twice as much. 0 where it is not known.
	Change float64 `json:"change"`
	// Why says in a sentence what the outcome rests on.
	Why string `json:"why"`
}

// LossShare is a loss beside the traffic that it is a part of.
type LossShare struct {
	// Lost is in packets, or in events where the finding has no packets.
	Lost uint64 `json:"lost"`
	// Traffic is in packets, those that were lost included; 0 where not known.
	Traffic uint64 `json:"traffic"`
	// Share is Lost of Traffic, from 0 to 1; without traffic it is Lost in a
	// second.
	Share float64 `json:"share"`
}
