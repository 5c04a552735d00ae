package diagnose

import (
	"slices"

	"github.com/whydrop/whydrop/record"
)

// Options choose what Run shows.
type Options struct {
	// All shows the findings of the classes benign and expected too.
	All bool
}

// Run reduces an observation to its findings: one for each reason, function,
// class and station, the one with the most drops first. Findings of hidden
// classes are left out unless opt.All, and counted in the accounting.
//
// In the accounting, DropsExplained and DropsUnexplained add up to the drops
// in o.Counts. No slice of the result is nil.
func Run(o *record.Observation, k *Knowledge, opt Options) record.Diagnosis {
	verdicts := k.ClassifyCounts(o.Counts, o.Samples)
	d := record.Diagnosis{
		SchemaVersion: record.SchemaVersion,
		Host:          o.Host,
		Kernel:        o.Kernel,
		Window:        o.Window,
		Sources:       append([]record.Source{}, o.Sources...),
		Accounting:    o.Accounting,
		Findings:      []record.Finding{},
		Counters:      counters(o.Counters),
		Blind:         append([]record.Blind{}, o.Blind...),
	}
	t := Tally(o.Counts, verdicts, opt)
	d.Accounting.DropsExplained = t.DropsExplained
	d.Accounting.DropsUnexplained = t.DropsUnexplained
	d.Accounting.DropsHiddenBenign = t.DropsHiddenBenign
	d.Accounting.DropsHiddenExpected = t.DropsHiddenExpected
	for _, g := range groups(o, verdicts) {
		if opt.All || g.key.Class.Shown() {
			d.Findings = append(d.Findings, g.finding(o.Window))
		}
	}
	return d
}

// Tally sums up what became of counts with these verdicts: the four fields
// DropsExplained, DropsUnexplained, DropsHiddenBenign and DropsHiddenExpected
// are set, the others are 0. verdicts is in the order of counts.
func Tally(counts []record.Count, verdicts []Verdict, opt Options) record.Accounting {
	var a record.Accounting
	for i, v := range verdicts {
		n := counts[i].Drops
		if v.Known {
			a.DropsExplained += n
		} else {
			a.DropsUnexplained += n
		}
		switch {
		case opt.All:
		case v.Class == record.ClassBenign:
			a.DropsHiddenBenign += n
		case v.Class == record.ClassExpected:
			a.DropsHiddenExpected += n
		}
	}
	return a
}

// ExceedsFailOn says whether d has a finding of the class or a graver one.
// No finding exceeds an empty class, nor one that is hidden by default.
func ExceedsFailOn(d record.Diagnosis, class record.Class) bool {
	return class.Shown() && slices.ContainsFunc(d.Findings, func(f record.Finding) bool {
		return f.Class.Severity() >= class.Severity()
	})
}

// counters copies cs so that no slice in it is nil.
func counters(cs []record.Counter) []record.Counter {
	out := make([]record.Counter, len(cs))
	for i, c := range cs {
		c.ExplainedBy = append([]string{}, c.ExplainedBy...)
		out[i] = c
	}
	return out
}
